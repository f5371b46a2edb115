import keras
import numpy as np
import pytest

from keras_initkit.statistics.batch import MEASURED_OF_PORTS, Profile, measure_port
from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS
from tensorboard_plugin_initkit.record.port_statistics import TARGET_STATISTICS, TargetStatistics

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def measure(array):
    numbers = keras.ops.convert_to_numpy(measure_port(keras.ops.convert_to_tensor(array)))
    return dict(zip(PORT_STATISTICS, numbers, strict=False))


def targets_of(batches, prediction):
    statistics, profile = TargetStatistics(), Profile.of(batches[0].shape, prediction)
    assert profile is not None
    for batch in batches:
        tensor = profile.measure(keras.ops.convert_to_tensor(batch))
        found = statistics.add(profile.read(keras.ops.convert_to_numpy(tensor)))
    return dict(zip(TARGET_STATISTICS, found, strict=True))


def test_the_names_of_the_statistics_are_in_the_order_of_both():
    assert PORT_STATISTICS[MEASURED_OF_PORTS:] == TARGET_STATISTICS


def test_a_batch_is_measured_as_numpy_measures_it(rng):
    array = (1e3 + rng.normal(size=(16, 5, 3)) * [1, 10, 0]).astype(np.float32)
    found, double = measure(array), array.astype(np.float64)
    expected = {
        "mean": double.mean(),
        "std": double.std(),
        "min": double.min(),
        "max": double.max(),
        "nonfinite": 0,
        "batch_std": np.sqrt(np.mean(double.var(axis=0))),
        "low_std": 0,
        "high_std": double.std(axis=(0, 1)).max(),
        "integers": np.mean(double == np.floor(double)),
        "one_hot": 0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-3), name


@pytest.mark.parametrize("value", [0.1, 1e6 / 7, -3e-9])
def test_a_constant_feature_has_no_deviation(rng, value):
    array = np.stack([np.full(37, value), rng.normal(size=37)], axis=1).astype(np.float32)
    assert measure(array)["low_std"] == 0
    assert measure(array[:, :1])["high_std"] == 0


def test_of_large_samples_positions_at_equal_distances_are_measured(rng):
    array = rng.normal(size=(4, 1 << 10, 1 << 9)).astype(np.float32)  # four times as large
    assert measure(array) == measure(array[:, ::4])
    image = array.reshape(4, 32, 32, 1 << 9)
    assert measure(image) == measure(array)


def test_numbers_that_are_not_finite_are_counted_and_left_out():
    found = measure(np.array([[1, np.nan], [3, np.inf]], np.float32))
    assert (found["nonfinite"], found["mean"], found["min"], found["max"]) == (2, 2, 1, 3)
    assert found["std"] == 1


@pytest.mark.parametrize(
    ("array", "integers", "one_hot"),
    [
        (np.array([0, 2, 1]), 1, np.nan),
        (np.array([True, False]), 1, np.nan),
        (np.array([[0.5], [1.0]]), 0.5, np.nan),
        (np.eye(4), 1, 1),
        (np.array([[0.0, 1], [1, 1], [0, 0], [0.5, 0.5]]), 0.75, 0.25),
    ],
)
def test_forms_of_labels_are_told_apart(array, integers, one_hot):
    found = measure(array)
    np.testing.assert_array_equal([found["integers"], found["one_hot"]], [integers, one_hot])


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("array", [np.eye(4), [[0.0, 2.0], [1.0, 0.0]], [[1.0], [0.0]]])
def test_samples_of_a_length_that_a_graph_does_not_know_are_measured_alike(array):
    import tensorflow as tf

    spec = tf.TensorSpec((None, None), tf.float32)
    traced = tf.function(measure_port, input_signature=[spec])
    tensor = tf.constant(array, tf.float32)
    np.testing.assert_allclose(traced(tensor), measure_port(tensor), rtol=1e-6)


def test_of_classes_the_entropy_is_that_of_all_batches():
    found = targets_of([np.array([0, 0, 1, 0]), np.array([[1], [1], [3], [9]])], (None, 4))
    shares = np.array([3, 3, 1]) / 7  # class 9 is none of four, and class 2 has not come
    assert found["entropy"] == pytest.approx(-np.sum(shares * np.log(shares)), rel=1e-5)
    assert found["classes"] == 3


def test_of_features_there_are_variance_and_entropies_of_all_batches(rng):
    batches = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (4, 8))]
    whole = batches.reshape(-1, 3)
    found, mean = targets_of(batches, (None, 3)), whole.mean(axis=0)
    assert found["variance"] == pytest.approx(whole.var(axis=0).mean(), rel=1e-5)
    assert found["entropy"] == pytest.approx(-np.sum(mean * np.log(mean)), rel=1e-5)
    binary = -np.mean(mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
    assert found["binary_entropy"] == pytest.approx(binary, rel=1e-5)
    assert found["classes"] == 3
    far = targets_of([1e4 + rng.normal(size=(8, 1)) for _ in range(3)], (None, 1))
    assert 0.3 < far["variance"] < 2
    assert np.isnan([far["entropy"], far["binary_entropy"], far["classes"]]).all()


@pytest.mark.parametrize(
    ("target", "prediction", "profile"),
    [
        ((None,), (None, 10), (10, True)),
        ((None, 1), (None, 10), (10, True)),
        ((None, 7), (None, 7, 10), (10, True)),
        ((None, 10), (None, 10), (10, False)),
        ((None,), (None, 1), (1, False)),
        ((None, 1), (None, 1), (1, False)),
        ((None,), (None, 1000), None),
        ((None, 784), (None, 784), (784, False)),
        ((None, 5000), (None, 5000), None),
        ((None, None), (None, None), None),
    ],
)
def test_targets_are_classes_where_predictions_have_an_axis_more(target, prediction, profile):
    assert Profile.of(target, prediction) == (profile and Profile(*profile))


def test_targets_count_by_the_weights_of_their_samples(rng):
    y, weight = rng.integers(0, 3, 20), np.append(np.zeros(5), rng.integers(1, 4, 15))
    for prediction in ((20, 4), (20, 1)):
        profile = Profile.of((20,), prediction)
        assert profile is not None
        some, all_of_these = (
            keras.ops.convert_to_numpy(profile.measure(keras.ops.convert_to_tensor(a), b))
            for a, b in (
                (y, keras.ops.convert_to_tensor(weight)),
                (np.repeat(y, weight.astype(int)), None),
            )
        )
        np.testing.assert_allclose(some, all_of_these, rtol=1e-6)
