"""Measuring the layers of a model while it is called."""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.layers_inside import chains, children, path_inside
from keras_initkit.anatomy.selectors import Selection
from keras_initkit.callbacks.capture.recorded_step import replaced_methods
from keras_initkit.callbacks.measures.activations import activation_statistics

# Calls of one layer that get a column each: a loop over time steps would fill the record.
_MAX_CALLS = 4


def measure_layers(model: Any, batch: Any, layers: Selection) -> dict[str, np.ndarray]:
    """Call a model on a batch, without gradients or a change of its state, and measure its layers.

    Returns:
        For the path of each layer a float64 array: the numbers of `activation_statistics`, with
        the variance in place of the deviation. The second call of a path is `<path>#2`.
    """
    listener = _Listener(model, layers)
    with contextlib.ExitStack() as stack:
        for chain in chains(model):
            layer = chain[-1]
            # Which of them `Layer.__call__` calls depends on whether the layer is quantized.
            names = [name for name in ("call", "quantized_call") if hasattr(layer, name)]
            methods = {name: listener.listen_to(chain, getattr(layer, name)) for name in names}
            stack.enter_context(replaced_methods(layer, **methods))
        stack.enter_context(keras.StatelessScope())  # what is assigned is dropped at its end
        if keras.backend.backend() == "torch":
            import torch

            stack.enter_context(torch.no_grad())
        model(batch, training=False)
    if not listener.found and listener.error is not None:
        raise listener.error
    return listener.found


class _Listener:
    """Keeps the statistics of each layer's call, and the error if one could not be measured."""

    def __init__(self, model: Any, layers: Selection) -> None:
        self.found: dict[str, np.ndarray] = {}
        self.error: Exception | None = None
        self._model = model
        self._layers = layers
        self._calls: Counter[str] = Counter()
        # For each layer that is being called, the innermost last: the beginning of paths in it.
        self._prefixes = [""]

    def listen_to(self, chain: tuple[Any, ...], call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method `call` of a layer, the last of a chain, with its outputs measured."""
        layer = chain[-1]

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
                self._measure(chain, path, outputs)
            except Exception as error:  # as of a symbolic tensor: it is left out
                self.error = error
            return outputs

        return measured_call

    def _measure(self, chain: tuple[Any, ...], path: str, outputs: Any) -> None:
        if not _is_measurable(outputs) or (calls := self._calls[path] + 1) > _MAX_CALLS:
            return
        self._calls[path] = calls
        path = f"{path}#{calls}" if calls > 1 else path
        if self._layers(path, chain):
            self.found[path] = _measure_outputs(chain[-1], outputs)

    def _path(self, layer: Any) -> str:
        return path_inside(self._model, layer.path or "")

    def _prefix_inside(self, layer: Any, path: str) -> str:
        """Return the beginning of paths in a layer: of those in functional models, nothing."""
        known = [inner for inner in map(self._path, children(layer)) if inner]
        is_named = not known or any(inner.startswith(f"{path}/") for inner in known)
        return f"{path}/" if is_named else ""


def _is_measurable(outputs: Any) -> bool:
    return (
        ops.is_tensor(outputs)
        and keras.backend.is_float_dtype(keras.backend.standardize_dtype(outputs.dtype))
        and len(outputs.shape) > 0
        and 0 not in outputs.shape
    )


def _measure_outputs(layer: Any, outputs: Any) -> np.ndarray:
    activation = getattr(layer, "activation", None)
    # The outputs of a gated layer are no values of its activation.
    name = None if hasattr(layer, "recurrent_activation") else getattr(activation, "__name__", None)
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    unit_axis = 1 if channels_first and len(outputs.shape) > 1 else -1
    statistics = activation_statistics(outputs, name, unit_axis)
    values = ops.convert_to_numpy(ops.stack(statistics)).astype(np.float64)
    values[1] **= 2  # in float64, which holds the square
    return values
