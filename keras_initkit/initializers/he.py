"""He initialization, for ReLU and by the same principle for any activation."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.checks import check_choice
from keras_initkit.initializers.variance_scaling import MODES, FixedScaling
from keras_initkit.theory.gains import Gain


class _He(FixedScaling):
    """`FixedScaling` with He's gain, and a choice of the mode."""

    def __init__(
        self,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        *,
        gain: Gain = "relu",
        negative_slope: float | None = None,
        mode: str = "fan_in",
    ) -> None:
        """Take the arguments of Keras's class; `gain`, `negative_slope` and `mode` are added.

        They are those of `VarianceScaling`. The mode "fan_in" keeps the variance of signals,
        "fan_out" that of gradients; "fan_avg" and "fan_geo_avg" lie between.
        """
        super().__init__(seed, input_axes, output_axes, gain=gain, negative_slope=negative_slope)
        self.mode = check_choice("mode", mode, MODES)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return {**super().get_config(), "mode": self.mode}


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
