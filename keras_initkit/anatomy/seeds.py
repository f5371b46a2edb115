"""Seeds that follow from another one, and initializers with a seed other than their own."""

import copy
import hashlib
from typing import Any


def derived_seed(seed: int, *path: str | int) -> int:
    """Return a seed for a part of what has a seed, the same on every machine.

    Args:
        seed: Integer.
        *path: Strings and integers that name the part: other names, other seeds.

    Returns:
        Integer from 0 to 2**32 - 1.
    """
    parts = (int(seed), *(part if isinstance(part, str) else int(part) for part in path))
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def with_seed(initializer: Any, seed: Any) -> Any:
    """Return a copy of an initializer that has another seed; one without a seed as it is.

    Args:
        initializer: A Keras initializer, or any callable.
        seed: Integer or `keras.random.SeedGenerator`.
    """
    if not hasattr(initializer, "seed"):
        return initializer
    copied = copy.copy(initializer)
    copied.seed = seed
    # Keras internals: what the config of Keras's own says.
    if hasattr(copied, "_init_seed"):
        copied._init_seed = seed
    return copied


class SeedOfAnother:
    """A mixin for initializers whose random numbers another one draws: its seed is theirs.

    Attributes:
        initializer: The other one. For random numbers alone it is one of Keras's, which keeps a
            seed in each of the forms that Keras has.
    """

    initializer: Any

    @property
    def seed(self) -> Any:
        """Integer or `keras.random.SeedGenerator`; no attribute if the other one has none."""
        return self.initializer.seed

    @seed.setter
    def seed(self, seed: Any) -> None:
        # A copy: the other one may be in use elsewhere.
        self.initializer = with_seed(self.initializer, seed)
