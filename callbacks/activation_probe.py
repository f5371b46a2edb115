"""`ActivationProbe`: the outputs of every layer on a fixed batch, epoch by epoch."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.selectors import Selection, SelectionError, Selector
from keras_initkit.callbacks.activation_history import STATISTICS, ActivationHistory
from keras_initkit.callbacks.background_log import BackgroundLog, check_log_dir
from keras_initkit.callbacks.guard import GuardedCallback, never_breaks_training
from keras_initkit.callbacks.layer_listener import measure_layers
from tensorboard_plugin_initkit.log.runs import RunPlace


class ActivationProbe(GuardedCallback):
    """Records each layer's activations on a fixed batch, before training and after every epoch.

    The model is called once on the batch, eagerly, as in inference: without gradients, and without
    changing its state, including random seeds and metrics. Training goes on as it would have
    without the probe, bit for bit on CPU. (Layers with random numbers of their own, such as by
    `torch.randn`, draw some here as well.) Each layer is measured when it is called; no outputs are
    kept. A failure inside the probe is one warning, and training goes on.

    All layers whose output is one floating point tensor are measured, nested ones too; but not the
    model itself, nor layers called by the framework inside a compiled loop. A layer called several
    times has a column for each of its first 4 calls, the second named `<path>#2`, and so have
    several layers with one path. Padding counts, masked or not.

    For TensorBoard, each record logs for each layer the scalars `activation_<statistic>/<layer>`
    under the run `<log_dir>/activations`, at the current `optimizer.iterations`; of another
    training in the same directory, under `<log_dir>/activations_2`, and so on.

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
        layers: Which layers to record, as of `GradientMonitor`. `None` records all.

    Attributes:
        history: `ActivationHistory` of the training up to now.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(
        self,
        batch: Any,
        log_dir: str | os.PathLike[str] | None = None,
        layers: Selector | None = None,
    ) -> None:
        super().__init__()
        self.history = ActivationHistory()
        self._batch = _copy_batch(batch)
        self._layers = Selection("layers", layers)
        self._log: BackgroundLog | None = None
        if path := check_log_dir(log_dir):
            place = RunPlace(path, "activations")
            self._log = BackgroundLog(_open_log, place, "ActivationProbe", "probe.history")
        self._offset = 0
        self._started = False

    @never_breaks_training
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Record the model before its first epoch (called by Keras)."""
        # Not at train begin, where another callback may still restore the model.
        if not self._started:
            self._started = True
            if self._log is not None:
                self._log.start(resumes=_iterations(self.model) > 0)
            self._record(epoch, resumes=True)

    @never_breaks_training
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record the model (called by Keras)."""
        self._record(epoch + 1)

    @never_breaks_training
    def on_train_end(self, logs: Any = None) -> None:
        """Wait until the log is written (called by Keras)."""
        self._end()

    def _begin(self) -> None:
        self._started = False
        if self._log is not None:
            self._log.begin()

    def _end(self) -> None:
        self._leave()
        if self._log is not None:
            self._log.finish("flush")

    def _record(self, epoch: int, resumes: bool = False) -> None:
        model = self.model  # on jax, has the state moved to the variables
        has_call = type(model).call is not keras.Model.call
        inside = layers_inside(model, include_self=False)
        is_built = model.built or all(layer.built for layer in inside)
        if has_call and not is_built and resumes:
            return  # calling it would build it, and draw its weights
        if not (has_call and is_built):
            raise ValueError(
                "The model must have a `call`, and all its layers must be built after an epoch, "
                f"so that it can be called on `batch`. Received: '{model.name}', a "
                f"{type(model).__name__} {'with unbuilt layers' if has_call else 'without `call`'}."
                " Give it a `call` that runs the layers to be watched."
            )
        step = self._step(model, resumes)
        found = measure_layers(model, self._batch, self._layers)
        if not found:
            raise (SelectionError if resumes else ValueError)(
                "`layers` must select a layer whose output is one floating point tensor. "
                f"Received: layers={self._layers.selector!r}."
            )
        self.history.append(epoch, step, found)
        scalars = {
            f"activation_{name}/{path}": value
            for path, values in found.items()
            for name, value in zip(STATISTICS, values.tolist(), strict=True)
        }
        if self._log is not None:
            self._log.write(1, step, scalars)

    def _step(self, model: Any, resumes: bool) -> int:
        step = _iterations(model) + self._offset
        # A new optimizer counts from 0: its steps come after those before.
        if resumes and len(self.history) and step < (last := int(self.history.steps[-1])):
            self._offset += last - step
            step = last
        return step


def _iterations(model: Any) -> int:
    return int(ops.convert_to_numpy(getattr(model.optimizer, "iterations", 0)))


def _open_log(log_dir: Path | str, run: str) -> Any:
    # TensorBoard's protocol buffers take 70 ms to import: off the training thread.
    from tensorboard_plugin_initkit.log.dashboards import ScalarLog

    return ScalarLog(log_dir, run)


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
