"""Seeds derived from another one, and initializers with another seed."""

import contextlib
import copy
import hashlib
import importlib
from typing import Any

import keras


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a seed for a part of something with a seed, the same on every machine.

    It is an integer from 0 to 2**32 - 1; other names of parts, other seeds.
    """
    parts = (int(seed), *(part if isinstance(part, str) else int(part) for part in path))
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def with_seed(initializer: Any, seed: Any) -> Any:
    """Return a copy of an initializer with another seed; one without a seed as it is.

    An initializer is made anew from its config, where this has the seed; otherwise it is copied.
    """
    if not hasattr(initializer, "seed"):
        return initializer
    if isinstance(initializer, keras.initializers.Initializer):
        config = initializer.get_config()
        if "seed" in config:
            # A subclass may have an `__init__` without the arguments in the config it inherits.
            with contextlib.suppress(TypeError):
                return type(initializer).from_config({**config, "seed": seed})
    copied = copy.copy(initializer)
    copied.seed = seed
    return copied


class SeedOfAnother:
    """A mixin for initializers with the random numbers, and so the seed, of another one."""

    initializer: Any

    @property
    def seed(self) -> Any:
        """Integer or `keras.random.SeedGenerator`; no attribute if the other one has none."""
        return self.initializer.seed

    @seed.setter
    def seed(self, seed: Any) -> None:
        # A copy: the other one may be in use elsewhere.
        self.initializer = with_seed(self.initializer, seed)


def random_state_kept() -> contextlib.AbstractContextManager[Any]:
    """Keep PyTorch's random numbers to come: its dropout draws from none of Keras's seeds."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    kept: contextlib.AbstractContextManager[Any]
    kept = importlib.import_module("torch").random.fork_rng()
    return kept
