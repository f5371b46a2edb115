"""`History`: the record of a training, as everyone reads it."""

import os
from pathlib import Path

import numpy as np

from tensorboard_plugin_initkit.schema import (
    RECORDED,
    STATISTICS,
    Chunk,
    Layout,
    join,
    per_layer,
    per_variable,
)


class History:
    """What a `GradientMonitor` recorded: steps x layers x statistic.

    `history[name]` is a float64 array of shape `(n, layers)`, for the names

    - `"norm"`: L2 norm of the gradient that was applied, all the layer's variables together;
    - `"mean_abs"`, `"max_abs"`: mean and maximum of |g|;
    - `"zeros"`: fraction of the gradient's elements that are exactly zero, in [0, 1];
    - `"nonfinite"`: number of its elements that are NaN or infinite;
    - `"weight_norm"`: L2 norm of the layer's weights before the update;
    - `"update_ratio"`: L2 norm of the update relative to `"weight_norm"`.

    A layer that received no gradient at a step is NaN there. A record that goes back in steps
    replaces what was recorded from its first step on, as in TensorBoard.

    Example:
    ```python
    history = keras_initkit.read_log("runs/he")
    last = history["norm"][-1]
    print(dict(zip(history.layers, last)))
    ```
    """

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []

    def append(self, chunk: Chunk) -> None:
        """Add recorded steps."""
        if not len(chunk.steps):
            return
        first = chunk.steps[0]
        while self._chunks and self._chunks[-1].steps[-1] >= first:
            last = self._chunks.pop()
            kept = last.select(last.steps < first)
            if len(kept.steps):
                self._chunks.append(kept)
        self._chunks.append(chunk)

    def _joined(self) -> Chunk:
        if not self._chunks:
            empty = np.zeros((0, 0), np.float32)
            return Chunk(Layout(()), np.zeros(0, np.int64), dict.fromkeys(RECORDED, empty))
        if len(self._chunks) > 1:
            self._chunks = [join(self._chunks)]
        return self._chunks[0]

    def __len__(self) -> int:
        """Number of recorded steps."""
        return sum(len(chunk.steps) for chunk in self._chunks)

    @property
    def steps(self) -> np.ndarray:
        """int64 array (n,): `optimizer.iterations` before each recorded update."""
        return self._joined().steps

    @property
    def layers(self) -> list[str]:
        """Paths of the layers that have trainable variables, in the model's order."""
        return self._joined().layout.layers

    @property
    def variables(self) -> list[str]:
        """Paths of the trainable variables, in the model's order."""
        return [variable.path for variable in self._joined().layout.variables]

    def __getitem__(self, statistic: str) -> np.ndarray:
        """A statistic of every layer: float64 array (n, layers)."""
        return per_layer(self._joined(), _known(statistic))

    def per_variable(self, statistic: str) -> np.ndarray:
        """A statistic of every variable: float64 array (n, variables), columns as `variables`.

        Raises:
            KeyError: If there is no such statistic.
        """
        return per_variable(self._joined(), _known(statistic))

    def __repr__(self) -> str:
        steps = f", steps {self.steps[0]} to {self.steps[-1]}" if len(self) else ""
        return f"<History: {len(self)} recorded steps of {len(self.layers)} layers{steps}>"


def _known(statistic: str) -> str:
    if statistic not in STATISTICS:
        names = ", ".join(f'"{name}"' for name in STATISTICS)
        raise KeyError(f"The statistic must be one of {names}. Received: {statistic!r}.")
    return statistic


def read_log(log_dir: str | os.PathLike[str]) -> History:
    """Read what a `GradientMonitor` has logged, also while it is still training.

    Args:
        log_dir: The directory that the monitor was given.

    Returns:
        A `History`, equal to `monitor.history` of the training that wrote it.

    Raises:
        FileNotFoundError: If there is no log in `log_dir`.
        ValueError: If the log is damaged, or of another schema version.
    """
    # TensorBoard's protocol buffers take 70 ms to import: only who reads a log pays for them.
    from tensorboard_plugin_initkit.log import read_chunks

    history = History()
    for chunk in read_chunks(Path(log_dir)):
        history.append(chunk)
    return history
