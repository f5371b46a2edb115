"""Initialization of networks of sines."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_initkit.checks import check_number
from keras_initkit.connectivity.fan_formulas import Fans
from keras_initkit.initializers.variance_scaling import VarianceScaling


@keras.saving.register_keras_serializable(package="keras_initkit")
class Siren(VarianceScaling):
    """Draws weights uniformly from [-l, l), for layers with the activation sin(ω z).

    l = sqrt(6/fan_in)/ω, so that ω z has variance 1 behind a sine of evenly spread phases, and
    .80 in deep layers; in the first layer l = 1/fan_in, for inputs in [-1, 1].

    Examples:
    >>> sine = lambda z: keras.ops.sin(30.0 * z)
    >>> first = keras.layers.Dense(64, sine, kernel_initializer=Siren(first=True))
    >>> hidden = keras.layers.Dense(64, sine, kernel_initializer=Siren())

    Args:
        omega: Positive number, the frequency ω in the activation.
        first: `True` for the first layer, in which the weights are not divided by ω.
        seed: As in `VarianceScaling`.
        input_axes: As in `VarianceScaling`.
        output_axes: As in `VarianceScaling`.

    Raises:
        ValueError: If `omega` is not a positive number.

    Reference:
        Sitzmann et al., 2020, Implicit Neural Representations with Periodic Activation
        Functions, section 3.2 and supplement 1.5.
    """

    def __init__(
        self,
        omega: float = 30.0,
        first: bool = False,
        *,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        self.omega = check_number("omega", omega, "the ω of the activation sin(ω z)", above=0)
        scale = 2.0 / self.omega**2
        super().__init__(scale, "fan_in", "uniform", seed, input_axes, output_axes)
        self.first = bool(first)

    def _stddev(self, fans: Fans) -> float:
        if not self.first:
            return super()._stddev(fans)
        return 1.0 / (math.sqrt(3.0) * max(1.0, fans.fan_in))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        config = super().get_config()
        kept = {name: config[name] for name in ("seed", "input_axes", "output_axes")}
        return {"omega": self.omega, "first": self.first, **kept}
