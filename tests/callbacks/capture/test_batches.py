"""The batches of recorded steps, on the backend that KERAS_BACKEND names."""

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.record.layout import Port
from tests.callbacks.training import BACKEND, BATCH, STEPS, compiled, data, fit, layers, mlp

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

WAYS: list[dict[str, object]] = [{}]
if BACKEND == "tensorflow":
    WAYS = [{"run_eagerly": True}, {"jit_compile": True, "steps_per_execution": 3}]


def recorded_predictions(model):
    """Train beside a model that predicts each batch before it is trained on it."""
    x, y = data()
    for start in range(0, len(x), BATCH):
        batch = slice(start, start + BATCH)
        yield keras.ops.convert_to_numpy(model(x[batch], training=True))
        model.train_on_batch(x[batch], y[batch])


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_inputs_targets_and_predictions_are_measured(way):
    fit(compiled(mlp, **way), monitor := GradientMonitor(every_n_steps=1))
    history, (x, y) = monitor.history, data()
    assert history.ports == (
        Port("x", "", (8,), "float32"),
        Port("y", "", (), history.ports[1].dtype),
        Port("y_pred", "", (4,), "float32"),
    )
    outputs = list(recorded_predictions(compiled(mlp)))
    for name in ("min", "max", "mean", "std"):
        parts = zip(x.reshape(STEPS, BATCH, 8), y.reshape(STEPS, BATCH), outputs, strict=True)
        expected = [[getattr(np, name)(part) for part in step] for step in parts]
        np.testing.assert_allclose(
            history.per_port(name), expected, rtol=1e-4, atol=1e-6, err_msg=name
        )
    shares = np.bincount(y) / len(y)
    entropy = -np.sum(shares * np.log(shares))
    assert history.per_port("entropy")[-1, 1] == pytest.approx(entropy, rel=1e-5)
    assert (history["penalty"] == 0).all()


def test_ports_have_the_names_of_several_inputs_outputs_and_weights():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    both = layers.Concatenate()([a, b])
    outputs = {"one": layers.Dense(1, name="one")(both), "two": layers.Dense(2, name="two")(both)}
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile("sgd", {"one": "mse", "two": "mse"})
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(8, 3)), "b": rng.normal(size=(8, 2))}
    y = {"one": rng.normal(size=(8, 1)), "two": rng.normal(size=(8, 2))}
    weights = {"one": np.ones(8), "two": np.full(8, 0.5)}
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(x, y, 4, sample_weight=weights, verbose=0, callbacks=[monitor])
    names = [(port.role, port.name) for port in monitor.history.ports]
    assert names == [
        *[("x", "a"), ("x", "b"), ("y", "one"), ("y", "two")],
        *[("y_pred", "one"), ("y_pred", "two")],
        *[("sample_weight", "one"), ("sample_weight", "two")],
    ]
    np.testing.assert_array_equal(monitor.history.per_port("max")[:, -2:], [[1, 0.5], [1, 0.5]])


@pytest.mark.backends("tensorflow")
def test_texts_padded_to_the_longest_of_their_batch_are_recorded():
    import tensorflow as tf

    words = [np.arange(1, 2 + i) for i in range(8)]
    spec = tf.TensorSpec((None,), tf.int64)
    texts = tf.data.Dataset.from_generator(lambda: iter(words), output_signature=spec)
    model = keras.Sequential(
        [layers.Embedding(9, 3), layers.GlobalAveragePooling1D(), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    monitor = GradientMonitor(every_n_steps=1)
    pairs = texts.map(lambda text: (text, 1.0)).padded_batch(4)
    model.fit(
        pairs.apply(tf.data.experimental.assert_cardinality(2)),
        verbose=0,
        shuffle=False,
        callbacks=[monitor],
    )
    assert monitor.history.ports[0] == Port("x", "", (0,), "int64")
    np.testing.assert_array_equal(monitor.history.per_port("max")[:, 0], [4, 8])


def test_the_penalty_is_the_part_of_the_loss_that_is_of_weights():
    def penalized():
        return keras.Sequential(
            [keras.Input((8,)), layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.5))]
        )

    model = compiled(penalized)
    kernel = keras.ops.convert_to_numpy(model.weights[0].value)
    fit(model, monitor := GradientMonitor(every_n_steps=1))
    history = monitor.history
    assert history["penalty"][0, 0] == pytest.approx(0.5 * np.sum(kernel**2), rel=1e-5)
    assert history["batch_loss"][0, 0] == pytest.approx(history["loss"][0, 0], rel=1e-5)


class OwnStep(keras.Model):
    """A model that computes its loss by itself: what it is computed of is not known."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y_pred - 1.0))


def test_a_loss_of_the_users_own_is_heard_as_well_and_text_is_left_out():
    model = OwnStep()
    model.compile("sgd")
    monitor = GradientMonitor(every_n_steps=1)
    model.fit(np.ones((8, 3), np.float32), None, 4, verbose=0, callbacks=[monitor])
    assert [port.role for port in monitor.history.ports] == ["x", "y_pred"]


@pytest.mark.newest
def test_of_samples_with_weights_the_classes_that_count_are_known():
    monitor = GradientMonitor(every_n_steps=1, ignore=("rare_classes",))
    weights = {0: 0.0, 1: 2.0, 2: 1.0, 3: 1.0}
    compiled(mlp).fit(*data(), class_weight=weights, verbose=0, callbacks=[monitor])
    classes = monitor.history.per_port("classes")[-1]
    names = [port.role for port in monitor.history.ports]
    assert classes[names.index("y")] - classes[names.index("sample_weight")] == 1
