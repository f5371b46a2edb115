"""Initializers of matrices and kernels: what they promise, alone and in layers."""

import inspect
import json
import math
import re
from typing import Any

import keras
import numpy as np
import pytest

from keras_initkit.anatomy.seeds import derived_seed, with_seed
from keras_initkit.connectivity.layer_fans import owners, view_of_weight
from keras_initkit.initializers import (
    ICNR,
    Blockwise,
    ConvolutionAware,
    DeltaOrthogonal,
    Dirac,
    ForgetGateBias,
    Identity,
    Orthogonal,
    PerGate,
    PerHead,
    ScaledOrthogonal,
    Sparse,
    Spectral,
    VarianceScaling,
    ZerO,
)
from keras_initkit.initializers.orthonormal import orthonormal_columns
from keras_initkit.initializers.spectral import largest_singular_values

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers


def array(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")).astype(np.float64)


def products(matrices):
    """Products of the columns of each matrix, or of the rows where there are more columns."""
    if matrices.shape[-2] < matrices.shape[-1]:
        matrices = np.swapaxes(matrices, -1, -2)
    return np.swapaxes(matrices, -1, -2) @ matrices


def assert_orthonormal(matrices, scale=1.0, atol=5e-6):
    gram = products(np.asarray(matrices, np.float64)) / scale**2
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(gram.shape[-1]), gram.shape), atol=atol)


def wrong(argument: object) -> Any:
    """An argument of a type that is not allowed."""
    return argument


def draw(layer, name, initializer):
    """Draw a weight of a layer as what it is; return its view and the matrices that it holds."""
    [(variable, owner)] = [pair for pair in owners(layer) if pair[0].path.endswith(name)]
    view: Any = view_of_weight(owner, variable)
    weight = initializer.draw(view)
    assert tuple(weight.shape) == tuple(variable.shape)
    variable.assign(weight)
    return view, array(view.to_maps(weight))


# Orthonormal matrices.


@pytest.mark.parametrize(
    "shape",
    [
        (5000, 1, 1),
        (5000, 2, 2),
        (5000, 3, 3),
        (3, 130, 130),
        (2, 200, 200),
        (1, 400, 100),
        (2, 100, 400),
        (1, 300, 250),
        (7, 9, 1),
        (7, 1, 9),
        (0, 3, 2),
        (2, 0, 3),
    ],
    ids=str,
)
def test_orthonormal_matrices_are_those_of_a_qr_decomposition(rng, shape):
    gaussian = rng.standard_normal(shape, dtype=np.float32)
    result = orthonormal_columns(gaussian)
    assert result.dtype == np.float32
    assert result.shape == shape
    assert_orthonormal(result, atol=2e-6)
    if 0 in shape:
        return
    if shape[1] < shape[2]:
        gaussian, result = np.swapaxes(gaussian, 1, 2), np.swapaxes(result, 1, 2)
    q, r = np.linalg.qr(gaussian.astype(np.float64))
    diagonal = np.diagonal(r, axis1=1, axis2=2)
    q *= np.sign(diagonal)[:, None]
    # The decomposition itself is known to the rounding of the data over the smallest diagonal.
    np.testing.assert_allclose(result, q, atol=2e-5 / min(1.0, np.abs(diagonal).min()))


def test_matrices_that_are_singular_still_become_orthonormal():
    gaussian = np.random.default_rng(0).standard_normal((2, 40, 40), dtype=np.float32)
    gaussian[0, :, 7] = gaussian[0, :, 3]
    gaussian[1] = 0
    assert_orthonormal(orthonormal_columns(gaussian))
    almost = gaussian[:1].copy()
    almost[0, :, 7] += 1e-6 * almost[0, :, 8]
    assert_orthonormal(orthonormal_columns(almost))
    # Tall ones, which are taken to be regular until they prove not to be.
    gaussian[0, :, 1] = 0
    assert_orthonormal(orthonormal_columns(gaussian[:1, :, :4]))


def test_orthonormal_matrices_are_uniformly_distributed(rng):
    q = orthonormal_columns(rng.standard_normal((20000, 3, 3), dtype=np.float32)).astype(float)
    error = 5 / math.sqrt(len(q))
    # Moments of Haar's measure: of an element, a trace, and a determinant.
    np.testing.assert_allclose(q.mean(0), 0, atol=error)
    np.testing.assert_allclose((q**2).mean(0), 1 / 3, atol=error)
    np.testing.assert_allclose((q**4).mean(0), 1 / 5, atol=error)
    traces = np.trace(q, axis1=1, axis2=2)
    assert traces.mean() == pytest.approx(0, abs=error)
    assert (traces**2).mean() == pytest.approx(1, abs=2 * error)
    assert np.linalg.det(q).mean() == pytest.approx(0, abs=error)


# Keras's contract, for each.

CONSTANT = keras.initializers.Constant(0.5)
EACH = [
    (Orthogonal(gain="tanh", seed=3), (6, 4)),
    (Orthogonal(gain=0.5, seed=3), (3, 2, 9)),
    (ScaledOrthogonal(gain=lambda z: 2 * z, seed=3), (4, 6)),
    (DeltaOrthogonal(gain=2, seed=3), (3, 4, 4, 6)),
    (Dirac(gain=0.5, groups=2), (3, 2, 4)),
    (Identity(gain=0.5, gates=2), (3, 8)),
    (Sparse(0.5, gain="relu", seed=3), (6, 4)),
    (ConvolutionAware(seed=3), (3, 3, 11, 2)),
    (ConvolutionAware(2.0, seed=3), (6, 4)),
    (ZerO(gain=0.5), (3, 3, 6)),
    (Spectral(gain="relu", seed=3), (6, 4)),
    (ICNR("glorot_uniform"), (3, 3, 2, 8)),
    (ICNR(Orthogonal(seed=2), scale=3, order="pixel_shuffle"), (3, 2, 6)),
    (Blockwise(VarianceScaling("tanh", seed=1), blocks=3, axis=0), (6, 4)),
    (Blockwise(CONSTANT, blocks=2), (6,)),
    (PerGate(keras.initializers.Orthogonal(seed=1), gates=4), (3, 8)),
    (PerHead(PerGate(Spectral(seed=5), gates=2), heads=3, axis=-2), (4, 3, 2)),
    (ForgetGateBias(2.5), (8,)),
    (ForgetGateBias(cell="gru"), (2, 6)),
]
each = pytest.mark.parametrize(
    ("initializer", "shape"), EACH, ids=[f"{i}-{type(x[0]).__name__}" for i, x in enumerate(EACH)]
)


