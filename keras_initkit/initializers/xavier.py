"""Xavier initialization, a compromise between signals and gradients."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.initializers.variance_scaling import Gain, VarianceScaling, config_without


@keras.saving.register_keras_serializable(package="keras_initkit")
class XavierUniform(VarianceScaling):
    """Draws weights uniformly from [-l, l), l = gain · sqrt(6/(fan_in + fan_out)).

    Their variance is gain² · 2/(fan_in + fan_out): between 1/fan_in, which keeps the
    variance of signals, and 1/fan_out, which keeps that of gradients.

    Examples:
    >>> initializer = XavierUniform(gain="tanh", seed=0)
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
        Glorot & Bengio, 2010, Understanding the difficulty of training deep feedforward
        neural networks, equation 16.
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
            mode="fan_avg",
            distribution="uniform",
            seed=seed,
            input_axes=input_axes,
            output_axes=output_axes,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return config_without(super().get_config(), "mode", "distribution")


@keras.saving.register_keras_serializable(package="keras_initkit")
class XavierNormal(VarianceScaling):
    """Draws weights from a truncated normal of variance gain² · 2/(fan_in + fan_out).

    The variance lies between 1/fan_in, which keeps the variance of signals, and 1/fan_out,
    which keeps that of gradients.

    Examples:
    >>> initializer = XavierNormal(gain="tanh", seed=0)
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
        Glorot & Bengio, 2010, Understanding the difficulty of training deep feedforward
        neural networks, equation 12.
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
            mode="fan_avg",
            distribution="truncated_normal",
            seed=seed,
            input_axes=input_axes,
            output_axes=output_axes,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return config_without(super().get_config(), "mode", "distribution")
