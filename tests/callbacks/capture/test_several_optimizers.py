"""Models with several optimizers, on the backend that KERAS_BACKEND names."""

import functools

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from tests.callbacks.training import BATCH, LOSS, STEPS, data, layers, norms

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def mlp():
    keras.utils.set_random_seed(0)
    body = [layers.Dense(8, "tanh", name=f"body_{i}") for i in range(2)]
    return keras.Sequential([keras.Input((8,)), *body, layers.Dense(4, name="head")], name="mlp")


def recorded(optimizer, **compile_args):
    model, monitor = mlp(), GradientMonitor(every_n_steps=1)
    model.compile(optimizer, LOSS, **compile_args)
    model.fit(*data(), BATCH, shuffle=False, verbose=0, callbacks=[monitor])
    return monitor.history


def body_and_head(body, head):
    def choose(variable):
        return head if "head" in variable.path else body

    return keras.optimizers.MultiOptimizer(choose)


@functools.cache
def one_optimizer():
    return recorded(keras.optimizers.SGD(0.1))


needs_multi_optimizer = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras before 3.14 has none"
)


@needs_multi_optimizer
def test_optimizers_inside_a_multi_optimizer():
    # With equal settings they do what one does, which other tests compare with autodiff.
    one = one_optimizer()
    body, head = (keras.optimizers.SGD(0.1, name=name) for name in ("slow", "fast"))
    history = recorded(body_and_head(body, head))
    np.testing.assert_array_equal(history.steps, np.arange(STEPS))
    assert history.optimizers == ["slow", "fast"]
    assert history.layers == [*(f"slow/body_{i}" for i in range(2)), "fast/head"]
    for statistic in ("norm", "mean_abs", "max_abs", "weight_norm", "update_ratio"):
        np.testing.assert_allclose(history[statistic], one[statistic], rtol=1e-5, err_msg=statistic)
    np.testing.assert_allclose(history["learning_rate"], np.full((STEPS, 2), 0.1), rtol=1e-6)
    np.testing.assert_allclose(
        history["global_norm"][:, 0], np.linalg.norm(one["norm"][:, :2], axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(history["global_norm"][:, 1], one["norm"][:, 2], rtol=1e-5)


@pytest.mark.usefixtures("usual_emitters")
@needs_multi_optimizer
def test_a_multi_optimizer_is_trained_as_without_the_monitor(tmp_path):
    def trained(*callbacks):
        model = mlp()
        model.compile(
            body_and_head(
                keras.optimizers.Adam(1e-2, name="adam"), keras.optimizers.SGD(0.1, name="sgd")
            ),
            LOSS,
        )
        model.fit(*data(), BATCH, epochs=2, verbose=0, callbacks=list(callbacks))
        states = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]
        return [*model.get_weights(), *states]

    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "during.keras", save_freq=4)
    monitor = GradientMonitor(tmp_path, every_n_steps=2)
    for a, b in zip(trained(), trained(monitor, checkpoint), strict=True):
        np.testing.assert_array_equal(a, b)
    for history in (monitor.history, keras_initkit.read_log(tmp_path)):
        np.testing.assert_array_equal(history.steps, np.arange(0, 2 * STEPS, 2))
        assert history.optimizers == ["adam", "sgd"]


class Gan(keras.Model):
    """Two networks that are trained in turn, as in Keras's own examples."""

    discriminator_steps = 3

    def __init__(self):
        super().__init__(name="gan")
        keras.utils.set_random_seed(0)
        self.generator = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(8, "tanh", name="hidden"),
                layers.Dense(8, name="out"),
            ],
            name="generator",
        )
        self.discriminator = keras.Sequential(
            [keras.Input((8,)), layers.Dense(8, "tanh", name="look"), layers.Dense(1, name="say")],
            name="discriminator",
        )
        self.judgement = keras.losses.BinaryCrossentropy(from_logits=True)
        self.built = True

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer = d_optimizer
        self.g_optimizer = g_optimizer

    def call(self, x):
        return self.discriminator(self.generator(x))

    def d_loss(self, x):
        made, real = self.discriminator(self.generator(x)), self.discriminator(x)
        zeros, ones = keras.ops.zeros_like(made), keras.ops.ones_like(made)
        return self.judgement(zeros, made) + self.judgement(ones, real)

    def g_loss(self, x):
        made = self.discriminator(self.generator(x))
        return self.judgement(keras.ops.ones_like(made), made)

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        for _ in range(self.discriminator_steps):
            self.update(self.d_optimizer, self.d_loss, x, self.discriminator)
        self.update(self.g_optimizer, self.g_loss, x, self.generator)
        return {"loss": keras.ops.convert_to_tensor(0.5)}

    def update(self, optimizer, loss, x, part):
        optimizer.apply(gradients(loss, x, part.trainable_variables), part.trainable_variables)


def gradients(loss, x, variables):
    import torch

    return torch.autograd.grad(loss(x), [v.value for v in variables])


def compiled_gan():
    gan = Gan()
    gan.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2))
    return gan


@pytest.mark.backends("torch")  # on TensorFlow: `InTurn` in test_whole_record.py
def test_the_optimizers_of_a_gan_from_fit_to_fit():
    gan, beside = compiled_gan(), compiled_gan()
    monitor, fourth = GradientMonitor(every_n_steps=1), GradientMonitor(every_n_steps=4)
    x, _ = data()
    for _ in range(2):
        gan.fit(x, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[monitor, fourth])
    history = monitor.history
    np.testing.assert_array_equal(history.steps, np.arange(2 * STEPS))
    np.testing.assert_array_equal(fourth.history.steps, np.arange(0, 2 * STEPS, 4))
    assert history.layers == [
        "g_optimizer/generator/hidden",
        "g_optimizer/generator/out",
        "d_optimizer/discriminator/look",
        "d_optimizer/discriminator/say",
    ]
    rates = dict(zip(history.optimizers, history["learning_rate"][0], strict=True))
    assert rates == pytest.approx({"d_optimizer": 0.1, "g_optimizer": 0.2})
    want = []
    for batch in 2 * np.split(x, STEPS):
        batch = keras.ops.convert_to_tensor(batch)
        d_variables = beside.discriminator.trainable_variables
        for _ in range(gan.discriminator_steps):
            of_d = gradients(beside.d_loss, batch, d_variables)
            beside.d_optimizer.apply(of_d, d_variables)
        g_variables = beside.generator.trainable_variables
        of_g = gradients(beside.g_loss, batch, g_variables)
        beside.g_optimizer.apply(of_g, g_variables)
        want.append(norms(map(keras.ops.convert_to_numpy, [*of_g, *of_d])))
    # The bias of the last layer is a sum that nearly cancels.
    np.testing.assert_allclose(history.per_variable("norm"), want, rtol=1e-5, atol=1e-6)