@each
def test_a_config_makes_the_same_initializer(initializer, shape):
    seed = getattr(initializer, "seed", None)
    # One that was given: what is drawn for `None` is not part of a config, as in Keras.
    initializer = with_seed(initializer, 7 if seed is None else seed)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(initializer)))
    assert config["registered_name"] == f"keras_initkit>{type(initializer).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == initializer.get_config()
    np.testing.assert_array_equal(array(again(shape)), array(initializer(shape)))
    clone = initializer.clone()
    np.testing.assert_array_equal(array(clone(shape)), array(initializer(shape)))


@each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_have_the_shape_and_type_that_is_asked_for(initializer, shape, dtype):
    values = initializer(shape, dtype=dtype, layout=None)
    assert tuple(values.shape) == shape
    assert keras.backend.standardize_dtype(values.dtype) == dtype
    # Rounded once, of the same numbers.
    wide = keras.ops.cast(initializer(shape), dtype)
    np.testing.assert_array_equal(array(values), array(wide))


@each
def test_what_is_no_float_is_refused(initializer, shape):
    with pytest.raises(ValueError, match=r"`dtype` must be a floating type\. Received: .*int32"):
        initializer(shape, dtype="int32")
    with pytest.raises(TypeError, match=r"called with `shape`, `dtype` and `layout` only\. Rec"):
        initializer(shape, partition=None)


RANDOM = [pair for pair in EACH if hasattr(pair[0], "seed")]


@pytest.mark.parametrize(
    ("initializer", "shape"), RANDOM, ids=[type(pair[0]).__name__ for pair in RANDOM]
)
def test_seeds_keep_to_keras_contract(initializer, shape):
    before = array(initializer(shape))
    fixed = with_seed(initializer, 1)
    np.testing.assert_array_equal(array(fixed(shape)), array(fixed(shape)))
    assert not np.array_equal(array(fixed(shape)), array(with_seed(initializer, 2)(shape)))
    moving = with_seed(initializer, keras.random.SeedGenerator(1))
    assert not np.array_equal(array(moving(shape)), array(moving(shape)))
    # What `with_seed` copied is as it was.
    np.testing.assert_array_equal(array(initializer(shape)), before)


def test_names_work_in_layers():
    x = np.zeros((1, 4, 4, 4), np.float32)
    for cls in (Orthogonal, ScaledOrthogonal, DeltaOrthogonal, Dirac, Sparse, ConvolutionAware):
        name = f"keras_initkit>{cls.__name__}"
        layer = layers.Conv2D(4, 3, kernel_initializer=name)
        layer(x)
        assert isinstance(layer.kernel_initializer, cls)
        assert array(layer.kernel).any()
        again = layers.Conv2D.from_config(layer.get_config())
        assert isinstance(again.kernel_initializer, cls)
    for name in ("Identity", "ZerO", "Spectral"):
        layer = layers.Dense(5, kernel_initializer=f"keras_initkit>{name}")
        layer(x)
        assert array(layer.kernel).any()
    lstm = layers.LSTM(2, unit_forget_bias=False, bias_initializer="keras_initkit>ForgetGateBias")
    lstm.build((None, 5, 3))
    np.testing.assert_array_equal(array(lstm.cell.bias), [0, 0, 1, 1, 0, 0, 0, 0])


def test_a_saved_model_keeps_its_initializers(tmp_path):
    model = keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(8, 3, kernel_initializer=ICNR(Orthogonal(seed=1))),
            layers.Reshape((16, 8)),
            layers.LSTM(4, recurrent_initializer=PerGate(Orthogonal("tanh", seed=1), 4)),
        ]
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.layers[0].kernel_initializer.initializer, Orthogonal)
    per_gate = again.layers[2].cell.recurrent_initializer
    assert per_gate.get_config() == model.layers[2].cell.recurrent_initializer.get_config()
    np.testing.assert_array_equal(
        array(per_gate((4, 16))), array(model.layers[2].cell.recurrent_kernel)
    )


# Orthogonal.


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (3, 3, 8, 20), (3, 2, 20), (1, 5), (5,)])
def test_by_shape_orthogonal_flattens_as_keras_does(shape):
    values = array(Orthogonal(gain=2.0, seed=1)(shape))
    matrix = values.reshape(-1, shape[-1] if len(shape) > 1 else 1)
    assert_orthonormal(matrix, 2.0)
    scaled = array(ScaledOrthogonal(gain=2.0, seed=1)(shape))
    factor = math.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
    np.testing.assert_allclose(scaled, factor * values, rtol=1e-6)
    assert (scaled**2).mean() == pytest.approx(4 / matrix.shape[0], rel=1e-5)


