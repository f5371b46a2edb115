"""On the backend that KERAS_BACKEND names, against NumPy in float64 and models of the layers."""

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.callbacks import ActivationProbe, GradientMonitor
from keras_initkit.callbacks.measures.activations import activation_statistics
from tensorboard_plugin_initkit.log.event_file import event_files, read_events
from tests.callbacks.training import two_devices

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

BACKEND = keras.backend.backend()
STATISTICS = ("mean", "variance", "zeros", "dead_units", "saturation", "nonfinite")


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


def probed(model, batch=None, **probe_args):
    """The last row of a probe during a training, a dictionary for each layer."""
    batch = data()[0] if batch is None else batch
    probe = ActivationProbe(batch, **probe_args)
    fit(model, probe, epochs=1, x=batch)
    return rows(probe.history)


def rows(history, row=-1):
    return {
        layer: {name: history[name][row, i] for name in STATISTICS}
        for i, layer in enumerate(history.layers)
    }


def expected(outputs, activation=None, axis=-1):
    y = np.asarray(outputs, np.float64)
    others = tuple(i for i in range(y.ndim) if i != axis % y.ndim)
    slopes: dict[str, Any] = {
        "tanh": lambda: 1 - y**2,
        "sigmoid": lambda: 4 * y * (1 - y),
        "softsign": lambda: (1 - abs(y)) ** 2,
        "hard_tanh": lambda: abs(y) < 1,
        "hard_sigmoid": lambda: (y > 0) & (y < 1),
        "relu6": lambda: (y > 0) & (y < 6),
    }
    return {
        "mean": y.mean(),
        "variance": y.var(),
        "zeros": (y == 0).mean(),
        "dead_units": (y == 0).all(axis=others).mean(),
        "saturation": (slopes[activation]() < 0.01).mean() if activation else np.nan,
        "nonfinite": (~np.isfinite(y)).sum(),
    }


def assert_same(got, want, rtol=1e-4):
    for name in STATISTICS:
        np.testing.assert_allclose(got[name], want[name], rtol, atol=1e-6, err_msg=name)


def measure(outputs, *args):
    statistics = activation_statistics(outputs, *args)._asdict()
    values = {name: float(ops.convert_to_numpy(value)) for name, value in statistics.items()}
    return values | {"variance": values["std"] ** 2}


