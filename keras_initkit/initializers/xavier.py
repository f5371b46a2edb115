"""Xavier initialization, a compromise between signals and gradients."""

import keras

from keras_initkit.initializers.variance_scaling import FixedScaling


@keras.saving.register_keras_serializable(package="keras_initkit")
class XavierUniform(FixedScaling):
    """Draws weights uniformly from [-l, l), l = gain · sqrt(6/(fan_in + fan_out)).

    Their variance is gain² · 2/(fan_in + fan_out): between 1/fan_in, for signals of constant
    variance, and 1/fan_out, for such gradients. Also called `GlorotUniform`, as in Keras.

    Examples:
    >>> initializer = XavierUniform(gain="tanh", seed=0)
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Reference:
        Glorot & Bengio, 2010, Understanding the difficulty of training deep feedforward
        neural networks, equation 16.
    """

    _mode = "fan_avg"
    _distribution = "uniform"


@keras.saving.register_keras_serializable(package="keras_initkit")
class XavierNormal(FixedScaling):
    """Draws weights from a truncated normal of variance gain² · 2/(fan_in + fan_out).

    The variance lies between 1/fan_in, for signals of constant variance, and 1/fan_out, for such
    gradients. Also called `GlorotNormal`, as in Keras.

    Examples:
    >>> initializer = XavierNormal(gain="tanh", seed=0)
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Reference:
        Glorot & Bengio, 2010, Understanding the difficulty of training deep feedforward
        neural networks, equation 12.
    """

    _mode = "fan_avg"
    _distribution = "truncated_normal"


# Keras's names.
GlorotUniform = XavierUniform
GlorotNormal = XavierNormal