def test_gains_are_those_of_variance_scaling():
    tanh = VarianceScaling("tanh")
    assert Orthogonal("tanh")._factor == tanh._factor
    assert Orthogonal("tanh").get_config()["gain"] == "tanh"
    assert Orthogonal(keras.ops.tanh).get_config()["gain"] == tanh._factor
    matrix = array(Orthogonal("tanh", seed=0)((8, 8)))
    assert_orthonormal(matrix, tanh._factor)


def largest_eigenvalue(matrix):
    return np.abs(np.linalg.eigvals(matrix)).max()


@pytest.mark.parametrize(("cls", "gates"), [(layers.LSTM, 4), (layers.GRU, 3)])
def test_each_gate_is_orthogonal(cls, gates):
    layer = cls(64)
    layer.build((None, 5, 80))
    _, maps = draw(layer, "recurrent_kernel", Orthogonal(seed=0))
    blocks = np.split(array(layer.cell.recurrent_kernel), gates, axis=1)
    np.testing.assert_array_equal(maps, blocks)
    assert_orthonormal(maps)
    assert len({round(block[0, 0], 6) for block in blocks}) == gates
    for block in blocks:
        assert largest_eigenvalue(block) == pytest.approx(1, abs=1e-5)
    _, maps = draw(layer, "/kernel", Orthogonal(seed=0))
    assert maps.shape == (gates, 80, 64)
    assert_orthonormal(maps)
    # Keras's own, of the gates as one matrix: rows of the whole have the length 1.
    whole = np.split(array(keras.initializers.Orthogonal(seed=0)((64, gates * 64))), gates, axis=1)
    assert np.mean([(block**2).sum() / 64 for block in whole]) == pytest.approx(1 / gates)
    assert max(map(largest_eigenvalue, whole)) < 0.75


def test_each_gate_of_a_recurrent_convolution_is_orthogonal():
    layer = layers.ConvLSTM2D(8, 3)
    layer.build((None, 4, 9, 9, 2))
    for name, weights in (("/kernel", 18), ("recurrent_kernel", 72)):
        view, maps = draw(layer, name, Orthogonal(seed=0))
        assert view.matrix_shape == (4, weights, 8)
        assert_orthonormal(maps.reshape(4, weights, 8))


def test_each_head_is_orthogonal():
    layer = layers.MultiHeadAttention(4, 6)
    layer.build((None, 5, 32), (None, 5, 32))
    for name in ("query/kernel", "key/kernel", "value/kernel"):
        view, maps = draw(layer, name, Orthogonal(seed=0))
        assert maps.shape == (4, 32, 6)
        assert_orthonormal(maps)
        assert (maps**2).mean() == pytest.approx(1 / view.fans.fan_in, rel=1e-5)
    np.testing.assert_array_equal(array(layer._value_dense.kernel)[:, 2], maps[2])
    view, maps = draw(layer, "attention_output/kernel", Orthogonal(seed=0))
    assert maps.shape == (1, 24, 32)
    assert_orthonormal(maps)
    per_head = layers.EinsumDense("bhi,hio->bho", (4, 5))
    per_head.build((None, 4, 7))
    _, maps = draw(per_head, "kernel", Orthogonal(seed=0))
    np.testing.assert_array_equal(array(per_head.kernel), maps)
    assert_orthonormal(maps)


# Layers of which no one has more units than a unit has inputs, with the shape of their inputs.
NARROW = {
    "Dense": (lambda: layers.Dense(32), (64,)),
    "Conv2D": (lambda: layers.Conv2D(16, 3), (18, 18, 8)),
    "Conv2D-groups": (lambda: layers.Conv2D(16, 3, groups=4), (18, 18, 16)),
    "Conv2D-stride": (lambda: layers.Conv2D(16, 4, strides=2), (40, 40, 8)),
    "Depthwise": (lambda: layers.DepthwiseConv2D(3), (18, 18, 16)),
    "Depthwise-2": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (18, 18, 16)),
    "Separable": (lambda: layers.SeparableConv2D(8, 3), (18, 18, 16)),
    "Transpose": (lambda: layers.Conv2DTranspose(3, 4, strides=2), (14, 14, 64)),
    "Transpose-3": (lambda: layers.Conv2DTranspose(8, 3, strides=2), (14, 14, 32)),
    "Einsum": (lambda: layers.EinsumDense("bhi,hio->bho", (4, 8)), (4, 16)),
}
# And others.
WIDE = {
    "Dense": (lambda: layers.Dense(200), (20,)),
    "Conv2D": (lambda: layers.Conv2D(64, 3), (18, 18, 2)),
    "Conv2D-groups": (lambda: layers.Conv2D(64, 1, groups=4), (18, 18, 16)),
    "Depthwise": (lambda: layers.DepthwiseConv2D(1, depth_multiplier=3), (18, 18, 16)),
    "Transpose": (lambda: layers.Conv2DTranspose(80, 4, strides=2), (14, 14, 4)),
    "Einsum": (lambda: layers.EinsumDense("bhi,hio->bho", (4, 50)), (4, 10)),
}
CASES = [
    (initializer, name, *case)
    for initializer, cases in [
        (Orthogonal(seed=1), NARROW),
        (ScaledOrthogonal(seed=1), NARROW),
        (ScaledOrthogonal(seed=1), WIDE),
        (ConvolutionAware(1.0, seed=1), WIDE),
    ]
    for name, case in cases.items()
]


