"""Masks of padded sequences: the prediction for data with padding, measured on the other steps."""

import keras
import numpy as np
import pytest

import keras_initkit

layers, ops = keras.layers, keras.ops
STEPS, WIDTH, TOKENS = 12, 192, 400

# On PyTorch, the quickest.
pytestmark = pytest.mark.backends("torch")


@pytest.fixture
def tokens(rng):
    """Return sequences of 6 to 12 tokens, padded behind with zeros."""
    found = rng.integers(1, TOKENS, size=(64, STEPS)).astype("int32")
    found[np.arange(STEPS) >= rng.integers(6, STEPS + 1, size=64)[:, np.newaxis]] = 0
    return found


def embed(inputs, mask_zero=True):
    normal = keras.initializers.RandomNormal(stddev=1.0)
    return layers.Embedding(TOKENS, WIDTH, normal, mask_zero=mask_zero, name="embedding")(inputs)


def dense(name, gain=1.0):
    return layers.Dense(
        WIDTH, kernel_initializer=keras.initializers.VarianceScaling(gain), name=name
    )


def stacked(x):
    x = layers.LSTM(WIDTH, return_sequences=True, name="first")(x)
    return layers.GRU(WIDTH, name="last")(layers.Dropout(0.1)(x))


def both_ways(x):
    x = layers.Bidirectional(layers.SimpleRNN(WIDTH, return_sequences=True), name="ways")(x)
    return layers.Bidirectional(layers.GRU(WIDTH), merge_mode="sum", name="last")(x)


def averaged(x):
    x = layers.LSTM(WIDTH, return_sequences=True, zero_output_for_mask=True, name="lstm")(x)
    return dense("last")(layers.GlobalAveragePooling1D(keepdims=True, name="average")(x))


def heads(x):
    x = layers.MultiHeadAttention(4, 32, value_dim=48, name="heads")(x, x)
    return dense("last")(x)


def causal(x):
    attention = layers.MultiHeadAttention(4, 48, name="attention")
    return dense("last")(attention(dense("query")(x), x, use_causal_mask=True))


def asked(x):
    attention = layers.Attention(name="attention")
    return dense("last")(attention([dense("query", 0.01)(x), dense("value")(x)]))


def added(x):
    attention = layers.AdditiveAttention(name="attention")
    return dense("last")(attention([dense("query")(x), dense("value")(x)]))


def normalized(x):
    x = layers.Add()([layers.BatchNormalization(name="batch")(dense("dense")(x)), x])
    return layers.TimeDistributed(dense("last"), name="steps")(layers.LayerNormalization()(x))


def measure(model, x, kept):
    """Measure outputs and gradients of the layers with steps, those that are kept alone."""
    inner = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    whole = keras.Model(model.inputs, [layer.output for layer in inner])
    x = ops.convert_to_tensor(x)
    values = whole(x.requires_grad_() if x.is_floating_point() else x)
    for value in values:
        value.retain_grad()
    shape, last = values[-1].shape, values[-1]
    ends = kept[..., np.newaxis] if last.ndim == 3 and last.shape[1] == STEPS else 1.0
    random = np.random.default_rng(1).normal(size=shape) * ends
    ops.sum(last * ops.convert_to_tensor(random.astype("float32"))).backward()
    found = {}
    for layer, value in zip(inner, values, strict=True):
        both = [array.detach().numpy().astype("float64") ** 2 for array in (value, value.grad)]
        has_steps = both[0].ndim == 3 and both[0].shape[1] == STEPS
        found[layer.name] = [(array[kept] if has_steps else array).mean() for array in both]
    return found


@pytest.mark.parametrize(
    "build", [stacked, both_ways, averaged, heads, causal, asked, added, normalized]
)
def test_padding_is_left_out(build, tokens):
    inputs = keras.Input((STEPS,), dtype="int32")
    model = keras.Model(inputs, build(embed(inputs)))
    prediction = keras_initkit.propagate(model, tokens)
    assert {row.how for row in prediction} == {"rule"}
    for name, (square, gradient) in measure(model, tokens, tokens != 0).items():
        row = prediction[name]
        assert row.second_moment == pytest.approx(square, rel=0.1), name
        assert row.gradient_second_moment == pytest.approx(gradient, rel=0.12), name


