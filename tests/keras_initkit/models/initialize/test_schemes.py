"""Schemes of the literature: their factors, and what they need of a model."""

import itertools

import keras
import numpy as np
import pytest

from keras_initkit import initialize
from keras_initkit.theory import critical

# Where models are called soonest; a few show that it works elsewhere.
pytestmark = pytest.mark.backends("torch")

layers = keras.layers


def values(model):
    return {v.path: keras.ops.convert_to_numpy(v.value) for v in model.weights}


def resnet(blocks=4, width=64, normalized=False):
    x = layers.Dense(width, name="stem")(first := keras.Input((32,)))
    for i in range(blocks):
        y = layers.Dense(width, "relu", name=f"a{i}")(x)
        y = layers.BatchNormalization()(y) if normalized else y
        x = layers.Add()([x, layers.Dense(width, name=f"b{i}")(y)])
    return keras.Model(first, layers.Dense(5, name="head")(x))


def encoder(blocks=2, width=32, alpha=None, normalized=False):
    first = keras.Input((6,), dtype="int32")
    x = layers.Embedding(40, width, name="embedding")(first)

    def add(x, branch):
        x = layers.Add()([x if alpha is None else layers.Rescaling(alpha)(x), branch])
        return layers.LayerNormalization()(x) if normalized else x

    for i in range(blocks):
        x = add(x, layers.MultiHeadAttention(2, width // 2, name=f"attention{i}")(x, x))
        inner = layers.Dense(2 * width, "relu", name=f"in{i}")(x)
        x = add(x, layers.Dense(width, name=f"out{i}")(inner))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(first, layers.Dense(5, name="head")(x))


@pytest.mark.backends("tensorflow", "torch")
def test_fixup_scales_branches_and_ends_them_with_zeros():
    model = resnet()
    initialize(model, scheme="fixup", seed=0)
    found = values(model)
    for name in ("b0/kernel", "b3/kernel", "head/kernel"):
        assert not found[name].any()
    assert 32 * found["stem/kernel"].var() == pytest.approx(2.0, rel=0.1)
    # Two kernels in each of four branches: 4^(-1/2).
    assert 64 * found["a0/kernel"].var() == pytest.approx(2.0 / 4, rel=0.1)


def test_zero_draws_nothing_at_random():
    model = resnet()
    initialize(model, scheme="zero", seed=0)
    first = values(model)
    assert first["a0/kernel"] == pytest.approx(np.eye(64))
    assert not first["b0/kernel"].any()
    initialize(model, scheme="zero", seed=1)
    assert all(np.array_equal(first[path], value) for path, value in values(model).items())


@pytest.mark.backends("tensorflow", "torch")
def test_t_fixup_has_its_factor_on_all_but_queries_and_keys():
    model = encoder(width=64)
    initialize(model, scheme="t-fixup", seed=0)
    found = values(model)
    factor = 0.67 * 2**-0.25
    assert found["embedding/embeddings"].std() == pytest.approx(factor / 8, rel=0.1)
    for path, scale in [("attention0/query", 1.0), ("attention1/value", factor), ("in0", factor)]:
        kernel = found[f"{path}/kernel"].reshape(64, -1)
        expected = scale * np.sqrt(2 / (64 + (64 if "attention" in path else 128)))
        assert kernel.std() == pytest.approx(expected, rel=0.1)


def test_deepnorm_has_its_factor_if_the_model_has_its_own():
    model = encoder(width=64, alpha=4**0.25, normalized=True)
    initialize(model, scheme="deepnorm", seed=0)
    beta = 16**-0.25
    assert values(model)["out0/kernel"].std() == pytest.approx(beta * np.sqrt(2 / 192), rel=0.1)
    with pytest.raises(ValueError, match=r"multiply its skip connections by 1.414 .*Rescaling\("):
        initialize(encoder(normalized=True), scheme="deepnorm")


def test_a_decoder_has_factors_of_its_own():
    memory = source = keras.Input((6, 64))
    for i in range(2):
        y = layers.MultiHeadAttention(2, 32, name=f"encoder{i}")(memory, memory)
        memory = layers.Add()([memory, y])
    x = target = keras.Input((5, 64))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 32, name="itself")(x, x)])
    x = layers.Add()([x, layers.MultiHeadAttention(2, 32, name="cross")(x, memory)])
    x = layers.Add()([x, layers.Dense(64, name="out")(layers.Dense(64, "relu")(x))])
    model = keras.Model([source, target], layers.Dense(5)(x))
    initialize(model, scheme="t-fixup", seed=0)
    xavier, found = np.sqrt(2 / 128), values(model)
    for path, factor in [("encoder1/value", 0.67 * 2**-0.25), ("cross/value", 9**-0.25)]:
        assert found[f"{path}/kernel"].std() == pytest.approx(factor * xavier, rel=0.1)
    assert found["out/kernel"].std() == pytest.approx(9**-0.25 * xavier, rel=0.1)


