"""The table of rules, by the class of a layer or operation."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit.models.propagate.signal import Gradient, Signal

# From the gradients at the outputs of a call to those at its inputs; `None` where none arrives.
Gradients = Sequence[Gradient | None]
Back = Callable[[Sequence[Gradient]], Gradients]


class Call(NamedTuple):
    """A call with the statistics of its inputs.

    Attributes:
        operation: The layer or operation.
        args: Its positional arguments, symbolic tensors among them.
        kwargs: Its arguments with names.
        signals: Of each symbolic tensor in its arguments, in their order.
        shapes: Shapes of its outputs without the batch, the units last.
        is_training: Whether it runs in training mode.
        units: The axis of units in its own layout, counted from the end.
        masks: Arrays that are false at padding, as they follow from data, by the argument's name;
            "output" for that of the output. Without data there are none.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    signals: tuple[Signal, ...]
    shapes: tuple[tuple[int, ...], ...]
    is_training: bool
    units: int
    masks: dict[str, Any]

    @property
    def signal(self) -> Signal:
        """The first input."""
        return self.signals[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.shapes[0]

    def bound(self) -> dict[str, Any]:
        """Return the arguments of the layer's `call` by their names."""
        return inspect.signature(self.operation.call).bind(*self.args, **self.kwargs).arguments

    def axis(self, axis: int) -> int:
        """Return the place of one of the layer's axes among those of the first input's shape."""
        rank = len(self.signal.shape)
        place = axis if axis < 0 else axis - 1 - rank
        return rank - 1 if place == self.units else rank + place - (place > self.units)

    def place(self, tensor: Any) -> int:
        """Return the place of a symbolic tensor among the inputs."""
        flat = keras.tree.flatten((self.args, self.kwargs))
        symbolic = [value for value in flat if isinstance(value, keras.KerasTensor)]
        return next(i for i, value in enumerate(symbolic) if value is tensor)


class Effect(NamedTuple):
    """The effect of a call: the statistics of its outputs, and the way back of gradients.

    Attributes:
        outputs: A signal for each output.
        back: Function of the gradients at all outputs.
        to_units: Function from the gradient at the output to that in front of the layer's own
            activation; `None` if it has none.
    """

    outputs: tuple[Signal, ...]
    back: Back
    to_units: Callable[[Gradient], Gradient] | None = None


# Returns `None` for a call that it does not cover.
Rule = Callable[[Call], Effect | None]

RULES: dict[type | str, Rule] = {}
# Rules that do the same to tensors of any layout.
FREE: set[Rule] = set()
# Key of the rule for operations without one of their own, and without an axis to act along.
ELEMENTWISE = "elementwise"


def rule(*keys: type | str, is_free: bool = False) -> Callable[[Rule], Rule]:
    """Make a function the rule for classes of layers, or for operations by their class's name.

    Args:
        *keys: The classes, or names.
        is_free: Whether it does the same to tensors of any layout, as elementwise functions do.
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(keys, function))
        FREE.update([function] * is_free)
        return function

    return register


def find_rule(operation: Any) -> Rule | None:
    """Return the rule for a layer or operation; `None` for a user's class with its own `call`."""
    if not isinstance(operation, keras.layers.Layer):
        if not type(operation).__module__.startswith("keras."):
            return None
        name = type(operation).__name__
        return RULES.get(name if name in RULES or hasattr(operation, "axis") else ELEMENTWISE)
    for cls in type(operation).__mro__:
        if cls in RULES:
            return RULES[cls]
        if "call" in vars(cls):
            return None
    return None


def spatial_rank(layer: Any) -> int | None:
    """Return the number of axes of a layer's maps, by its name; `None` if it has none."""
    named = (re.search(r"(\d)D", cls.__name__) for cls in type(layer).__mro__)
    return next((int(found[1]) for found in named if found), None)


def effect(output: Signal, back: Callable[[Gradient], Gradient | None]) -> Effect:
    """Return the effect of a call with one input and one output."""
    return Effect((output,), lambda gradients: [back(gradients[0])])


def chain(first: Effect, second: Callable[[Signal], Effect]) -> Effect:
    """Return the effect of a step on the only output of another."""
    after = second(first.outputs[0])

    def back(gradients: Sequence[Gradient]) -> Gradients:
        (between,) = after.back(gradients)
        assert between is not None
        return first.back([between])

    return Effect(after.outputs, back)
