"""The walk through a model: forth over its calls with signals, back with gradients."""

import inspect
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.layers_inside import children
from keras_initkit.anatomy.tracing import LayerCall, calls_inside
from keras_initkit.anatomy.weights import number, places_of
from keras_initkit.models.propagate.padding import follow_mask, split_masks
from keras_initkit.models.propagate.result import TensorRow
from keras_initkit.models.propagate.rules.registry import FREE, Call, Effect
from keras_initkit.models.propagate.rules.table import find_rule
from keras_initkit.models.propagate.sampling import measure, run, sample
from keras_initkit.models.propagate.signal import Signal, sum_over_positions, white_gradient
from keras_initkit.models.propagate.tensors import Tensor, find_units, move_last

# Operations behind which values are the same.
_PASSING = ("ConvertToTensor", "Cast", "Identity")
# Weights with one element a unit, which is added to it.
_BIASES = ("bias", "beta")


class GaveUp(Exception):  # noqa: N818 (no error: the caller asked for it)
    """The end of a walk that would take too long, or run layers."""


class Step(NamedTuple):
    """A call that was made on the walk."""

    path: str
    operation: Any
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    effect: Effect | None
    how: str
    units: int = -1

    def signal(self) -> float | None:
        """Return the RMS gradient of the layer's bias, or without one of its kernel."""
        weights = {weight.name: weight for weight in getattr(self.operation, "weights", ())}
        arrived = self.outputs[0].gradient
        if arrived is None or self.effect is None:
            return None
        units = self.effect.to_units(arrived) if self.effect.to_units else arrived
        shape = self.outputs[0].signal.shape
        if any(name in weights for name in _BIASES):
            return math.sqrt(sum_over_positions(units, shape))
        if any(name.endswith("kernel") for name in weights) and self.inputs:
            return math.sqrt(sum_over_positions(units, shape, self.inputs[0].signal))
        return None


