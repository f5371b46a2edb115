"""Variance scaling with the gain of any activation."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_initkit.checks import check_choice, check_number
from keras_initkit.connectivity.fan_formulas import Fans, check_axes, fans_from_shape
from keras_initkit.connectivity.kernel_view import KernelView, view_of_shape
from keras_initkit.initializers.base import KernelInitializer, floating
from keras_initkit.theory.gains import Gain
from keras_initkit.theory.gains import gain as resolve_gain

# Standard deviation of a standard normal variable that is cut off at ±2.
_TRUNCATED_STDDEV = 0.87962566103423978

MODES: dict[str, Callable[[float, float], float]] = {
    "fan_in": lambda fan_in, fan_out: fan_in,
    "fan_out": lambda fan_in, fan_out: fan_out,
    "fan_avg": lambda fan_in, fan_out: (fan_in + fan_out) / 2.0,
    "fan_geo_avg": lambda fan_in, fan_out: math.sqrt(fan_in * fan_out),
}
_DISTRIBUTIONS = ("uniform", "truncated_normal", "untruncated_normal", "normal")


@keras.saving.register_keras_serializable(package="keras_initkit")
class VarianceScaling(KernelInitializer, keras.initializers.VarianceScaling):
    """Draws weights of mean 0 and variance gain² · scale/fan.

    With the arguments of `keras.initializers.VarianceScaling` it is the same. `gain`,
    `negative_slope` and the mode "fan_geo_avg" are added: the gain of an activation multiplies
    the standard deviation, so that `VarianceScaling(gain="tanh")` suits tanh.

    | distribution | drawn from |
    |---|---|
    | `"uniform"` | [-l, l), l = sqrt(3 · variance) |
    | `"truncated_normal"` | normal, cut off at twice its scale, of that variance |
    | `"untruncated_normal"` | normal, of that variance |

    | mode | fan |
    |---|---|
    | `"fan_in"` | fan_in |
    | `"fan_out"` | fan_out |
    | `"fan_avg"` | (fan_in + fan_out)/2 |
    | `"fan_geo_avg"` | sqrt(fan_in · fan_out) |

    A fan below 1 counts as 1. Fans are read from the shape of the weight, or from the axes
    where a layer gives them: `keras.layers.EinsumDense` and the attention layers do from
    Keras 3.15 on. Values in half precision are drawn in float32 and rounded once.

    A callable `gain` is kept as the resulting number, so that a saved model loads
    where the function does not exist.

    Examples:
    >>> initializer = VarianceScaling(2.0, "fan_out", seed=0)  # as in Keras
    >>> initializer = VarianceScaling(gain="tanh", distribution="uniform", seed=0)
    >>> values = initializer((256, 128))
    >>> layer = keras.layers.Dense(128, "tanh", kernel_initializer=initializer)

    Args:
        scale: Positive number, the factor of the variance.
        mode: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
        distribution: "uniform", "truncated_normal" or its alias "normal", or
            "untruncated_normal"; in any case, as in Keras.
        seed: Integer: the same values at each call. `None`: an integer drawn at random,
            once. `keras.random.SeedGenerator`: other values at each call.
        input_axes: Sequence of integers, the input axes of the weight; or `None`.
        output_axes: Sequence of integers, the output axes of the weight; or `None`.
        gain: Positive number, the factor of the standard deviation; or an activation, by
            its name in `keras.activations` or as an elementwise callable: the gain that
            keeps the second moment of its output at 1, `keras_initkit.theory.forward_gain`.
        negative_slope: Number, the slope of a leaky ReLU below 0, where `gain` is "relu" or
            "leaky_relu"; or `None` for the activation's own.

    Raises:
        ValueError: If an argument is not one of the above; or, when called, if `dtype` is
            no floating type.

    Reference:
        He et al., 2015, Delving Deep into Rectifiers, section 2.2, for the principle;
        Glorot & Bengio, 2010, equation 12, for "fan_avg".
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        *,
        gain: Gain = 1.0,
        negative_slope: float | None = None,
    ) -> None:
        check_number("scale", scale, "the factor of the variance", above=0)
        check_choice("mode", mode, MODES)
        is_text = isinstance(distribution, str)
        distribution = distribution.lower() if is_text else distribution
        check_choice("distribution", distribution, _DISTRIBUTIONS)
        check_axes(input_axes, output_axes)
        factor = resolve_gain(gain, negative_slope)
        # Keras knows neither "fan_geo_avg" nor, before 3.15, the axes.
        super().__init__(float(scale), "fan_in", distribution, seed)
        self._factor = factor * math.sqrt(scale)
        self.gain = gain if isinstance(gain, str) else factor
        self.negative_slope = None if negative_slope is None else float(negative_slope)
        self.mode = mode
        self.input_axes = None if input_axes is None else list(input_axes)
        self.output_axes = None if output_axes is None else list(output_axes)

    def draw(self, view: KernelView, dtype: Any = None) -> Any:
        """Return new weights for a view with its true fans. See `KernelInitializer`."""
        stddev, shape, dtype = self._stddev(view.fans), view.shape, floating(dtype)
        # Low-precision uniforms are a coarse grid below its upper end: in bfloat16 on
        # TensorFlow, 128 values with a mean of -0.013 standard deviations.
        drawn = {"dtype": dtype if dtype == "float64" else "float32", "seed": self.seed}
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * stddev
            values = keras.random.uniform(shape, -limit, limit, **drawn)
        elif self.distribution == "untruncated_normal":
            values = keras.random.normal(shape, 0.0, stddev, **drawn)
        else:
            scale = stddev / _TRUNCATED_STDDEV
            values = keras.random.truncated_normal(shape, 0.0, scale, **drawn)
        return keras.ops.cast(values, dtype)

    def stddev(self, shape: Sequence[int]) -> float:
        """Return the standard deviation of weights of a shape."""
        return self._stddev(self._view(shape).fans)

    def _view(self, shape: Sequence[int]) -> KernelView:
        fans = fans_from_shape(shape, self.input_axes, self.output_axes)
        return view_of_shape(shape, Fans(*fans))

    def _stddev(self, fans: Fans) -> float:
        return self._factor / math.sqrt(max(1.0, MODES[self.mode](*fans)))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return {
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "seed": super().get_config()["seed"],
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
            "gain": self.gain,
            "negative_slope": self.negative_slope,
        }


class FixedScaling(VarianceScaling):
    """`VarianceScaling` with a scale of 1 and a distribution and mode fixed by the class.

    The positional arguments are those of Keras's classes of one formula, such as `HeNormal`.
    """

    _distribution: str
    _mode = "fan_in"

    def __init__(
        self,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        *,
        gain: Gain = 1.0,
        negative_slope: float | None = None,
    ) -> None:
        """Take the arguments of `VarianceScaling`, without scale, mode and distribution."""
        super().__init__(
            mode=self._mode,
            distribution=self._distribution,
            seed=seed,
            input_axes=input_axes,
            output_axes=output_axes,
            gain=gain,
            negative_slope=negative_slope,
        )
        # As in Keras's classes, the factor of the variance: 2 in `HeNormal`.
        self.scale = self._factor**2

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return without(super().get_config(), "scale", "mode", "distribution")


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a config without some of the arguments, those fixed by a subclass."""
    return {name: value for name, value in config.items() if name not in names}