def test_padding_changes_what_is_predicted(tokens):
    inputs = keras.Input((STEPS,), dtype="int32")
    found = []
    for mask_zero in (True, False):
        keras.utils.set_random_seed(0)
        model = keras.Model(inputs, averaged(embed(inputs, mask_zero)))
        row = keras_initkit.propagate(model, tokens)["average"]
        found.append(row.second_moment)
        # Without padding, or without data, there is no mask.
        full, none = (
            keras_initkit.propagate(model, data)["average"].second_moment
            for data in (np.maximum(tokens, 1), None)
        )
        assert full == pytest.approx(none, rel=0.02)
        found.append(full)
    assert found[1] == pytest.approx(found[2], rel=0.02) == pytest.approx(found[3], rel=0.02)
    assert abs(found[0] / found[1] - 1.0) > 0.1


def test_masks_of_numbers_and_masks_that_are_given(rng):
    x = rng.normal(size=(64, STEPS, WIDTH)).astype("float32")
    kept = np.arange(STEPS) >= rng.integers(0, 7, size=64)[:, np.newaxis]
    x[~kept] = 0.0
    inputs, given = keras.Input((STEPS, WIDTH)), keras.Input((STEPS,), dtype="bool")
    masked = averaged(layers.Masking(name="masking")(inputs))
    first = keras.Model(inputs, masked)
    found = keras_initkit.propagate(first, x)
    for name, (square, gradient) in measure(first, x, kept).items():
        assert found[name].second_moment == pytest.approx(square, rel=0.1), name
        assert found[name].gradient_second_moment == pytest.approx(gradient, rel=0.12), name
    own = layers.MultiHeadAttention(4, 48, name="heads")
    near = np.tri(STEPS, STEPS, 1, dtype=bool) & ~np.tri(STEPS, STEPS, -2, dtype=bool)
    y = own(inputs, inputs, attention_mask=near)
    z = layers.LSTM(WIDTH, name="lstm")(inputs, mask=ops.logical_not(given))
    second = keras.Model([inputs, given], [y, z])
    found = keras_initkit.propagate(second, [None, ~kept])
    x = rng.normal(size=x.shape).astype("float32")
    y, z = (ops.convert_to_numpy(value) for value in second([x, ~kept]))
    assert found["heads"].second_moment == pytest.approx((y**2).mean(), rel=0.1)
    assert found["lstm"].second_moment == pytest.approx((z**2).mean(), rel=0.1)


def test_layers_of_data_are_run_on_the_data(rng):
    x = (rng.normal(size=(200, 8)) * np.arange(1, 9) + 5.0).astype("float32")
    normalize = layers.Normalization(name="normalize")
    normalize.adapt(x)
    inputs = keras.Input((8,))
    found = keras_initkit.propagate(keras.Model(inputs, layers.ReLU()(normalize(inputs))), x)
    assert found["normalize"].how == "sampled"
    assert found["normalize"].second_moment == pytest.approx(1.0, rel=1e-3)
    assert found["re_lu"].second_moment == pytest.approx(0.5, rel=1e-2)


def test_masks_go_through_nested_models(tokens):
    inputs = keras.Input((STEPS,), dtype="int32")
    flat = keras.Model(inputs, averaged(embed(inputs)))
    again = keras.Input((STEPS,), dtype="int32")
    encoder = keras.Model(again, flat.get_layer("lstm")(flat.get_layer("embedding")(again)))
    rest = flat.get_layer("average")(encoder(inputs))
    nested = keras.Model(inputs, flat.get_layer("last")(rest))
    rows, others = (
        {row.path.rpartition("/")[2]: row for row in keras_initkit.propagate(model, tokens)}
        for model in (flat, nested)
    )
    for name in ("embedding", "lstm", "average", "last"):
        assert others[name][3:7] == pytest.approx(rows[name][3:7])
