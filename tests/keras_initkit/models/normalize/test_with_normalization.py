"""Models of raw inputs and targets: the same as normalizing by hand, from every form of data."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_initkit.layers import Normalization
from keras_initkit.models.normalize.normalized_model import NormalizedModel
from keras_initkit.models.normalize.with_normalization import with_normalization
from tests import ROOT

pytestmark = pytest.mark.backends("tensorflow", "torch")

Array = NDArray[Any]
layers = keras.layers
ROWS = 700
BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own")


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


@pytest.fixture
def float64() -> Iterator[None]:
    if not x64():
        yield
        return
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")


def columns(rows: int = ROWS) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "age": rng.normal(50, 20, rows),
        "blood": rng.normal([100, -3, 0.1], [10, 100, 0.01], (rows, 3)),
        "job": rng.integers(0, 5, rows),
    }


def prices(rows: int = ROWS) -> Array:
    return np.random.default_rng(1).normal(3e5, 1e5, (rows, 1))


def scaled(values: Array) -> Array:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0))


def by_hand(data: dict[str, Array]) -> dict[str, Array]:
    return {"age": scaled(data["age"]), "blood": scaled(data["blood"]), "job": data["job"]}


def hidden(inputs: dict[str, Any]) -> Any:
    job = layers.Embedding(5, 2)(inputs["job"])
    return layers.Concatenate()([inputs["age"], inputs["blood"], job])


def named_inputs() -> dict[str, Any]:
    return {
        "age": keras.Input((1,), name="age"),
        "blood": keras.Input((3,), name="blood"),
        "job": keras.Input((), dtype="int32", name="job"),
    }


def regression() -> Any:
    """A model of two continuous inputs and a categorical one."""
    inputs = named_inputs()
    outputs = layers.Dense(1, name="price")(layers.Dense(8, "tanh")(hidden(inputs)))
    return keras.Model(inputs, outputs, name="houses")


def two_outputs(structure: str = "list") -> Any:
    inputs = named_inputs()
    features = layers.Dense(8, "tanh")(hidden(inputs))
    price = layers.Dense(1, name="price")(features)
    kind = layers.Dense(4, "softmax", name="kind")(features)
    outputs = {"price": price, "kind": kind} if structure == "dict" else [price, kind]
    return keras.Model(inputs, outputs)


def stack(*shape: int) -> Any:
    inputs = keras.Input(shape, name="x")
    return keras.Sequential([inputs, layers.Dense(4, "tanh"), layers.Dense(1)])


def normalized_names(model: Any) -> list[str]:
    ends = ("_normalization",)
    return [
        x.name
        for x in model.layers
        if isinstance(x, Normalization) and not x.invert and x.name.endswith(ends)
    ]


def predict(model: Any, x: Any) -> Array:
    return np.asarray(model.predict(x, verbose=0))


def statistics(model: Any, name: str) -> tuple[Array, Array]:
    weights = model.get_layer(name).weights[:2]
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(weight)) for weight in weights)
    return mean, variance


# Inputs.


@pytest.mark.usefixtures("float64")
def test_the_inputs_are_normalized_as_by_hand():
    model, data = regression(), columns()
    wrapped = with_normalization(model, data)
    expected = predict(model, by_hand(data))
    np.testing.assert_allclose(predict(wrapped, data), expected, atol=1e-12 if x64() else 1e-5)
    assert normalized_names(wrapped) == ["age_normalization", "blood_normalization"]
    assert wrapped.name == "normalized_houses"
    assert list(wrapped.input) == ["age", "blood", "job"]
    assert wrapped.output_names == ["price"]
    assert with_normalization(model, data, name="mine").name == "mine"


def x64() -> bool:
    return BACKEND != "jax"  # which computes in float32 unless it is told otherwise


def test_the_weights_are_those_of_the_model():
    model, data = regression(), columns()
    wrapped = with_normalization(model, data)
    assert wrapped.get_layer("houses") is model
    wrapped.compile("sgd", "mse")
    before = model.get_weights()
    wrapped.fit(data, scaled(prices()), verbose=0)
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    np.testing.assert_allclose(predict(wrapped, data), predict(model, by_hand(data)), atol=1e-5)


class Batches(keras.utils.PyDataset):
    def __init__(self, data: dict[str, Array], y: Array) -> None:
        super().__init__()
        self.data, self.y = data, y

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        part = slice(100 * index, 100 * index + 100)
        return {name: array[part] for name, array in self.data.items()}, self.y[part]


def generator(data: dict[str, Array], y: Array) -> Iterator[Any]:
    batches = Batches(data, y)
    for index in range(len(batches)):
        yield batches[index]


def tf_data(data: dict[str, Array], *rest: Array) -> Any:
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((data, *rest) if rest else data)
    return dataset.batch(64)


def data_frame(data: dict[str, Array]) -> Any:
    flat = {name: data[name] for name in ("age", "job")}
    flat |= {f"blood_{i}": data["blood"][:, i] for i in range(3)}
    text = ["a"] * ROWS
    return pytest.importorskip("pandas").DataFrame({**flat, "note": text})


SOURCES = {
    "dict": lambda data: data,
    "dict and more": lambda data: {**data, "note": np.array(["a"] * ROWS)},
    "columns (rows, 1)": lambda data: {**data, "age": data["age"][:, None]},
    "dict and targets": lambda data: (data, prices()),
    "PyDataset": lambda data: Batches(data, prices()),
    "generator": lambda data: generator(data, prices()),
    "list of batches": lambda data: list(generator(data, prices())),
    "tf.data": tf_data,
    "tf.data of x, y": lambda data: tf_data(data, prices()),
    "tf.data of x, y, weights": lambda data: tf_data(data, prices(), np.ones(ROWS)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_statistics_are_the_same_from_every_source(source):
    data = columns()
    model = with_normalization(regression(), SOURCES[source](data))
    for name in ("age", "blood"):
        mean, variance = statistics(model, f"{name}_normalization")
        np.testing.assert_allclose(mean.squeeze(), data[name].mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(variance.squeeze(), data[name].var(axis=0), rtol=1e-6)


def column_model() -> Any:
    names = ("age", "blood_0", "blood_1", "blood_2")
    inputs = {name: keras.Input((1,) if name == "age" else (), name=name) for name in names}
    wide = [inputs["age"], *(layers.Reshape((1,))(inputs[name]) for name in names[1:])]
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(wide)))


@pytest.mark.parametrize("form", ["pandas", "polars", "pyarrow", "csv", "parquet"])
def test_the_columns_of_a_table_are_the_inputs_of_their_names(form, tmp_path):
    frame = data_frame(columns())
    table: Any = frame
    if form == "polars":
        table = pytest.importorskip("polars").from_pandas(frame)
    elif form == "pyarrow":
        table = pytest.importorskip("pyarrow").Table.from_pandas(frame)
    elif form == "csv":
        pytest.importorskip("pyarrow")
        table = tmp_path / "x.csv"
        frame.to_csv(table, index=False)
    elif form == "parquet":
        pytest.importorskip("pyarrow")
        table = tmp_path / "x.parquet"
        frame.to_parquet(table)
    model = with_normalization(column_model(), table)
    for name in ("age", "blood_0", "blood_1", "blood_2"):
        mean, variance = statistics(model, f"{name}_normalization")
        np.testing.assert_allclose(mean.squeeze(), frame[name].mean(), rtol=1e-6)
        np.testing.assert_allclose(variance.squeeze(), frame[name].var(ddof=0), rtol=1e-6)


def test_the_columns_of_a_table_are_the_features_of_one_input():
    frame = data_frame(columns())[["age", "blood_0", "blood_1"]]
    mean, _ = statistics(with_normalization(stack(3), frame), "x_normalization")
    np.testing.assert_allclose(mean, frame.to_numpy().mean(axis=0), rtol=1e-6)


def list_model() -> Any:
    inputs = [keras.Input((1,), name="a"), keras.Input((2,), name="b")]
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(inputs)))


LISTS = {
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"b": b, "a": a},
    "list and targets": lambda a, b: ([a, b], a),
    "tuple and targets": lambda a, b: ((a, b), a),
    "batches": lambda a, b: ([a[i : i + 50], b[i : i + 50]] for i in range(0, ROWS, 50)),
    "batches and targets": lambda a, b: (
        ((a[i : i + 50], b[i : i + 50]), a[i : i + 50]) for i in range(0, ROWS, 50)
    ),
}


@pytest.mark.parametrize("form", LISTS)
def test_a_list_of_inputs_takes_lists(form):
    a, b = columns()["age"], columns()["blood"][:, :2]
    model = list_model()
    wrapped = with_normalization(model, LISTS[form](a, b))
    expected = predict(model, [scaled(a), scaled(b)])
    np.testing.assert_allclose(predict(wrapped, [a, b]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (), (4, 3), (None, 3), (6, 6, 3)])
def test_one_array_for_one_input(shape):
    inputs = keras.Input(shape, name="x")
    model = keras.Model(inputs, layers.Identity()(inputs))
    x = np.random.default_rng(0).normal(7, 3, (400, *(size or 9 for size in shape)))
    axes = tuple(range(max(1, x.ndim - 1)))
    expected = (x - x.mean(axis=axes)) / x.std(axis=axes)
    wrapped = with_normalization(model, x)
    np.testing.assert_allclose(predict(wrapped, x), expected, atol=1e-5)


def test_steps_of_unknown_size_have_one_mean():
    inputs = keras.Input((None,), name="x")
    x = np.random.default_rng(0).normal(7, 3, (400, 9))
    wrapped = with_normalization(keras.Model(inputs, layers.Identity()(inputs)), x)
    np.testing.assert_allclose(predict(wrapped, x), (x - x.mean()) / x.std(), atol=1e-5)


def test_one_pass_over_the_data_is_enough():
    class Counting(Batches):
        reads = 0

        def __getitem__(self, index: int) -> Any:
            Counting.reads += 1
            return super().__getitem__(index)

    with_normalization(regression(), Counting(columns(), prices()), targets=True)
    assert Counting.reads == 7
    # A generator can be read only once.
    with_normalization(regression(), generator(columns(), prices()), targets=True)


def test_a_pass_can_be_limited():
    data = columns()
    limits: tuple[dict[str, Any], ...] = ({"max_rows": 300}, {"steps": 3})
    for limit in limits:
        model = with_normalization(regression(), generator(data, prices()), **limit)
        mean, _ = statistics(model, "age_normalization")
        np.testing.assert_allclose(mean, data["age"][:300].mean(keepdims=True), rtol=1e-6)


def test_weights_of_a_stream_count():
    data, y = columns(), prices()
    weight = np.random.default_rng(2).uniform(0, 1, ROWS)
    model = with_normalization(regression(), (data, y, weight), targets=True)
    for name, values in {"age_normalization": data["age"], "price": y[:, 0]}.items():
        mean, _ = statistics(model, name)
        np.testing.assert_allclose(mean, [np.average(values, weights=weight)], rtol=1e-6)


def test_missing_values_are_left_out_if_told():
    data = columns()
    data["age"][3] = np.nan
    model = with_normalization(regression(), data, nan="ignore")
    mean, _ = statistics(model, "age_normalization")
    np.testing.assert_allclose(mean, [np.nanmean(data["age"])], rtol=1e-6)


def test_masked_steps_are_left_out():
    x = np.random.default_rng(0).normal(5, 2, (50, 6, 2)).astype("float32")
    x[:, 4:] = -1
    inputs = keras.Input((6, 2), name="x")
    model = with_normalization(keras.Model(inputs, layers.Flatten()(inputs)), x, mask_value=-1)
    mean, _ = statistics(model, "x_normalization")
    np.testing.assert_allclose(mean, x[:, :4].mean(axis=(0, 1)), rtol=1e-5)


# The rule of which inputs are left alone.


def through(layer: Any, dtype: str = "float32", cast: str | None = None) -> Any:
    """A model of "x", which feeds a layer, and of "z", which does not."""
    x, z = keras.Input((1,), name="x", dtype=dtype), keras.Input((1,), name="z")
    taken = layer(keras.ops.cast(x, cast) if cast else x)
    flat = layers.Flatten()(keras.ops.cast(taken, "float32"))
    return keras.Model({"x": x, "z": z}, layers.Concatenate()([flat, z]))


LEFT_ALONE = {
    "Embedding": lambda: through(layers.Embedding(3, 2)),
    "Embedding after a cast": lambda: through(layers.Embedding(3, 2), cast="int32"),
    "Embedding after a reshape": lambda: through(
        keras.Sequential([layers.Reshape((1,)), layers.Embedding(3, 2)])
    ),
    "Embedding in an inner model": lambda: through(
        keras.Sequential([keras.Input((1,)), layers.Embedding(3, 2)])
    ),
    "Embedding in TimeDistributed": lambda: through(
        keras.Sequential([layers.Reshape((1, 1)), layers.TimeDistributed(layers.Embedding(3, 2))])
    ),
    "CategoryEncoding": lambda: through(layers.CategoryEncoding(num_tokens=3)),
    "Discretization": lambda: through(layers.Discretization(bin_boundaries=[0.5])),
    "Rescaling": lambda: through(layers.Rescaling(1 / 255)),
    "Normalization": lambda: through(layers.Normalization(mean=0.0, variance=1.0)),
    "integers": lambda: through(layers.Identity(), dtype="int64"),
    "booleans": lambda: through(layers.Identity(), dtype="bool"),
}
ON_TENSORFLOW = {
    "Hashing": lambda: through(layers.Hashing(num_bins=3), dtype="int32"),
    "IntegerLookup": lambda: through(layers.IntegerLookup(vocabulary=[1, 2]), dtype="int64"),
    "StringLookup": lambda: through(layers.StringLookup(vocabulary=["1"]), dtype="string"),
    "TextVectorization": lambda: through(
        layers.TextVectorization(vocabulary=["1"]), dtype="string"
    ),
}


@pytest.mark.parametrize(
    "case", [*LEFT_ALONE, *(pytest.param(x, marks=on_tensorflow) for x in ON_TENSORFLOW)]
)
def test_categorical_and_scaled_inputs_are_left_alone(case):
    model = {**LEFT_ALONE, **ON_TENSORFLOW}[case]()
    z = np.arange(5.0)
    assert normalized_names(with_normalization(model, {"z": z})) == ["z_normalization"]


def test_sparse_inputs_are_left_alone():
    if BACKEND == "torch":
        pytest.skip("has no sparse tensors")
    x, z = keras.Input((5,), name="x", sparse=True), keras.Input((1,), name="z")
    model = keras.Model([x, z], layers.Concatenate()([layers.Dense(2)(x), z]))
    wrapped = with_normalization(model, {"z": np.arange(5.0)})
    assert normalized_names(wrapped) == ["z_normalization"]
    assert wrapped.inputs[0].sparse


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": "blood"}, ["blood"]),
        ({"only": ["age", "blood"]}, ["age", "blood"]),
        ({"exclude": "blood"}, ["age"]),
        ({"exclude": ["age", "job"]}, ["blood"]),
        ({"only": ["age", "blood"], "exclude": ["age"]}, ["blood"]),
    ],
)
def test_inputs_can_be_named(options, expected):
    wrapped = with_normalization(regression(), columns(), **options)
    assert normalized_names(wrapped) == [f"{name}_normalization" for name in expected]


def test_only_goes_before_the_rule():
    wrapped = with_normalization(LEFT_ALONE["Rescaling"](), {"x": np.arange(5.0)}, only="x")
    assert normalized_names(wrapped) == ["x_normalization"]


def test_an_input_that_is_normalized_is_not_normalized_again():
    data, model = columns(), regression()
    twice = with_normalization(with_normalization(model, data, exclude="age"), data, exclude="job")
    assert normalized_names(twice) == ["age_normalization"]


# Targets.


@pytest.mark.usefixtures("float64")
def test_predictions_are_those_of_the_model_in_raw_units():
    data, y, model = columns(), prices(), regression()
    wrapped = with_normalization(model, data, y)
    assert isinstance(wrapped, NormalizedModel)
    expected = predict(model, by_hand(data)) * y.std() + y.mean()
    np.testing.assert_allclose(predict(wrapped, data), expected, rtol=1e-12 if x64() else 1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_training_is_that_on_the_normalized_scale(options):
    if options.get("jit_compile") and BACKEND == "torch":
        pytest.skip("torch.compile is tested elsewhere")
    data, y = columns(), prices()
    inner, plain = regression(), regression()
    plain.set_weights(inner.get_weights())
    wrapped = with_normalization(inner, data, y)
    histories = []
    for model, x, targets in ((wrapped, data, y), (plain, by_hand(data), scaled(y))):
        model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"], **options)
        weight = np.linspace(0, 1, ROWS)
        arguments = {"epochs": 3, "verbose": 0, "shuffle": False, "sample_weight": weight}
        histories.append(model.fit(x, targets, **arguments).history)
    tolerance = 1e-9 if x64() else 1e-3
    raw, normalized = histories
    np.testing.assert_allclose(raw["loss"], normalized["loss"], rtol=tolerance)
    # The metric is in raw units, and float32.
    expected = np.multiply(normalized["mae"], y.std())
    np.testing.assert_allclose(raw["mae"], expected, rtol=max(tolerance, 1e-6))
    for ours, theirs in zip(inner.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        wrapped.evaluate(data, y, verbose=0),
        np.multiply(plain.evaluate(by_hand(data), scaled(y), verbose=0), [1, y.std()]),
        rtol=max(tolerance, 1e-6),
    )


SOURCES_OF_TARGETS = {
    "array": lambda data, y: (data, y),
    "array (rows,)": lambda data, y: (data, y[:, 0]),
    "list": lambda data, y: (data, y.tolist()),
    "tensor": lambda data, y: (data, keras.ops.convert_to_tensor(y)),
    "dict": lambda data, y: (data, {"price": y}),
    "dict of True": lambda data, y: ((data, y), {"price": True}),
    "stream": lambda data, y: (generator(data, y), True),
    "stream of (rows,)": lambda data, y: (generator(data, y[:, 0]), True),
    "column": lambda data, y: ({**data, "y": y[:, 0]}, "y"),
}


@pytest.mark.parametrize("source", SOURCES_OF_TARGETS)
def test_targets_from_every_source(source):
    y = prices()
    data, targets = SOURCES_OF_TARGETS[source](columns(), y)
    mean, variance = statistics(with_normalization(regression(), data, targets), "price")
    np.testing.assert_allclose(mean, y.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(variance, y.var(axis=0), rtol=1e-6)


def test_without_targets_only_the_inputs_are_normalized():
    wrapped = with_normalization(regression(), columns())
    assert not isinstance(wrapped, NormalizedModel)
    assert normalized_names(wrapped) == ["age_normalization", "blood_normalization"]


def test_targets_alone_can_be_normalized():
    ids = keras.Input((), dtype="int32", name="id")
    model = keras.Model(ids, layers.Dense(1)(layers.Embedding(9, 2)(ids)))
    y = prices()
    wrapped = with_normalization(model, np.zeros(ROWS, int), y)
    expected = predict(model, np.arange(5)) * y.std() + y.mean()
    np.testing.assert_allclose(predict(wrapped, np.arange(5)), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 2)])
def test_targets_of_every_shape(shape):
    inputs = keras.Input((2,), name="x")
    size = int(np.prod(shape))
    outputs = layers.Reshape(shape)(layers.Dense(size)(inputs))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 3, (200, 2)), rng.normal(100, 20, (200, *shape))
    axes = tuple(range(max(1, y.ndim - 1)))
    mean, std = y.mean(axis=axes), y.std(axis=axes)
    wrapped = with_normalization(model, x, y)
    wrapped.compile(None, "mse")
    expected = np.mean((predict(model, scaled(x)) - (y - mean) / std) ** 2)
    np.testing.assert_allclose(wrapped.evaluate(x, y, verbose=0), expected, rtol=1e-4)
    np.testing.assert_allclose(
        predict(wrapped, x), predict(model, scaled(x)) * std + mean, atol=1e-3
    )


def test_targets_without_the_last_axis():
    x, y = columns()["blood"], prices()
    wrapped = with_normalization(stack(3), x, y)
    losses: Any = []
    for targets in (y, y[:, 0]):
        wrapped.compile(None, "mse")
        losses.append(wrapped.evaluate(x, targets, verbose=0))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


FORMS = {
    "list": ("list", lambda price, kind: [price, kind]),
    "tuple": ("list", lambda price, kind: (price, kind)),
    "dict for a list": ("list", lambda price, kind: {"price": price, "kind": kind}),
    "dict": ("dict", lambda price, kind: {"kind": kind, "price": price}),
}


@pytest.mark.parametrize("form", FORMS)
def test_several_outputs(form):
    structure, targets = FORMS[form]
    data, y, kind = columns(), prices(), np.random.default_rng(3).integers(0, 4, (ROWS, 1))
    model = two_outputs(structure)
    losses = {"price": "mse", "kind": "sparse_categorical_crossentropy"}
    metrics = {"price": ["mae"], "kind": ["accuracy"]}
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    plain.compile(None, losses, metrics=metrics)
    wrapped = with_normalization(model, data, {"price": y})
    assert wrapped.output_names == model.output_names
    wrapped.compile(None, losses, metrics=metrics)
    options = {"verbose": 0, "return_dict": True}
    expected = plain.evaluate(by_hand(data), targets(scaled(y), kind), **options)
    expected["price_mae"] *= y.std()
    result = wrapped.evaluate(data, targets(y, kind), **options)
    assert list(result) == list(expected)
    np.testing.assert_allclose(list(result.values()), list(expected.values()), rtol=1e-4)
    assert isinstance(wrapped.predict(data, verbose=0), dict if structure == "dict" else list)


def test_targets_of_outputs_without_loss_can_be_left_out():
    data, y = columns(), prices()
    wrapped = with_normalization(two_outputs(), data, [y, None])
    wrapped.compile(None, ["mse", None])
    result = wrapped.evaluate(data, [y], verbose=0)
    expected = np.mean((predict_first(wrapped, data) - y) ** 2) / y.var()
    np.testing.assert_allclose(np.ravel(result)[0], expected, rtol=1e-4)


def predict_first(model: Any, data: Any) -> Array:
    return np.asarray(model.predict(data, verbose=0)[0])


def test_all_targets_of_a_stream():
    inputs = keras.Input((3,), name="x")
    outputs = {name: layers.Dense(1, name=name)(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    x, a, b = columns()["blood"], prices(), 1e-3 * prices() + 7
    wrapped = with_normalization(model, (x, {"b": b, "a": a}), targets=True)
    for name, y in {"a": a, "b": b}.items():
        np.testing.assert_allclose(statistics(wrapped, name)[0], y.mean(axis=0), rtol=1e-6)
    with_normalization(model, (x, [a, b]), targets=True, name="from_a_list")


def test_raw_values_are_predicted_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    data, y = columns(), prices()
    wrapped = with_normalization(regression(), data, y)
    assert predict(wrapped, data).dtype == np.float32
    assert np.isfinite(predict(wrapped, data)).all()  # float16 ends at 65504
    wrapped.compile("sgd", "mse")
    losses = wrapped.fit(data, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0] < 10


# Saved, loaded, copied.

FRESH = """
import sys
import keras, numpy as np
import keras_initkit
model = keras.saving.load_model(sys.argv[1])
store = np.load(sys.argv[2])
x, y = {name: store[name] for name in ("age", "blood", "job")}, store["y"]
before = model.predict(x, verbose=0)
losses = model.fit(x, y, epochs=2, verbose=0, shuffle=False).history["loss"]
np.savez(sys.argv[3], before=before, after=model.predict(x, verbose=0), losses=losses)
"""


@pytest.mark.slow
def test_a_fresh_process_predicts_the_same_and_goes_on_training(tmp_path):
    data, y = columns(), prices()
    model = with_normalization(regression(), data, y)
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(data, y, verbose=0)
    model.save(tmp_path / "model.keras")
    arrays: dict[str, Any] = {"y": y, **data}
    np.savez(tmp_path / "data.npz", **arrays)
    before = predict(model, data)
    losses = model.fit(data, y, epochs=2, verbose=0, shuffle=False).history["loss"]
    paths = [str(tmp_path / name) for name in ("model.keras", "data.npz", "result.npz")]
    root = str(ROOT)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path}
    command = [sys.executable, "-c", FRESH, *paths]
    subprocess.run(command, check=True, timeout=200, cwd=tmp_path, env=environment)
    with np.load(paths[-1]) as result:
        np.testing.assert_array_equal(result["before"], before)
        np.testing.assert_allclose(result["losses"], losses, rtol=1e-5)
        np.testing.assert_allclose(result["after"], predict(model, data), rtol=1e-5)


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_a_loaded_model_has_the_same_losses(structure, tmp_path):
    data, y, kind = columns(), prices(), np.zeros((ROWS, 1))
    model = with_normalization(two_outputs(structure), data, {"price": y})
    model.compile("adam", {"price": "mse", "kind": "sparse_categorical_crossentropy"})
    targets = {"price": y, "kind": kind}
    model.fit(data, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, NormalizedModel)
    for _ in range(2):
        np.testing.assert_allclose(
            loaded.evaluate(data, targets, verbose=0),
            model.evaluate(data, targets, verbose=0),
            rtol=1e-6,
        )
        for each in (model, loaded):
            each.fit(data, targets, verbose=0, shuffle=False)


def test_a_clone_has_the_same_losses():
    data, y = columns(), prices()
    model = with_normalization(regression(), data, y)
    model.compile("adam", "mse")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert isinstance(clone, NormalizedModel)
    assert clone.get_layer("houses") is not model.get_layer("houses")
    np.testing.assert_allclose(predict(clone, data), predict(model, data), rtol=1e-6)
    losses = [each.evaluate(data, y, verbose=0) for each in (clone, model)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


@on_tensorflow
@pytest.mark.slow
def test_an_exported_model_takes_and_gives_raw_values(tmp_path):
    import tensorflow as tf

    data, y = columns(), prices()
    model = with_normalization(regression(), data, y)
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    inputs = {
        "age": data["age"][:, None].astype("float32"),
        "blood": data["blood"].astype("float32"),
        "job": data["job"].astype("int32"),
    }
    np.testing.assert_allclose(loaded.serve(inputs), predict(model, data), rtol=1e-6)


def test_a_compiled_model_stays_compiled():
    data, y, model = columns(), prices(), regression()
    assert not with_normalization(model, data, y).compiled
    optimizer = keras.optimizers.Adam(0.02)
    model.compile(optimizer, {"price": "mse"}, metrics={"price": ["mae"]})
    wrapped = with_normalization(model, data, y)
    assert wrapped.compiled
    assert wrapped.optimizer is not model.optimizer
    assert float(wrapped.optimizer.learning_rate) == pytest.approx(0.02)
    history = wrapped.fit(data, y, epochs=3, verbose=0).history
    assert list(history) == ["loss", "mae"]
    assert history["loss"][-1] < 2 < history["mae"][-1]


def test_what_cannot_be_compiled_alike_is_told():
    def own_loss(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    model = stack(3)
    model.compile("adam", own_loss)
    with pytest.warns(UserWarning, match="The new model is not compiled as `model` is, whose"):
        wrapped = with_normalization(model, columns()["blood"])
    assert not wrapped.compiled


def test_a_layer_of_the_model_can_have_any_name():
    model = keras.Sequential(
        [keras.Input((3,), name="y"), layers.Dense(1, name="same")], name="same"
    )
    wrapped = with_normalization(model, columns()["blood"], prices())
    assert wrapped.output_names == ["same_1"]
    assert predict(wrapped, columns()["blood"]).shape == (ROWS, 1)


# What goes wrong.


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="own")
        self.dense = layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def masked_model() -> Any:
    inputs = keras.Input((6, 2), name="x")
    masked = layers.Masking(0.0, name="padding")(inputs)
    return keras.Model(inputs, layers.LSTM(2)(masked))


ERRORS = {
    "no model": (
        lambda: with_normalization("model", columns()),
        "`model` must be a `keras.Model`. Received: model='model'.",
    ),
    "subclassed": (
        lambda: with_normalization(Subclassed(), columns()["blood"]),
        "`model` must have symbolic inputs. Received: 'own' of type Subclassed, which has none. "
        "Give it inputs first: `x = keras.Input(shape); model = keras.Model(x, model(x))`. Or put "
        "a `keras_initkit.layers.Normalization` at the beginning of its `call()`, and adapt it.",
    ),
    "Sequential without inputs": (
        lambda: with_normalization(
            keras.Sequential([layers.Dense(1)], name="stack"), columns()["blood"]
        ),
        "`model` must have symbolic inputs. Received: 'stack' of type Sequential, which has none. "
        "Begin it with `keras.Input(shape)`, or call `model.build(shape)` first.",
    ),
    "nothing to normalize": (
        lambda: with_normalization(LEFT_ALONE["Embedding"](), {}, exclude="z"),
        "`model` must have an input to normalize. Received: a model of which 'x' feeds the "
        "Embedding layer 'embedding'. Name continuous inputs with `only=`.",
    ),
    "unknown name in only": (
        lambda: with_normalization(regression(), columns(), only=["age", "wage"]),
        "`only` must select inputs of the model. Received: 'wage', which selects none. The inputs "
        "are 'age', 'blood', 'job'.",
    ),
    "unknown name in exclude": (
        lambda: with_normalization(regression(), columns(), exclude="wage"),
        "`exclude` must select inputs of the model. Received: 'wage', which selects none. The "
        "inputs are 'age', 'blood', 'job'.",
    ),
    "integers by name": (
        lambda: with_normalization(regression(), columns(), only="job"),
        "`only` must select inputs of a floating point dtype, which can hold normalized values. "
        "Received: 'job', which is of dtype int32. Declare it with `keras.Input(..., "
        "dtype='float32')`.",
    ),
    "Masking": (
        lambda: with_normalization(masked_model(), np.ones((9, 6, 2))),
        "`model` must not look for masked steps in normalized values. Received: input 'x', which "
        "feeds the Masking layer 'padding'. Put a `Normalization` after that layer, adapt it with "
        "`mask_value=0.0`, and pass `exclude='x'`.",
    ),
    "missing column": (
        lambda: with_normalization(
            regression(), {"Age": columns()["age"], "job": columns()["job"]}
        ),
        "`data` must hold the inputs 'age', 'blood'. Received: 'Age', 'job', without 'age', "
        "'blood'. Rename columns, or leave inputs out with `exclude=`.",
    ),
    "one array for several inputs": (
        lambda: with_normalization(list_model(), np.ones((9, 3))),
        "`data` must hold the inputs of the model, a list or dict of 'a', 'b'. Received: one "
        "array. A tuple is `(x, y)` or `(x, y, sample_weight)`; pass inputs as `{name: array, "
        "...}`.",
    ),
    "too many arrays": (
        lambda: with_normalization(list_model(), ([np.ones((9, 1))] * 3, np.ones(9))),
        "`data` must hold the inputs of the model, a list or dict of 'a', 'b'. Received: 3 arrays "
        "without names. A tuple is `(x, y)` or `(x, y, sample_weight)`; pass inputs as `{name: "
        "array, ...}`.",
    ),
    "list for a dict": (
        lambda: with_normalization(regression(), ([np.ones(9)] * 3, np.ones(9))),
        "`data` must hold the inputs of the model, a dict of 'age', 'blood', 'job'. Received: 3 "
        "arrays without names. A tuple is `(x, y)` or `(x, y, sample_weight)`; pass inputs as "
        "`{name: array, ...}`.",
    ),
    "text in a column": (
        lambda: with_normalization(regression(), {**columns(2), "age": np.array(["a", "b"])}),
        "`data['age']` must hold booleans, integers or real floating point numbers. Received: "
        "dtype=<U1. Convert it, or leave the input out with `exclude=`.",
    ),
    "wrong shape": (
        lambda: with_normalization(regression(), {**columns(), "blood": np.ones((ROWS, 2))}),
        "`data['blood']` must yield batches of the shape (None, 3). Received: a batch of an "
        f"incompatible shape, ({ROWS}, 2). Give all batches the same features.",
    ),
    "no steps": (
        lambda: with_normalization(regression(), columns(), steps=0),
        "`steps` must be a positive integer, or None for all there is. Received: steps=0.",
    ),
    "unknown output": (
        lambda: with_normalization(regression(), columns(), {"prize": prices()}),
        "`targets` must name outputs of the model. Received: 'prize'. The outputs are 'price'.",
    ),
    "one array for several outputs": (
        lambda: with_normalization(two_outputs(), columns(), prices()),
        "`targets` must be a dict or list for the 2 outputs 'price', 'kind'. Received: targets of "
        "type ndarray. Pass `{name: array}`; outputs that are not named are left alone.",
    ),
    "softmax": (
        lambda: with_normalization(two_outputs(), columns(), True),
        "`targets` must be those of outputs that take all values, as normalized ones do. "
        "Received: targets of 'kind', which is of activation softmax. End it without activation, "
        "or name only outputs of regression: `targets={name: ...}`.",
    ),
    "no targets in data": (
        lambda: with_normalization(regression(), columns(), True),
        "`data` must hold `(x, y)` where `targets=True`. Received: inputs alone. Pass the targets "
        "as an array, or the name of a column.",
    ),
    "targets without names": (
        lambda: with_normalization(two_outputs(), (columns(), prices()), {"price": True}),
        "`data` must hold targets of the outputs 'price', 'kind'. Received: 1 array without "
        "names. Yield a dict of them.",
    ),
    "targets of other names": (
        lambda: with_normalization(two_outputs(), (columns(), {"p": prices()}), {"price": True}),
        "`data` must hold targets of the output 'price'. Received: 'p'. Name others: "
        "`targets={name: True}`.",
    ),
    "no such column": (
        lambda: with_normalization(regression(), columns(), "price"),
        "`targets` must name a column of `data`. Received: 'price'. The columns are 'age', "
        "'blood', 'job'.",
    ),
    "a number": (
        lambda: with_normalization(regression(), columns(), 3.0),
        "`targets` must be arrays with a row for each row of `data`, `True`, or names of columns. "
        "Received: 3.0.",
    ),
    "other rows": (
        lambda: with_normalization(regression(), columns(), prices(5)),
        "`targets` must have a row for each row of `data`. Received: 5 targets of 'price' for "
        f"{ROWS} rows. Use the same rows in both.",
    ),
    "wrong shape of targets": (
        lambda: with_normalization(regression(), columns(), np.ones((ROWS, 2))),
        "`targets` must yield batches of the shape (None, 1). Received: a batch of an "
        f"incompatible shape, ({ROWS}, 2). Give all batches the same features.",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_to_do(case):
    call, message = ERRORS[case]
    with pytest.raises((ValueError, TypeError), match=exactly(message)):
        call()


def test_the_input_of_a_bad_value_is_named():
    data = columns()
    data["age"][3] = np.nan
    with pytest.raises(ValueError, match=r"^`data\['age'\]` must be finite\. .* row 3, feature"):
        with_normalization(regression(), data)
    y = prices()
    y[5] = np.inf
    with pytest.raises(ValueError, match=r"^`targets` must be finite\. Received: inf at row 5"):
        with_normalization(regression(), columns(), y)


def test_constant_inputs_are_named():
    frame = {name: np.arange(5.0) for name in ("age", "blood_0", "blood_1", "blood_2")}
    frame["age"] = np.full(5, 0.1)
    with pytest.warns(UserWarning, match="'age_normalization': .* constant .*: 'age'"):
        model = with_normalization(column_model(), frame)
    assert np.isfinite(predict(model, frame)).all()


def test_the_fix_for_a_subclassed_model_works():
    data, y, own = columns()["blood"], prices(), Subclassed()
    x = keras.Input((3,))
    model = with_normalization(keras.Model(x, own(x)), data, y)
    np.testing.assert_allclose(
        predict(model, data), predict(own, scaled(data)) * y.std() + y.mean(), atol=1e-5 * y.std()
    )
