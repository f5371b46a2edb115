"""Initializers of layers: the one given to a layer for a weight, and how it is written."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.anatomy.seeds import SeedOfAnother

_ONES = keras.initializers.Ones

# Weights for which Keras's layers take no initializer.
_FIXED: dict[tuple[type, str], type[keras.initializers.Initializer]] = {
    (keras.layers.AdditiveAttention, "scale"): keras.initializers.GlorotUniform,
    (keras.layers.Attention, "scale"): _ONES,
    (keras.layers.Attention, "concat_score_weight"): _ONES,
    (keras.layers.RMSNormalization, "scale"): _ONES,
}


def own_initializer(layer: Any, variable: Any) -> Any | None:
    """Return the initializer used by a layer for a weight.

    Args:
        layer: The layer that holds the weight itself.
        variable: The weight.

    Returns:
        A callable of shape and dtype: nearly always a `keras.initializers.Initializer`; or `None`
        if the layer does not say, or the weight is a state learned otherwise.
    """
    name = variable.name
    if isinstance(layer, keras.layers.Normalization):
        return None
    for cls in type(layer).__mro__:
        if (cls, name) in _FIXED:
            return _FIXED[cls, name]()
    for attribute in argument_names(name):
        initializer = getattr(layer, attribute, None)
        if callable(initializer):
            break
    else:
        return None
    if name.endswith("_stddev"):
        return _SquareRoot(initializer)
    if name == "bias" and getattr(layer, "unit_forget_bias", False):
        return _UnitForgetBias(initializer)
    if isinstance(layer, keras.layers.EinsumDense) and name == "kernel":
        return _add_einsum_axes(layer, initializer)
    return initializer


def argument_names(name: str) -> list[str]:
    """List the arguments and attributes of layers for a weight's initializer."""
    names = [f"{name}_initializer"]
    if name.endswith("_kernel"):  # as a recurrent one
        names.append(f"{name.removesuffix('_kernel')}_initializer")
    if name == "kernel":
        names.append("depthwise_initializer")
    if name in ("moving_stddev", "renorm_stddev"):
        names.append("moving_variance_initializer")
    if name == "renorm_mean":
        names.append("moving_mean_initializer")
    if name == "reverse_embeddings":
        names.append("embeddings_initializer")
    return names


def format_initializer(initializer: Any) -> str:
    """Write an initializer in one line, without the arguments at their defaults."""
    if isinstance(initializer, _Modified):
        initializer = initializer.initializer
    if initializer is None:
        return ""
    if not isinstance(initializer, keras.initializers.Initializer):
        return getattr(initializer, "__name__", type(initializer).__name__)
    cls = type(initializer)
    defaults = inspect.signature(cls.__init__).parameters
    hidden = ("seed", "input_axes", "output_axes")
    shown = [
        f"{name}={_format_value(getattr(initializer, name, value))}"
        for name, value in initializer.get_config().items()
        if name not in hidden and (name not in defaults or defaults[name].default != value)
    ]
    return f"{cls.__name__}({', '.join(shown)})" if shown else cls.__name__


def _format_value(value: Any) -> str:
    if isinstance(value, keras.initializers.Initializer):
        return format_initializer(value)
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def _add_einsum_axes(layer: Any, initializer: Any) -> Any:
    """Give Keras's own initializers the axes, as the layer does from Keras 3.15 on."""
    if getattr(initializer, "input_axes", ()) is not None:
        return initializer
    operands, _, outputs = layer.equation.replace(" ", "").partition("->")
    kernel = operands.partition(",")[2]
    axes: dict[str, list[int]] = {"input_axes": [], "output_axes": []}
    for axis, label in enumerate(kernel):
        axes["output_axes" if label in outputs else "input_axes"].append(axis)
    config = {**initializer.get_config(), "seed": initializer.seed, **axes}
    return type(initializer).from_config(config)


class _Modified(SeedOfAnother, keras.initializers.Initializer):
    """An initializer modified by its layer."""

    def __init__(self, initializer: Any) -> None:
        self.initializer = initializer


class _UnitForgetBias(_Modified):
    """The initializer of an LSTM's bias, with ones in the forget gate."""

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of shape (4 units,)."""
        units = shape[0] // 4
        parts = [
            self.initializer((units,), dtype),
            keras.ops.ones((units,), dtype),
            self.initializer((2 * units,), dtype),
        ]
        return keras.ops.concatenate(parts)


class _SquareRoot(_Modified):
    """The square root of a moving variance's initializer, for renormalization."""

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of standard deviations."""
        return keras.ops.sqrt(self.initializer(shape, dtype))
