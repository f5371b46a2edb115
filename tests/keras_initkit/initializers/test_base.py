"""Keras's contract, for every initializer: calls, dtypes, seeds and configs."""

import inspect
import json

import keras
import numpy as np
import pytest

from keras_initkit import initializers
from keras_initkit.anatomy.seeds import with_seed
from tests.keras_initkit.initializers.helpers import EACH, NAMES, array

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers

each = pytest.mark.parametrize(("initializer", "shape"), EACH, ids=NAMES)
each_random = pytest.mark.parametrize(
    ("initializer", "shape"),
    [pair for pair in EACH if hasattr(pair[0], "seed")],
    ids=[name for name, pair in zip(NAMES, EACH, strict=True) if hasattr(pair[0], "seed")],
)


@pytest.mark.backends("tensorflow", "torch")
def test_every_initializer_is_in_the_table():
    public = {getattr(initializers, name) for name in initializers.__all__}
    assert public == {type(initializer) for initializer, _ in EACH}


@each
def test_a_config_makes_the_same_initializer(initializer, shape):
    cls = type(initializer)
    config = initializer.get_config()
    assert set(config) == set(inspect.signature(cls).parameters)
    registered = json.loads(json.dumps(keras.saving.serialize_keras_object(initializer)))
    assert registered["registered_name"] == f"keras_initkit>{cls.__name__}"
    again = keras.saving.deserialize_keras_object(registered)
    assert type(again) is cls
    assert again.get_config() == config == initializer.clone().get_config()
    np.testing.assert_array_equal(array(again(shape)), array(initializer(shape)))


@each
def test_weights_have_the_shape_and_type_that_is_asked_for(initializer, shape):
    for dtype in ("float16", "bfloat16", "float32"):
        values = initializer(shape, dtype=dtype, layout=None)
        assert tuple(values.shape) == shape
        assert keras.backend.standardize_dtype(values.dtype) == dtype
        # Rounded once, of the same numbers.
        wide = keras.ops.cast(initializer(list(shape)), dtype)
        np.testing.assert_array_equal(array(values), array(wide))
    with pytest.raises(ValueError, match=r"`dtype` must be a floating type\. Received: .*int32"):
        initializer(shape, dtype="int32")
    with pytest.raises(TypeError, match=r"called with `shape`, `dtype` and `layout` only\. Rec"):
        initializer(shape, partition=None)


@each_random
def test_seeds_keep_to_keras_contract(initializer, shape):
    before = array(initializer(shape))
    np.testing.assert_array_equal(array(initializer(shape)), before)
    other = with_seed(initializer, 2)
    assert other.seed == other.get_config()["seed"] == 2
    assert not np.array_equal(array(other(shape)), before)
    # What `with_seed` copied is as it was.
    assert initializer.seed == 3
    np.testing.assert_array_equal(array(initializer(shape)), before)

    fresh, twin = with_seed(initializer, None), with_seed(initializer, None)
    assert fresh.get_config()["seed"] is None
    np.testing.assert_array_equal(array(fresh(shape)), array(fresh(shape)))
    assert not np.array_equal(array(fresh(shape)), array(twin(shape)))

    moving = with_seed(initializer, keras.random.SeedGenerator(7))
    copied = type(moving).from_config(json.loads(json.dumps(moving.get_config())))
    first = array(moving(shape))
    assert not np.array_equal(array(moving(shape)), first)
    np.testing.assert_array_equal(array(copied(shape)), first)


@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal", "untruncated_normal"])
def test_small_and_empty_shapes_are_drawn(distribution):
    for shape in ((), (0,), (0, 3), [2, 3]):
        weights = initializers.VarianceScaling(distribution=distribution)(shape)
        assert tuple(weights.shape) == tuple(shape)
        assert np.isfinite(array(weights)).all()


def test_the_default_dtype_is_floatx():
    keras.config.set_floatx("float16")
    try:
        assert keras.backend.standardize_dtype(initializers.HeNormal()((2, 2)).dtype) == "float16"
    finally:
        keras.config.set_floatx("float32")


def test_names_work_in_layers():
    for name in ("HeNormal", "Orthogonal", "Dirac"):
        layer = layers.Conv2D(4, 3, kernel_initializer=f"keras_initkit>{name}")
        layer.build((None, 4, 4, 4))
        assert isinstance(layer.kernel_initializer, getattr(initializers, name))
        assert array(layer.kernel).any()
        again = layers.Conv2D.from_config(layer.get_config())
        assert isinstance(again.kernel_initializer, getattr(initializers, name))
