"""What the initializers draw, and how they live in layers, configs and files."""

import inspect
import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_initkit import initializers
from keras_initkit.initializers import (
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from tests.keras_initkit.initializers import test_kernel_initializers as kernels
from tests.keras_initkit.initializers import test_other_initializers as others

Array = npt.NDArray[np.float64]

# The family of one formula and any gain; test_other_initializers.py has the rest.
CLASSES = [
    cls
    for cls in (getattr(initializers, name) for name in initializers.__all__)
    if issubclass(cls, VarianceScaling) and "gain" in inspect.signature(cls).parameters
]
# Keras hands the axes of an EinsumDense kernel to its initializer from 3.15 on.
KERAS_GIVES_AXES = "input_axes" in inspect.signature(keras.initializers.VarianceScaling).parameters


def test_every_initializer_is_in_the_tests_of_the_contract() -> None:
    tested = {type(initializer) for initializer, _ in kernels.EACH + others.EACH}
    missing = {getattr(initializers, name) for name in initializers.__all__} - tested - set(CLASSES)
    assert not missing


each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def _values(tensor: Any) -> Array:
    """Return a tensor or a variable, of any precision, as float64."""
    if isinstance(tensor, keras.Variable):
        tensor = tensor.value
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")).astype("float64")


def _kernels(layer: keras.layers.Layer) -> list[Array]:
    return [_values(weight) for weight in layer.weights if weight.name.endswith("kernel")]


def _assert_variance(values: Array, variance: float) -> None:
    # Five standard errors of mean and variance. No distribution here has more kurtosis than
    # the normal's 3, at which the variance of n values has a relative error of sqrt(2/n).
    assert abs(values.mean()) <= 5 * math.sqrt(variance / values.size)
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / values.size))


DENSE, CONV, WIDE = (300, 500), (3, 3, 64, 128), (1000, 40)


@pytest.mark.parametrize(
    ("initializer", "shape", "variance"),
    [
        (XavierUniform(seed=1), DENSE, 2 / 800),
        (XavierUniform(gain=3.0, seed=1), CONV, 9 * 2 / (576 + 1152)),
        (XavierUniform(gain="tanh", seed=1), WIDE, 2.536178 * 2 / 1040),
        (XavierNormal(seed=1), DENSE, 2 / 800),
        (XavierNormal(gain=0.5, seed=1), CONV, 0.25 * 2 / (576 + 1152)),
        (XavierNormal(gain="relu", negative_slope=0.5, seed=1), DENSE, 1.6 * 2 / 800),
        (HeUniform(seed=1), DENSE, 2 / 300),
        (HeUniform(mode="fan_out", seed=1), DENSE, 2 / 500),
        (HeUniform(negative_slope=0.1, seed=1), CONV, 2 / 1.01 / 576),
        (HeNormal(seed=1), DENSE, 2 / 300),
        (HeNormal(mode="fan_out", seed=1), CONV, 2 / 1152),
        (HeNormal(gain="leaky_relu", seed=1), WIDE, 2 / 1.04 / 1000),
        (HeNormal(gain="gelu", mode="fan_avg", seed=1), DENSE, 2.351714 / 400),
        (HeNormal(gain=keras.activations.gelu, seed=1), DENSE, 2.351714 / 300),
        (LecunUniform(seed=1), DENSE, 1 / 300),
        (LecunUniform(gain="selu", seed=1), CONV, 1 / 576),
        (LecunNormal(seed=1), WIDE, 1 / 1000),
        (LecunNormal(gain=2.0, seed=1), DENSE, 4 / 300),
        (VarianceScaling(seed=1), DENSE, 1 / 300),
        (VarianceScaling(mode="fan_out", seed=1), DENSE, 1 / 500),
        (VarianceScaling(mode="fan_avg", seed=1), DENSE, 1 / 400),
        (VarianceScaling(mode="fan_geo_avg", seed=1), DENSE, 1 / math.sqrt(150_000)),
        (VarianceScaling(2.0, distribution="uniform", seed=1), DENSE, 4 / 300),
        (VarianceScaling(2.0, distribution="untruncated_normal", seed=1), DENSE, 4 / 300),
        (VarianceScaling(2.0, distribution="normal", seed=1), DENSE, 4 / 300),
        (VarianceScaling(input_axes=[1], output_axes=[0], seed=1), DENSE, 1 / 500),
        (VarianceScaling(seed=keras.random.SeedGenerator(1)), DENSE, 1 / 300),
    ],
    ids=lambda value: type(value).__name__ if callable(value) else None,
)
def test_weights_have_the_variance_of_the_formula(
    initializer: Any, shape: tuple[int, ...], variance: float
) -> None:
    _assert_variance(_values(initializer(shape)), variance)


