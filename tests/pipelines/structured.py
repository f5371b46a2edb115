"""Tables, pairs, graphs and rewards; ways to train."""

import keras
import numpy as np
from keras import layers, ops

from tests.pipelines.base import LOGITS, SAMPLES, OwnStep, Pipeline, compiled, points, rng


def feature_space() -> Pipeline:
    import tensorflow as tf

    age, thal = rng().uniform(20, 80, SAMPLES), rng(1).choice(["fixed", "normal"], SAMPLES)
    table, of = {"age": age, "thal": thal}, keras.utils.FeatureSpace
    columns = {"age": of.float_discretized(6), "thal": of.string_categorical(num_oov_indices=0)}
    space = of(columns, "concat", crosses=[of.cross(("age", "thal"), crossing_dim=16)])
    space.adapt(tf.data.Dataset.from_tensor_slices(table).batch(16))
    features = space.get_encoded_features()
    model = keras.Model(features, layers.Dense(2)(layers.Dense(16, "relu")(features)))
    return Pipeline(compiled(model, LOGITS), (space(table), (age > 50) ^ (thal == "fixed")))


def wide_and_deep() -> Pipeline:
    """Numbers and categories by name; a wide part beside a deep one."""
    x = {"numbers": rng().normal(size=(SAMPLES, 3)), "job": rng(1).integers(0, 5, SAMPLES)}
    inputs = {name: keras.Input(x[name].shape[1:], name=name, dtype=x[name].dtype) for name in x}
    embedded = layers.Embedding(5, 4)(inputs["job"])
    deep = layers.Concatenate()([layers.BatchNormalization()(inputs["numbers"]), embedded])
    deep = layers.Dense(16, "relu")(layers.Dense(16, "relu")(deep))
    wide = layers.CategoryEncoding(5, "one_hot")(inputs["job"])
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([wide, deep])))
    return Pipeline(compiled(model, LOGITS), (x, x["numbers"][:, 0] + 2 * (x["job"] > 2) > 1))


def node2vec() -> Pipeline:
    """Neighbours on a ring of nodes get similar embeddings, as in skip-grams."""
    target, y = rng().integers(0, 20, SAMPLES), rng(1).integers(0, 2, SAMPLES)
    steps = np.where(y, rng(2).choice([-1, 1], SAMPLES), rng(3).integers(5, 15, SAMPLES))
    inputs = [keras.Input((), dtype="int32") for _ in range(2)]
    product = layers.Dot(axes=1)([layers.Embedding(20, 16, "he_normal")(i) for i in inputs])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model = compiled(keras.Model(inputs, product), loss, rate=0.03)
    return Pipeline(model, ([target, (target + steps) % 20], y))


class Recommender(keras.Model):
    """Users' and films' vectors and biases; a film is liked by the sigmoid of their product."""

    def __init__(self):
        super().__init__()
        decay = keras.regularizers.L2(1e-6)
        self.vectors = [layers.Embedding(12, 8, "he_normal", decay) for _ in range(2)]
        self.biases = [layers.Embedding(12, 1) for _ in range(2)]

    def call(self, pairs):
        product = self.vectors[0](pairs[:, 0]) * self.vectors[1](pairs[:, 1])
        biases = self.biases[0](pairs[:, 0]) + self.biases[1](pairs[:, 1])
        return ops.sigmoid(ops.sum(product, axis=1, keepdims=True) + biases)


def recommender() -> Pipeline:
    pairs, taste = rng().integers(0, 12, (SAMPLES, 2)), rng(1).normal(size=(2, 12, 2))
    liked = (taste[0, pairs[:, 0]] * taste[1, pairs[:, 1]]).sum(axis=1) > 0
    return Pipeline(compiled(Recommender(), "binary_crossentropy", rate=0.03), (pairs, liked))


