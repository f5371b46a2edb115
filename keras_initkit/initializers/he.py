"""He initialization, for ReLU and by the same principle for any activation."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.initializers.variance_scaling import Gain, VarianceScaling, config_without


class _He(VarianceScaling):
    """`VarianceScaling` with He's defaults, whose class fixes the distribution."""

    _distribution: str

    def __init__(
        self,
        gain: Gain = "relu",
        negative_slope: float | None = None,
        mode: str = "fan_in",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        """Take the arguments of `VarianceScaling`, but for `distribution`.

        The mode "fan_in" keeps the variance of signals, "fan_out" that of gradients;
        "fan_avg" and "fan_geo_avg" lie between.
        """
        super().__init__(
            gain, negative_slope, mode, self._distribution, seed, input_axes, output_axes
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return config_without(super().get_config(), "distribution")


@keras.saving.register_keras_serializable(package="keras_initkit")
class HeUniform(_He):
    """Draws weights uniformly from [-l, l), l = gain · sqrt(3/fan).

    With the default gain, gain² is 2, or 2/(1 + a²) with a `negative_slope` a. With another
    activation it is 1/E f(z)², z ~ N(0, 1).

    Examples:
    >>> initializer = HeUniform(negative_slope=0.1, seed=0)
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Reference:
        He et al., 2015, Delving Deep into Rectifiers, equations 10 (fan_in), 14 (fan_out)
        and 15 (leaky ReLU).
    """

    _distribution = "uniform"


@keras.saving.register_keras_serializable(package="keras_initkit")
class HeNormal(_He):
    """Draws weights from a truncated normal of variance gain²/fan.

    With the default gain, gain² is 2, or 2/(1 + a²) with a `negative_slope` a. With another
    activation it is 1/E f(z)², z ~ N(0, 1).

    Examples:
    >>> initializer = HeNormal(gain="gelu", seed=0)
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Reference:
        He et al., 2015, Delving Deep into Rectifiers, equations 10 (fan_in), 14 (fan_out)
        and 15 (leaky ReLU).
    """

    _distribution = "truncated_normal"
