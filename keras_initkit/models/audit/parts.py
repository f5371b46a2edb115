"""What an audit looks at: each weight with what is known of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.anatomy.graph import LINEAR, Following, Graph
from keras_initkit.anatomy.initializers import own_initializer
from keras_initkit.anatomy.layers_inside import trainable_weights
from keras_initkit.anatomy.weights import Weight, weights_of
from keras_initkit.connectivity.fan_formulas import fans_from_shape
from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.connectivity.layer_fans import has_rule, owners, view_of_weight
from keras_initkit.models.audit.rules import mean_square

_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_SCALES, _BIASES = ("gamma", "scale", "alpha"), ("bias", "beta")


class Part(NamedTuple):
    """A weight with all that the rules need.

    Attributes:
        weight: The weight.
        owner: The layer that has a rule for its fans.
        role: As in `WeightAudit`.
        view: What it is, if that is known.
        values: Its values.
        initializer: What draws it, if that is known.
        following: What follows its layer.
    """

    weight: Weight
    owner: Any
    role: str
    view: KernelView | None
    values: Any
    initializer: Any
    following: Following

    @property
    def keras_fans(self) -> tuple[float, float]:
        """(fan_in, fan_out) that Keras reads from the shape, or from axes where it has them."""
        axes = [getattr(self.initializer, name, None) for name in ("input_axes", "output_axes")]
        # Those of a weight that is packed, as quantised ones are, say nothing of its shape.
        shape = self.view.shape if self.view is not None else tuple(self.weight.variable.shape)
        fan_in, fan_out = fans_from_shape(shape, *axes)
        return float(fan_in), float(fan_out)

    @property
    def true_fans(self) -> tuple[float, float] | None:
        """As `keras_initkit.fans` has them; `None` if they are not known."""
        if self.view is None:
            return None
        return float(self.view.fans.fan_in), float(self.view.fans.fan_out)

    @property
    def variance(self) -> float | None:
        """The variance that it leads to at the layer's output; `None` if that is not known."""
        return None if self.view is None else mean_square(self.values) * self.view.fans.fan_in


def parts_of(model: Any) -> list[Part]:
    """The weights of a model, in its order."""
    graph = Graph(model)
    owner_of = {id(variable): owner for variable, owner in owners(model)}
    parts = []
    for weight in weights_of(model):
        owner = owner_of[id(weight.variable)]
        is_number = "float" in str(weight.variable.dtype)
        view = view_of_weight(owner, weight.variable) if has_rule(owner) and is_number else None
        role = _role(weight, view, has_rule(owner)) if is_number else "state"
        values = np.asarray(keras.ops.convert_to_numpy(weight.variable.value))
        initializer = own_initializer(weight.holder, weight.variable)
        needs_following = role in ("kernel", "scale")
        following = graph.following(weight.layers) if needs_following else Following()
        if _is_first_of_two(weight) and following.normalization is None:
            following = Following(LINEAR)
        parts.append(Part(weight, owner, role, view, values, initializer, following))
    return parts


def _role(weight: Weight, view: KernelView | None, is_known: bool) -> str:
    variable = weight.variable
    if view is not None:
        return "scale" if view.is_elementwise else "kernel"
    if not any(variable is own for own in trainable_weights(weight.holder)):
        return "state"
    if is_known or variable.name in _BIASES or variable.name.endswith("_bias"):
        return "bias"
    if variable.name in _SCALES:
        return "scale"
    return "kernel" if len(variable.shape) > 1 else "bias"


def _is_first_of_two(weight: Weight) -> bool:
    """Whether the same layer has another kernel between a kernel and what follows."""
    return isinstance(weight.holder, _SEPARABLE) and weight.variable.name == "depthwise_kernel"


def variance_between(part: Part, parts: Sequence[Part]) -> float:
    """The variance of the kernel between a kernel and what follows; 1 if there is none."""
    if not _is_first_of_two(part.weight):
        return 1.0
    return next(
        other.variance or 0.0
        for other in parts
        if other.weight.holder is part.weight.holder
        and other.weight.variable.name == "pointwise_kernel"
    )
