"""Keras's contract, for every initializer: calls, dtypes, seeds, configs and saved models."""

import inspect
import json
import subprocess
import sys
import textwrap

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


def own_activation(x):
    return keras.ops.sin(3.0 * x)


@pytest.mark.backends("tensorflow")
def test_a_saved_model_loads_in_a_fresh_process_that_computes_nothing_before(tmp_path):
    square = [
        type(initializer).from_config(initializer.get_config())
        for initializer, shape in EACH
        if len(shape) == 2 and "Bias" not in type(initializer).__name__
    ]
    own = [initializers.HeNormal(3, gain=own_activation), initializers.Orthogonal(own_activation)]
    model = keras.Sequential([keras.Input((6,))])
    for initializer in square + own:
        model.add(layers.Dense(6, kernel_initializer=initializer))
    model.save(tmp_path / "model.keras")
    inputs = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    np.savez(tmp_path / "arrays.npz", inputs=inputs, outputs=array(model(inputs)))
    configs = [layer.kernel_initializer.get_config() for layer in model.layers]
    code = f"""
        import json, os
        import keras
        import numpy as np

        calls, convert = [], keras.ops.convert_to_tensor
        keras.ops.convert_to_tensor = lambda *args, **kwargs: calls.append(args)
        import keras_initkit
        keras.ops.convert_to_tensor = convert
        assert not calls, "an import computes nothing"
        os.chdir({str(tmp_path)!r})
        model = keras.saving.load_model("model.keras")
        arrays = np.load("arrays.npz")
        np.testing.assert_allclose(model(arrays["inputs"]), arrays["outputs"], rtol=1e-4)
        print(json.dumps([layer.kernel_initializer.get_config() for layer in model.layers]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == configs
