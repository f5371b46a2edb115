"""Parts: the weights of a model, each with all data for the audit's rules."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.anatomy.following import LINEAR, Following, follow
from keras_initkit.anatomy.graph import Graph
from keras_initkit.anatomy.initializers import own_initializer
from keras_initkit.anatomy.layers_inside import trainable_weights
from keras_initkit.anatomy.weights import Weight, weights_of
from keras_initkit.connectivity.fan_formulas import fans_from_shape
from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.connectivity.layer_fans import has_rule, is_known_call, view_of_weight
from keras_initkit.theory.gains import backward_gain, forward_gain

_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_SCALES, _BIASES = ("gamma", "scale", "alpha"), ("bias", "beta")


class Part(NamedTuple):
    """A weight with all data for the rules; `role` and `intended` are as in `WeightAudit`."""

    weight: Weight
    role: str
    view: KernelView | None
    values: Any
    initializer: Any
    following: Following
    intended: float | None

    @property
    def keras_fans(self) -> tuple[float, float]:
        """(fan_in, fan_out) read by Keras from the shape, or from axes where it has them."""
        axes = [getattr(self.initializer, name, None) for name in ("input_axes", "output_axes")]
        # The variable of a packed weight, as of a quantised one, has another shape.
        shape = self.view.shape if self.view is not None else tuple(self.weight.variable.shape)
        fan_in, fan_out = fans_from_shape(shape, *axes)
        return float(fan_in), float(fan_out)

    @property
    def true_fans(self) -> tuple[float, float] | None:
        """The fans of `keras_initkit.fans`; `None` if unknown."""
        if self.view is None:
            return None
        return float(self.view.fans.fan_in), float(self.view.fans.fan_out)

    @property
    def variance(self) -> float | None:
        """The variance at the layer's output, for inputs of mean square 1; `None` if unknown."""
        if self.view is None:
            return None
        values = np.asarray(self.values, np.float32)
        return float(np.vdot(values, values)) / max(1, values.size) * self.view.fans.fan_in


def parts_of(model: Any, graph: Graph | None = None) -> list[Part]:
    """List the weights of a model, in its order; what follows them is read from its graph."""
    graph = graph or Graph(model)
    parts = []
    for weight in weights_of(model, has_rule):
        view = None
        if weight.is_float and has_rule(weight.owner):
            view = view_of_weight(weight.owner, weight.variable)
        role = _role(weight, view)
        following = _find_following(graph, weight) if role in ("kernel", "scale") else Following()
        if _is_first_of_two(weight) and following.normalization is None:
            following = Following(LINEAR)
        values = np.asarray(keras.ops.convert_to_numpy(weight.variable.value))
        initializer = own_initializer(weight.holder, weight.variable)
        intended = None if view is None else intended_variance(following)
        parts.append(Part(weight, role, view, values, initializer, following, intended))
    return parts


def intended_variance(following: Following) -> float | None:
    """Return the variance to aim at on the way to an activation; `None` for any, or if unknown."""
    if following.activation is None or following.normalization is not None:
        return None
    if following.function is None or following.is_last or following.is_gate:
        return 1.0
    return variance_before(following.function)


@functools.lru_cache(maxsize=256)
def variance_before(function: Any) -> float:
    """Return the variance before an activation for outputs of mean square 1."""
    try:
        return forward_gain(function) ** 2
    except (ValueError, TypeError):  # softmax and the like, which have no gain of their own
        return 1.0


@functools.lru_cache(maxsize=256)
def variance_of_small_signals(function: Any) -> float | None:
    """Return the variance that keeps signals so small that an activation is linear to them."""
    try:
        return backward_gain(function, 0.0) ** 2
    except (ValueError, TypeError):  # one without a slope at 0, or without a gain of its own
        return None


def variance_between(part: Part, parts: Sequence[Part]) -> float:
    """Return the variance of the second kernel behind the first of two; 1 for other kernels."""
    if not _is_first_of_two(part.weight):
        return 1.0
    return next(
        other.variance or 0.0
        for other in parts
        if other.weight.holder is part.weight.holder
        and other.weight.variable.name == "pointwise_kernel"
    )


def _find_following(graph: Graph, weight: Weight) -> Following:
    """Follow the output of a weight; what is used in other ways as well, by others, is unknown."""
    # `ReversibleEmbedding` leads back with its embeddings.
    if not is_known_call(weight.owner) or hasattr(weight.holder, "tie_weights"):
        return Following()
    ways = [follow(graph, place.layers, has_rule) for place in weight.places]
    return next((way for way in ways if not way.is_known), ways[0])


def _role(weight: Weight, view: KernelView | None) -> str:
    variable = weight.variable
    if view is not None:
        return "scale" if view.is_elementwise else "kernel"
    is_trained = any(variable is own for own in trainable_weights(weight.holder))
    if not weight.is_float or not is_trained:
        return "state"
    if has_rule(weight.owner) or variable.name in _BIASES or variable.name.endswith("_bias"):
        return "bias"
    if variable.name in _SCALES:
        return "scale"
    return "kernel" if len(variable.shape) > 1 else "bias"


def _is_first_of_two(weight: Weight) -> bool:
    """Check if the same layer has another kernel behind a kernel."""
    return isinstance(weight.holder, _SEPARABLE) and weight.variable.name == "depthwise_kernel"