TRUNCATION = 0.87962566103423978


@pytest.mark.parametrize(
    ("initializer", "distribution", "limit"),
    [
        (VarianceScaling(distribution="uniform", seed=2), stats.uniform(-1, 2), math.sqrt(3)),
        (VarianceScaling(seed=2), stats.truncnorm(-2, 2, scale=0.5), 2 / TRUNCATION),
        (
            VarianceScaling(distribution="normal", seed=2),
            stats.truncnorm(-2, 2, scale=0.5),
            2 / TRUNCATION,
        ),
        (HeNormal(gain=1.0, seed=2), stats.truncnorm(-2, 2, scale=0.5), 2 / TRUNCATION),
        (LecunUniform(seed=2), stats.uniform(-1, 2), math.sqrt(3)),
    ],
)
def test_weights_have_the_shape_and_limits_of_their_distribution(
    initializer: Any, distribution: Any, limit: float
) -> None:
    values = _values(initializer((400, 400))).ravel() * math.sqrt(400) / limit
    assert np.abs(values).max() <= 1 + 1e-6
    assert np.abs(values).max() >= 0.99
    # Kolmogorov-Smirnov: a right distribution exceeds 2.2/sqrt(n) once in 8,000 draws.
    assert stats.kstest(values, distribution.cdf).statistic < 2.2 / math.sqrt(values.size)


def test_an_untruncated_normal_has_tails() -> None:
    initializer = VarianceScaling(distribution="untruncated_normal", seed=2)
    values = _values(initializer((400, 400))).ravel() * math.sqrt(400)
    assert np.abs(values).max() > 4
    assert stats.kstest(values, stats.norm.cdf).statistic < 2.2 / math.sqrt(values.size)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]),
    st.sampled_from(["uniform", "truncated_normal", "untruncated_normal"]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(0.1, 10),
)
def test_gains_and_fans_scale_the_same_numbers(
    mode: str, distribution: str, inputs: int, outputs: int, factor: float
) -> None:
    def draw(gain: float, scale: int = 1) -> Array:
        axes = {"input_axes": [0, 1], "output_axes": [0, 2]}
        initializer = VarianceScaling(gain, None, mode, distribution, seed=3, **axes)
        return _values(initializer((scale, inputs, outputs)))

    unit = draw(1.0)
    # Uniform numbers near zero are rounded as those near the limit are.
    np.testing.assert_allclose(draw(factor), factor * unit, rtol=1e-5, atol=1e-6 * factor)
    fan = {
        "fan_in": inputs,
        "fan_out": outputs,
        "fan_avg": (inputs + outputs) / 2,
        "fan_geo_avg": math.sqrt(inputs * outputs),
    }[mode]
    reference = _values(
        VarianceScaling(1.0, None, "fan_in", distribution, 3, [], [])((1, inputs, outputs))
    )
    np.testing.assert_allclose(unit * math.sqrt(fan), reference, rtol=1e-5, atol=1e-6)


@each_class
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_weights_come_in_any_float_dtype(cls: Any, dtype: str) -> None:
    weights = cls(gain=1.0, seed=4)((200, 200), dtype=dtype)
    assert keras.backend.standardize_dtype(weights.dtype) == dtype
    _assert_variance(_values(weights), 1 / 200)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_rounded_float32_weights(dtype: str) -> None:
    initializer = HeUniform(seed=4)
    rounded = keras.ops.cast(initializer((100, 100)), dtype)
    np.testing.assert_array_equal(_values(initializer((100, 100), dtype=dtype)), _values(rounded))


def test_the_default_dtype_is_floatx() -> None:
    keras.config.set_floatx("float16")
    try:
        assert keras.backend.standardize_dtype(HeNormal()((2, 2)).dtype) == "float16"
    finally:
        keras.config.set_floatx("float32")