# --- The statistics


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(40,), (40, 5), (4, 3, 3, 5)])
def test_every_statistic_in_every_precision(rng, dtype, shape):
    y = np.maximum(rng.normal(300, 400, shape), 0)  # squares exceed float16
    y[..., :2] = 0
    y = ops.cast(y, dtype)
    want = ops.convert_to_numpy(ops.cast(y, "float32"))
    assert_same(measure(y), expected(want), 1e-5)
    assert_same(measure(y, None, 0), expected(want, axis=0), 1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_neither_vanishing_nor_exploding_outputs_lose_their_deviation(rng, scale):
    y = (rng.normal(1, 1, (50, 4)) * scale).astype("float32")
    got, y = measure(ops.convert_to_tensor(y)), y.astype("float64")
    np.testing.assert_allclose([got["mean"], got["std"]], [y.mean(), y.std()], rtol=1e-5)


def test_a_large_mean_hides_no_deviation(rng):
    y = rng.normal(1000, 0.1, (500, 4)).astype("float32")
    got = measure(ops.convert_to_tensor(y))
    np.testing.assert_allclose(got["std"], y.astype("float64").std(), rtol=1e-3)


def test_nonfinite_outputs_are_counted():
    y = ops.convert_to_tensor(np.array([[np.nan, 0], [1, np.inf]], "float32"))
    got = measure(y, "tanh")
    assert (got["nonfinite"], got["zeros"]) == (2, 0.25)
    assert not np.isfinite(got["mean"])
    assert np.isnan(got["variance"])


@pytest.mark.parametrize(
    "activation", ["tanh", "sigmoid", "softsign", "hard_tanh", "hard_sigmoid", "relu6"]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saturation_is_where_the_slope_is_gone(activation, dtype):
    x = ops.cast(np.linspace(-20, 20, 4001), dtype)
    y = keras.activations.get(activation)(x)
    want = expected(ops.convert_to_numpy(ops.cast(y, "float32")), activation)["saturation"]
    assert want > 0.4
    np.testing.assert_allclose(measure(y, activation)["saturation"], want, atol=1e-3)


def test_saturation_of_tanh_and_sigmoid_by_their_inputs():
    x = ops.convert_to_tensor(np.linspace(-10, 10, 20001).astype("float32"))
    for activation, edge in (("tanh", 2.993), ("sigmoid", 5.986)):
        got = measure(keras.activations.get(activation)(x), activation)["saturation"]
        np.testing.assert_allclose(got, 1 - edge / 10, atol=2e-4)


def test_outputs_beyond_an_activations_bounds_are_not_its_values():
    y = ops.convert_to_tensor(np.array([[0.5, 1.5]], "float32"))
    for activation in ("tanh", "sigmoid", "relu", "softmax", None):
        assert np.isnan(measure(y, activation)["saturation"])
    assert measure(y, "relu6")["saturation"] == 0


# --- The probe


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


def test_a_probe_leaves_no_trace_on_the_model():
    model = mlp()
    probed(model)
    assert all("call" not in vars(layer) for layer in model._flatten_layers())


def functional():
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((4,), name="right")}
    inner = keras.Sequential([layers.Dense(5, name="deep"), layers.ReLU(name="relu")], name="inner")
    outer = layers.Dense(5, "tanh", name="shared")
    left, right = outer(inputs["left"]), outer(inputs["right"])
    summed = layers.Add(name="add")([left, right])
    return keras.Model(inputs, layers.Dense(3, name="head")(inner(summed)), name="two")


def test_functional_model_with_shared_layers_and_a_nested_model():
    model = functional()
    x, _ = data()
    batch = {"left": x[:, :4], "right": x[:, 4:]}
    got = probed(model, batch)
    assert list(got) == ["shared", "shared#2", "add", "inner/deep", "inner/relu", "inner", "head"]
    shared, summed = model.get_layer("shared"), model.get_layer("add").output
    calls = [node.output_tensors[0] for node in shared._inbound_nodes]
    want = keras.Model(model.input, [*calls, summed, model.output])(batch, training=False)
    for name, output, activation in zip(
        ["shared", "shared#2", "add", "head"], want, ["tanh", "tanh", None, None], strict=True
    ):
        assert_same(got[name], expected(ops.convert_to_numpy(output), activation))
    assert got["inner"] == pytest.approx(got["inner/relu"], nan_ok=True)


class Subclassed(keras.Model):
    """Without an argument `training`."""

    def __init__(self):
        super().__init__(name="sub")
        self.blocks = [layers.Dense(8, "relu", name="same") for _ in range(2)]
        self.head = {"out": keras.Sequential([layers.Dense(3)], name="head")}
        self.several = layers.Identity()

    def call(self, inputs):
        a, b = inputs
        x = ops.concatenate([a, b], axis=-1)
        for block in self.blocks:
            x = block(x)
        self.several([x, x])
        return self.head["out"](x)


def test_subclassed_model_on_a_tuple():
    x, _ = data()
    got = probed(Subclassed(), (x[:, :4], x[:, 4:]))
    assert list(got) == ["same", "same#2", "head/dense", "head"]


def test_recurrent_and_convolutional_layers():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Reshape((8, 1)),
            layers.Conv1D(4, 3, activation="relu", bias_initializer="ones"),
            layers.TimeDistributed(layers.Dense(3), name="timed"),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both"),
            layers.SimpleRNN(4, return_sequences=True, name="simple"),
            layers.GRU(3, name="gated"),
        ],
        name="rnn",
    )
    got = probed(model)
    for name in ("reshape", "conv1d", "timed", "both", "simple", "gated"):
        assert got[name]["variance"] > 0
    assert got["simple"]["saturation"] == 0
    assert np.isnan(got["gated"]["saturation"])
    calls = [path for path in got if re.search(r"timed/dense(#\d)?$", path)]
    assert len(calls) == 4  # of six time steps