@pytest.mark.parametrize(
    ("initializer", "make", "shape"),
    [(initializer, make, shape) for initializer, _, make, shape in CASES],
    ids=[f"{type(case[0]).__name__}-{case[1]}" for case in CASES],
)
def test_layers_keep_the_variance_of_their_inputs(rng, initializer, make, shape):
    layer = make()
    layer.build((None, *shape))
    for variable in layer.weights:
        if variable.name.endswith("kernel"):
            view, maps = draw(layer, variable.path, initializer)
            assert (maps**2).mean() == pytest.approx(1 / view.fans.fan_in, rel=1e-5)
    x = rng.standard_normal((3000 if len(shape) < 3 else 24, *shape)).astype("float32")
    y = array(layer(x))
    if len(shape) == 3:
        y = y[:, 3:-3, 3:-3]  # what padding and borders leave alone
    assert (y**2).mean() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("name", NARROW)
def test_sparse_weights_have_the_variance_of_others(name):
    make, shape = NARROW[name]
    layer = make()
    layer.build((None, *shape))
    for variable in layer.weights:
        if variable.name.endswith("kernel"):
            view, maps = draw(layer, variable.path, Sparse(0.7, seed=1))
            tolerance = 5 * math.sqrt(2 / np.count_nonzero(maps))
            assert (maps**2).mean() == pytest.approx(1 / view.fans.fan_in, rel=tolerance)


def test_keras_own_does_not_in_a_depthwise_convolution(rng):
    layer = layers.DepthwiseConv2D(3, depthwise_initializer=keras.initializers.Orthogonal(seed=0))
    y = array(layer(rng.standard_normal((24, 18, 18, 16)).astype("float32")))
    assert (y**2).mean() == pytest.approx(1 / 16, rel=0.05)


def test_embeddings_have_the_variance_of_the_gain():
    layer = layers.Embedding(100, 32)
    layer.build()
    _, maps = draw(layer, "embeddings", Orthogonal(seed=0))
    assert (maps**2).mean() == pytest.approx(1, rel=1e-5)
    assert_orthonormal(maps, 10.0)
    _, maps = draw(layer, "embeddings", Spectral("relu", seed=0))
    # No input makes a sum of vectors: their lengths count.
    lengths = np.linalg.norm(maps[0], axis=1)
    assert lengths.max() == pytest.approx(math.sqrt(2 * 32), rel=1e-5)
    assert lengths.min() > 0.4 * lengths.max()


# Zero but for the centre tap.


def singular_values(layer, shape):
    """Singular values of a layer, as a matrix between all its inputs and all its outputs."""
    size = math.prod(shape)
    y = array(layer(np.eye(size, dtype=np.float32).reshape(size, *shape)))
    return np.linalg.svd(y.reshape(size, -1), compute_uv=False)


@pytest.mark.parametrize(
    ("channels", "filters", "taps", "groups"),
    [(3, 5, 3, 1), (4, 4, 3, 1), (4, 4, 4, 1), (5, 3, 3, 1), (4, 6, (3, 2), 2), (3, 3, 1, 1)],
)
def test_all_singular_values_of_a_delta_orthogonal_convolution_are_one(
    channels, filters, taps, groups
):
    layer = layers.Conv2D(filters, taps, padding="same", groups=groups)
    layer.build((None, 5, 5, channels))
    draw(layer, "kernel", DeltaOrthogonal(seed=0))
    values = singular_values(layer, (5, 5, channels))
    count = 25 * min(channels, filters)
    np.testing.assert_allclose(values[:count], 1, atol=1e-5)
    np.testing.assert_allclose(values[count:], 0, atol=1e-5)


def test_those_of_an_orthogonal_kernel_are_not():
    layer = layers.Conv2D(4, 3, padding="same", kernel_initializer=Orthogonal(seed=0))
    values = singular_values(layer, (5, 5, 4))
    assert values.max() > 1.3
    assert values.min() < 0.5


def test_delta_orthogonal_takes_a_gain_and_matrices():
    values = array(DeltaOrthogonal(gain="relu", seed=0)((3, 3, 4, 6)))
    assert_orthonormal(values[1, 1], math.sqrt(2))
    assert np.count_nonzero(values) == 24
    assert_orthonormal(array(DeltaOrthogonal(seed=0)((4, 6))))


def test_identities_know_groups_gates_and_channels(rng):
    x = rng.standard_normal((2, 6, 6, 4)).astype("float32")
    for layer in (
        layers.Conv2D(4, 3, padding="same", groups=2),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.Conv2D(4, (4, 2), padding="same"),
    ):
        layer.build(x.shape)
        # The layer counts its groups, whatever the initializer was told.
        draw(layer, "kernel", Dirac(groups=3))
        np.testing.assert_array_equal(array(layer(x)), x)
    lstm = layers.LSTM(5)
    lstm.build((None, 3, 5))
    _, maps = draw(lstm, "recurrent_kernel", Identity(0.5))
    np.testing.assert_array_equal(maps, np.broadcast_to(0.5 * np.eye(5), (4, 5, 5)))
    np.testing.assert_array_equal(
        array(Identity(0.5, gates=4)((5, 20))), array(lstm.cell.recurrent_kernel)
    )
    np.testing.assert_array_equal(array(Identity()((2, 3))), np.eye(2, 3))


def test_a_recurrent_layer_of_relus_keeps_its_state():
    rnn = layers.SimpleRNN(4, "relu", recurrent_initializer=Identity(), return_sequences=True)
    x = np.zeros((1, 9, 3), np.float32)
    x[0, 0] = 1
    y = array(rnn(x))[0]
    np.testing.assert_allclose(y, np.broadcast_to(y[0], y.shape))


