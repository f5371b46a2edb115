"""All that is trained is recorded: what the optimizers are given, however late it is built."""

import warnings

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import ActivationProbe, GradientMonitor
from tests.callbacks.training import BACKEND, BATCH, LOSS, STEPS, data, fit, label, layers, norms

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")
RATE = 0.1


class Given(keras.optimizers.SGD):
    """Notes the variables that it is given."""

    def apply(self, grads, trainable_variables=None):
        # Past Keras's tracking, which would take them for the optimizer's own.
        self.__dict__["given"] = list(trainable_variables or self._trainable_variables)
        super().apply(grads, trainable_variables)


def mlp(*units, name=None, built=True):
    inputs = [keras.Input((8,))] if built else []
    return keras.Sequential([*inputs, *(layers.Dense(n, "tanh") for n in units)], name=name)


def new_head_on_a_built_encoder():
    return keras.Sequential([layers.GaussianNoise(0.0), mlp(8, 8, name="encoder"), layers.Dense(4)])


def nothing_built():
    return keras.Sequential([mlp(8, 8, built=False), layers.Dense(4)])


class LateEncoder(keras.Model):
    """Its first layers are built by their first call, its last one at once."""

    def __init__(self):
        super().__init__()
        self.encoder = mlp(8, 8, name="encoder", built=False)
        self.head = keras.Sequential([keras.Input((8,)), layers.Dense(4)], name="head")

    def call(self, x):
        return self.head(self.encoder(x))