def test_integers_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"`dtype` must be a floating type. Received: dtype='int32'"
    ):
        HeNormal()((2, 2), dtype="int32")


@each_class
@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (3, 0), (2, 0, 3, 4), [2, 3]])
def test_small_and_empty_shapes_are_drawn(cls: Any, shape: Any) -> None:
    weights = cls(seed=1)(shape)
    assert tuple(weights.shape) == tuple(shape)
    assert np.isfinite(_values(weights)).all()


@each_class
def test_a_layout_is_accepted_and_changes_no_value(cls: Any) -> None:
    initializer = cls(seed=1)
    np.testing.assert_array_equal(
        _values(initializer((3, 4), layout="anything")), _values(initializer((3, 4)))
    )
    with pytest.raises(TypeError, match=r"`layout` only. Received: axis, partition$"):
        initializer((3, 4), partition=1, axis=2)


@each_class
def test_seeds_keep_to_keras_contract(cls: Any) -> None:
    shape = (4, 5)
    fixed = cls(seed=7)
    np.testing.assert_array_equal(_values(fixed(shape)), _values(fixed(shape)))
    np.testing.assert_array_equal(_values(fixed(shape)), _values(cls(seed=7)(shape)))
    assert (_values(fixed(shape)) != _values(cls(seed=8)(shape))).all()

    fresh = cls()
    np.testing.assert_array_equal(_values(fresh(shape)), _values(fresh(shape)))
    assert (_values(fresh(shape)) != _values(cls()(shape))).all()

    moving = cls(seed=keras.random.SeedGenerator(7))
    assert (_values(moving(shape)) != _values(moving(shape))).all()


ARGUMENTS: dict[str, Any] = {
    "gain": "leaky_relu",
    "negative_slope": 0.25,
    "mode": "fan_geo_avg",
    "distribution": "normal",
    "seed": 11,
    "input_axes": [0],
    "output_axes": [2, 1],
}


@each_class
def test_a_config_holds_every_argument_as_it_was_given(cls: Any) -> None:
    names = set(inspect.signature(cls).parameters)
    arguments = {name: ARGUMENTS[name] for name in names}
    initializer = cls(**arguments)
    config = initializer.get_config()
    assert config == arguments
    assert json.loads(json.dumps(config)) == config
    twin = cls.from_config(config)
    assert twin.get_config() == config
    np.testing.assert_array_equal(_values(twin((4, 5, 6))), _values(initializer((4, 5, 6))))


@each_class
def test_a_default_config_makes_the_default_initializer(cls: Any) -> None:
    parameters = inspect.signature(cls).parameters
    assert cls().get_config() == {name: item.default for name, item in parameters.items()}
    assert cls().clone().get_config() == cls().get_config()


@each_class
def test_classes_are_registered(cls: Any) -> None:
    name = f"keras_initkit>{cls.__name__}"
    assert keras.saving.get_registered_object(name) is cls
    assert type(keras.initializers.get(name)) is cls
    twin = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(cls(gain=1.5, seed=3))
    )
    assert type(twin) is cls
    assert twin.get_config() == cls(gain=1.5, seed=3).get_config()


def test_a_seed_generator_survives_the_config() -> None:
    initializer = HeNormal(seed=keras.random.SeedGenerator(5))
    expected = _values(initializer((3, 4)))
    twin = HeNormal.from_config(json.loads(json.dumps(initializer.get_config())))
    np.testing.assert_array_equal(_values(twin((3, 4))), expected)


def test_a_callable_gain_is_kept_as_its_number() -> None:
    initializer = HeNormal(gain=lambda x: keras.ops.tanh(x) * 2.0)
    assert initializer.get_config()["gain"] == pytest.approx(1.592537 / 2, abs=1e-6)
    half: Any = np.float32(0.5)
    assert HeNormal(gain=half).get_config()["gain"] == 0.5


def _own_activation(x: Any) -> Any:
    return keras.ops.sin(3.0 * x)


