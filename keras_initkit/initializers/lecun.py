"""LeCun initialization, for units with the variance of their inputs."""

import keras

from keras_initkit.initializers.variance_scaling import FixedScaling


@keras.saving.register_keras_serializable(package="keras_initkit")
class LecunUniform(FixedScaling):
    """Draws weights uniformly from [-l, l), l = gain · sqrt(3/fan_in).

    Their variance is gain²/fan_in.

    Examples:
    >>> initializer = LecunUniform(seed=0)
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Reference:
        LeCun et al., 1998, Efficient BackProp, equation 16.
    """

    _distribution = "uniform"


@keras.saving.register_keras_serializable(package="keras_initkit")
class LecunNormal(FixedScaling):
    """Draws weights from a truncated normal of variance gain²/fan_in.

    With gain 1 it is the initialization for selu.

    Examples:
    >>> initializer = LecunNormal(seed=0)
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Reference:
        LeCun et al., 1998, Efficient BackProp, equation 16.
    """

    _distribution = "truncated_normal"
