"""On the backend that KERAS_BACKEND names, against NumPy in float64 and models of the layers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.callbacks import ActivationProbe
from keras_initkit.callbacks.activation_history import STATISTICS
from tensorboard_plugin_initkit.log.event_file import event_files, read_events
from tests.callbacks.measures.test_activations import assert_same, expected

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def data(samples=32):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(samples, 8)).astype("float32")
    return x, rng.integers(0, 3, samples).astype("int32")


def mlp():
    # Path of a layer without weights, and of those with them, in a Sequential model.
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", name="first"),
            layers.Dropout(0.5),
            layers.BatchNormalization(name="normalized"),
            layers.Dense(6, "tanh", kernel_initializer=keras.initializers.RandomNormal(2.0)),
            layers.Dense(3, name="last"),
        ],
        name="mlp",
    )


def fit(model, *callbacks, epochs=2, x=None, y=None, loss=None):
    inputs, labels = data()
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["mae"] if loss == "mse" else ["acc"])
    x, y = inputs if x is None else x, labels if y is None else y
    return model.fit(x, y, 8, epochs=epochs, verbose=0, callbacks=list(callbacks))


def rows(history, row=-1):
    return {
        layer: {name: history[name][row, i] for name in STATISTICS}
        for i, layer in enumerate(history.layers)
    }


def test_a_tiny_network_by_hand():
    model = keras.Sequential(
        [layers.Dense(3, "relu", name="a"), layers.Dense(2, "sigmoid", name="b")], name="m"
    )
    model.build((None, 2))
    kernel, bias = np.array([[1, 0, 2], [0, -1, 3]]), np.array([0.0, -9, 1])
    model.layers[0].set_weights([kernel, bias])
    model.layers[1].set_weights([np.full((3, 2), 4.0), np.array([0.0, -8])])
    x = np.array([[1, 2], [-3, 1]], "float32")
    probe = ActivationProbe(x)
    fit(model, probe, x=x, y=np.zeros((2, 2)), epochs=1, loss="mse")
    a = np.maximum(x @ kernel + bias, 0)  # the second unit is dead
    b = 1 / (1 + np.exp(-(a @ np.full((3, 2), 4.0) + [0, -8])))
    assert probe.history.layers == ["a", "b"]
    np.testing.assert_array_equal(probe.history.epochs, [0, 1])
    first = rows(probe.history, 0)
    assert_same(first["a"], expected(a))
    assert_same(first["b"], expected(b, "sigmoid"))
    np.testing.assert_allclose(first["a"]["dead_units"], 1 / 3)


def test_rows_are_those_of_the_model_at_that_time():
    x = data()[0]
    seen = []

    class Reference(keras.callbacks.Callback):
        def measure(self):
            outputs = [layer.output for layer in self.model.layers]
            seen.append(keras.Model(self.model.inputs[0], outputs)(x, training=False))

        def on_train_begin(self, logs=None):
            self.measure()

        def on_epoch_end(self, epoch, logs=None):
            self.measure()

    model, probe = mlp(), ActivationProbe(x)
    fit(model, Reference(), probe, epochs=2)
    history = probe.history
    np.testing.assert_array_equal(history.epochs, [0, 1, 2])
    np.testing.assert_array_equal(history.steps, [0, 4, 8])
    names = ["first", "dropout", "normalized", "dense", "last"]
    assert history.layers == names
    for i, outputs in enumerate(seen):
        for name, output in zip(names, outputs, strict=True):
            activation = "tanh" if name == "dense" else None
            want = expected(ops.convert_to_numpy(output), activation)
            assert_same(rows(history, i)[name], want)
    assert history["saturation"][0, 3] > 0.05
    assert len(history) == 3


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_training_is_bit_for_bit_the_same(policy):
    class Counting(layers.Layer):
        """A layer that has state, draws seeds and adds losses also in inference."""

        def __init__(self):
            super().__init__()
            self.calls = self.add_weight(shape=(), trainable=False, initializer="zeros")
            self.seed = keras.random.SeedGenerator(3)

        def call(self, x):
            self.calls.assign(self.calls + 1)
            self.add_loss(ops.cast(ops.mean(ops.square(x)), "float32"))
            noise = keras.random.normal(ops.shape(x), seed=self.seed)
            return x + ops.cast(noise, x.dtype) * ops.cast(self.calls, x.dtype)

    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(policy)
        model = keras.Sequential(
            [keras.Input((8,)), *mlp().layers[:3], Counting(), *mlp().layers[3:]]
        )
        history = fit(model, *callbacks, epochs=3)
        noise = keras.random.normal((2,))  # of the global seed
        weights = model.get_weights() + [v.numpy() for v in model.optimizer.variables]
        return [*weights, ops.convert_to_numpy(noise), *history.history.values()]

    probe = ActivationProbe(data()[0])
    plain, with_probe = trained(), trained(probe)
    assert len(probe.history) == 4
    for a, b in zip(plain, with_probe, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_again_goes_on_with_the_steps():
    model, probe = mlp(), ActivationProbe(data()[0])
    fit(model, probe)
    fit(model, probe)  # compiled anew: the optimizer's steps start at 0
    np.testing.assert_array_equal(probe.history.epochs, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(probe.history.steps, [0, 4, 8, 8, 12, 16])
    before_and_after = probe.history["variance"][2:4]
    np.testing.assert_array_equal(*before_and_after)


def test_a_model_that_training_builds_is_first_recorded_after_an_epoch():
    model = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(3)])
    probe = ActivationProbe(data()[0])
    fit(model, probe)
    np.testing.assert_array_equal(probe.history.epochs[-2:], [1, 2])
    assert len(model.layers) == len(probe.history.layers) == 2


def test_the_log_is_the_history_of_a_copy_of_the_batch(tmp_path):
    x = data()[0]
    probe = ActivationProbe(x, tmp_path)
    x[:] = np.nan
    fit(mlp(), probe)
    assert probe.history["nonfinite"].sum() == 0
    [path] = event_files(tmp_path / "activations")
    got = {
        (event.step, value.tag): value.simple_value
        for event in read_events(path)
        for value in event.summary.value
    }
    history = probe.history
    want = {
        (step, f"activations/{layer}/{name}"): history[name][i, j]
        for i, step in enumerate(history.steps)
        for j, layer in enumerate(history.layers)
        for name in STATISTICS
        if not np.isnan(history[name][i, j])
    }
    assert got == pytest.approx(want)


@pytest.mark.parametrize(
    ("batch", "selector", "reason"),
    [(data()[0][:, :5], None, ""), (data()[0], "nowhere", r".*`layers` must .*layers='nowhere'")],
)
def test_what_fails_inside_is_one_warning(batch, selector, reason):
    probe = ActivationProbe(batch, layers=selector)
    message = f"^ActivationProbe stops recording, training goes on. Reason: {reason}"
    with pytest.warns(UserWarning, match=message) as caught:
        history = fit(mlp(), probe, epochs=2)
    assert len([w for w in caught if "ActivationProbe" in str(w.message)]) == 1
    assert len(history.epoch) == 2
    assert len(probe.history) == 0


@pytest.mark.parametrize("batch", [None, 3.0, np.zeros((0, 8)), {}, iter([1]), [1.0, 2.0], "x"])
def test_batch_must_be_a_batch(batch):
    with pytest.raises(ValueError, match=r"`batch` must be what the model is called on.*Write "):
        ActivationProbe(batch)


def test_the_message_names_the_shape():
    with pytest.raises(ValueError, match=r"Received: batch=<ndarray of shape \(0, 8\)>"):
        ActivationProbe(np.zeros((0, 8)))


def test_a_wrong_statistic_is_named():
    with pytest.raises(KeyError, match=r'must be one of "mean", .*Received: .*norm'):
        ActivationProbe(data()[0]).history["norm"]
