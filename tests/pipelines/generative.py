"""Autoencoders, adversaries and diffusion."""

import keras
from keras import layers, ops

from tests.pipelines import base
from tests.pipelines.base import OwnStep, Pipeline, compiled, images, sequential


def vae() -> Pipeline:
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, 2, "same", activation="relu")(inputs)
    x = layers.Dense(16, "relu")(layers.Flatten()(x))
    mean, log_var = layers.Dense(2)(x), layers.Dense(2)(x)
    noise = layers.GaussianNoise(1.0, seed=1)(0 * mean, training=True)
    z = mean + ops.exp(0.5 * log_var) * noise
    x = layers.Reshape((4, 4, 8))(layers.Dense(4 * 4 * 8, "relu")(z))
    x = layers.Conv2DTranspose(1, 3, 2, "same", activation="sigmoid")(x)
    network = keras.Model(inputs, [x, mean, log_var])

    def loss_of(x):
        made, mean, log_var = network(x)
        reconstruction = ops.sum(keras.losses.binary_crossentropy(x, made), axis=(1, 2))
        divergence = ops.sum(mean**2 + ops.exp(log_var) - 1 - log_var, axis=1) / 2
        return ops.mean(reconstruction + divergence)

    x = (images()[0] > 0.5).astype("float32")
    return Pipeline(compiled(OwnStep(loss_of, network, tracked="total_loss"), rate=0.005), (x,))


class Quantizer(layers.Layer):
    """Vectors, each replaced by the nearest code; the gradient passes straight through."""

    def build(self, shape):
        self.codes = self.add_weight((8, shape[-1]), keras.initializers.RandomUniform(-1, 1, 0))

    def call(self, x):
        distance = ops.sum((ops.expand_dims(x, -2) - self.codes) ** 2, axis=-1)
        code, stop = ops.take(self.codes, ops.argmin(distance, axis=-1), axis=0), ops.stop_gradient
        self.add_loss(ops.mean((stop(code) - x) ** 2) / 4 + ops.mean((code - stop(x)) ** 2))
        return x + stop(code - x)


def vq_vae() -> Pipeline:
    down = layers.Conv2D(8, 3, 2, "same", activation="relu")
    up = layers.Conv2DTranspose(8, 3, 2, "same", activation="relu")
    inside = [down, layers.Conv2D(4, 1), Quantizer(), up, layers.Conv2D(1, 3, padding="same")]
    network = sequential((8, 8, 1), *inside)

    def loss_of(x):
        return 10 * ops.mean((x - network(x)) ** 2) + sum(network.losses)

    return Pipeline(compiled(OwnStep(loss_of, network), rate=0.005), images()[:1])


def wgan_gp() -> Pipeline:
    """Two networks that are trained in turn, judged by the distance of the means."""
    import tensorflow as tf

    generator = sequential((2,), layers.Dense(16), layers.LeakyReLU(0.2), layers.Dense(2))
    hidden = [layers.Dense(32), layers.LeakyReLU(0.2), layers.Dense(32), layers.LeakyReLU(0.2)]
    critic, noise = sequential((2,), *hidden, layers.Dense(1)), layers.GaussianNoise(1.0, seed=1)

    def critic_loss(real):
        made = generator(noise(0 * real, training=True))
        between = real + noise(0 * real[:, :1], training=True) * (made - real)
        with tf.GradientTape() as tape:
            tape.watch(between)
            judged = critic(between)
        lengths = ops.norm(tape.gradient(judged, between), axis=1)
        return ops.mean(critic(made) - critic(real)) + 10 * ops.mean((lengths - 1) ** 2)

    def generator_loss(real):
        return -ops.mean(critic(generator(noise(0 * real, training=True))))

    def distance(real):
        made = generator(noise(0 * real, training=True))
        return ops.mean(abs(ops.mean(real, axis=0) - ops.mean(made, axis=0)))

    model = base.InTurn([critic_loss, generator_loss], critic, generator, watched=distance)
    return Pipeline(model, (base.points(1, 2)[0] + 2,))


def diffusion() -> Pipeline:
    """A network finds the noise in a noisy image; a copy of it follows as a moving average."""
    noisy, variance = keras.Input((8, 8, 1)), keras.Input((1, 1, 1))
    waves = ops.concatenate([ops.sin(3 * variance), ops.cos(3 * variance)], axis=-1)
    x = layers.Concatenate()([layers.Conv2D(8, 1)(noisy), layers.UpSampling2D(8)(waves)])
    for _ in range(2):
        x = layers.Conv2D(16, 3, padding="same", activation="swish")(layers.BatchNormalization()(x))
    outputs = layers.Conv2D(1, 1, kernel_initializer="zeros")(x)
    network = keras.Model([noisy, variance], outputs, name="network")
    noise, normalizer = layers.GaussianNoise(1.0, seed=1), layers.Normalization()
    average = keras.models.clone_model(network)
    average.trainable = base.BACKEND != "jax"  # there the optimizer is given all that is
    average.set_weights(network.get_weights())
    normalizer.adapt(images()[0])

    def loss_of(x):
        drawn, shape = noise(0 * x, training=True), (ops.shape(x)[0], 1, 1, 1)
        angle = keras.random.uniform(shape, 0.2, 1.4, seed=noise.seed_generator)
        mixed = ops.cos(angle) * normalizer(x) + ops.sin(angle) * drawn
        return ops.mean(abs(drawn - network([mixed, ops.sin(angle) ** 2], training=True)))

    def follow():
        for weight, mean in zip(network.weights, average.weights, strict=True):
            mean.assign(0.9 * mean + 0.1 * weight)

    model = OwnStep(loss_of, network, average, normalizer, noise, after_update=follow)
    return Pipeline(compiled(model), images()[:1])
