"""Pictures: classes, masks, views."""

import keras
import numpy as np
from keras import layers, ops

from tests.pipelines.base import LOGITS, InTurn, OwnStep, Pipeline, compiled, images, sequential
from tests.pipelines.text import TransformerBlock, embed_places


def vision_transformer() -> Pipeline:
    inputs = keras.Input((8, 8, 1))
    patches = ops.image.extract_patches(layers.RandomFlip("vertical", seed=1)(inputs), 2)
    x = embed_places(layers.Dense(16)(ops.reshape(patches, (-1, 16, 4))), 16)
    x = layers.LayerNormalization(epsilon=1e-6)(TransformerBlock(16)(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    return Pipeline(compiled(model, LOGITS, rate=0.003), images())


def unet() -> Pipeline:
    """Bright pixels are found by a convolution down and a transposed one up, with a bridge."""
    (x, _), inputs = images(), keras.Input((8, 8, 1))
    bridge = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    h = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(bridge))
    h = layers.Conv2DTranspose(8, 3, 2, "same", activation="relu")(h)
    outputs = layers.Conv2D(2, 3, padding="same")(layers.Concatenate()([h, bridge]))
    return Pipeline(compiled(keras.Model(inputs, outputs), LOGITS), (x, x[..., 0] > 0.5))


def depthwise_blocks() -> Pipeline:
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    for _ in range(2):
        h = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        h = layers.Activation("relu6")(layers.BatchNormalization()(h))
        x = x + layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(h))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    return Pipeline(compiled(model, LOGITS), images())


def _backbone():
    whole = keras.applications.MobileNet((32, 32, 3), 0.25, include_top=False, weights=None)
    return keras.Model(whole.input, whole.get_layer("conv_pw_1_relu").output, name="backbone")


def frozen_backbone() -> Pipeline:
    backbone, inputs = _backbone(), keras.Input((32, 32, 3))
    backbone.trainable = False
    x = backbone(layers.Rescaling(2.0, -1.0)(inputs), training=False)
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.2)(x)))
    return Pipeline(compiled(model, LOGITS, rate=0.05), images(32, 3))


def new_head() -> Pipeline:
    """The head is built by the first batch, long after the backbone."""
    inside = [layers.Rescaling(2.0, -1.0), _backbone(), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([*inside, layers.Dense(3)])
    return Pipeline(compiled(model, LOGITS), images(32, 3))


def _encoder():
    inside = [layers.Conv2D(8, 3, strides=2, activation="relu"), layers.Flatten()]
    return sequential((8, 8, 1), *inside, layers.Dense(16, "relu"), layers.Dense(8))


def simclr() -> Pipeline:
    """Two noisy views of a picture attract each other; a linear probe is trained beside."""
    encoder, probe = _encoder(), sequential((8,), layers.Dense(3))
    augment = layers.GaussianNoise(0.05, seed=1)

    def contrast(data):
        views = (encoder(augment(data[0], training=True)) for _ in range(2))
        a, b = (ops.normalize(view, axis=1) for view in views)
        similar, own = ops.matmul(a, ops.transpose(b)) / 0.1, ops.arange(data[0].shape[0])
        return (LOGITS(own, similar) + LOGITS(own, ops.transpose(similar))) / 2

    def probe_loss(data):
        return LOGITS(data[1], probe(ops.stop_gradient(encoder(data[0]))))

    model = InTurn([contrast, probe_loss], encoder, probe, watched=contrast, rate=0.002)
    model.augment = augment
    return Pipeline(model, images())


def siamese() -> Pipeline:
    """Of three pictures the first two are of one class, and shall be near each other."""
    inputs, encoder = [keras.Input((8, 8, 1)) for _ in range(3)], _encoder()
    anchor, *others = map(encoder, inputs)
    network = keras.Model(inputs, [ops.sum((anchor - o) ** 2, axis=-1) for o in others])

    def loss_of(triplets):
        near, far = network([triplets[:, i] for i in range(3)])
        return ops.mean(ops.relu(near - far + 0.5))

    x, y = images()
    x = x[np.argsort(y)]
    triplets = np.stack([x, np.roll(x, 1, axis=0), np.roll(x, len(x) // 2, axis=0)], axis=1)
    return Pipeline(compiled(OwnStep(loss_of, network), rate=0.003), (triplets,))
