"""What initializers with a gain and random numbers have in common."""

from typing import Any

from keras_initkit.gains import gain as resolve_gain
from keras_initkit.initializers.base import KernelInitializer
from keras_initkit.initializers.variance_scaling import Gain


class GainedInitializer(KernelInitializer):
    """A `KernelInitializer` whose arguments begin with `gain`, and end with `seed`.

    Args:
        gain: As in `VarianceScaling`.
        seed: As in `VarianceScaling`.
    """

    def __init__(self, gain: Gain = 1.0, seed: Any = None) -> None:
        self._factor = resolve_gain(gain)
        # A saved model loads where a function does not exist.
        self.gain = gain if isinstance(gain, str) else self._factor
        super().__init__(seed)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return {"gain": self.gain, **super().get_config()}
