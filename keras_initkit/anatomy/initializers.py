"""Initializers of layers: the one given to a layer for a weight, and how it is written."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_initkit.anatomy.seeds import SeedOfAnother

# Weights for which Keras's layers take no initializer.
_FIXED: dict[tuple[type, str], type[keras.initializers.Initializer]] = {
    (keras.layers.AdditiveAttention, "scale"): keras.initializers.GlorotUniform,
    (keras.layers.Attention, "scale"): keras.initializers.Ones,
    (keras.layers.Attention, "concat_score_weight"): keras.initializers.Ones,
    (keras.layers.RMSNormalization, "scale"): keras.initializers.Ones,
}

# Weights with the argument of another weight.
_ARGUMENTS = {
    "kernel": "depthwise",
    "moving_stddev": "moving_variance",
    "renorm_mean": "moving_mean",
    "renorm_stddev": "moving_variance",
    "reverse_embeddings": "embeddings",
}


def own_initializer(layer: Any, variable: Any) -> Any | None:
    """Return the initializer used by a layer for a weight that it holds itself.

    It is a callable of shape and dtype, nearly always a `keras.initializers.Initializer`; `None` if
    the layer does not say, or the weight is a state learned otherwise.
    """
    name = variable.name
    if isinstance(layer, keras.layers.Normalization):
        return None
    for cls in type(layer).__mro__:
        if (cls, name) in _FIXED:
            return _FIXED[cls, name]()
    given = (getattr(layer, attribute, None) for attribute in argument_names(name))
    initializer = next(filter(callable, given), None)
    if initializer is None:
        return _usual_initializer(variable)
    if name.endswith("_stddev"):
        return _Modified(initializer, _draw_square_root)
    if name == "bias" and getattr(layer, "unit_forget_bias", False):
        return _Modified(initializer, _draw_with_forget_gate)
    if isinstance(layer, keras.layers.EinsumDense) and name == "kernel":
        return _add_einsum_axes(layer, initializer)
    return initializer


def _usual_initializer(variable: Any) -> Any | None:
    """Return the initializer of weights that a layer gets later on; `None` for others."""
    zeros = keras.initializers.Zeros()
    if variable.name.startswith("lora_"):
        # The defaults of `enable_lora`. With one factor at zeros, the other does not matter.
        return zeros if variable.name.endswith("_b") else keras.initializers.HeUniform()
    if getattr(variable, "overwrite_with_gradient", False):  # of float8
        return keras.initializers.Ones() if variable.name.endswith("_scale") else zeros
    return None


def argument_names(name: str) -> list[str]:
    """List the arguments and attributes of layers for a weight's initializer."""
    stems = [name, name.removesuffix("_kernel"), _ARGUMENTS.get(name, name)]
    return [f"{stem}_initializer" for stem in dict.fromkeys(stems)]


def format_initializer(initializer: Any) -> str:
    """Write an initializer in one line, without the arguments at their defaults."""
    if isinstance(initializer, _Modified):
        initializer = initializer.initializer
    if initializer is None:
        return ""
    if not isinstance(initializer, keras.initializers.Initializer):
        return getattr(initializer, "__name__", type(initializer).__name__)
    cls: Any = type(initializer)
    defaults = _defaults_of(cls)
    hidden = ("seed", "input_axes", "output_axes")
    shown = [
        f"{name}={_format_value(getattr(initializer, name, value))}"
        for name, value in initializer.get_config().items()
        if name not in hidden and (name not in defaults or defaults[name] != value)
    ]
    return f"{cls.__name__}({', '.join(shown)})" if shown else cls.__name__


@functools.lru_cache(maxsize=128)  # it takes a millisecond
def _defaults_of(cls: Any) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _format_value(value: Any) -> str:
    if isinstance(value, keras.initializers.Initializer):
        return format_initializer(value)
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def _add_einsum_axes(layer: Any, initializer: Any) -> Any:
    """Give Keras's own initializers the axes, as the layer does from Keras 3.15 on."""
    if getattr(initializer, "input_axes", ()) is not None:
        return initializer
    _, kernel, outputs = re.split(",|->", layer.equation.replace(" ", ""))
    axes: dict[str, list[int]] = {"input_axes": [], "output_axes": []}
    for axis, label in enumerate(kernel):
        axes["output_axes" if label in outputs else "input_axes"].append(axis)
    config = {**initializer.get_config(), "seed": initializer.seed, **axes}
    return type(initializer).from_config(config)


class _Modified(SeedOfAnother, keras.initializers.Initializer):
    """An initializer modified by its layer; `draw` takes the initializer, a shape and a dtype."""

    def __init__(self, initializer: Any, draw: Callable[[Any, Sequence[int], Any], Any]) -> None:
        self.initializer = initializer
        self.draw = draw

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of random numbers."""
        return self.draw(self.initializer, shape, dtype)


def _draw_with_forget_gate(initializer: Any, shape: Sequence[int], dtype: Any) -> Any:
    """Draw an LSTM's bias, of shape (4 units,), with ones in the forget gate."""
    units = shape[0] // 4
    first, last = initializer((units,), dtype), initializer((2 * units,), dtype)
    return keras.ops.concatenate([first, keras.ops.ones((units,), dtype), last])


def _draw_square_root(initializer: Any, shape: Sequence[int], dtype: Any) -> Any:
    """Draw standard deviations by a moving variance's initializer, for renormalization."""
    return keras.ops.sqrt(initializer(shape, dtype))