class Block(layers.Layer):
    """Has no `build`: its inner layers are built by the first call."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(8, "tanh")

    def call(self, x):
        return self.dense(x)


class Blocks(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Block(), Block()]
        self.head = mlp(4)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class OwnStep(keras.Model):
    """Makes updates in a step of its own; has no `call`."""

    def build(self, shape):
        for part in self.layers:
            part.build(shape)

    def train_step(self, batch):
        for optimizer, loss, variables in self.updates(batch[0]):
            self.update(optimizer, loss, variables)
        return {"loss": 0.5}

    def update(self, optimizer, loss, variables):
        if BACKEND == "torch":
            import torch

            gradients = torch.autograd.grad(loss(), [v.value for v in variables()])
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                value = loss()
            gradients = tape.gradient(value, [v.value for v in variables()])
        optimizer.apply(gradients, variables())


class LateWithoutCall(OwnStep):
    def __init__(self):
        super().__init__()
        self.encoder = mlp(8, 8, name="encoder", built=False)
        self.head = keras.Sequential([keras.Input((8,)), layers.Dense(4)], name="head")

    def updates(self, x):
        loss = lambda: keras.ops.mean(self.head(self.encoder(x)) ** 2)  # noqa: E731
        yield self.optimizer, loss, lambda: self.trainable_variables


class WithAverage(OwnStep):
    """Has a moving average of its network, which no optimizer is given."""

    def __init__(self):
        super().__init__()
        self.average, self.net = mlp(8, 4), mlp(8, 4)

    def updates(self, x):
        loss = lambda: keras.ops.mean(self.net(x) ** 2)  # noqa: E731
        yield self.optimizer, loss, lambda: self.net.trainable_variables
        for variable, average in zip(self.net.variables, self.average.variables, strict=True):
            average.assign(0.9 * average + 0.1 * variable)


class InTurn(OwnStep):
    """The second part is built, and its optimizer, when the first one has made its update."""

    def __init__(self):
        super().__init__()
        self.second, self.first = (mlp(8, 4, name=n, built=False) for n in ("second", "first"))

    def compile(self, optimizer):
        super().compile(optimizer)
        self.other = Given(RATE)

    def updates(self, x):
        for optimizer, part in ((self.optimizer, self.first), (self.other, self.second)):
            loss = lambda part=part: keras.ops.mean(part(x) ** 2)  # noqa: E731
            yield optimizer, loss, lambda part=part: part.trainable_variables


class Outside(OwnStep):
    """Trains a network that is no attribute of it."""

    def __init__(self):
        super().__init__()
        net = mlp(8, 4, name="outside")
        self.net = lambda: net

    def updates(self, x):
        loss = lambda: keras.ops.mean(self.net()(x) ** 2)  # noqa: E731
        yield self.optimizer, loss, lambda: self.net().trainable_variables


KERAS_STEP = [new_head_on_a_built_encoder, nothing_built, LateEncoder, Blocks]
OWN_STEP = [LateWithoutCall, WithAverage, InTurn]
if BACKEND == "tensorflow":  # elsewhere Keras builds the optimizer for attributes alone
    OWN_STEP.append(Outside)
WAYS: list[dict] = [{}, {}, {}, {}]
if BACKEND == "jax":
    WAYS[2] = {"steps_per_execution": 2}
if BACKEND == "tensorflow":
    WAYS = [{}, {"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True}]


def check(monitor, model, optimizers):
    """Train for two batches and for one, and compare with what the optimizers did."""
    x, y = data()
    model.fit(x[: 2 * BATCH], y[: 2 * BATCH], BATCH, verbose=0, callbacks=[monitor])
    given = [variable for optimizer in optimizers for variable in optimizer.given]
    order = {id(v): i for i, v in enumerate(model.trainable_variables)}
    given.sort(key=lambda v: order.get(id(v), 0))
    before = [keras.ops.convert_to_numpy(v) + 0.0 for v in given]
    model.fit(x[:BATCH], y[:BATCH], BATCH, verbose=0, callbacks=[monitor])
    after = list(map(keras.ops.convert_to_numpy, given))
    history = monitor.history
    np.testing.assert_array_equal(history.steps, [0, 1, 2])
    assert [v.shape for v in history.layout.variables] == [tuple(v.shape) for v in given]
    ends = [variable.path.rpartition("/")[2] for variable in given]
    assert [path.rpartition("/")[2] for path in history.variables] == ends
    assert np.isfinite(history.per_variable("norm")).all()
    want = norms([(a - b) / RATE for a, b in zip(before, after, strict=True)])
    np.testing.assert_allclose(history.per_variable("norm")[-1], want, rtol=1e-3, atol=1e-6)
    assert [f for f in monitor.findings if f.severity != "note"] == []


@pytest.mark.parametrize(("make", "way"), list(zip(KERAS_STEP, WAYS, strict=True)), ids=label)
def test_what_is_built_in_the_first_step_is_recorded(make, way):
    model, monitor = make(), GradientMonitor(every_n_steps=1)
    model.compile(Given(RATE), LOSS, **way)
    check(monitor, model, [model.optimizer])


@pytest.mark.backends("jax")  # the quickest with float8
def test_what_is_no_gradient_is_not_recorded():
    model, monitor = mlp(4, 4), GradientMonitor(every_n_steps=1)
    for layer in model.layers:
        layer.quantize("float8")  # whose scales are trainable, and overwritten with new ones
    model.compile("sgd", LOSS)
    fit(model, monitor)
    assert len(model.trainable_variables) == 16
    assert [path.rpartition("/")[2] for path in monitor.history.variables] == ["kernel", "bias"] * 2
    assert np.isfinite(monitor.history.per_variable("norm")).all()


@pytest.mark.newest
@pytest.mark.backends("tensorflow", "torch")
@pytest.mark.parametrize("make", OWN_STEP, ids=label)
def test_what_a_step_of_ones_own_trains_is_recorded(make):
    model, monitor = make(), GradientMonitor(every_n_steps=1)
    model.compile(Given(RATE))
    if BACKEND == "torch":  # where Keras asks for it
        model.build((None, 8))
    optimizers = [model.optimizer, *([model.other] if make is InTurn else [])]
    check(monitor, model, optimizers)


@pytest.mark.backends("torch")
@pytest.mark.parametrize(
    ("logs", "loss"),
    [
        (lambda model: {"loss": 0.5}, 0.5),
        (lambda model: {"loss": keras.ops.full((1,), 0.5)}, 0.5),
        (lambda model: {"loss": model.tracker.result()}, 0.5),
        (lambda model: {"loss": {"part": 0.5}}, np.nan),
        (lambda model: {"total": 0.5}, np.nan),
    ],
)
def test_the_loss_is_what_a_step_of_ones_own_returns(logs, loss):
    class Losses(LateWithoutCall):
        def __init__(self):
            super().__init__()
            self.tracker = keras.metrics.Mean(name="total_loss")

        @property
        def metrics(self):
            return [self.tracker]

        def train_step(self, batch):
            super().train_step(batch)
            self.tracker.update_state(0.5)
            return logs(self)

    model, monitor = Losses(), GradientMonitor(every_n_steps=1)
    model.compile("sgd", run_eagerly=True)
    model.build((None, 8))
    fit(model, monitor)
    np.testing.assert_array_equal(monitor.history["loss"][:, 0], np.full(STEPS, loss))


@pytest.mark.backends("torch")
def test_the_probe_calls_what_can_be_called_and_says_what_cannot():
    class Callable(LateWithoutCall):
        def call(self, x):
            return self.head(self.encoder(x))

    rows = []
    for make in (Callable, LateWithoutCall):
        model, probe = make(), ActivationProbe(data()[0])
        model.compile("sgd", run_eagerly=True)
        if BACKEND == "torch":
            model.build((None, 8))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            fit(model, probe, epochs=2)
        rows.append(len(probe.history))
        assert model.built == (BACKEND == "torch")
    assert rows == [2 + (BACKEND == "torch"), 0]
    assert sum("without `call`" in str(w.message) for w in said) == 1


IN_GRAPHS = pytest.param(False, marks=pytest.mark.backends("tensorflow"))
EAGERLY = pytest.param(True, marks=pytest.mark.backends("torch"))


def compile_again(model):
    model.compile(keras.optimizers.SGD(0.01), LOSS, run_eagerly=model.run_eagerly)
    model.make_train_function()


def replace_optimizer(model):
    model.optimizer = keras.optimizers.SGD(0.01)


def freeze(model):
    model.layers[0].trainable = False


@pytest.mark.backends("tensorflow")
def test_what_is_built_before_the_first_recorded_step_is_no_change():
    model, monitor = nothing_built(), GradientMonitor(every_n_steps=lambda step: step >= 2)
    model.compile("sgd", LOSS)
    fit(model, monitor)
    np.testing.assert_array_equal(monitor.history.steps, np.arange(2, STEPS))
    assert len(monitor.history.variables) == 6
    # Frozen between two trainings, and not compiled again: the traced step still trains it.
    freeze(model)
    with pytest.warns(UserWarning, match="changed since then: .*dense"):
        fit(model, GradientMonitor(every_n_steps=1))


@pytest.mark.newest
@pytest.mark.parametrize("eager", [IN_GRAPHS, EAGERLY])
@pytest.mark.parametrize("change", [compile_again, replace_optimizer, freeze], ids=label)
def test_a_change_during_training_is_recorded_or_said_and_changes_nothing(change, eager):
    class Change(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                change(self.model)

    def train(*monitors):
        keras.utils.set_random_seed(0)
        model = mlp(8, 4)
        model.compile(keras.optimizers.SGD(RATE), LOSS, run_eagerly=eager)
        fit(model, Change(), *monitors, epochs=2)
        return np.concatenate([weight.ravel() for weight in model.get_weights()])

    plain = train()
    monitor = GradientMonitor(every_n_steps=1)
    np.testing.assert_array_equal(train(monitor), plain)
    np.testing.assert_array_equal(monitor.history.steps, np.arange(2 * STEPS))
    acts = eager or change is compile_again  # a traced step stays what it was
    late = 0.01 if acts and change is not freeze else RATE
    rates = np.repeat([RATE, late], STEPS)
    np.testing.assert_allclose(monitor.history["learning_rate"][:, 0], rates, rtol=1e-6)
    assert np.isnan(monitor.history["norm"][STEPS:, 0]).all() == (change is freeze and eager)
    # Here the recorded step would be traced after the change, the others were before.
    later = GradientMonitor(every_n_steps=lambda step: step >= STEPS)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(train(later), plain)
    named = "optimizer" if change is replace_optimizer else "dense"
    told = sum(f"changed since then: {named}" in str(w.message) for w in said)
    assert told == (not acts)
