"""Seeds derived from others, and initializers with another seed."""

import inspect
from typing import Any

import keras
import numpy as np
import pytest

from keras_initkit.anatomy.seeds import derive_seed, with_seed
from tests.keras_initkit.initializers.helpers import array

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


@pytest.mark.parametrize("name", [name for name in dir(keras.initializers) if name[0].isupper()])
def test_with_seed_does_for_keras_initializers_what_their_constructor_does(name):
    cls = getattr(keras.initializers, name)
    if "seed" not in inspect.signature(cls.__init__).parameters:
        return
    initializer = cls(seed=1)
    other, expected = with_seed(initializer, 2), cls(seed=2)
    where = f"Keras keeps the seed of {name} elsewhere: see keras_initkit.anatomy.seeds.with_seed"
    assert other.seed == expected.seed, where
    assert other.get_config() == expected.get_config(), where
    assert initializer.get_config() == cls(seed=1).get_config(), where
    np.testing.assert_array_equal(array(other((4, 4))), array(expected((4, 4))), where)


def test_derived_seeds_are_of_the_whole_path():
    paths: list[Any] = [(1,), (1, 1), (1, "1"), (1, 1, 1), (11,), (1, "a", "b"), (1, "ab")]
    seeds = [derive_seed(*path) for path in paths]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    # The same in every process, and on every machine.
    one: Any = np.int64(1)
    assert derive_seed(one, "a", one) == derive_seed(1, "a", 1)
    assert derive_seed(0, "kernel", 1) == 337841690
    values = keras.initializers.RandomNormal(seed=2**32 - 1)((2,))
    assert array(values).any()


class Doubled(keras.initializers.HeNormal):
    """Has no argument for the seed that is in its config."""

    def __init__(self):
        super().__init__(seed=1)


class Around(keras.initializers.Initializer):
    """Has the seed of another initializer, and no config of its own."""

    def __init__(self, inner):
        self.inner = inner
        self.seed = 1

    def __call__(self, shape, dtype=None):
        return with_seed(self.inner, self.seed)(shape, dtype)


def test_initializers_that_no_config_makes_anew_are_copied():
    for initializer in (Doubled(), Around(keras.initializers.HeNormal())):
        other = with_seed(initializer, 2)
        assert (type(other), other.seed, initializer.seed) == (type(initializer), 2, 1)
        expected = keras.initializers.HeNormal(2)((4, 4))
        np.testing.assert_array_equal(array(other((4, 4))), array(expected))


def test_without_a_seed_an_initializer_is_itself():
    for initializer in (keras.initializers.Zeros(), lambda shape, dtype=None: None):
        assert with_seed(initializer, 5) is initializer
