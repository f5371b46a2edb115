"""Each rule against the layer itself, run on random inputs; and the classes without a rule."""

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.models.propagate.rules.table import RULES

tf = pytest.importorskip("tensorflow")
layers, ops = keras.layers, keras.ops

# Layers of `keras.layers` that are sampled: of data, of images, of other frameworks; cells alone;
# and those that hold other layers, or any function.
WITHOUT_RULE = """
    AugMix AutoContrast CategoryEncoding CenterCrop ContrastLimitedAdaptiveHistogramEqualization
    CutMix Discretization Equalization FlaxLayer GRUCell HashedCrossing
    Hashing InputLayer IntegerLookup JaxLayer LSTMCell Lambda Layer MaxNumBoundingBoxes
    MelSpectrogram MixUp Normalization Pipeline RandAugment RandomBrightness
    RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
    RandomShear RandomTranslation RandomZoom Resizing STFTSpectrogram
    SimpleRNNCell Solarization SpectralNormalization StackedRNNCells StringLookup TFSMLayer
    TextVectorization TorchModuleWrapper Wrapper
"""

MAP, SEQUENCE, VECTOR = (12, 12, 96), (10, 128), (256,)


def functional(shape, function, name):
    """Return a model of a function, to be a layer."""
    x = keras.Input(shape)
    return keras.Model(x, function(x), name=name)


def residual(x):
    h = layers.ReLU()(x)
    return layers.ReLU()(layers.Add()([h, layers.Dense(256)(h)]))