@pytest.mark.backends("tensorflow", "jax", "torch")
def test_delta_orthogonal_keeps_norms_and_leaves_other_taps_zero():
    hidden = [layers.Conv2D(16, 3, padding="same", activation="tanh") for _ in range(6)]
    model = keras.Sequential([keras.Input((6, 6, 3)), *hidden, layers.Flatten(), layers.Dense(3)])
    initialize(model, scheme="delta-orthogonal", seed=0)
    kernel = keras.ops.convert_to_numpy(model.layers[3].kernel)
    centre = kernel[1, 1] @ kernel[1, 1].T
    assert centre == pytest.approx(centre[0, 0] * np.eye(16), abs=1e-5)
    assert np.count_nonzero(kernel) == 256


def test_critical_takes_the_pair_of_the_theory():
    hidden = [layers.Dense(64, "selu") for _ in range(8)]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(3)])
    initialize(model, scheme="critical", seed=0)
    found, point = values(model), critical("selu", variance=1.0)
    for path, value in list(found.items())[2:16]:
        wanted = point.bias_variance if path.endswith("bias") else point.weight_variance / 64
        assert (value**2).mean() == pytest.approx(wanted, rel=0.6 if value.ndim == 1 else 1e-3)


PLAIN = [keras.Input((8,)), layers.Dense(4, "relu"), layers.Dense(2)]


@pytest.mark.parametrize(
    ("scheme", "model", "message"),
    [
        ("fixup", lambda: keras.Sequential(PLAIN), "must have residual branches"),
        ("zero", lambda: keras.Sequential(PLAIN), "must have residual branches"),
        ("fixup", lambda: resnet(normalized=True), "must have no normalization layers"),
        ("t-fixup", resnet, "must have attention layers"),
        ("t-fixup", lambda: encoder(normalized=True), "must have no normalization layers"),
        ("deepnorm", resnet, "must have attention layers"),
        ("delta-orthogonal", resnet, "must have convolutions"),
    ],
)
def test_schemes_say_what_they_need(scheme, model, message):
    model = model()
    before = values(model)
    with pytest.raises(ValueError, match=f"`model` {message} for scheme=.{scheme}"):
        initialize(model, scheme=scheme)
    assert all(np.array_equal(before[path], value) for path, value in values(model).items())


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_a_deep_row_of_rectifiers_starts_as_a_linear_isometry(activation):
    pairs = [(layers.Dense(32, activation), layers.Dropout(0.1)) for _ in range(40)]
    hidden = itertools.chain.from_iterable(pairs)
    model = keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(4)])
    initialize(model, scheme="critical", seed=0)
    kernels = [value for path, value in values(model).items() if path.endswith("kernel")]
    assert all(np.array_equal(kernel[:16], -kernel[16:]) for kernel in kernels[1:-1])
    function = keras.activations.get(activation)

    def pass_hidden(x):
        for kernel in kernels[:-1]:
            z = x @ kernel
            x = keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(z)))
        return z

    one, other = np.random.default_rng(0).standard_normal((2, 8, 16)).astype("float32")
    total = pass_hidden(one + other)
    assert pass_hidden(one) + pass_hidden(other) == pytest.approx(total, abs=1e-4)
    # Angles stay, too: a product of two inputs has the same factor as their squares.
    first, second = pass_hidden(one), pass_hidden(other)
    factor = (first**2).sum() / (one**2).sum()
    assert (first * second).sum() == pytest.approx(factor * (one * other).sum(), rel=1e-3)


def test_mirrored_weights_are_for_deep_rows_of_rectifiers_alone():
    def is_mirrored(activation, depth, width=32):
        hidden = [layers.Dense(width, activation) for _ in range(depth)]
        model = keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(4)])
        initialize(model, scheme="critical", seed=0)
        kernel = values(model)[hidden[1].kernel.path]
        return np.array_equal(kernel[: width // 2], -kernel[width // 2 :])

    assert is_mirrored("relu", 30)
    assert not is_mirrored("relu", 29)
    assert not is_mirrored("elu", 30)
    assert not is_mirrored("relu", 30, width=31)