def test_channels_first_and_last_have_the_same_dead_units():
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 5)))
    y = ops.where(ops.reshape(ops.arange(3), (1, 3, 1, 1)) == 1, 0.0, x)
    np.testing.assert_allclose(measure(y, None, 1)["dead_units"], 1 / 3)
    np.testing.assert_allclose(measure(y, None, -1)["dead_units"], 0)


@pytest.mark.parametrize("make", [mlp, functional, Subclassed])
def test_layers_are_named_as_a_gradient_monitor_names_them(make):
    x, _ = data()
    batch = {mlp: x, functional: {"left": x[:, :4], "right": x[:, 4:]}}.get(make)
    batch = (x[:, :4], x[:, 4:]) if batch is None else batch
    probe, monitor = ActivationProbe(batch), GradientMonitor()
    fit(make(), probe, monitor, epochs=1, x=batch)
    assert monitor.history.layers
    assert set(monitor.history.layers) <= set(probe.history.layers)


def test_layers_are_selected():
    assert list(probed(mlp(), layers="last")) == ["last"]
    assert list(probed(mlp(), layers=re.compile("normal"))) == ["normalized"]


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


def test_a_copy_of_the_batch_is_kept():
    x = data()[0]
    probe = ActivationProbe(x)
    x[:] = np.nan
    fit(mlp(), probe)
    assert probe.history["nonfinite"].sum() == 0


def test_the_log_is_the_history(tmp_path):
    probe = ActivationProbe(data()[0], tmp_path)
    fit(mlp(), probe)
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


def test_what_fails_inside_is_one_warning():
    probe = ActivationProbe(data()[0][:, :5])
    with pytest.warns(UserWarning, match="ActivationProbe") as caught:
        history = fit(mlp(), probe, epochs=3)
    [message] = [str(w.message) for w in caught if "ActivationProbe" in str(w.message)]
    assert message.startswith("ActivationProbe stops recording, training goes on. Reason: ")
    assert len(history.epoch) == 3
    assert len(probe.history) == 0


def test_a_log_that_cannot_be_written_is_one_warning(tmp_path):
    probe = ActivationProbe(data()[0], tmp_path / "runs")
    (tmp_path / "runs").write_text("in the way")
    with pytest.warns(UserWarning, match="can no longer write") as caught:
        fit(mlp(), probe, epochs=3)
    assert len([w for w in caught if "ActivationProbe" in str(w.message)]) == 1
    assert len(probe.history) == 4


def test_a_selection_of_nothing_is_one_warning():
    probe = ActivationProbe(data()[0], layers="nowhere")
    with pytest.warns(UserWarning, match="`layers` must select a layer .*layers='nowhere'"):
        fit(mlp(), probe)


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


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")
def test_mirrored_variables():
    with two_devices().scope():
        model = mlp()
        got = probed(model)
    x = data()[0]
    want = expected(ops.convert_to_numpy(model(x, training=False)))
    assert_same(got["last"], want)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function")
def test_a_layer_that_compiles_itself_is_left_out_inside():
    import tensorflow as tf

    class Compiled(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(4)

        def build(self, shape):
            self.inner.build(shape)

        @tf.function
        def call(self, x):
            return self.inner(x)

    model = keras.Sequential(
        [keras.Input((8,)), Compiled(), layers.Dense(3, name="last")], name="m"
    )
    assert list(probed(model)) == ["compiled", "last"]