def gated(x):
    gate = layers.Dense(96, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Multiply()([x, gate])


def attended(x):
    context = layers.Dense(128)(x)
    return layers.MultiHeadAttention(4, 32)(x, context, use_causal_mask=True)


def attended_plainly(x):
    query = layers.Dense(128, kernel_initializer=keras.initializers.VarianceScaling(0.05))(x)
    return layers.Attention(dropout=0.1)([query, layers.Dense(128)(x)])


def attended_by_sums(x):
    query = layers.Dense(128)(x)
    return layers.AdditiveAttention(use_scale=False)([query, layers.Dense(128)(x)])


def attended_by_one_weight(x):
    query = layers.Dense(128)(x)
    return layers.Attention(True, "concat")([query, layers.Dense(128)(x)], use_causal_mask=True)


def compared(x):
    return layers.Dot(2)([layers.Dense(128)(x), layers.Dense(128, "relu")(x)])


def compared_by_cosine(x):
    return layers.Dot(-1, True)([layers.Dense(1024, "relu")(x), layers.Dense(1024, "elu")(x)])


def combined(x):
    return layers.Dot((1, 2))([layers.Dense(128)(x), layers.Dense(48)(x)])


def looked_up_in_reverse(x):
    layer = layers.ReversibleEmbedding(500, 128, tie_weights=False, logit_soft_cap=2.0)
    layer.build()
    return layer(x, reverse=True)


def chosen(x):
    rest = layers.Dense(128, bias_initializer=keras.initializers.Constant(0.3))(x)
    return layers.Maximum()([layers.Dense(128)(x), layers.Minimum()([rest, layers.Dense(128)(x)])])


def grouped(x):
    return layers.GroupQueryAttention(32, 4, 2)(x, x)


def averaged(x):
    return layers.GlobalAveragePooling1D()(layers.Dropout(0.5)(layers.Dense(128, "relu")(x)))


def by_operations(x):
    h = ops.relu(2.0 * x + 1.0) - ops.mean(layers.Dense(128)(x), axis=1, keepdims=True)
    h = ops.concatenate([h, x * np.linspace(0.5, 1.5, 128).astype("float32")], axis=-1)
    return ops.sum(ops.expand_dims(h, 2), axis=(1, 2)) / 3.0


CASES = [
    (VECTOR, lambda: layers.Dense(256, "relu")),
    (VECTOR, lambda: layers.Dense(256, "tanh", bias_initializer="random_normal")),
    (VECTOR, lambda: layers.BatchNormalization()),
    (VECTOR, lambda: layers.RMSNormalization()),
    (VECTOR, lambda: layers.UnitNormalization()),
    (VECTOR, lambda: layers.Dropout(0.3)),
    (VECTOR, lambda: layers.AlphaDropout(0.2)),
    (VECTOR, lambda: layers.GaussianNoise(0.5)),
    (VECTOR, lambda: layers.Rescaling(2.0, 0.5)),
    (VECTOR, lambda: layers.RepeatVector(5)),
    (SEQUENCE, lambda: layers.EinsumDense("abc,cd->abd", (10, 128))),
    (SEQUENCE, lambda: layers.EinsumDense("abc,cde->abde", (10, 4, 64))),
    (SEQUENCE, lambda: layers.LayerNormalization()),
    (SEQUENCE, lambda: layers.Conv1D(64, 3, padding="causal", dilation_rate=2)),
    (SEQUENCE, lambda: layers.Conv1DTranspose(64, 4, strides=2)),
    (SEQUENCE, lambda: layers.GlobalAveragePooling1D()),
    (SEQUENCE, lambda: layers.TimeDistributed(layers.Dense(512, "gelu"))),
    (SEQUENCE, lambda: layers.SpatialDropout1D(0.2)),
    (SEQUENCE, lambda: layers.SimpleRNN(128, return_sequences=True)),
    (SEQUENCE, lambda: layers.GRU(128)),
    (SEQUENCE, lambda: layers.LSTM(128, return_sequences=True, go_backwards=True)),
    (SEQUENCE, lambda: layers.Bidirectional(layers.LSTM(128, return_sequences=True))),
    (SEQUENCE, lambda: layers.Bidirectional(layers.SimpleRNN(128), merge_mode="ave")),
    (MAP, lambda: layers.ConvLSTM1D(48, 3, padding="same", return_sequences=True)),
    ((4, 6, 6, 64), lambda: layers.ConvLSTM2D(64, 3, 2, "same", dropout=0.2, go_backwards=True)),
    (MAP, lambda: layers.Conv2D(64, 3, padding="same", activation="relu")),
    (MAP, lambda: layers.Conv2D(64, 3, strides=2, groups=4)),
    (MAP, lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)),
    (MAP, lambda: layers.SeparableConv2D(64, 5, padding="same")),
    (MAP, lambda: layers.Conv2DTranspose(64, 3, strides=2, padding="same")),
    (MAP, lambda: layers.GroupNormalization(4)),
    (MAP, lambda: layers.BatchNormalization()),
    (MAP, lambda: layers.PReLU()),
    (MAP, lambda: layers.AveragePooling2D(3, 2, padding="same")),
    (MAP, lambda: layers.MaxPooling2D(2)),
    (MAP, lambda: layers.MaxPooling2D(3, 2)),
    (MAP, lambda: layers.GlobalMaxPooling2D()),
    (MAP, lambda: layers.ZeroPadding2D((1, 2))),
    (MAP, lambda: layers.Cropping2D(2)),
    (MAP, lambda: layers.UpSampling2D(2)),
    (MAP, lambda: layers.UpSampling2D((3, 2), interpolation="bilinear")),
    (MAP, lambda: layers.Flatten()),
    (MAP, lambda: layers.Reshape((144, 96))),
    (MAP, lambda: layers.Permute((2, 1, 3))),
    (MAP, lambda: functional(MAP, gated, "gated")),
    (VECTOR, lambda: functional(VECTOR, residual, "residual")),
    (SEQUENCE, lambda: functional(SEQUENCE, attended, "attended")),
    (SEQUENCE, lambda: functional(SEQUENCE, grouped, "grouped")),
    (SEQUENCE, lambda: functional(SEQUENCE, attended_plainly, "plain")),
    (SEQUENCE, lambda: functional(SEQUENCE, attended_by_sums, "sums")),
    (SEQUENCE, lambda: functional(SEQUENCE, attended_by_one_weight, "one_weight")),
    (SEQUENCE, lambda: functional(SEQUENCE, compared, "compared")),
    (SEQUENCE, lambda: functional(SEQUENCE, compared_by_cosine, "cosine")),
    ((48, 64), lambda: functional((48, 64), combined, "combined")),
    (SEQUENCE, lambda: functional(SEQUENCE, chosen, "chosen")),
    (SEQUENCE, lambda: layers.Softmax()),
    (MAP, lambda: layers.AdaptiveAveragePooling2D((5, 4))),
    (MAP, lambda: layers.AdaptiveMaxPooling2D((6, 4))),
    (SEQUENCE, lambda: functional(SEQUENCE, averaged, "averaged")),
    (SEQUENCE, lambda: functional(SEQUENCE, by_operations, "operations")),
]
if hasattr(layers, "ReversibleEmbedding"):  # from Keras 3.13 on
    CASES.append(((128,), lambda: functional((128,), looked_up_in_reverse, "reverse")))


def classes():
    found = [getattr(layers, name) for name in dir(layers)]
    return {x for x in found if isinstance(x, type) and issubclass(x, layers.Layer)}


def test_the_layers_without_a_rule_are_these():
    def is_covered(cls):
        for base in cls.__mro__:
            if base in RULES or "call" in vars(base):
                return base in RULES
        return False

    missing = {cls.__name__ for cls in classes() if not is_covered(cls)}
    # Some classes are not in each version of Keras.
    here = {cls.__name__ for cls in classes()}
    assert missing == set(WITHOUT_RULE.split()) & here


def draw(shape, rng, mean=0.2, common=0.1, examples=24):
    """Draw inputs with a mean and a part that all examples and positions have in common."""
    shared = rng.normal(size=(1, *[1] * (len(shape) - 1), shape[-1])) * np.sqrt(common)
    x = mean + shared + np.sqrt(1.0 - common) * rng.normal(size=(examples, *shape))
    return x.astype("float32")


