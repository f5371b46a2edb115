"""He initialization with PyTorch's name and arguments."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_initkit.checks import check_choice, check_number
from keras_initkit.initializers.variance_scaling import VarianceScaling, without

# PyTorch's gains. Those of tanh, sigmoid and selu are its conventions, not what keeps a variance.
_GAINS: dict[str, Callable[[float], float]] = {
    "linear": lambda a: 1.0,
    "sigmoid": lambda a: 1.0,
    "tanh": lambda a: 5.0 / 3.0,
    "relu": lambda a: math.sqrt(2.0),
    "leaky_relu": lambda a: math.sqrt(2.0 / (1.0 + a**2)),
    "selu": lambda a: 0.75,
}


class _Kaiming(VarianceScaling):
    """`VarianceScaling` with PyTorch's arguments, and a distribution fixed by the class."""

    _distribution: str

    def __init__(
        self,
        a: float = 0.0,
        mode: str = "fan_in",
        nonlinearity: str = "leaky_relu",
        *,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        """Take PyTorch's arguments, and those of `VarianceScaling` after them, by keyword.

        `a` is the slope of "leaky_relu" below 0, not used by the others; `nonlinearity` one of
        "linear", "sigmoid", "tanh", "relu", "leaky_relu" and "selu".
        """
        self.a = check_number("a", a, 'the slope of "leaky_relu" below 0')
        self.nonlinearity = check_choice("nonlinearity", nonlinearity, _GAINS)
        gain = _GAINS[nonlinearity](self.a)
        super().__init__(1.0, mode, self._distribution, seed, input_axes, output_axes, gain=gain)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        config = without(super().get_config(), "scale", "distribution", "gain", "negative_slope")
        return {"a": self.a, "nonlinearity": self.nonlinearity, **config}


@keras.saving.register_keras_serializable(package="keras_initkit")
class KaimingUniform(_Kaiming):
    """Draws weights uniformly from [-l, l), l = gain · sqrt(3/fan), as PyTorch does.

    Gain and standard deviation are those of `torch.nn.init.calculate_gain` and
    `torch.nn.init.kaiming_uniform_`, to the last bit. PyTorch's layers call it with `a=sqrt(5)`,
    which makes l = 1/sqrt(fan_in). For the gain of any activation see `HeUniform`.

    Examples:
    >>> initializer = KaimingUniform(a=5**0.5, seed=0)  # as in torch.nn.Linear
    >>> layer = keras.layers.Dense(64, kernel_initializer=initializer)

    Reference:
        He et al., 2015, Delving Deep into Rectifiers, section 2.2.
    """

    _distribution = "uniform"


@keras.saving.register_keras_serializable(package="keras_initkit")
class KaimingNormal(_Kaiming):
    """Draws weights from a normal of variance gain²/fan, not cut off, as PyTorch does.

    Gain and standard deviation are those of `torch.nn.init.calculate_gain` and
    `torch.nn.init.kaiming_normal_`, to the last bit. For the gain of any activation
    see `HeNormal`.

    Examples:
    >>> initializer = KaimingNormal(mode="fan_out", nonlinearity="relu", seed=0)
    >>> layer = keras.layers.Conv2D(64, 3, kernel_initializer=initializer)

    Reference:
        He et al., 2015, Delving Deep into Rectifiers, section 2.2.
    """

    _distribution = "untruncated_normal"
