"""What the pipelines have in common: training, a `train_step` for each backend, data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

BACKEND = keras.backend.backend()
BATCH, SAMPLES = 16, 240
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Pipeline(NamedTuple):
    """A compiled model and its data; `loop`, if given, takes the place of `fit`."""

    model: Any
    data: tuple[Any, ...]
    loop: Callable[[Any, keras.callbacks.CallbackList], list[float]] | None = None

    def train(self, *callbacks):
        """Train, and return the loss of each epoch."""
        if self.loop:
            return self.loop(self.model, keras.callbacks.CallbackList(callbacks, model=self.model))
        settings = {"batch_size": BATCH, "epochs": 4, "callbacks": list(callbacks)}
        return self.model.fit(*self.data, verbose=0, **settings).history["loss"]


class OwnStep(keras.Model):
    """Networks without `call`, in a model whose own `train_step` minimizes `loss_of(data)`.

    `after_update()` may change what is not trained; `tracked` names the metric of the loss.
    """

    def __init__(self, loss_of, *networks, after_update=lambda: None, tracked="loss"):
        super().__init__()
        self.loss_of, self.after_update, self.networks = loss_of, after_update, list(networks)
        self.tracker = keras.metrics.Mean(name=tracked)
        self.built = BACKEND != "tensorflow"  # the others ask for it where there is no `call`

    @property
    def metrics(self):
        return [self.tracker]

    def train_step(self, *args):
        return self._jax_step(*args) if BACKEND == "jax" else self._finish(self._update(*args))

    def _update(self, data):
        variables = self.networks[0].trainable_variables
        return minimize(self.optimizer, variables, self.loss_of, data)

    def _finish(self, loss):
        self.after_update()
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}

    def _jax_step(self, state, data):
        import jax

        trainable, others, optimizer, metrics = state
        held = [*self.non_trainable_variables, *self.metrics_variables]
        all_variables = [*self.trainable_variables, *held]

        def loss_of(trainable):
            values = zip(all_variables, [*trainable, *others, *metrics], strict=True)
            with keras.StatelessScope(values, collect_losses=True) as scope:
                loss = self.loss_of(data)
            return loss, list(map(scope.get_current_value, held))

        (loss, new), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        with keras.StatelessScope(zip(all_variables, [*trainable, *new], strict=True)) as scope:
            logs = self._finish(loss)
        new = list(map(scope.get_current_value, all_variables))[len(trainable) :]
        return logs, (trainable, new[: len(others)], optimizer, new[len(others) :])


class InTurn(OwnStep):
    """Networks, each with a loss and an optimizer; `watched(data)` is logged. Not on JAX."""

    def __init__(self, losses, *networks, watched, rate=0.02):
        super().__init__(watched, *networks)
        self.turns = networks, losses
        self.compile()
        self.optimizers = [keras.optimizers.Adam(rate, beta_1=0.5) for _ in networks]

    def _update(self, data):
        for optimizer, network, loss_of in zip(self.optimizers, *self.turns, strict=True):
            minimize(optimizer, network.trainable_variables, loss_of, data)
        return self.loss_of(data)


def minimize(optimizer, variables, loss_of, data):
    """Update variables once; return the loss. For TensorFlow and PyTorch."""
    if BACKEND == "torch":
        import torch

        loss = loss_of(data)
        gradients = torch.autograd.grad(loss, [v.value for v in variables])
        with torch.no_grad():
            optimizer.apply(gradients, variables)
        return loss.detach()
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = loss_of(data)
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    return loss


def sequential(shape, *inside):
    return keras.Sequential([keras.Input(shape), *inside])


def compiled(model, loss=None, rate=0.01):
    model.compile(keras.optimizers.Adam(rate), loss)
    return model


def rng(seed=0):
    return np.random.default_rng(seed)


def points(classes=3, features=8):
    """Clouds of points, a class each."""
    y, centres = rng().integers(0, classes, SAMPLES), rng(1).normal(size=(classes, features))
    return (2 * centres[y] + rng(2).normal(size=(SAMPLES, features))).astype("float32"), y


def images(size=8, channels=1):
    """Stripes under noise, in [0, 1]: a period and so a class each."""
    y = rng().integers(0, 3, SAMPLES)
    wave = 0.5 + 0.4 * np.sin(np.arange(size) * (y[:, None] + 1) * 2 * np.pi / size)
    x = wave[:, None, :, None] + 0.1 * rng(1).normal(size=(SAMPLES, size, size, channels))
    return np.clip(x, 0, 1).astype("float32"), y


def sentences(length=10, words=20):
    """Words, and whether most of them are of the first half of the vocabulary."""
    y = rng().integers(0, 2, SAMPLES)
    of_first = rng(1).random((SAMPLES, length)) < np.where(y, 0.8, 0.2)[:, None]
    return rng(2).integers(0, words // 2, of_first.shape) + words // 2 * ~of_first, y


def counting(length, words=20):
    """Sentences where each word is the one before plus a step, which is the sentence's own."""
    start, step = rng().integers(0, words, (SAMPLES, 1)), rng(1).integers(1, 3, (SAMPLES, 1))
    return (start + step * np.arange(length)) % words