def test_zero_is_made_of_identities_and_hadamard_matrices():
    zero = ZerO(gain=2.0)
    np.testing.assert_array_equal(array(zero((3, 3))), 2 * np.eye(3))
    np.testing.assert_array_equal(array(zero((5, 3))), 2 * np.eye(5, 3))
    hadamard: Any = np.ones((1, 1))
    for _ in range(3):
        hadamard = np.kron([[1, 1], [1, -1]], hadamard)
    for inputs, outputs in ((4, 8), (3, 5), (1, 7)):
        matrix = array(zero((inputs, outputs)))
        np.testing.assert_allclose(matrix, 2 / math.sqrt(8) * hadamard[:inputs, :outputs])
        np.testing.assert_allclose((matrix**2).sum(axis=1), 4 * outputs / 8)
    assert_orthonormal(array(zero((4, 8))), 2.0)
    assert_orthonormal(array(ZerO()((100, 512))))
    assert_orthonormal(array(ZerO()((1, 2))))
    kernel = array(zero((3, 4, 2, 8)))
    np.testing.assert_allclose(kernel[1, 1], 2 / math.sqrt(8) * hadamard[:2])
    assert np.count_nonzero(kernel) == 16
    layer = layers.Conv2D(16, 3, groups=2)
    layer.build((None, 8, 8, 8))
    _, maps = draw(layer, "kernel", ZerO())
    for centre in maps[:, 1, 1]:
        np.testing.assert_allclose(centre, hadamard[:4] / math.sqrt(8))


# Sparse, spectral, convolution-aware.


@pytest.mark.parametrize(
    ("sparsity", "inputs", "zeros"),
    [
        (0.9, 400, 360),
        (0.55, 100, 55),
        (0.5, 7, 4),
        (0.9, 5, 4),
        (0.99, 5, 4),
        (0, 9, 0),
        (0.3, 1, 0),
    ],
)
def test_each_unit_has_as_many_zeros(sparsity, inputs, zeros):
    values = array(Sparse(sparsity, gain=2.0, seed=1)((inputs, 300)))
    np.testing.assert_array_equal((values == 0).sum(axis=0), zeros)
    others = values[values != 0]
    variance = 4 / (inputs - zeros)
    assert others.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / others.size))
    assert (others**4).mean() / variance**2 == pytest.approx(3, rel=25 / math.sqrt(others.size))
    # Each place as often as others.
    share = (values == 0).mean(axis=1)
    expected = zeros / inputs
    assert np.abs(share - expected).max() <= 5 * math.sqrt(expected * (1 - expected) / 300)


def test_each_gate_and_channel_is_sparse():
    layer = layers.GRU(12)
    layer.build((None, 5, 40))
    _, maps = draw(layer, "/kernel", Sparse(seed=0))
    np.testing.assert_array_equal((maps == 0).sum(axis=1), np.full((3, 12), 36))
    layer = layers.DepthwiseConv2D(3)
    layer.build((None, 9, 9, 500))
    _, maps = draw(layer, "kernel", Sparse(0.5, seed=0))
    np.testing.assert_array_equal((maps == 0).sum(axis=(1, 2)), 5)
    assert (maps**2).mean() == pytest.approx(1 / 9, rel=5 * math.sqrt(3 / 2000))


@pytest.mark.parametrize(
    "shape", [(60, 40), (3, 3, 8, 100), (1, 7), (700, 600), (600, 900), (513, 513)], ids=str
)
def test_the_largest_singular_value_is_set(shape):
    values = array(Spectral(gain=2.0, seed=1)(shape)).reshape(-1, shape[-1])
    rows, columns = values.shape
    assert np.linalg.norm(values, 2) == pytest.approx(2 * math.sqrt(columns / rows), rel=1e-5)
    stddev = values.std()
    assert abs(values.mean()) < 5 * stddev / math.sqrt(values.size)
    if values.size > 100:
        kurtosis = (values**4).mean() / stddev**4
        assert kurtosis == pytest.approx(3, rel=25 / math.sqrt(values.size))


def test_the_largest_singular_value_of_each_map_is_set():
    layer = layers.LSTM(40)
    layer.build((None, 5, 20))
    _, maps = draw(layer, "/kernel", Spectral(seed=0))
    np.testing.assert_allclose(np.linalg.norm(maps, 2, axis=(1, 2)), math.sqrt(2), rtol=1e-5)
    layer = layers.MultiHeadAttention(3, 8)
    layer.build((None, 5, 32), (None, 5, 32))
    _, maps = draw(layer, "key/kernel", Spectral(seed=0))
    np.testing.assert_allclose(np.linalg.norm(maps, 2, axis=(1, 2)), 0.5, rtol=1e-5)


def test_singular_values_of_matrices_of_low_rank():
    left, right = np.linspace(1, 2, 600, dtype="float32"), np.linspace(2, 3, 520, dtype="float32")
    expected = np.linalg.norm(left) * np.linalg.norm(right)
    values = largest_singular_values(np.outer(left, right)[None].astype("float32"))
    np.testing.assert_allclose(values, [expected], rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [(3, 3, 7, 5), (3, 3, 20, 4), (5, 6, 3), (2, 3, 2, 8, 2), (4, 4, 16, 3)], ids=str
)
def test_filters_of_a_unit_are_orthogonal_in_the_fourier_domain(shape):
    *window, inputs, units = shape
    taps = math.prod(window)
    kernel = array(ConvolutionAware(gain=3.0, seed=0)(shape))
    assert (kernel**2).mean() == pytest.approx(9 / (taps * inputs), rel=1e-5)
    spectra = np.fft.fftn(kernel, axes=range(len(window))).reshape(taps, inputs, units)
    energy = taps * 9 / inputs  # of a filter's spectrum, by Parseval's theorem
    for first in range(0, inputs, taps):
        part = spectra[:, first : first + taps]
        gram = np.einsum("tiu,tju->uij", part.conj(), part) / energy
        np.testing.assert_allclose(
            gram, np.broadcast_to(np.eye(part.shape[1]), gram.shape), atol=1e-5
        )
    # Units are not the same, nor are filters symmetric, as those of real coefficients are.
    assert not np.allclose(kernel[..., 0], kernel[..., 1])
    mirrored = np.roll(np.flip(kernel, tuple(range(len(window)))), 1, range(len(window)))
    assert np.abs(kernel - mirrored).mean() > 0.3 * np.abs(kernel).mean()


