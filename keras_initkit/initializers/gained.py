"""Base of the initializers with a gain and random numbers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.anatomy.seeds import SeedOfAnother
from keras_initkit.initializers.base import KernelInitializer
from keras_initkit.initializers.variance_scaling import Gain
from keras_initkit.theory.gains import gain as resolve_gain


class GainedInitializer(SeedOfAnother, KernelInitializer):
    """A `KernelInitializer` with the arguments `gain` and `seed`.

    Args:
        gain: As in `VarianceScaling`.
        seed: As in `VarianceScaling`.
    """

    def __init__(self, gain: Gain = 1.0, seed: Any = None) -> None:
        self._factor = resolve_gain(gain)
        # A saved model loads where a function does not exist.
        self.gain = gain if isinstance(gain, str) else self._factor
        self.initializer = keras.initializers.RandomNormal(0.0, 1.0, seed)

    def _normal(self, shape: Sequence[int]) -> np.ndarray:
        """Draw standard normal numbers, float32, on the host."""
        return np.array(keras.ops.convert_to_numpy(self.initializer(tuple(shape), "float32")))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with a callable `gain` as a number."""
        return {"gain": self.gain, "seed": self.initializer.get_config()["seed"]}