class Walk:
    """A walk through a model.

    Args:
        model: The model.
        is_training: Whether layers run in training mode.
        seconds: Time that the way forth may take; then no layer is run, either. `None` for any.
    """

    def __init__(self, model: Any, is_training: bool, seconds: float | None = None) -> None:
        self.steps: list[Step] = []
        self._is_training = is_training
        self._end = None if seconds is None else time.monotonic() + seconds
        self._paths = {key: places[0].path for key, places in places_of(model).items()}
        self._counts: Counter[str] = Counter()

    def go_in(self, layer: Any, args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Make the calls inside a layer, and return its outputs.

        Args:
            layer: The layer or model.
            args: Its arguments, with symbolic tensors.
            kwargs: Its arguments with names.
            tensors: For each symbolic tensor among the arguments its own.
        """
        parameters = inspect.signature(layer.call).parameters
        if "training" in parameters and kwargs.get("training") is None:
            kwargs = {**kwargs, "training": self._is_training}
        inside = calls_inside(layer, args, kwargs)
        known = dict(zip(map(id, inside.inputs), tensors, strict=True))
        for call in inside.calls:
            inputs = [known[id(tensor)] for tensor in call.inputs]
            outputs = self._make(call, inputs, self._paths.get(id(layer), ""))
            known.update(zip(map(id, call.outputs), outputs, strict=True))
        return [known[id(tensor)] for tensor in inside.outputs]

    def go_back(self, outputs: Sequence[Tensor]) -> None:
        """Lead gradients back from outputs at which they are independent, with mean square 1."""
        for tensor in outputs:
            tensor.gradients.append(white_gradient(tensor.signal.shape))
        for step in reversed(self.steps):
            if step.effect is None:
                continue
            arrived = [tensor.gradient for tensor in step.outputs]
            if all(gradient is None for gradient in arrived):
                continue
            filled = [
                gradient or white_gradient(tensor.signal.shape, 0.0)
                for gradient, tensor in zip(arrived, step.outputs, strict=True)
            ]
            for tensor, gradient in zip(step.inputs, step.effect.back(filled), strict=True):
                if gradient is not None:
                    tensor.arrive(gradient, step.units)

    def rows(self) -> list[TensorRow]:
        """List the statistics of all outputs of the calls."""
        found = []
        for step in self.steps:
            # Keras converts what a model is called with.
            kind = type(step.operation).__name__ if step.operation else "InputLayer"
            outputs = () if kind == "ConvertToTensor" else step.outputs
            for place, tensor in enumerate(outputs):
                signal, gradient = tensor.signal, tensor.gradient
                found.append(
                    TensorRow(
                        step.path if not place else f"{step.path}[{place}]",
                        kind,
                        tensor.shape,
                        signal.mean,
                        tensor.average(signal.power),
                        signal.correlation,
                        None if gradient is None else tensor.average(gradient.power),
                        None if place else step.signal(),
                        step.how,
                    )
                )
        return found

    def begin(self, name: str, signal: Signal, values: Any) -> Tensor:
        """Return the tensor of an input of the model, with its data if there are any."""
        tensor = Tensor(signal, values=values)
        path = number(name, self._counts)
        self.steps.append(Step(path, None, (), (tensor,), None, "rule"))
        return tensor

    def _make(self, made: LayerCall, inputs: Sequence[Tensor], path: str) -> list[Tensor]:
        """Make a call by its rule, by the calls inside it, or by sampling."""
        operation = made.operation
        if self._end is not None and time.monotonic() > self._end:
            raise GaveUp
        rule, how = find_rule(operation), "rule"
        masks, plain, inside = split_masks(made, inputs)
        mask = follow_mask(plain, inside, masks)
        is_training = made.kwargs.get("training")
        call = Call(
            operation,
            plain.args,
            plain.kwargs,
            tuple(tensor.view(-1) for tensor in inside),
            tuple(tuple(output.shape[1:]) for output in made.outputs),
            self._is_training if is_training is None else bool(is_training),
            -1,
            masks if mask is None else {**masks, "output": mask},
        )
        units = find_units(operation, inside, rule in FREE) if inside else -1
        is_float = any("float" in str(output.dtype) for output in made.outputs)
        values, effect = None, None
        if not is_float or type(operation).__name__ in _PASSING:
            values = _compute(plain, inside)
        if values is not None and not is_float:
            effect = _constants(values, call)
        elif rule is not None:
            effect = rule(
                call._replace(
                    signals=tuple(tensor.view(units) for tensor in inside),
                    shapes=tuple(move_last(shape, units) for shape in call.shapes),
                    units=units,
                )
            )
        if effect is None and isinstance(operation, keras.layers.Layer) and children(operation):
            steps, counts = len(self.steps), self._counts.copy()
            try:
                return self.go_in(operation, made.args, made.kwargs, inputs)
            except (TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError):
                # Its code does not run on symbolic tensors.
                del self.steps[steps:]
                self._counts = counts
        if effect is None:
            effect, values = self._sample(call, plain, inside)
            how, units = "sampled", -1
        name = self._paths.get(id(operation)) or f"{path}/{operation.name}".lstrip("/")
        outputs = [
            Tensor(signal, units, value, mask)
            for signal, value in zip(
                effect.outputs, values or [None] * len(call.shapes), strict=True
            )
        ]
        path = number(name, self._counts)
        self.steps.append(Step(path, operation, inside, outputs, effect, how, units))
        return outputs

    def _sample(
        self, call: Call, made: LayerCall, inputs: Sequence[Tensor]
    ) -> tuple[Effect, Sequence[Any] | None]:
        """Run a layer alone, and return its effect, and its outputs for the data, if known."""
        if self._end is not None:
            raise GaveUp
        try:
            values = _compute(made, inputs)
            return sample(call, values and [tensor.values for tensor in inputs]), values
        except Exception as error:
            raise ValueError(
                "`model` must have layers with a rule, or that run on random numbers. Received: "
                f"{type(call.operation).__name__} '{call.operation.name}', which does not. Call "
                "`propagate` on the part of the model after it."
            ) from error


def _compute(made: LayerCall, inputs: Sequence[Tensor]) -> Sequence[Any] | None:
    """Return a call's outputs for the data; `None` if not all inputs are known."""
    if not inputs or any(tensor.values is None for tensor in inputs):
        return None
    return run(made.operation, made.args, made.kwargs, [tensor.values for tensor in inputs])


def _constants(values: Sequence[Any], call: Call) -> Effect:
    """Return the effect of a call of which the outputs are known, and pass no gradient."""
    shaped = zip(values, call.shapes, strict=True)
    signals = tuple(measure(value)._replace(shape=shape) for value, shape in shaped)
    return Effect(signals, lambda gradients: [None] * len(call.signals))