def test_without_a_window_convolution_aware_is_orthogonal():
    for shape in ((6, 4), (1, 1, 4, 6)):
        values = array(ConvolutionAware(gain=2.0, seed=5)(shape))
        np.testing.assert_allclose(values, array(ScaledOrthogonal(2.0, seed=5)(shape)), rtol=1e-6)


# Wrappers.


def upsampled(y, scale, order):
    """What the pixel shuffle of a framework makes of a map; of NumPy elsewhere."""
    if order == "depth_to_space" and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return np.array(tf.nn.depth_to_space(y, scale))
    if order == "pixel_shuffle" and keras.backend.backend() == "torch":
        import torch

        shuffled = torch.nn.functional.pixel_shuffle(y.detach().permute(0, 3, 1, 2), scale)
        return shuffled.permute(0, 2, 3, 1).numpy()
    y = array(y)
    batch, height, width, channels = y.shape
    channels //= scale**2
    if order == "depth_to_space":
        parts = y.reshape(batch, height, width, scale, scale, channels)
        parts = parts.transpose(0, 1, 3, 2, 4, 5)
    else:
        parts = y.reshape(batch, height, width, channels, scale, scale)
        parts = parts.transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, height * scale, width * scale, channels)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("order", ["depth_to_space", "pixel_shuffle"])
def test_icnr_begins_without_a_checkerboard(rng, order, scale):
    x = rng.standard_normal((2, 5, 4, 3)).astype("float32")
    inner = keras.initializers.HeNormal(seed=0)
    options = {"padding": "same", "use_bias": False}
    layer = layers.Conv2D(5 * scale**2, 3, kernel_initializer=ICNR(inner, scale, order), **options)
    large = upsampled(layer(x), scale, order)
    assert large.shape == (2, 5 * scale, 4 * scale, 5)
    small = array(layers.Conv2D(5, 3, kernel_initializer=inner, **options)(x))
    expected = small.repeat(scale, axis=1).repeat(scale, axis=2)
    np.testing.assert_allclose(large, expected, atol=1e-5)
    assert small.std() > 0.5
    other = "pixel_shuffle" if order == "depth_to_space" else "depth_to_space"
    assert not np.allclose(upsampled(layer(x), scale, other), expected, atol=0.1)