def test_a_saved_model_loads_in_a_fresh_process(tmp_path: Path) -> None:
    own = [cls(gain=_own_activation, seed=3) for cls in CLASSES]
    named = [cls(gain="gelu") for cls in CLASSES]
    model = keras.Sequential([keras.Input((6,))])
    for initializer in own + named:
        model.add(keras.layers.Dense(6, kernel_initializer=initializer))
    model.save(tmp_path / "model.keras")
    inputs = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    np.savez(tmp_path / "arrays.npz", inputs=inputs, outputs=model.predict(inputs, verbose=0))
    configs = [layer.kernel_initializer.get_config() for layer in model.layers]
    code = f"""
        import json, os
        import keras, keras_initkit
        import numpy as np
        os.chdir({str(tmp_path)!r})
        model = keras.saving.load_model("model.keras")
        arrays = np.load("arrays.npz")
        outputs = model.predict(arrays["inputs"], verbose=0)
        np.testing.assert_allclose(outputs, arrays["outputs"], rtol=1e-4, atol=1e-6)
        print(json.dumps([layer.kernel_initializer.get_config() for layer in model.layers]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == configs


def _attention(initializer: Any) -> keras.layers.MultiHeadAttention:
    layer = keras.layers.MultiHeadAttention(8, 32, kernel_initializer=initializer)
    layer.build((None, 5, 128), (None, 5, 128))
    return layer


def _grouped_attention(initializer: Any) -> keras.layers.Layer:
    layer = keras.layers.GroupQueryAttention(32, 8, 2, kernel_initializer=initializer)
    layer.build((None, 5, 128), (None, 5, 128))
    return layer


@pytest.mark.skipif(not KERAS_GIVES_AXES, reason="this Keras gives EinsumDense no axes")
@pytest.mark.parametrize("build", [_attention, _grouped_attention])
@pytest.mark.parametrize("cls", [LecunNormal, LecunUniform, VarianceScaling])
def test_attention_gets_the_variance_of_its_true_fans(build: Any, cls: Any) -> None:
    query, key, value, output = _kernels(build(cls()))
    for kernel in (query, key, value):
        _assert_variance(kernel, 1 / 128)
    _assert_variance(output, 1 / (8 * 32))


@pytest.mark.skipif(KERAS_GIVES_AXES, reason="this Keras gives EinsumDense its axes")
def test_attention_without_axes_gets_the_variance_of_its_shapes() -> None:
    query, _, _, output = _kernels(_attention(LecunNormal()))
    # The kernel of shape (inputs, heads, units) passes for a convolution over inputs.
    _assert_variance(query, 1 / (128 * 8))
    _assert_variance(output, 1 / (8 * 32))


@pytest.mark.skipif(not KERAS_GIVES_AXES, reason="this Keras gives EinsumDense no axes")
@pytest.mark.parametrize(
    ("equation", "output_shape", "inputs", "fan_in", "fan_out"),
    [
        ("abc,cd->abd", (None, 500), (None, 3, 300), 300, 500),
        ("abc,cde->abde", (None, 8, 64), (None, 3, 300), 300, 512),
        ("abcd,cde->abe", (None, 500), (None, 3, 8, 64), 512, 500),
    ],
)
def test_einsum_kernels_get_the_variance_of_their_axes(
    equation: str, output_shape: Any, inputs: Any, fan_in: int, fan_out: int
) -> None:
    for initializer, variance in [
        (HeNormal(), 2 / fan_in),
        (HeUniform(mode="fan_out", gain="tanh"), 2.536178 / fan_out),
        (XavierNormal(gain=_own_activation), 2.0 * 2 / (fan_in + fan_out)),
        (VarianceScaling(mode="fan_geo_avg"), 1 / math.sqrt(fan_in * fan_out)),
    ]:
        layer = keras.layers.EinsumDense(equation, output_shape, kernel_initializer=initializer)
        layer.build(inputs)
        _assert_variance(_values(layer.kernel), variance)


@each_class
def test_attention_kernels_differ_without_a_seed(cls: Any) -> None:
    query, key, value, _ = _kernels(_attention(cls()))
    for one, other in [(query, key), (query, value), (key, value)]:
        assert (one != other).mean() > 0.99


@each_class
def test_directions_differ_without_a_seed(cls: Any) -> None:
    layer = keras.layers.Bidirectional(keras.layers.LSTM(8, kernel_initializer=cls()))
    layer.build((None, 5, 16))
    forward, backward = (
        _values(part.cell.kernel) for part in (layer.forward_layer, layer.backward_layer)
    )
    assert (forward != backward).mean() > 0.99
    _assert_variance(forward / forward.std(), 1.0)


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("cls", [HeNormal, XavierUniform])
def test_layers_of_every_policy_run(policy: str, cls: Any) -> None:
    def options(*names: str) -> dict[str, Any]:
        return {"dtype": policy, **{f"{name}_initializer": cls() for name in names}}

    sequence = np.random.default_rng(0).standard_normal((2, 6, 16)).astype("float32")
    lstm = keras.layers.LSTM(4, **options("kernel", "recurrent"))
    attention = keras.layers.MultiHeadAttention(2, 8, **options("kernel"))
    grouped = keras.layers.GroupQueryAttention(8, 4, 2, **options("kernel"))
    outputs = [
        keras.layers.EinsumDense("abc,cd->abd", (None, 8), **options("kernel"))(sequence),
        keras.layers.SeparableConv1D(4, 3, **options("depthwise", "pointwise"))(sequence),
        keras.layers.Bidirectional(lstm, dtype=policy)(sequence),
        attention(sequence, sequence),
        grouped(sequence, sequence),
    ]
    for output in outputs:
        values = _values(output)
        assert np.isfinite(values).all()
        assert values.std() > 0


class Late(keras.layers.Layer):
    """Creates its initializer as late as a layer can."""

    def build(self, input_shape: Any) -> None:
        initializer = HeNormal(gain=lambda x: keras.ops.tanh(x) * 2.0)
        self.kernel = self.add_weight(shape=(input_shape[-1], 200), initializer=initializer)

    def call(self, inputs: Any) -> Any:
        return keras.ops.matmul(inputs, self.kernel)


def test_an_initializer_can_be_made_while_a_model_is_traced() -> None:
    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.late = Late()

        def call(self, inputs: Any) -> Any:
            return self.late(inputs)

    model = Model()
    model(keras.Input((200,)))
    _assert_variance(_values(model.late.kernel), 2.536178 / 4 / 200)


def test_training_starts_from_the_initializer() -> None:
    model = keras.Sequential([keras.layers.Dense(300, kernel_initializer="keras_initkit>HeNormal")])
    model.build((None, 200))
    _assert_variance(_values(model.layers[0].kernel), 2 / 200)


@each_class
def test_arguments_are_checked(cls: Any) -> None:
    parameters = inspect.signature(cls).parameters
    cases: list[tuple[dict[str, Any], str]] = [
        ({"gain": -1.0}, r"`gain` must be positive and finite\. Received: gain=-1\.0"),
        ({"gain": 0}, r"`gain` must be positive .* use keras\.initializers\.Zeros\(\)"),
        ({"gain": "rleu"}, r"`gain` must be .*Received: gain='rleu'.*gelu, "),
        ({"gain": "softmax"}, r"`gain` must be .*must act on each element alone"),
        ({"gain": None}, r"`gain` must be a positive number, the name of .*gain=None"),
        (
            {"gain": "relu", "negative_slope": "0.1"},
            r"`negative_slope` must be a finite number",
        ),
        (
            {"gain": "tanh", "negative_slope": 0.1},
            r"`negative_slope` must be None unless gain=",
        ),
        ({"mode": "fan"}, r'`mode` must be one of "fan_in", "fan_out", .*mode=\'fan\''),
        ({"mode": None}, r"`mode` must be one of .*Received: mode=None"),
        ({"distribution": "gauss"}, r'`distribution` must be one of "uniform", .*=\'gauss\''),
        ({"seed": "one"}, r"`seed` argument should be an instance of"),
        ({"input_axes": [0]}, r"must be given together, or not at all\. Received: input_axes"),
    ]
    for arguments, message in cases:
        if arguments.keys() <= parameters.keys():
            with pytest.raises(ValueError, match=message):
                cls(**arguments)


def test_the_family_is_complete() -> None:
    assert {cls.__name__ for cls in CLASSES} == {
        "HeNormal",
        "HeUniform",
        "LecunNormal",
        "LecunUniform",
        "VarianceScaling",
        "XavierNormal",
        "XavierUniform",
    }
