"""On the backend that KERAS_BACKEND names, against NumPy in float64 and models of the layers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.callbacks import ActivationProbe
from keras_initkit.callbacks.activation_history import STATISTICS
from tensorboard_plugin_initkit.log.event_file import event_files, read_events
from tests.callbacks.measures.test_activations import assert_same, expected
from tests.callbacks.test_layer_listener import mlp

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def data(samples=32):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(samples, 8)).astype("float32")
    return x, rng.integers(0, 3, samples).astype("int32")


def fit(model, *callbacks, epochs=2):
    x, y = data()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["acc"])
    return model.fit(x, y, 8, epochs=epochs, verbose=0, callbacks=list(callbacks))


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
            row = {key: history[key][i, names.index(name)] for key in STATISTICS}
            assert_same(row, expected(ops.convert_to_numpy(output), activation))
    assert history["saturation"][0, 3] > 0.05
    assert len(history) == 3
    assert list(history) == list(dict(history)) == list(STATISTICS)
    assert "mean" in history
    assert "mean" not in ActivationProbe(x).history


@pytest.mark.usefixtures("usual_emitters")
def test_training_is_bit_for_bit_the_same():
    keras.config.set_dtype_policy("mixed_bfloat16")

    class Counting(layers.Layer):
        """A layer that has state, draws seeds and adds losses also in inference."""

        def __init__(self):
            super().__init__()
            self.calls = self.add_weight(shape=(), trainable=False, initializer="zeros")
            self.seed = keras.random.SeedGenerator(3)

        def call(self, x):
            self.calls.assign(self.calls + 1)
            self.add_loss(ops.cast(ops.mean(ops.square(x)), "float32"))
            noise = keras.random.normal(ops.shape(x), dtype=x.dtype, seed=self.seed)
            return x + ops.cast(self.calls, x.dtype) * noise

    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((8,)), *mlp().layers[:3], Counting(), *mlp().layers[3:]]
        )
        history = fit(model, *callbacks)
        noise = keras.random.normal((2,))  # of the global seed
        weights = model.get_weights() + [v.numpy() for v in model.optimizer.variables]
        return [*weights, ops.convert_to_numpy(noise), *history.history.values()]

    probe = ActivationProbe(data()[0])
    plain, with_probe = trained(), trained(probe)
    assert len(probe.history) == 3
    for a, b in zip(plain, with_probe, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_that_training_builds_is_first_recorded_after_an_epoch():
    model = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(3)])
    probe = ActivationProbe(data()[0])
    fit(model, probe)
    np.testing.assert_array_equal(probe.history.epochs[-2:], [1, 2])
    assert len(model.layers) == len(probe.history.layers) == 2


@pytest.mark.backends("torch")
def test_training_again_goes_on_and_the_log_is_the_history_of_a_copy_of_the_batch(tmp_path):
    x = data()[0]
    model, probe = mlp(), ActivationProbe(x, tmp_path)
    x[:] = np.nan
    fit(model, probe)
    fit(model, probe)  # compiled anew: the optimizer's steps start at 0
    history = probe.history
    np.testing.assert_array_equal(history.epochs, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(history.steps, [0, 4, 8, 8, 12, 16])
    np.testing.assert_array_equal(*history["variance"][2:4])
    assert history["nonfinite"].sum() == 0
    got = {
        (event.step, value.tag): value.simple_value
        for path in event_files(tmp_path / "activations")
        for event in read_events(path)
        for value in event.summary.value
    }
    want = {
        (step, f"activation_{name}/{layer}"): history[name][i, j]
        for i, step in enumerate(history.steps)
        for j, layer in enumerate(history.layers)
        for name in STATISTICS
        if not np.isnan(history[name][i, j])
    }
    assert got == pytest.approx(want)


@pytest.mark.backends("jax", "torch")
def test_what_fails_inside_is_one_warning():
    probe = ActivationProbe(data()[0][:, :3])
    message = "^ActivationProbe stops recording; training goes on. Reason: .*shape"
    with pytest.warns(UserWarning, match=message) as caught:
        history = fit(mlp(), probe)
    assert len([w for w in caught if "ActivationProbe" in str(w.message)]) == 1
    assert len(history.epoch) == 2
    assert len(probe.history) == 0


@pytest.mark.parametrize("batch", [None, 3.0, np.zeros((0, 8)), {}, iter([1]), [1.0, 2.0], "x"])
def test_batch_must_be_a_batch(batch):
    shape = r" of shape \(0, 8\)" if isinstance(batch, np.ndarray) else ""
    message = rf"`batch` must be what the model is called on.*batch=<\w+{shape}>\. Write "
    with pytest.raises(ValueError, match=message):
        ActivationProbe(batch)


def test_a_wrong_statistic_is_named():
    with pytest.raises(KeyError, match=r'must be one of "mean", .*Received: .*norm'):
        ActivationProbe(data()[0]).history["norm"]