def test_icnr_over_one_axis_and_three():
    for window in ((3,), (2, 2, 2)):
        pixels = 2 ** len(window)
        kernel = array(ICNR("he_normal")((*window, 3, 5 * pixels)))
        parts = np.split(kernel, pixels, axis=-1)
        assert kernel.std() > 0
        np.testing.assert_array_equal(parts, np.broadcast_to(parts[0], (pixels, *parts[0].shape)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_blocks_are_drawn_each_for_itself(axis):
    inner = Orthogonal(seed=3)
    values = array(Blockwise(inner, blocks=3, axis=axis)((12, 12)))
    blocks = np.split(values, 3, axis=axis)
    for index, block in enumerate(blocks):
        assert_orthonormal(block)
        expected = with_seed(inner, derived_seed(3, "part", index))(block.shape)
        np.testing.assert_array_equal(block, array(expected))
    assert not np.allclose(blocks[0], blocks[1])
    assert inner.seed == 3


def test_blocks_of_other_initializers():
    values = array(Blockwise(lambda shape, dtype=None: keras.ops.ones(shape, dtype), 2)((3, 4)))
    np.testing.assert_array_equal(values, np.ones((3, 4)))
    np.testing.assert_array_equal(array(PerHead(CONSTANT, 3)((2, 3, 4))), np.full((2, 3, 4), 0.5))
    assert not hasattr(PerHead(CONSTANT, 3), "seed")
    assert not hasattr(Dirac(), "seed")
    moving = Blockwise(keras.initializers.HeNormal(seed=keras.random.SeedGenerator(0)), 2)
    first, second = np.split(array(moving((4, 6))), 2, axis=1)
    assert not np.allclose(first, second)


def test_gates_and_heads_by_shape():
    lstm = layers.LSTM(16, recurrent_initializer=PerGate("orthogonal", 4))
    lstm.build((None, 5, 3))
    blocks = np.split(array(lstm.cell.recurrent_kernel), 4, axis=1)
    assert_orthonormal(np.stack(blocks))
    assert not np.allclose(blocks[0], blocks[1])
    assert PerGate("orthogonal", 4).get_config().keys() == {"initializer", "gates"}
    kernel = array(PerHead(Orthogonal(seed=1), 3)((20, 3, 6)))
    assert_orthonormal(kernel.transpose(1, 0, 2))
    assert not np.allclose(kernel[:, 0], kernel[:, 1])
    # Fans are those of a gate: Glorot's variance is 2/(inputs + units).
    values = array(PerGate("glorot_uniform", 4)((200, 800)))
    assert values.var() == pytest.approx(1 / 200, rel=0.03)


@pytest.mark.parametrize(
    ("initializer", "shape", "variance"),
    [
        (Blockwise(keras.initializers.HeNormal(seed=1), 4), (200, 800), 2 / 200),
        (Blockwise(VarianceScaling("tanh", seed=1), 2, axis=0), (400, 300), 1.592537**2 / 200),
        (PerGate(VarianceScaling(mode="fan_out", seed=1), 3), (200, 600), 1 / 200),
        (PerHead(keras.initializers.LecunNormal(seed=1), 4), (300, 4, 100), 1 / 300),
        (ICNR(keras.initializers.HeNormal(seed=1)), (3, 3, 32, 512), 2 / 288),
        (DeltaOrthogonal(2.0, seed=1), (3, 3, 64, 32), 4 / 64 / 9),
        (ScaledOrthogonal("relu", seed=1), (64, 256), 2 / 64),
        (Orthogonal(seed=1), (256, 64), 1 / 256),
        (ConvolutionAware("relu", seed=1), (3, 3, 16, 32), 2 / 144),
        (Sparse(0.5, seed=1), (200, 300), 1 / 200),
    ],
    ids=lambda value: type(value).__name__ if callable(value) else None,
)
def test_moments(initializer, shape, variance):
    values = array(initializer(shape))
    # Of blocks that are drawn again and again fewer numbers are independent.
    size = values.size / (4 if isinstance(initializer, ICNR) else 1)
    assert abs(values.mean()) <= 5 * math.sqrt(variance / size)
    assert values.var() == pytest.approx(variance, rel=8 * math.sqrt(2 / size))


def test_seeds_reach_through_wrappers_and_change_no_original():
    inner = keras.initializers.HeNormal(seed=1)
    wrapped = ICNR(PerGate(inner, 2))
    again = with_seed(wrapped, 5)
    assert (inner.seed, wrapped.seed, again.seed) == (1, 1, 5)
    config = again.get_config()["initializer"]["config"]["initializer"]["config"]
    assert config["seed"] == 5
    assert with_seed(CONSTANT, 5) is CONSTANT


@pytest.mark.parametrize("name", [name for name in dir(keras.initializers) if name[0].isupper()])
def test_with_seed_does_for_keras_initializers_what_their_constructor_does(name):
    cls = getattr(keras.initializers, name)
    if "seed" not in inspect.signature(cls.__init__).parameters:
        return
    initializer = cls(seed=1)
    other, expected = with_seed(initializer, 2), cls(seed=2)
    where = f"Keras keeps the seed of {name} elsewhere: see keras_initkit.anatomy.seeds.with_seed"
    assert other.seed == expected.seed, where
    assert other.get_config() == expected.get_config(), where
    assert initializer.get_config() == cls(seed=1).get_config(), where
    np.testing.assert_array_equal(array(other((4, 4))), array(expected((4, 4))), where)


def test_derived_seeds_are_of_the_whole_path():
    seeds = [derived_seed(1), derived_seed(1, 1), derived_seed(1, "1"), derived_seed(1, 1, 1)]
    seeds += [derived_seed(11), derived_seed(1, "a", "b"), derived_seed(1, "ab")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    # The same in every process, and on every machine.
    one: Any = np.int64(1)
    assert derived_seed(one, "a", one) == derived_seed(1, "a", 1)
    assert derived_seed(0, "kernel", 1) == 337841690
    values = keras.initializers.RandomNormal(seed=2**32 - 1)((2,))
    assert array(values).any()


# Wrappers that know the layer.


def cells_of(layer, shape):
    layer.build((None, *shape))
    return layer


@pytest.mark.parametrize(
    ("layer", "shape", "gates"),
    [
        (lambda: layers.LSTM(6), (5, 9), 4),
        (lambda: layers.GRU(6), (5, 9), 3),
        (lambda: layers.ConvLSTM2D(6, 3, strides=2), (4, 9, 9, 2), 4),
        (lambda: layers.SimpleRNN(6), (5, 9), 1),
    ],
    ids=["LSTM", "GRU", "ConvLSTM2D", "SimpleRNN"],
)
@pytest.mark.parametrize("inner", [Orthogonal(seed=2), keras.initializers.Orthogonal(seed=2)])
def test_per_gate_takes_the_gates_that_the_layer_has(layer, shape, gates, inner):
    layer = cells_of(layer(), shape)
    for name in ("/kernel", "recurrent_kernel"):
        # Two blocks fit into each of these weights, and are not what the layer has.
        _, maps = draw(layer, name, PerGate(inner, gates=2))
        maps = maps.reshape(gates, -1, 6)
        assert_orthonormal(maps)
        assert len({round(float(gate[0, 0]), 6) for gate in maps}) == gates


def test_per_gate_takes_the_true_fans_of_a_gate():
    layer = cells_of(layers.ConvLSTM2D(64, 4, strides=2), (4, 9, 9, 32))
    _, maps = draw(layer, "/kernel", PerGate(VarianceScaling(mode="fan_out", seed=1), 4))
    assert maps.var() == pytest.approx(1 / (4 * 64), rel=0.03)


def test_without_gates_in_sight_per_gate_takes_its_own_count():
    layer = cells_of(layers.Dense(12), (6,))
    draw(layer, "kernel", PerGate(Orthogonal(seed=2), gates=2))
    assert_orthonormal(np.stack(np.split(array(layer.kernel), 2, axis=1)))


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
@pytest.mark.parametrize("inner", [Orthogonal(seed=2), keras.initializers.Orthogonal(seed=2)])
def test_per_head_takes_the_heads_that_the_layer_has(kind, inner):
    # As many units as heads: no shape tells the output's kernel from the others.
    attention = {
        "MultiHeadAttention": lambda: layers.MultiHeadAttention(4, 4),
        "GroupQueryAttention": lambda: layers.GroupQueryAttention(4, 4, 2),
    }[kind]()
    attention.build((None, 5, 32), (None, 5, 32))
    for name in ("query/kernel", "key/kernel", "value/kernel"):
        _, maps = draw(attention, name, PerHead(inner, heads=3))
        assert maps.shape == (2 if kind[0] == "G" and name[0] != "q" else 4, 32, 4)
        assert_orthonormal(maps)
        assert not np.allclose(maps[0], maps[1])
    _, maps = draw(attention, "attention_output/kernel", PerHead(inner, heads=3))
    assert maps.shape == (1, 16, 32)
    assert_orthonormal(maps[0])


def test_per_head_in_the_constructor_of_an_attention_layer_is_an_error():
    attention = layers.MultiHeadAttention(4, 6, kernel_initializer=PerHead("orthogonal", heads=4))
    with pytest.raises(ValueError, match=r"shape=\(4, 6, 32\). If it is that of the output's kern"):
        attention.build((None, 5, 32), (None, 5, 32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_wrappers_that_know_the_layer_keep_the_type(dtype):
    layer = cells_of(layers.LSTM(4), (5, 3))
    [(variable, owner)] = [pair for pair in owners(layer) if pair[0].name == "recurrent_kernel"]
    view: Any = view_of_weight(owner, variable)
    for initializer in (PerGate("orthogonal", 4), PerHead("orthogonal", 4)):
        drawn = initializer.draw(view, dtype)
        assert keras.backend.standardize_dtype(drawn.dtype) == dtype


# Biases.


def test_the_forget_gate_begins_open():
    lstm = layers.LSTM(3, bias_initializer=ForgetGateBias(2.0), unit_forget_bias=False)
    lstm.build((None, 5, 3))
    np.testing.assert_array_equal(array(lstm.cell.bias), [0] * 3 + [2] * 3 + [0] * 6)
    ours, own = (
        layers.LSTM(3, bias_initializer=ForgetGateBias(), unit_forget_bias=False),
        layers.LSTM(3),
    )
    for layer in (ours, own):
        layer.build((None, 5, 3))
    np.testing.assert_array_equal(array(ours.cell.bias), array(own.cell.bias))


@pytest.mark.parametrize("reset_after", [True, False])
def test_the_update_gate_of_a_gru_begins_open(reset_after):
    gru = layers.GRU(8, bias_initializer=ForgetGateBias(3.0, "gru"), reset_after=reset_after)
    gru.build((None, 5, 3))
    assert array(gru.cell.bias).sum() == 24
    gru.cell.recurrent_kernel.assign(np.zeros((8, 24)))
    state = array(gru.cell(np.zeros((1, 3), np.float32), [np.ones((1, 8), np.float32)])[0])
    np.testing.assert_allclose(state, 1 / (1 + math.exp(-3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Orthogonal(gain=0), "`gain` must be positive and finite. Received: gain=0."),
        (lambda: Spectral(gain=wrong([1])), "`gain` must be a positive number, the name of an"),
        (lambda: Orthogonal(seed="a"), "`seed` argument should be an instance of"),
        (lambda: Dirac(groups=0), "`groups` must be a positive integer, that of the convolution."),
        (lambda: Identity(gates=True), "`gates` must be a positive integer, 1 for a matrix, 3 for"),
        (lambda: Identity(gates=2)((3, 5)), "with outputs a multiple of gates=2. Received: shape="),
        (lambda: Identity()((3, 3, 3)), "Received: shape=(3, 3, 3). For convolutions use Dirac."),
        (lambda: Sparse(1.0), "`sparsity` must be a number from 0 to less than 1, the share of z"),
        (lambda: Sparse(wrong("x")), "Received: sparsity='x'"),
        (lambda: ICNR("zeros", 0), "`scale` must be a positive integer, the factor of upsampling"),
        (lambda: ICNR("zeros", 2, "x"), '`order` must be one of "depth_to_space", "pixel_shuffle'),
        (lambda: ICNR("zeros")((3, 3, 2, 6)), "with outputs a multiple of scale=2 to the power of"),
        (lambda: ICNR("zeros")((3, 4)), "`shape` must be (*window, inputs, outputs), with outputs"),
        (lambda: ICNR(None), "`initializer` must be a Keras initializer or the name of one. Rec"),
        (lambda: Blockwise("zeros", 0), "`blocks` must be a positive integer, the number of equal"),
        (lambda: Blockwise("zeros", 2, wrong(1.0)), "`axis` must be an integer. Received: axis="),
        (lambda: Blockwise("zeros", 2)((2, 3)), "`shape` must have a multiple of 2, the number of"),
        (lambda: Blockwise("zeros", 2, 3)((2, 3)), "one of the 2 axes of the weight. Received: ax"),
        (lambda: PerGate("zeros", 0), "`gates` must be a positive integer, 4 for an LSTM, 3 for a"),
        (lambda: PerHead("zeros", 0), "`heads` must be a positive integer, the number of heads"),
        (lambda: PerHead("zeros", 3)((3,)), "Received: axis=1, and a weight of shape (3,)"),
        (
            lambda: PerHead("zeros", 3)((5, 4, 2)),
            "`shape` must have 3, the number of heads, along ",
        ),
        (
            lambda: PerHead("zeros", 4)((4, 4, 9)),
            "along axis 1 alone, as in (inputs, heads, units)",
        ),
        (lambda: Dirac(wrong("x")), "`gain` must be a finite number, the factor of all weights."),
        (lambda: Identity(math.nan), "Received: gain=nan"),
        (lambda: ZerO(wrong(True)), "Received: gain=True"),
        (lambda: DeltaOrthogonal(-1), "`gain` must be positive and finite. Received: gain=-1"),
        (lambda: ConvolutionAware("nope"), "name of an elementwise activation in keras.activati"),
        (lambda: ForgetGateBias(math.inf), "`value` must be a finite number. Received: value=inf"),
        (lambda: ForgetGateBias(cell="rnn"), '`cell` must be one of "lstm", "gru".'),
        (lambda: ForgetGateBias()((7,)), 'that of the bias of an "lstm" cell, whose last axis is'),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
