"""Measuring the layers of a model while it is called."""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.replacing import replaced_methods
from keras_initkit.anatomy.selectors import Selection
from keras_initkit.anatomy.weights import Place, places_of
from keras_initkit.callbacks.measures.activations import activation_statistics

# Calls of one layer that get a column each: a loop over time steps would fill the record.
_MAX_CALLS = 4


def measure_layers(model: Any, batch: Any, layers: Selection) -> dict[str, np.ndarray]:
    """Call a model on a batch, without gradients or a change of its state, and measure its layers.

    Returns:
        For the path of each layer a float64 array: the numbers of `activation_statistics`, with
        the variance in place of the deviation. The second call of a path is `<path>#2`.
    """
    listener = _Listener(layers)
    with contextlib.ExitStack() as stack:
        for places in places_of(model).values():
            layer = places[0].layers[-1]
            if layer is model:
                continue
            # Which of them `Layer.__call__` calls depends on whether the layer is quantized.
            names = [name for name in ("call", "quantized_call") if hasattr(layer, name)]
            methods = {name: listener.listen_to(places, getattr(layer, name)) for name in names}
            stack.enter_context(replaced_methods(layer, **methods))
        stack.enter_context(keras.StatelessScope())  # what is assigned is dropped at its end
        if keras.backend.backend() == "torch":
            import torch

            stack.enter_context(torch.no_grad())
        # A model trained by a step of its own is never called, and so not built.
        stack.enter_context(replaced_methods(model, built=True))
        model(batch, training=False)
    if not listener.found and listener.error is not None:
        raise listener.error
    return listener.found


class _Listener:
    """Keeps the statistics of each layer's call, and the error if one could not be measured."""

    def __init__(self, layers: Selection) -> None:
        self.found: dict[str, np.ndarray] = {}
        self.error: Exception | None = None
        self._layers = layers
        self._calls: Counter[str] = Counter()

    def listen_to(self, places: list[Place], call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method `call` of a layer, with its outputs measured."""

        @functools.wraps(call)
        def measured_call(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            try:
                self._measure(places, outputs)
            except Exception as error:  # as of a symbolic tensor: it is left out
                self.error = error
            return outputs

        return measured_call

    def _measure(self, places: list[Place], outputs: Any) -> None:
        path = places[0].path
        if not _is_measurable(outputs) or (calls := self._calls[path] + 1) > _MAX_CALLS:
            return
        self._calls[path] = calls
        if calls > 1:
            places = [place._replace(path=f"{place.path}#{calls}") for place in places]
        if self._layers(places):
            self.found[places[0].path] = _measure_outputs(places[0].layers[-1], outputs)


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