def graph_attention() -> Pipeline:
    """Nodes of small graphs gather their neighbours' states; a graph is as its first node."""
    (states, y), nodes, edges = points(), keras.Input((5, 8)), keras.Input((5, 5))
    x = layers.Dense(16, "relu")(nodes)
    for _ in range(2):
        h = layers.Dense(16, use_bias=False)(x)
        scores = layers.Dense(1)(h) + ops.transpose(layers.Dense(1)(h), (0, 2, 1))
        scores = ops.leaky_relu(scores) + 1e9 * (edges - 1)
        x = x + ops.matmul(ops.softmax(scores), h)
    model = keras.Model([nodes, edges], layers.Dense(3)(x[:, 0]))
    noisy = states[:, None] + rng(3).normal(size=(SAMPLES, 5, 8))
    adjacent = np.maximum(np.eye(5), rng(4).random((SAMPLES, 5, 5)) > 0.5)
    return Pipeline(compiled(model, LOGITS), ([noisy, adjacent], y))


class Endpoint(layers.Layer):
    """A layer that is given the targets and adds the loss."""

    def call(self, y, scores):
        self.add_loss(LOGITS(y, scores))
        return ops.softmax(scores)


def endpoint_layer() -> Pipeline:
    x, inputs, targets = points(), keras.Input((8,)), keras.Input((), dtype="int32")
    outputs = Endpoint()(targets, layers.Dense(3)(layers.Dense(16, "relu")(inputs)))
    return Pipeline(compiled(keras.Model([inputs, targets], outputs)), (list(x),))


def _classifier(width=32):
    hidden = [layers.Dense(width, "relu"), layers.Dense(16, "relu")]
    return keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(3)])


def distillation() -> Pipeline:
    """A student is fit to the labels and to its trained teacher's softened answers."""
    student, teacher = _classifier(16), compiled(_classifier(), LOGITS)
    teacher.fit(*points(), verbose=0)
    teacher.trainable = False

    def loss_of(data):
        scores = student(data[0], training=True)
        soft = [ops.softmax(s / 3) for s in (teacher(data[0], training=False), scores)]
        return 0.1 * LOGITS(data[1], scores) + 8 * ops.mean(keras.losses.kl_divergence(*soft))

    return Pipeline(compiled(OwnStep(loss_of, student, teacher)), points())


def lora() -> Pipeline:
    """A trained classifier is fit to other labels by matrices of rank 2."""
    model, (x, y) = compiled(_classifier(), LOGITS), points()
    model.fit(x, y, verbose=0)
    for layer in model.layers[:2]:
        layer.enable_lora(2)
    return Pipeline(compiled(model, LOGITS), (x, (y + 1) % 3))


def mixed_precision() -> Pipeline:
    keras.config.set_dtype_policy("mixed_float16")
    model = _classifier()
    keras.config.set_dtype_policy("float32")
    return Pipeline(compiled(model, LOGITS), points())


def gradient_accumulation() -> Pipeline:
    model = _classifier()
    model.compile(keras.optimizers.Adam(0.02, gradient_accumulation_steps=4), LOGITS)
    return Pipeline(model, points())


def actor_critic() -> Pipeline:
    """A policy and its judge learn from rewards, by `train_on_batch` in a loop."""
    inputs = keras.Input((4,))
    x = layers.Dense(32, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(2, "softmax")(x), layers.Dense(1)(x)])
    losses = [lambda advantage, p: -ops.sum(advantage * ops.log(p + 1e-7), axis=-1), "huber"]
    return Pipeline(compiled(model, losses, rate=0.02), (), _play)


def _play(model, callbacks):
    """Let an agent choose the side that a state points to; return the share of wrong choices."""
    wrong, random = [], rng()
    callbacks.on_train_begin()
    for step in range(60):
        states = random.normal(size=(32, 4)).astype("float32")
        chances, values = map(ops.convert_to_numpy, model(states))
        actions = (random.random(32) < chances[:, 1]).astype("int32")
        rewards = (actions == (states[:, 0] > 0)).astype("float32")[:, None]
        advantages = np.eye(2, dtype="float32")[actions] * (rewards - values)
        callbacks.on_train_batch_begin(step)
        logs = model.train_on_batch(states, [advantages, rewards], return_dict=True)
        callbacks.on_train_batch_end(step, logs)
        wrong.append(1 - rewards.mean())
    callbacks.on_train_end()
    return [np.mean(wrong[:15]), np.mean(wrong[-15:])]
