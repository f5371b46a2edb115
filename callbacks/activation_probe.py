"""`ActivationProbe`: what every layer makes of a fixed batch, epoch by epoch."""

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.layers_inside import layers_inside, path_inside
from keras_initkit.callbacks.activation_history import (
    STATISTICS,
    ActivationHistory,
    ActivationRecord,
)
from keras_initkit.callbacks.background_log import BackgroundLog, check_log_dir
from keras_initkit.callbacks.capture.recorded_step import replaced_methods
from keras_initkit.callbacks.guard import GuardedCallback, never_breaks_training
from keras_initkit.callbacks.measures.activations import activation_statistics
from keras_initkit.callbacks.selection import Selection, Selector, as_selection

RUN = GROUP = "activations"
# Calls of one layer that get a column each: a loop over time steps would fill the record.
_MAX_CALLS = 4


class ActivationProbe(GuardedCallback):
    """Records each layer's activations on a fixed batch, before training and after every epoch.

    The model is called once on the batch, eagerly, as in inference: without gradients, and
    without a change of its state, random seeds and metrics included: training goes on as it would
    have without the probe, bit for bit on CPU. (What a layer draws past Keras's random numbers,
    as by `torch.randn`, it draws here as well.) Each layer is measured when it is called; no
    outputs are kept. What fails inside the probe is one warning, and training goes on.

    All layers are measured, nested ones too, whose output is one floating point tensor; not the
    model itself, and not what the framework calls inside a compiled loop. A layer that is called
    several times has a column for each of its first 4 calls, the second one's `<path>#2`, and so
    have several layers of one path. Padding counts, masked or not.

    For TensorBoard, each row logs for each layer the scalars `activations/<layer>/<statistic>`
    under the run `<log_dir>/activations`, at the step that `optimizer.iterations` has reached.

    Example:
    ```python
    probe = keras_initkit.callbacks.ActivationProbe(x_val[:256], "runs/first")
    model.fit(x, y, epochs=5, callbacks=[probe])
    print(probe.history["dead_units"][-1])  # one number a layer
    ```

    Args:
        batch: Input of the model: an array or tensor, or a dictionary, list or tuple of these,
            as the model takes it. A copy is kept.
        log_dir: Directory to log to, or the URL of one, as of `GradientMonitor`. `None` records
            in memory only.
        layers: Which layers to record: a name or path (which selects the layers inside as well),
            a compiled regular expression that is searched for in the path, a function of the
            path, or a list of these. `None` records all.

    Attributes:
        history: `ActivationHistory` of what was recorded up to now.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(
        self,
        batch: Any,
        log_dir: str | os.PathLike[str] | None = None,
        layers: Selector | Sequence[Selector] | None = None,
    ) -> None:
        super().__init__()
        self.history = ActivationHistory()
        self._batch = _copy_batch(batch)
        self._log_dir = check_log_dir(log_dir)
        self._selects = as_selection(layers)
        self._layers = layers
        self._log: BackgroundLog | None = None
        self._offset = 0
        self._started = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Prepare to record (called by Keras)."""
        self._started = self._stopped = False

    @never_breaks_training
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Record the model before its first epoch (called by Keras)."""
        # Not at train begin, where another callback may still restore the model.
        if not self._started:
            self._started = True
            self._record(epoch, resumes=True)

    @never_breaks_training
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record the model (called by Keras)."""
        self._record(epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        """Wait until the log is written (called by Keras)."""
        if self._log is not None:
            self._log.finish("flush")

    def _record(self, epoch: int, resumes: bool = False) -> None:
        model = self.model  # on jax, has the state moved to the variables
        if not model.built:
            return  # calling it would build it, and draw its weights
        step = self._step(model, resumes)
        found = _probe(model, self._batch, self._selects)
        if not found:
            raise ValueError(
                "`layers` must select a layer whose output is one floating point tensor. "
                f"Received: layers={self._layers!r}."
            )
        self.history.append(ActivationRecord(epoch, step, found))
        if self._log_dir is None:
            return
        if self._log is None:
            self._log = BackgroundLog(
                self._open_writer, self._log_dir, "ActivationProbe", "probe.history"
            )
        self._log.write(step, _name_scalars(found))

    def _step(self, model: Any, resumes: bool) -> int:
        iterations = getattr(model.optimizer, "iterations", 0)
        step = int(ops.convert_to_numpy(iterations)) + self._offset
        # A new optimizer counts from 0: its steps come after those before.
        if resumes and len(self.history) and step < (last := int(self.history.steps[-1])):
            self._offset += last - step
            step = last
        return step

    def _open_writer(self) -> Any:
        # TensorBoard's protocol buffers take 70 ms to import: off the training thread.
        from tensorboard_plugin_initkit.log.scalars import ScalarLog

        assert self._log_dir is not None
        return ScalarLog(self._log_dir, RUN)


def _name_scalars(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Return each number by its tag, `activations/<layer>/<statistic>`."""
    return {
        f"{GROUP}/{path}/{name}": value
        for path, values in found.items()
        for name, value in zip(STATISTICS, values.tolist(), strict=True)
    }


def _copy_batch(batch: Any) -> Any:
    try:
        copy = keras.tree.map_structure(lambda leaf: np.array(ops.convert_to_numpy(leaf)), batch)
        arrays = keras.tree.flatten(copy)
        is_batch = bool(arrays) and all(array.ndim and array.size for array in arrays)
    except Exception:
        is_batch = False
    if not is_batch:
        shape = getattr(batch, "shape", None)
        of_shape = "" if shape is None else f" of shape {tuple(shape)}"
        raise ValueError(
            "`batch` must be what the model is called on: an array of shape (batch, …) that is "
            "not empty, or a dictionary, list or tuple of such. Received: batch="
            f"<{type(batch).__name__}{of_shape}>. Write `ActivationProbe(x[:256])`."
        )
    return copy


def _probe(model: Any, batch: Any, selects: Selection) -> dict[str, np.ndarray]:
    """Call a model and measure its layers: for each path a float64 array (statistics,)."""
    listener = _Listener(model, selects)
    with contextlib.ExitStack() as stack:
        for layer in layers_inside(model, include_self=False):
            # Which of them `Layer.__call__` calls depends on whether the layer is quantized.
            names = [name for name in ("call", "quantized_call") if hasattr(layer, name)]
            methods = {name: listener.heard(layer, getattr(layer, name)) for name in names}
            stack.enter_context(replaced_methods(layer, **methods))
        stack.enter_context(keras.StatelessScope())  # what is assigned is dropped at its end
        stack.enter_context(_no_gradient())
        model(batch, training=False)
    if not listener.found and listener.error is not None:
        raise listener.error
    return listener.found


@contextlib.contextmanager
def _no_gradient() -> Iterator[None]:
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.no_grad():
        yield


class _Listener:
    """Measures the layers of a model while it is called.

    Attributes:
        found: The statistics of each call, by the path of the layer.
        error: Why a layer could not be measured, if one could not.
    """

    def __init__(self, model: Any, selects: Selection) -> None:
        self.found: dict[str, np.ndarray] = {}
        self.error: Exception | None = None
        self._model = model
        self._selects = selects
        self._calls: Counter[str] = Counter()
        # Of the layers that are being called, the innermost last: what the paths in it begin with.
        self._prefixes = [""]

    def heard(self, layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        """A layer's method `call` that is measured."""

        @functools.wraps(call)
        def measured_call(*args: Any, **kwargs: Any) -> Any:
            # What Keras need not build has no path of its own.
            path = self._path(layer) or self._prefixes[-1] + layer.name
            self._prefixes.append(self._prefix_inside(layer, path))
            try:
                outputs = call(*args, **kwargs)
            finally:
                self._prefixes.pop()
            try:
                self._hear(layer, path, outputs)
            except Exception as error:  # as of a symbolic tensor: it is left out
                self.error = error
            return outputs

        return measured_call

    def _hear(self, layer: Any, path: str, outputs: Any) -> None:
        if not _is_measurable(outputs) or not self._selects(path):
            return
        if self._calls[path] == _MAX_CALLS:
            return
        values = _measured(layer, outputs)
        self._calls[path] += 1
        calls = self._calls[path]
        self.found[path if calls == 1 else f"{path}#{calls}"] = values

    def _path(self, layer: Any) -> str:
        return path_inside(self._model, layer.path or "")

    def _prefix_inside(self, layer: Any, path: str) -> str:
        """What paths of the layers in a layer begin with: those of functional models, nothing."""
        known = [inner for inner in map(self._path, layer._layers) if inner]
        is_named = not known or any(inner.startswith(f"{path}/") for inner in known)
        return f"{path}/" if is_named else ""


def _is_measurable(outputs: Any) -> bool:
    return (
        ops.is_tensor(outputs)
        and keras.backend.is_float_dtype(keras.backend.standardize_dtype(outputs.dtype))
        and len(outputs.shape) > 0
        and 0 not in outputs.shape
    )


def _measured(layer: Any, outputs: Any) -> np.ndarray:
    activation = getattr(layer, "activation", None)
    # What a gated layer returns is no value of its activation.
    name = None if hasattr(layer, "recurrent_activation") else getattr(activation, "__name__", None)
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    unit_axis = 1 if channels_first and len(outputs.shape) > 1 else -1
    statistics = activation_statistics(outputs, name, unit_axis)
    values = ops.convert_to_numpy(ops.stack(statistics)).astype(np.float64)
    values[1] **= 2  # in float64, which holds the square
    return values
