"""Small trainings, and the framework's own autodiff beside them, on the backend in use."""

import functools
import time

import keras
import numpy as np

from keras_initkit.callbacks import GradientMonitor

BACKEND = keras.backend.backend()
BATCH, STEPS = 16, 6
layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# How a few steps take least time, where it is not the subject; JAX would compile each operation.
QUICK = {"run_eagerly": BACKEND == "tensorflow"}


def mlp():
    hidden = [layers.Dense(16, "tanh") for _ in range(3)]
    return keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(4)])


def convolutional(*first):
    return keras.Sequential(
        [
            keras.Input((8,)),
            *(first or [layers.Reshape((4, 2, 1))]),
            layers.Conv2D(4, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
            layers.Flatten(),
            layers.Dense(80, "tanh"),  # kernels above and below the size that is stacked
            layers.Dense(80, "tanh"),
            layers.Dense(4),
        ]
    )


def varied():
    embedding = layers.Embedding(30, 3)  # of whole numbers, those below 0 from the end
    return convolutional(layers.Rescaling(5.0), embedding, layers.Reshape((4, 2, 3)))


def data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(BATCH * STEPS, 8)).astype("float32")
    return x, rng.integers(0, 4, len(x)).astype("int32")


def compiled(make, optimizer=None, **compile_args):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(optimizer or keras.optimizers.Adam(1e-2), LOSS, **compile_args)
    return model


@functools.cache
def batches():
    """The data as `fit` takes it; of arrays TensorFlow traces how to cut them, in each `fit`."""
    if BACKEND != "tensorflow":
        return data()
    import tensorflow as tf

    return (tf.data.Dataset.from_tensor_slices(data()).batch(BATCH),)


def fit(model, *callbacks, epochs=1):
    size = None if BACKEND == "tensorflow" else BATCH
    how = {"batch_size": size, "epochs": epochs, "shuffle": False, "verbose": 0}
    return model.fit(*batches(), **how, callbacks=list(callbacks))


def recorded(make=mlp, optimizer=None, every_n_steps=1, epochs=1, **compile_args):
    monitor = GradientMonitor(every_n_steps=every_n_steps)
    fit(compiled(make, optimizer, **compile_args), monitor, epochs=epochs)
    return monitor.history


def autodiff(model, x, y):
    """Gradients of the loss, by the framework itself."""
    if BACKEND == "jax":
        import jax

        def loss(trainable):
            others = [v.value for v in model.non_trainable_variables]
            outputs, _ = model.stateless_call(trainable, others, x, training=True)
            return LOSS(y, outputs)

        return jax.grad(loss)([v.value for v in model.trainable_variables])
    if BACKEND == "torch":
        import torch

        x, y = torch.from_numpy(x), torch.from_numpy(y)
        weights = [v.value for v in model.trainable_variables]
        return torch.autograd.grad(LOSS(y, model(x, training=True)), weights)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = LOSS(y, model(x, training=True))
    weights = [v.value for v in model.trainable_variables]
    return [tf.convert_to_tensor(g) for g in tape.gradient(value, weights)]


def gradients_and_weights(model, x, y):
    """Gradients by autodiff, and the weights, in float64."""
    return [
        [np.array(keras.ops.convert_to_numpy(array), "float64") for array in arrays]
        for arrays in (autodiff(model, x, y), model.trainable_variables)
    ]


def trained_beside(make=mlp, optimizer=None):
    """Gradients and weights before every step of a training without a monitor."""
    model, (x, y) = compiled(make, optimizer), data()
    for start in range(0, len(x), BATCH):
        batch = x[start : start + BATCH], y[start : start + BATCH]
        yield gradients_and_weights(model, *batch)
        model.train_on_batch(*batch)


class BeforeEachBatch(keras.callbacks.Callback):
    """Keeps what a function says of the model and the number of the batch before each batch."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seen = function, []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(self.function(self.model, batch))


class Beside(BeforeEachBatch):
    """Autodiff's gradients and the weights before every step, as `trained_beside` yields them."""

    def __init__(self):
        x, y = data()

        def function(model, batch):
            part = slice(batch * BATCH, (batch + 1) * BATCH)
            return gradients_and_weights(model, x[part], y[part])

        super().__init__(function)


def norms(arrays):
    return [np.linalg.norm(array) for array in arrays]


@functools.cache
def two_devices():
    """Two replicas; one strategy for all tests, as a second one's collectives have its numbers."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def label(value):
    """What a parameter is called in a test's name, the same in every process."""
    if isinstance(value, dict):
        return ",".join(f"{name}={label(item)}" for name, item in value.items())
    return getattr(value, "__name__", None) or str(value)


def wait_until(condition, seconds=60):
    """Wait for what another thread is to do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
