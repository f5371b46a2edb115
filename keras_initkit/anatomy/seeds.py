"""Seeds derived from another one, initializers with another seed, random numbers kept.

Keras internals: the global attribute with the generator of all that has no seed of its own.
tests/keras_initkit/anatomy/test_seeds.py fails where it changes.
"""

import contextlib
import copy
import hashlib
import importlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR


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


def seed_states(model: Any) -> list[Any]:
    """List the variables in which layers keep their random numbers to come, as of dropout."""
    weights = {id(weight) for weight in model.weights}
    return [
        variable
        for variable in model.variables
        if id(variable) not in weights and "seed_generator_state" in variable.name
    ]


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


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Keep the random numbers to come: Python's, NumPy's, Keras's, and PyTorch's for its dropout.

    Those of Keras are of its generator for all without a seed of their own.
    """
    python, numpy = random.getstate(), np.random.get_state()
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    state = None if generator is None else keras.ops.convert_to_numpy(generator.state)
    is_torch = keras.backend.backend() == "torch"
    torch = importlib.import_module("torch").random.fork_rng() if is_torch else None
    try:
        with torch or contextlib.nullcontext():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)
        if generator is not None:
            generator.state.assign(state)
