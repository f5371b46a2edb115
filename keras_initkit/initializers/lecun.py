"""LeCun initialization, for units that keep the variance of their inputs."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.initializers.variance_scaling import Gain, VarianceScaling, config_without


@keras.saving.register_keras_serializable(package="keras_initkit")
class LecunUniform(VarianceScaling):
    """Draws weights uniformly from [-l, l), l = gain · sqrt(3/fan_in).

    Their variance is gain²/fan_in.

    Examples:
    >>> initializer = LecunUniform(seed=0)
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Args:
        gain: Positive number, the name of an activation or a callable, as in
            `VarianceScaling`.
        negative_slope: Number, the slope of a leaky ReLU below 0, where `gain` is "relu" or
            "leaky_relu"; or `None` for the activation's own.
        seed: Integer, `None` or `keras.random.SeedGenerator`, as in `VarianceScaling`.
        input_axes: Sequence of integers, the axes of the weight that lead in; or `None`.
        output_axes: Sequence of integers, the axes of the weight that lead out; or `None`.

    Raises:
        ValueError: If an argument is not one of the above.

    Reference:
        LeCun et al., 1998, Efficient BackProp, equation 16.
    """

    def __init__(
        self,
        gain: Gain = 1.0,
        negative_slope: float | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            gain=gain,
            negative_slope=negative_slope,
            mode="fan_in",
            distribution="uniform",
            seed=seed,
            input_axes=input_axes,
            output_axes=output_axes,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return config_without(super().get_config(), "mode", "distribution")


@keras.saving.register_keras_serializable(package="keras_initkit")
class LecunNormal(VarianceScaling):
    """Draws weights from a truncated normal of variance gain²/fan_in.

    With gain 1 it is the initialization for selu.

    Examples:
    >>> initializer = LecunNormal(seed=0)
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Args:
        gain: Positive number, the name of an activation or a callable, as in
            `VarianceScaling`.
        negative_slope: Number, the slope of a leaky ReLU below 0, where `gain` is "relu" or
            "leaky_relu"; or `None` for the activation's own.
        seed: Integer, `None` or `keras.random.SeedGenerator`, as in `VarianceScaling`.
        input_axes: Sequence of integers, the axes of the weight that lead in; or `None`.
        output_axes: Sequence of integers, the axes of the weight that lead out; or `None`.

    Raises:
        ValueError: If an argument is not one of the above.

    Reference:
        LeCun et al., 1998, Efficient BackProp, equation 16.
    """

    def __init__(
        self,
        gain: Gain = 1.0,
        negative_slope: float | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            gain=gain,
            negative_slope=negative_slope,
            mode="fan_in",
            distribution="truncated_normal",
            seed=seed,
            input_axes=input_axes,
            output_axes=output_axes,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return config_without(super().get_config(), "mode", "distribution")
