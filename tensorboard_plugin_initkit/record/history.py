"""`GradientHistory`: the record of a training, as everyone reads it."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.notebook import (
    FINDING_COLUMNS,
    finding_rows,
    import_pandas,
    make_card,
)
from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, Chunk, append_chunk, join
from tensorboard_plugin_initkit.record.layout import Layout, Port
from tensorboard_plugin_initkit.record.lock import Lock
from tensorboard_plugin_initkit.record.setup import Setup
from tensorboard_plugin_initkit.record.statistics import (
    STATISTICS,
    TOTAL_STATISTICS,
    per_layer,
    per_optimizer,
    per_variable,
    recorded_statistics,
    recorded_totals,
)
from tensorboard_plugin_initkit.record.thinning import thin


class GradientHistory:
    """Records of a `GradientMonitor`: steps x layers x statistic.

    `history[name]` is a float64 array of shape `(n, layers)`, for the names

    - `"norm"`: L2 norm of the applied gradient, all the layer's variables together;
    - `"rms"`: root mean square of its elements, independent of the layer's size;
    - `"signal"`: RMS of the gradient at the layer's units: of its bias, or of its kernel if it has
      no bias, over the elements other than zero. Layers are compared by it;
    - `"mean_abs"`, `"max_abs"`: mean and maximum of |g|;
    - `"zeros"`: fraction of exact zeros among its elements, in [0, 1];
    - `"nonfinite"`: number of NaN or infinite elements;
    - `"dead_units"`: fraction of the layer's units without any gradient in the batch: the
      gradient of their bias (without a bias: of their column of the kernel) is exactly zero;
    - `"raw_norm"`: L2 norm before `clipnorm`, `clipvalue` or `global_clipnorm`;
    - `"clip_ratio"`: `"norm"` relative to `"raw_norm"`, 1 where nothing was clipped; replicas clip
      each their own gradient, and this is the root mean square of theirs;
    - `"local_norm"`: root mean square over replicas of the L2 norm of the gradient of a replica's
      part of the batch, before clipping;
    - `"weight_norm"`: L2 norm of the layer's weights before the update;
    - `"update_ratio"`: L2 norm of the update relative to `"weight_norm"`;
    - `"cosine"`: cosine of the gradient with that of the previous record;
    - `"snr"`: signal-to-noise ratio of the gradient over the last records.

    and of shape `(n, optimizers)` for the names

    - `"loss"`: mean of the loss over the batches since the previous record, in the same epoch;
    - `"learning_rate"`;
    - `"loss_scale"`: factor of the loss in mixed precision; gradients are of the unscaled loss;
    - `"skipped"`: number of updates skipped by a loss scale since training began;
    - `"batch_loss"`: the loss of this step's batch alone; and `"penalty"`, the part of it that
      comes from regularizers and `add_loss`. Neither is known where a `train_step` does not call
      `compute_loss`;
    - `"spike"`: at spikes that a monitor with `spikes=True` has found, the largest ratio of a
      layer's norm, or that of all, to its running median; infinity at the first of several
      non-finite steps; NaN at all other steps;
    - `"global_norm"`, `"global_raw_norm"`: L2 norm of all the optimizer's gradients together,
      applied and before clipping;
    - `"noise_scale"`: gradient noise scale (McCandlish et al. 2018) in units of the global batch,
      averaged over the last 50 records; needs replicas. Multiply with the batch size.

    A layer without a gradient at a step is NaN there, and so are statistics that were not recorded.
    If steps come again, they replace the records from the first of them on, as in TensorBoard.

    `"snr" in history` says if a statistic was recorded, `list(history)` names all that were, and
    `dict(history)` has their arrays; `len(history)` is the number of records. Any thread may read
    a history that grows.

    A long history thins itself. All of the newest steps stay, and so do the first one and, for each
    layer, the steps of its largest and smallest norm and the first one without a finite gradient
    (of many layers, those that stand out most); of the others the most prominent stay, evenly over
    the training. A thinned history keeps about `max_steps`: at most a quarter more, and a few dozen
    more if that is small, whatever the number of layers. `noise_scale` is then averaged over the
    kept steps.

    Example:
    ```python
    history = keras_initkit.read_log("runs/he")
    last = history["norm"][-1]
    print(dict(zip(history.layers, last)))
    ```

    Args:
        max_steps: Number of recorded steps to keep, a positive integer; or `None` to keep all.

    Attributes:
        findings: List of the `Finding`s in these records, in order of steps.
        notes: Sentences on what is missing in these records, such as damaged parts of a log.
        thinned: True if steps were left out because the history is long.
        ended: True if the training is known to have ended: some findings are told only then.
        setup: `Setup` of the model as it is built and compiled, or `None` if it is not known.

    Raises:
        ValueError: If `max_steps` is something else.
    """

    def __init__(self, max_steps: int | None = 4096) -> None:
        if max_steps is not None and (
            not isinstance(max_steps, Integral) or isinstance(max_steps, bool) or max_steps < 1
        ):
            raise ValueError(
                "`max_steps` must be a positive integer, or None to keep every recorded step. "
                f"Received: max_steps={max_steps!r}. Write `max_steps=4096` for the default."
            )
        self._max_steps = max_steps and int(max_steps)
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.setup: Setup | None = None
        self.thinned = self.ended = False
        self._lock = Lock()
        self._chunks: list[Chunk] = []
        self._length = 0
        # Thinning is put off until a fifth more has come: it costs little for each step.
        self._limit = self._max_steps or 0

    def append(self, *chunks: Chunk) -> None:
        """Add recorded steps; of a long history, many at once take less time."""
        with self._lock:
            for chunk in chunks:
                if not len(chunk.steps):
                    continue
                if not self._length:
                    self._chunks = []
                self._length += len(chunk.steps) - append_chunk(self._chunks, chunk)
            if self._max_steps is not None and self._length > self._limit:
                before, kept = self._length, thin(self._chunks, self._max_steps)
                self._chunks, self._length = [kept], len(kept.steps)
                self._limit = max(self._max_steps, self._length + self._length // 4)
                self.thinned = self.thinned or self._length < before

    def _joined(self) -> Chunk:
        with self._lock:
            if not self._chunks:
                return Chunk(Layout(()), np.zeros(0, np.int64), {})
            if len(self._chunks) > 1:
                self._chunks = [join(self._chunks)]
            return self._chunks[0]

    def select(self, rows: np.ndarray | slice) -> "GradientHistory":
        """Return the records of an index, mask or slice, as a history of its own."""
        part, chunk = GradientHistory(None), self._joined().select(rows)
        part._chunks, part._length, part.thinned = [chunk], len(chunk.steps), self.thinned
        part.findings, part.notes, part.setup = self.findings, self.notes, self.setup
        return part

    def __len__(self) -> int:
        """Return the number of kept records."""
        return self._length

    @property
    def steps(self) -> np.ndarray:
        """int64 array (n,): `optimizer.iterations` before each recorded update."""
        return self._joined().steps

    @property
    def layers(self) -> list[str]:
        """Paths of the layers with trainable variables, in the model's order."""
        return list(self.layout.layers)

    @property
    def variables(self) -> list[str]:
        """Paths of the trainable variables, in the model's order."""
        return [variable.path for variable in self.layout.variables]

    @property
    def layout(self) -> Layout:
        """Columns of the record: variables with their layers and optimizers."""
        return self._joined().layout

    @property
    def frozen(self) -> list[str]:
        """Paths of the untrained layers at the last recorded step."""
        chunks = list(self._chunks)
        return list(chunks[-1].layout.frozen) if chunks else []

    @property
    def optimizers(self) -> list[str]:
        """Names of the optimizers; a model's only one is called ""."""
        return list(self.layout.optimizers)

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the recorded statistics."""
        chunk = self._joined()
        yield from recorded_statistics(chunk.values)
        yield from recorded_totals(chunk)

    def keys(self) -> list[str]:
        """Return the names of the recorded statistics."""
        return list(self)

    def __getitem__(self, statistic: str) -> np.ndarray:
        """Return a statistic of layers or optimizers: float64 array (n, layers or optimizers)."""
        if statistic in TOTAL_STATISTICS:
            return per_optimizer(self._joined(), statistic)
        return per_layer(self._joined(), _known(statistic, STATISTICS + TOTAL_STATISTICS))

    def per_variable(self, statistic: str) -> np.ndarray:
        """Return a statistic of variables: float64 array (n, variables), columns as `variables`.

        Raises:
            KeyError: If there is no such statistic.
        """
        return per_variable(self._joined(), _known(statistic, STATISTICS))

    @property
    def ports(self) -> tuple[Port, ...]:
        """Inputs, targets, predictions and sample weights of the steps; () if not known."""
        return self.layout.ports

    def per_port(self, statistic: str) -> np.ndarray:
        """Return a statistic of inputs, targets, predictions and sample weights.

        Of the batch of each recorded step:

        - `"mean"`, `"std"`, `"min"`, `"max"` of all finite elements;
        - `"nonfinite"`: number of NaN or infinite elements;
        - `"batch_std"`: root mean square over features of the standard deviation over samples;
        - `"low_std"`, `"high_std"`: least and greatest standard deviation of a feature, an index
          of the last axis;
        - `"integers"`: fraction of elements that are integers;
        - `"one_hot"`: fraction of rows, along the last axis, with one 1 and zeros.

        And of targets, over all batches recorded so far, for the loss of the best constant:

        - `"entropy"` of the classes' frequencies, in nats, where targets are classes;
        - `"binary_entropy"`: mean over features of the entropy of their means, in [0, 1];
        - `"variance"`: mean over features of their variance;
        - `"classes"`: number of classes that have come.

        Returns:
            float64 array (n, ports), columns as `ports`, NaN where it is not known.

        Raises:
            KeyError: If there is no such statistic.
        """
        known = _known(statistic, PORT_STATISTICS)
        return self._joined().ports_of(known).astype(np.float64)

    def to_dataframe(self, of: str = "layers") -> Any:
        """Return the recorded statistics as a `pandas.DataFrame`, a column each.

        Args:
            of: `"layers"` for a row a step and layer, or `"optimizers"` for a row a step and
                optimizer. These two are the index: `frame["norm"].unstack()` has a column for each
                layer.

        Raises:
            ImportError: If pandas is not installed.
            ValueError: If `of` is something else.
        """
        if of not in ("layers", "optimizers"):
            raise ValueError(
                f'`of` must be "layers" or "optimizers". Received: of={of!r}. Write '
                '`history.to_dataframe("optimizers")` for losses and learning rates.'
            )
        pandas = import_pandas("`history[statistic]`")
        chunk = self._joined()
        is_of_layers = of == "layers"
        names = recorded_statistics(chunk.values) if is_of_layers else recorded_totals(chunk)
        owners = self.layers if is_of_layers else self.optimizers
        index = pandas.MultiIndex.from_product([self.steps, owners], names=["step", of[:-1]])
        return pandas.DataFrame({name: self[name].ravel() for name in names}, index)

    def __repr__(self) -> str:
        return f"<GradientHistory: {tell_extent(self)}>"

    def _repr_html_(self) -> str:
        hint = "keras_initkit.diagnose(history) and keras_initkit.plot(history) show more."
        sentences = [f"Findings: {len(self.findings)}. {hint}", *self.notes]
        rows = finding_rows(self.findings)
        return make_card(
            f"GradientHistory: {tell_extent(self)}", "", sentences, FINDING_COLUMNS, rows
        )


def tell_extent(history: GradientHistory) -> str:
    """Tell the numbers of records and layers, and the steps."""
    thinned = ", thinned" if history.thinned else ""
    steps = f", steps {history.steps[0]:,} to {history.steps[-1]:,}" if len(history) else ""
    records = "1 recorded step" if len(history) == 1 else f"{len(history):,} recorded steps"
    layers = "1 layer" if len(history.layers) == 1 else f"{len(history.layers):,} layers"
    return f"{records} of {layers}{steps}{thinned}"


def _known(statistic: str, known: tuple[str, ...]) -> str:
    if statistic not in known:
        names = ", ".join(f'"{name}"' for name in known)
        raise KeyError(f"The statistic must be one of {names}. Received: {statistic!r}.")
    return statistic
