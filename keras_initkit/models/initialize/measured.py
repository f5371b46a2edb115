"""The measured pass: each layer's kernel is rescaled as the layer is called, once for all depth."""

import contextlib
import functools
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_initkit.anatomy.replacing import replaced_methods
from keras_initkit.anatomy.seeds import seed_states
from keras_initkit.anatomy.tracing import training_argument
from keras_initkit.models.initialize.aim import Aim

# Of layers not known to be linear in their kernel, so many tries are made, as by LSUV.
_TRIES = 10
_TOLERANCE = 0.02
# A layer with a smaller mean square is dead: no factor is known to revive it.
_LEAST = 1e-30


def measure(
    model: Any, batch: Any, aims: Sequence[Aim], values: Mapping[int, Any]
) -> tuple[dict[int, Any], list[Aim]]:
    """Call a model on a batch, in training mode, and bring the output of each layer to its aim.

    The model does not change: neither weights nor states or seeds.

    Args:
        model: The model.
        batch: Its inputs.
        aims: The aims of its kernels.
        values: Tensors to start from, by the `id` of the variable of a kernel or bias.

    Returns:
        The values after the pass, and the aims that could not be measured: the layer was not
        called, was called inside a trace, or its output was zero or not finite.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(keras.StatelessScope())
        if keras.backend.backend() == "torch":
            stack.enter_context(importlib.import_module("torch").no_grad())
        rescaler = _Rescaler(aims, values)
        for state in seed_states(model):  # what dropout drew before must not count
            state.assign(ops.zeros(state.shape, state.dtype))
        for aim in aims:
            if aim.variance is not None:
                layer = aim.kernel.recurrence or aim.holder
                method = rescaler.make_call(aim, layer.call)
                stack.enter_context(replaced_methods(layer, call=method))
        model(batch, **training_argument(model.call))
    return rescaler.values, list(rescaler.waiting.values())


class _Rescaler:
    """Rescales the kernels of layers at their first call, in a `StatelessScope`."""

    def __init__(self, aims: Sequence[Aim], values: Mapping[int, Any]) -> None:
        self.values = dict(values)
        self.waiting = {id(aim.variable): aim for aim in aims if aim.variance is not None}
        for aim in aims:
            for variable in (aim.variable, aim.bias):
                if variable is not None:
                    self._assign(variable, self.values[id(variable)])

    def make_call(self, aim: Aim, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method `call` of a layer, with its kernel rescaled at its first call."""
        rescale = self._rescale_for_inputs if aim.kernel.recurrence else self._rescale

        @functools.wraps(call)
        def rescaled_call(*args: Any, **kwargs: Any) -> Any:
            if id(aim.variable) in self.waiting:
                inputs = args[0] if args else next(iter(kwargs.values()))
                if rescale(aim, inputs, lambda: call(*args, **kwargs)):
                    del self.waiting[id(aim.variable)]
            return call(*args, **kwargs)

        return rescaled_call

    def _rescale_for_inputs(self, aim: Aim, inputs: Any, call: Callable[[], Any]) -> bool:
        """Rescale a recurrent layer's kernel for the mean square of its inputs."""
        found = _read(inputs)
        if found:
            self._scale(aim.variable, 1.0 / math.sqrt(found))
        return found is not None

    def _rescale(self, aim: Aim, inputs: Any, call: Callable[[], Any]) -> bool:
        """Rescale a layer's kernel for its output without the activation, and set its bias."""
        random = None if aim.bias is None else self.values[id(aim.bias)]
        linear = {"activation": keras.activations.linear}
        with replaced_methods(aim.holder, **linear if hasattr(aim.holder, "activation") else {}):
            if aim.bias is None or not (aim.bias_variance or aim.is_centred):
                return self._search(aim, call, aim.variance or 0.0)
            self._assign(aim.bias, self._make_centre(aim, inputs))
            if not self._search(aim, call, (aim.variance or 0.0) - aim.bias_variance):
                self._assign(aim.bias, random)
                return False
            centre, z = self.values[id(aim.bias)], call()
            self._assign(aim.bias, centre + random)
            factor = _solve(z, call(), aim.variance or 0.0)
            self._scale(aim.variable, factor)
            self._assign(aim.bias, factor * centre + random)
        return True

    def _search(self, aim: Aim, call: Callable[[], Any], wanted: float) -> bool:
        """Scale a kernel, and the bias that takes away its mean, until the output is as wanted."""
        for _ in range(1 if aim.kernel.is_linear else _TRIES):
            found = _read(call(), aim.statistic)
            if found is None:
                return False
            factor = math.sqrt(wanted / found)
            self._scale(aim.variable, factor)
            if aim.is_centred:
                self._scale(aim.bias, factor)
            if abs(factor - 1.0) <= _TOLERANCE:
                break
        return True

    def _make_centre(self, aim: Aim, inputs: Any) -> Any:
        """Return the bias that takes away what the mean of the inputs makes; zeros otherwise."""
        view, shape = aim.kernel.part.view, tuple(self.values[id(aim.bias)].shape)
        if not aim.is_centred or view is None or view.maps_shape[0] != 1:
            return ops.zeros(shape)
        maps = ops.reshape(view.to_maps(self.values[id(aim.variable)]), (-1, view.maps_shape[-1]))
        mean = ops.mean(ops.cast(inputs, "float32"))
        return ops.reshape(-mean * ops.sum(maps, 0), shape)

    def _scale(self, variable: Any, factor: float) -> None:
        self._assign(variable, factor * self.values[id(variable)])

    def _assign(self, variable: Any, value: Any) -> None:
        self.values[id(variable)] = value
        variable.assign(ops.cast(value, variable.dtype))


def _read(output: Any, statistic: str = "rms") -> float | None:
    """Return the mean square or the variance of a tensor; `None` if it is of no use."""
    if isinstance(output, list | tuple):
        output = output[0]
    try:
        values = ops.cast(output, "float32")
        compute = ops.var if statistic == "std" else _mean_square
        found = float(ops.convert_to_numpy(compute(values)))
    except Exception:  # of a symbolic or a ragged tensor
        return None
    return found if _LEAST < found < math.inf else None


def _mean_square(values: Any) -> Any:
    return ops.mean(ops.square(values))


def _solve(z: Any, biased: Any, wanted: float) -> float:
    """Return the factor t for which t·z plus the bias has the wanted mean square."""
    z, bias = ops.cast(z, "float32"), ops.cast(biased, "float32") - ops.cast(z, "float32")
    a, b, c = (
        float(ops.convert_to_numpy(ops.mean(product))) for product in (z * z, z * bias, bias * bias)
    )
    root = b * b + a * (wanted - c)
    return (math.sqrt(root) - b) / a if root > b * b and a > 0.0 else 1.0