def test_a_kernel_of_ones_adds_up_the_mean():
    layer = layers.Dense(8, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((50,)), layer])
    row = keras_initkit.propagate(model, (0.5, 1.0, 0.25)).rows[-1]
    assert row.mean == pytest.approx(50 * 0.5)
    assert row.second_moment == pytest.approx((50 * 0.5) ** 2 + 50 * 0.75)


@pytest.mark.parametrize(("shape", "make"), CASES, ids=lambda x: x().name if callable(x) else "")
def test_a_rule_predicts_the_layer(shape, make, rng):
    layer = make()
    model = keras.Sequential([keras.Input(shape), layer])
    x = draw(shape, rng)
    prediction = keras_initkit.propagate(model, x, training=True)
    row, before = prediction.rows[-1], prediction.rows[0]
    assert row.how == "rule"
    with tf.GradientTape() as tape:
        tape.watch(inputs := tf.constant(x))
        y = model(inputs, training=True)
        projected = tf.reduce_sum(y * rng.normal(size=y.shape).astype("float32"))
    gradient = tape.gradient(projected, inputs).numpy()
    y = y.numpy()
    assert row.second_moment == pytest.approx(float((y**2).mean()), rel=0.15)
    spread = max(float(np.sqrt((y**2).mean())), 1e-6)
    assert row.mean == pytest.approx(float(y.mean()), abs=0.12 * spread)
    total = y.sum(axis=0)
    others = ((total**2).mean() - (y**2).sum(axis=0).mean()) / (len(y) * (len(y) - 1))
    assert row.correlation == pytest.approx(others / (y**2).mean(), abs=0.1)
    assert before.gradient_second_moment == pytest.approx(float((gradient**2).mean()), rel=0.15)


def test_few_weights_are_not_independent_of_slopes(rng):
    inner = [layers.ReLU(), layers.DepthwiseConv2D(3), layers.ReLU()]
    last = layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((6, 6, 2048)), *inner, last])
    x = (rng.normal(size=(16, 1, 1, 2048)) + rng.normal(size=(16, 6, 6, 2048))).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(inputs := tf.constant(x))
        y = model(inputs)
        projected = tf.reduce_sum(y * rng.normal(size=y.shape).astype("float32"))
    measured = float((tape.gradient(projected, inputs).numpy() ** 2).mean())
    found = keras_initkit.propagate(model, x).rows[0].gradient_second_moment
    # Taken as independent, it would be off by 19 %.
    assert found == pytest.approx(measured, rel=0.08)


def test_units_behind_padding_are_normalized_by_different_variances(rng):
    model = keras.Sequential([keras.Input((6, 6, 64)), layers.Conv2D(512, 3, padding="same")])
    model.add(layers.BatchNormalization())
    x = draw((6, 6, 64), rng, mean=0.0, common=0.9, examples=64)
    prediction = keras_initkit.propagate(model, x, training=True)
    before = model.layers[0](x)
    with tf.GradientTape() as tape:
        tape.watch(before)
        y = model.layers[1](before, training=True)
        projected = tf.reduce_sum(y * rng.normal(size=y.shape).astype("float32"))
    gradient = tape.gradient(projected, before).numpy()
    variance = before.numpy().var(axis=(0, 1, 2))
    # By the mean variance it would be off by more than 10 %.
    assert (1.0 / variance).mean() * variance.mean() > 1.1
    found = prediction["conv2d"].gradient_second_moment
    assert found == pytest.approx((gradient**2).mean(), rel=0.05)
    common = (y.numpy().mean(axis=0) ** 2).mean()
    assert prediction["batch_normalization"].correlation == pytest.approx(common, abs=0.05)


def test_a_normalization_by_stored_statistics_uses_its_weights():
    norm = layers.BatchNormalization(epsilon=0.0)
    model = keras.Sequential([keras.Input((64,)), norm])
    norm.gamma.assign(np.full(64, 3.0))
    norm.beta.assign(np.full(64, 0.5))
    norm.moving_variance.assign(np.full(64, 4.0))
    norm.trainable = False
    for training in (False, True):
        row = keras_initkit.propagate(model, (1.0, 2.0, 0.5), training=training).rows[-1]
        assert row.mean == pytest.approx(3.0 / 2.0 + 0.5)
        assert row.second_moment == pytest.approx(9.0 / 4.0 + (3.0 / 2.0 + 0.5) ** 2)
    plain = layers.BatchNormalization(scale=False, center=False)
    model = keras.Sequential([keras.Input((64,)), plain])
    row = keras_initkit.propagate(model, (1.0, 2.0, 0.5), training=True).rows[-1]
    assert row.second_moment == pytest.approx(1.0, rel=2e-3)
