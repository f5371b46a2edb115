"""`open_data`: the same rows from every kind of data, and errors that say what to write."""

import decimal
import importlib
import importlib.util
import sys
import tracemalloc
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
import scipy.sparse

from keras_initkit.adapt import files
from keras_initkit.adapt import open as opening
from keras_initkit.adapt.reader import Reading

pytestmark = [pytest.mark.backends("tensorflow", "jax", "torch"), pytest.mark.numpy_alone]

NAMES = tuple("abcde")


def optional(name):
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


tf, torch = optional("tensorflow"), optional("torch")
needs_tf = pytest.mark.skipif(tf is None, reason="TensorFlow is not installed")
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


X = np.random.default_rng(0).normal(3, 2, (700, 5)).astype("float32")
Y = np.arange(700.0)
W = np.linspace(0, 2, 700)


def open_data(data, by_columns=False, **options):
    return opening.open_data(data, Reading(**options), by_columns)


def read(data, by_columns=False, **options):
    """All batches, copied: their arrays are valid for one step only."""
    opened = open_data(data, by_columns, **options)
    return [keras.tree.map_structure(copied, batch) for batch in opened.batches]


def copied(value):
    return value.copy() if isinstance(value, np.ndarray) else value


def joined(parts):
    return keras.tree.map_structure(lambda *arrays: np.ma.concatenate(arrays), *parts)


def inputs(data, **kwargs):
    return joined([batch.x for batch in read(data, **kwargs)])


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 7

    def __getitem__(self, index):
        cut = tuple(array[100 * index : 100 * index + 100] for array in self.arrays)
        return cut if len(cut) > 1 else cut[0]


class Endless(keras.utils.PyDataset):
    def __getitem__(self, index):
        return np.full((2, 1), float(index))


def reused_buffer():
    buffer = np.empty((70, 5), "float32")
    for start in range(0, 700, 70):
        buffer[:] = X[start : start + 70]
        yield buffer


def memory_map(folder):
    np.save(folder / "x.npy", X)
    return np.asanyarray(np.load(folder / "x.npy", mmap_mode="r"))


def in_file(x, folder, **kwargs):
    return h5py.File(folder / "x.h5", "w").create_dataset("x", data=x, **kwargs)


ARRAYS = {
    "array": lambda _: X,
    "Fortran order": lambda _: np.asfortranarray(X),
    "matrix of a file": memory_map,
    "h5py": lambda folder: in_file(X, folder),
    "h5py in chunks": lambda folder: in_file(X, folder, chunks=(64, 5), compression="gzip"),
    "backend tensor": lambda _: keras.ops.convert_to_tensor(X),
    "variable": lambda _: keras.Variable(X),
    "list of rows": lambda _: X.tolist(),
    "scipy.sparse matrix": lambda _: scipy.sparse.coo_matrix(X),
    "scipy.sparse array": lambda _: scipy.sparse.csc_array(X),
    "scipy.sparse dok_matrix": lambda _: scipy.sparse.dok_matrix(X),
    "scipy.sparse dok_array, y": lambda _: (scipy.sparse.dok_array(X), Y),
    "scipy.sparse dia_matrix": lambda _: scipy.sparse.dia_matrix(X),
    "x, y": lambda _: (X, Y),
    "x, nothing, w": lambda _: (X, None, W),
}
BATCHES = {
    "PyDataset": lambda: Batches(X),
    "PyDataset of x, y, w": lambda: Batches(X, Y, W),
    "list": lambda: [X[:1], X[1:300], X[300:]],
    "list of one tuple": lambda: [(X,)],
    "generator": lambda: (X[i : i + 64] for i in range(0, 700, 64)),
    "generator of x, y": lambda: ((X[i : i + 64], Y) for i in range(0, 700, 64)),
    "generator of lists": lambda: (X[i : i + 64].tolist() for i in range(0, 700, 64)),
    "generator of tensors": lambda: map(keras.ops.convert_to_tensor, np.split(X, 7)),
    "generator of one buffer": reused_buffer,
    "generator of dia and dok": lambda: iter(
        [scipy.sparse.dia_array(X[:300]), scipy.sparse.dok_matrix(X[300:])]
    ),
    "generator with an empty batch": lambda: iter([X[:0], X[:100], X[:0], X[100:]]),
}


def tf_dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


def unknown_rank(x):
    return tf.py_function(lambda a: a, [x], x.dtype)


TENSORFLOW = {
    "tf.Variable": lambda: tf.Variable(X),
    "sparse tensor": lambda: tf.sparse.from_dense(X),
    "tf.data": lambda: tf_dataset(X).batch(64),
    "tf.data of x, y, w": lambda: tf_dataset(X, Y, W).batch(64),
    "tf.data from a generator": lambda: tf.data.Dataset.from_generator(
        lambda: iter(np.split(X, 7)), output_signature=tf.TensorSpec((None, 5))
    ),
    "tf.data of unknown rank": lambda: tf_dataset(X).batch(64).map(unknown_rank),
    "tf.data of one tensor": lambda: tf.data.Dataset.from_tensors(X),
    "tf.data of sparse tensors": lambda: tf_dataset(tf.sparse.from_dense(X)).batch(64),
    "generator of sparse tensors": lambda: map(tf.sparse.from_dense, np.split(X, 7)),
}
TORCH = {
    "tensor with a gradient": lambda: torch.tensor(X, requires_grad=True),
    "sparse torch tensor": lambda: torch.tensor(X).to_sparse(),
    "transposed tensor": lambda: torch.tensor(X.T.copy()).T,
    "DataLoader": lambda: loader(torch.tensor(X)),
    "DataLoader of x, y, w": lambda: loader(*map(torch.tensor, (X, Y, W))),
    "DataLoader of rows": lambda: torch.utils.data.DataLoader(X, batch_size=64),
}


def loader(*tensors):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), batch_size=64)


def polars_frame():
    return polars.DataFrame(X, schema=list(NAMES))


def pandas_frame(x=X):
    return pandas.DataFrame(x, columns=list(NAMES))


def arrow_table():
    return pyarrow.table(dict(zip(NAMES, X.T, strict=True)))


def arrow_dataset(folder):
    return pyarrow.dataset.dataset(parquet(folder), format="parquet")


def parquet(folder):
    pandas_frame().to_parquet(folder / "x.parquet", row_group_size=100)
    return folder / "x.parquet"


def two_files(folder):
    (folder / "data" / "part=2").mkdir(parents=True)
    pandas_frame(X[:300]).to_parquet(folder / "data" / "1.parquet")
    pandas_frame(X[300:]).to_parquet(folder / "data" / "2.parquet")
    (folder / "data" / "README.md").write_text("Not a table.")
    return folder / "data"


def csv(folder):
    # The first values look like integers.
    pandas_frame().to_csv(folder / "x.csv", index=False, float_format="%.9g")
    return str(folder / "x.csv")


def feather(folder):
    pandas_frame().to_feather(folder / "x.feather")
    return folder / "x.feather"


TABLES = {
    "pandas": lambda _: pandas_frame(),
    "pandas of arrow": lambda _: pandas_frame().astype("float32[pyarrow]"),
    "pandas and a target": lambda _: (pandas_frame(), Y),
    "polars": lambda _: polars_frame(),
    "polars LazyFrame": lambda _: polars_frame().lazy(),
    "pyarrow Table": lambda _: arrow_table(),
    "pyarrow RecordBatch": lambda _: arrow_table().to_batches()[0],
    "pyarrow reader": lambda _: arrow_table().to_reader(max_chunksize=64),
    "pyarrow dataset": arrow_dataset,
    "pyarrow scanner": lambda folder: arrow_dataset(folder).scanner(batch_size=64),
    "Parquet": parquet,
    "folder of Parquet": two_files,
    "CSV": csv,
    "Feather": feather,
    "generator of pandas": lambda _: (pandas_frame(part) for part in np.split(X, 7)),
}


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays(kind, tmp_path):
    data = ARRAYS[kind](tmp_path)
    opened = open_data(data)
    assert (opened.shape, opened.rows, opened.names) == ((None, 5), 700, None)
    np.testing.assert_array_equal(inputs(data), X)


STREAMS = BATCHES | (TENSORFLOW if tf else {}) | (TORCH if torch else {})


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
@pytest.mark.parametrize("kind", STREAMS)
def test_streams(kind):
    assert open_data(STREAMS[kind]()).shape == (None, 5)
    np.testing.assert_array_equal(inputs(STREAMS[kind]()).astype("float32"), X)


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("kind", TABLES)
def test_tables(kind, by_columns, tmp_path):
    opened = open_data(TABLES[kind](tmp_path), by_columns)
    assert opened.names == NAMES
    assert opened.rows in (700, None)
    x = joined([keras.tree.map_structure(copied, batch.x) for batch in opened.batches])
    if by_columns:
        assert tuple(opened.shape) == tuple(x) == NAMES
        x = np.stack(list(x.values()), axis=1)
    np.testing.assert_allclose(x, X, rtol=1e-7)


@pytest.mark.parametrize("kind", ["array", "Parquet", "polars LazyFrame", "x, y", "pandas"])
def test_a_mask_and_weights_follow_the_rows(kind, tmp_path):
    data = (ARRAYS | TABLES)[kind](tmp_path)
    mask = np.random.default_rng(1).random(700) < 0.9
    opened = read(data, mask=mask, sample_weight=W)
    np.testing.assert_array_equal(joined([e.sample_weight for e in opened]), W)
    x = joined([batch.x for batch in opened])
    np.testing.assert_array_equal(x.mask, np.repeat(~mask[:, None], 5, axis=1))
    np.testing.assert_array_equal(x.data, X)


def test_large_arrays_come_in_pieces_of_the_memory_itself(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3000, 1000), "uint8"))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    mask = np.ones((3000, 1000), bool)
    mask[2999, 7] = False
    sizes = []
    for batch in open_data(mapped, mask=mask, sample_weight=list(range(3000))).batches:
        assert np.shares_memory(np.ma.getdata(batch.x), mapped)
        assert len(batch.sample_weight) == len(batch.x)
        sizes.append(len(batch.x))
    assert sum(sizes) == 3000
    assert max(sizes) <= 1050
    assert batch.x.mask.sum() == 1
    assert batch.x.mask[-1, 7]


def test_a_masked_array_keeps_its_mask():
    masked = np.ma.masked_less(X, 1)
    np.testing.assert_array_equal(inputs(masked).mask, X < 1)
    both = inputs(masked, mask=np.arange(700) < 350)
    np.testing.assert_array_equal(both.mask, (X < 1) | (np.arange(700) >= 350)[:, None])
    np.testing.assert_array_equal(inputs(iter([masked[:9], masked[9:]])).mask, X < 1)


def test_steps_of_the_mask_value_do_not_count():
    x = np.ones((4, 3, 2))
    x[0, 1:] = 0  # padding
    x[1, 0, 0] = 0  # a step with a zero in it
    expected = np.zeros(x.shape, bool)
    expected[0, 1:] = True
    for data in (x, iter([x[:1], x[1:2], x[2:]]), {"a": x}):
        got = inputs(data, mask_value=0.0)
        got = got["a"] if isinstance(got, dict) else got
        np.testing.assert_array_equal(np.ma.getmaskarray(got), expected)
    assert type(read(x, mask_value=99.0)[0].x) is np.ndarray  # nothing is masked
    names = {"name": np.array(["", "x"]), "age": np.array([0.0, 1])}
    got = inputs(names, mask_value=0.0)
    assert got["name"].tolist() == ["", "x"]
    assert got["age"].mask.tolist() == [True, False]


def test_named_inputs_given_whole():
    data = {
        "image": X.reshape(700, 5, 1),
        "text": np.array(["a"] * 700, object),
        "list": Y.tolist(),
    }
    opened = open_data((data, Y))
    assert opened.shape == {"image": (None, 5, 1), "text": (None,), "list": (None,)}
    assert opened.rows == 700
    batch = next(opened.batches)
    np.testing.assert_array_equal(batch.x["image"][..., 0], X)
    assert batch.x["text"].dtype == object
    np.testing.assert_array_equal(batch.x["list"], Y)
    np.testing.assert_array_equal(batch.y, Y)


def test_structures_in_streams():
    a, b = inputs(iter([((X, Y), 0), ((X, Y), 0)]))
    assert a.shape == (1400, 5)
    assert b.shape == (1400,)
    assert open_data([[X, Y]]).shape == [(None, 5), (None,)]
    assert open_data([{"b": X, "a": Y}]).shape == {"b": (None, 5), "a": (None,)}


def test_lists():
    np.testing.assert_array_equal(inputs([1, 2.5, 3]), [1, 2.5, 3])
    np.testing.assert_array_equal(inputs([np.float32(1), np.float32(2)]), [1, 2])
    assert open_data([[1, 2], [3, 4]]).shape == (None, 2)
    assert len(read([X, X])) == 2
    np.testing.assert_array_equal(inputs(([[1, 2], [3, 4]], [0, 1])), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "dtype", ["uint8", "int64", "bool", "float16", "float64", ml_dtypes.bfloat16]
)
def test_integers_booleans_and_halves_keep_their_type(dtype):
    assert inputs(np.ones((4, 2), dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_the_backend(dtype):
    np.testing.assert_allclose(inputs(keras.ops.cast(X, dtype)).astype("float32"), X, rtol=1e-2)


@needs_torch
def test_bfloat16_of_torch_is_not_copied():
    tensor = torch.tensor(X, dtype=torch.bfloat16)
    np.testing.assert_array_equal(inputs(tensor).astype("float32"), tensor.float().numpy())
    assert np.shares_memory(next(open_data(tensor).batches).x, tensor.view(torch.int16).numpy())


# Tables.


def test_nulls_become_nan(tmp_path):
    values = {
        "n": [1, None, 3],
        "flag": [True, None, False],
        "x": [0.5, None, 2.5],
        "no": [None] * 3,
    }
    nan = float("nan")
    expected = [[1, 1, 0.5, nan], [nan] * 4, [3, 0, 2.5, nan]]
    types = {"n": "Int64", "flag": "boolean", "x": "Float32", "no": "float64"}
    for data in (
        pandas.DataFrame(values).astype(types),
        polars.DataFrame(values),
        polars.LazyFrame(values),
        pyarrow.table(values),
    ):
        np.testing.assert_array_equal(inputs(data), expected)
    (tmp_path / "x.csv").write_text("n,flag,x,no\n1,true,.5,\n,,,\n3,false,2.5,\n")
    np.testing.assert_array_equal(inputs(tmp_path / "x.csv"), expected)


def test_one_column_of_a_table():
    for data in (pandas_frame()["a"], polars_frame()["a"], arrow_table()["a"]):
        assert open_data(data).shape == (None,)
        np.testing.assert_array_equal(inputs(data), X[:, 0])


def test_columns_of_every_type():
    values = {"age": [1, 2], "city": ["a", "b"], "flag": [True, False]}
    frame = pandas.DataFrame(values)
    for data in (
        frame,
        frame.astype({"city": "category"}),
        polars.DataFrame(values),
        polars.DataFrame(values, schema_overrides={"city": polars.Categorical}),
        pyarrow.table(values),
        pyarrow.table(values | {"city": pyarrow.array(["a", "b"]).dictionary_encode()}),
    ):
        x = inputs(data, by_columns=True)
        assert {name: column.tolist() for name, column in x.items()} == values
        assert x["flag"].dtype == bool
        assert x["age"].dtype == np.int64
        with pytest.raises(TypeError, match=r"numeric columns.*the column 'city' \(.*Select"):
            open_data(data)


def test_decimals_are_numbers():
    values = {"price": [decimal.Decimal("1.25"), decimal.Decimal("2.50")]}
    for data in (
        polars.DataFrame(values),
        pyarrow.table(values),
        pyarrow.table(values).to_pandas(types_mapper=pandas.ArrowDtype),
    ):
        np.testing.assert_array_equal(inputs(data), [[1.25], [2.5]])


def test_nested_columns_are_refused_and_wide_integers_are_numbers():
    values = {"a": [{"x": 1.0}, {"x": 3.0}]}
    vectors = polars.Series("a", [[1.0, 2.0], [3.0, 4.0]], dtype=polars.Array(polars.Float64, 2))
    for data in (polars.DataFrame(values), pyarrow.table(values), vectors.to_frame()):
        with pytest.raises(TypeError, match=r"numeric columns.*the column 'a' \(.*Select"):
            inputs(data)
    with pytest.raises(TypeError, match=r"Received: dtype=object"):
        inputs(polars.DataFrame(values)["a"])
    np.testing.assert_array_equal(inputs(vectors), [[1, 2], [3, 4]])
    wide = polars.DataFrame({"a": polars.Series([1, None, 2**70], dtype=polars.Int128)})
    np.testing.assert_array_equal(inputs(wide), [[1], [np.nan], [2.0**70]])


def test_a_csv_whose_numbers_look_like_integers_at_first(tmp_path):
    rows = "\n".join(["1,2"] * 400_000 + ["1.5,2"])
    (tmp_path / "x.csv").write_text(f"a,b\n{rows}\n")
    x = inputs(tmp_path / "x.csv")
    assert x.shape == (400_001, 2)
    assert x[-1].tolist() == [1.5, 2]


def test_the_folders_of_a_partition_are_a_column(tmp_path):
    for year in (2024, 2025):
        (tmp_path / f"year={year}").mkdir()
        pandas_frame(X[:3]).to_parquet(tmp_path / f"year={year}" / "1.parquet")
    opened = open_data(tmp_path)
    assert opened.names == (*NAMES, "year")
    assert opened.rows == 6
    assert inputs(tmp_path)[:, -1].tolist() == [2024] * 3 + [2025] * 3


def test_a_parquet_file_is_read_by_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "NUMBERS_AT_ONCE", 1 << 16)
    part = pyarrow.table({name: np.random.default_rng(0).random(10_000) for name in NAMES})
    with pyarrow.parquet.ParquetWriter(tmp_path / "x.parquet", part.schema) as file:
        for _ in range(16):
            file.write_table(part)
    del part
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    opened, most, rows = open_data(tmp_path / "x.parquet"), 0, 0
    for batch in opened.batches:
        rows += len(batch.x)
        most = max(most, pyarrow.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == opened.rows == 160_000
    whole = rows * 5 * 8
    assert most < whole / 3
    assert peak < whole / 3


def test_a_file_of_h5py_is_read_by_whole_chunks(tmp_path):
    x = np.zeros((100_000, 40), "float32")
    data = in_file(x, tmp_path, chunks=(1000, 40), compression="gzip")
    sizes = [len(batch.x) for batch in open_data(data).batches]
    assert sum(sizes) == len(x)
    assert len(sizes) < 10
    assert all(size % 1000 == 0 for size in sizes)


def test_sparse_rows_become_dense_by_pieces():
    sparse = scipy.sparse.random_array((20_000, 500), density=0.01, rng=np.random.default_rng(0))
    sizes = [len(batch.x) for batch in open_data(sparse).batches]
    assert sum(sizes) == 20_000
    assert max(sizes) * 500 <= 1 << 20


# tf.data.


@needs_tf
@pytest.mark.parametrize(
    ("make", "shape", "rows"),
    [
        (lambda: tf_dataset(Y).batch(50), (None,), None),
        (lambda: tf_dataset(Y).batch(50, drop_remainder=True).prefetch(1), (None,), 700),
        (lambda: tf_dataset(X, Y).batch(70, drop_remainder=True).repeat(2), (None, 5), 1400),
        (lambda: tf_dataset({"a": X, "b": Y}).batch(9), {"a": (None, 5), "b": (None,)}, None),
        (lambda: tf_dataset(({"s": [b"a", b"b"]}, [0, 1])).batch(2), {"s": (None,)}, None),
    ],
)
def test_what_a_dataset_says_of_itself(make, shape, rows):
    opened = open_data(make())
    assert (opened.shape, opened.rows) == (shape, rows)


@needs_tf
def test_a_dataset_of_single_rows_is_told_by_its_scalars():
    ragged = tf_dataset(tf.ragged.constant([[1.0, 2], [], [3]]))
    for data in (tf_dataset(X, Y), tf_dataset({"a": X, "b": Y}), ragged):
        with pytest.raises(ValueError, match=r"^`data` must be batched.*`dataset.batch\(1024\)`"):
            open_data(data)


@needs_tf
def test_ragged_tensors_give_the_values_at_hand():
    ragged = tf.ragged.constant([[1.0, 2], [], [3]])
    deep = tf.RaggedTensor.from_row_lengths(tf.reshape(tf.range(12.0), (6, 2)), [4, 0, 2])
    for data, shape, values in (
        (ragged, (None, None), [[1], [2], [3]]),
        (deep, (None, None, 2), np.arange(12.0).reshape(6, 1, 2)),
        (tf_dataset(deep).batch(2), (None, None, 2), np.arange(12.0).reshape(6, 1, 2)),
        (tf_dataset(ragged).batch(2), (None, None), [[1], [2], [3]]),
    ):
        assert open_data(data).shape == shape
        np.testing.assert_array_equal(inputs(data), values)
    (batch,) = read(deep, sample_weight=[1.0, 2, 3], mask=[True, True, False])
    assert batch.sample_weight.tolist() == [1, 1, 1, 1, 3, 3]
    assert batch.x.mask[:, 0, 0].tolist() == [False] * 4 + [True] * 2
    (batch,) = read(tf_dataset(deep, [0, 1, 2], [1.0, 2, 3]).batch(3))
    assert batch.sample_weight.tolist() == [1, 1, 1, 1, 3, 3]
    assert open_data({"a": deep, "b": X[:3]}).shape == {"a": (None, None, 2), "b": (None, 5)}


# Endless data.


def test_endless_data_with_a_limit():
    items = open_data(Endless(), max_rows=9).batches
    assert [next(items).x[0, 0] for _ in range(3)] == [0, 1, 2]
    if tf:
        items = open_data(tf_dataset(X).batch(64).repeat(), max_rows=9).batches
        np.testing.assert_array_equal(next(items).x, X[:64])


ERRORS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (lambda: 3, {}, ValueError, r"a batch axis. Received: a scalar"),
    (lambda: (np.float32(1) for _ in X), {}, ValueError, r"a batch axis.*batch a stream"),
    (lambda: {"a": 3}, {}, TypeError, r"a batch of type int, without a `.shape`"),
    (lambda: keras.Input((3,)), {}, TypeError, r"a symbolic tensor of shape \(None, 3\)"),
    (lambda: {"a": keras.Input((3,))}, {}, TypeError, r"a symbolic tensor"),
    (lambda: b"x", {}, TypeError, r"must be an array, a tensor.*Received: data=b'x' of type bytes"),
    (lambda: None, {}, TypeError, r"data=None of type NoneType"),
    (lambda: (None, Y), {}, TypeError, r"a batch of type NoneType"),
    (lambda: reused_buffer, {}, TypeError, r"the function reused_buffer. Call it: pass `reused"),
    (lambda: X.astype(object), {}, TypeError, r"Received: dtype=object. Convert"),
    (lambda: X.astype(complex), {}, TypeError, r"Received: dtype=complex128. Convert"),
    (lambda: [X, X.astype(str)], {}, TypeError, r"Received: dtype=<U"),
    (lambda: [[1, 2], [3]], {}, ValueError, r"rows of one length.*different lengths. Pad"),
    (list, {}, ValueError, r"at least one row. Received: no rows, of an object of type list"),
    (dict, {}, ValueError, r"at least one array. Received: an empty dict"),
    (tuple, {}, ValueError, r"a tuple of 0 items"),
    (lambda: (X, X, X, X), {}, ValueError, r"a tuple of 4 items. Nest several"),
    (lambda: iter([X[:0], X[:0]]), {}, ValueError, r"no rows.*create a new one"),
    (lambda: X[:0], {}, ValueError, r"Received: no rows, of shape \(0, 5\)"),
    (lambda: (X, Y[:5]), {}, ValueError, r"same number of rows.* 700, 5 rows. A tuple is"),
    (lambda: "no.csv", {}, ValueError, r"the path 'no.csv', which does not exist"),
    (lambda: __file__, {}, ValueError, r"of one of the types .parquet.*with none of them. Open"),
    (Endless, {}, ValueError, r"finite, or limited by `steps=`.*without a length.*`__len__\(\)`"),
    (lambda: X, {"mask": Y}, ValueError, r"`mask` must be a boolean.*dtype=float64"),
    (lambda: X, {"mask": Y[:5] > 0}, ValueError, r"`mask` must have a row.*for 700 rows"),
    (lambda: X, {"mask": X[:, :4] > 0}, ValueError, r"`mask` must have the leading axes"),
    (lambda: [X], {"mask": Y > 0}, ValueError, r"`mask` must come with arrays.*`mask_value="),
    (lambda: [X], {"sample_weight": W}, ValueError, r"must come with.*Yield tuples"),
    (lambda: (X, Y, W), {"sample_weight": W}, ValueError, r"given once"),
    (lambda: X, {"sample_weight": W[:5]}, ValueError, r"same number of rows"),
    (lambda: X, {"sample_weight": X[:, :4]}, ValueError, r"the leading axes.*\(700, 4\)"),
    (lambda: X, {"sample_weight": -W}, ValueError, r"not negative. Received: -0.002"),
    (lambda: X, {"sample_weight": W * np.nan}, ValueError, r"finite.* Received: nan, nan"),
    (lambda: [(X, Y, {"out": W})], {}, ValueError, r"one array of numbers.*drop them"),
    (lambda: [(X, Y, W[:5])], {}, ValueError, r"the leading axes.*\(5,\)"),
    (lambda: Batches, {}, TypeError, r"Received: the class Batches. Create it: pass `Batches\("),
    (lambda: np.ndarray, {}, TypeError, r"Received: the class ndarray. Create it"),
    (lambda: (np.ndarray, Y), {}, TypeError, r"Received: the class ndarray"),
    (lambda: [X, pandas.DataFrame], {}, TypeError, r"Received: the class DataFrame"),
    (lambda: in_itself([]), {}, TypeError, r"a list of lists, more than 64 deep"),
    (lambda: in_itself({}), {}, TypeError, r"a dict that contains itself"),
    (lambda: Misshapen(2, 4), {}, ValueError, r"of shape \(10, 4\) with 10 rows of shape \(2, 4\)"),
    (lambda: Misshapen(10, 9), {}, ValueError, r"with 10 rows of shape \(10, 9\). Convert it"),
    (lambda: X, {"mask_value": "a"}, ValueError, r"`mask_value` must be a number.*mask_value='a'"),
    (lambda: X, {"mask_value": np.zeros(4)}, ValueError, r"`mask_value` must be.*Pass `mask=`"),
    (lambda: X, {"mask_value": np.nan}, ValueError, r"`mask_value` must be.*`nan='ignore'`"),
    (lambda: X, {"verbose": "x"}, ValueError, r"`verbose` must be 0, 1 or \"auto\".*verbose='x'"),
    (lambda: X, {"steps": True}, ValueError, r"`steps` must be a positive.* steps=True"),
    (lambda: X, {"steps": 0}, ValueError, r"positive integer, or None for all there is.* steps=0"),
    (lambda: X, {"max_rows": 1.5}, ValueError, r"`max_rows` must be a positive.* max_rows=1.5"),
    (
        lambda: X,
        {"nan": "drop"},
        ValueError,
        r'`nan` must be one of "error", "ignore", "propagate"',
    ),
]


class Misshapen:
    """Yields rows of other shapes than its own."""

    shape, dtype = (10, 4), X.dtype

    def __init__(self, *shape):
        self.rows = np.ones(shape)

    def __getitem__(self, rows):
        return self.rows


def in_itself(container):
    if isinstance(container, dict):
        container["a"] = container
    else:
        container.append(container)
    return container


TENSORFLOW_ERRORS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (lambda: tf_dataset(X).batch(9).repeat(), {}, ValueError, r"infinite `tf.*`dataset.take"),
    (lambda: tf_dataset(X).batch(9).take(0), {}, ValueError, r"no rows, of a `tf.data.Dataset`"),
    (lambda: tf_dataset(["a", "b"]).batch(2), {}, TypeError, r"Received: dtype=object. Convert"),
    (lambda: tf_dataset(Y).map(unknown_rank), {}, ValueError, r"a batch axis"),
    (lambda: tf.constant(3.0), {}, ValueError, r"a batch axis"),
    (lambda: sparse_tensor(7), {}, ValueError, r"indices=\[0, 7\] for shape=\[3, 4\]"),
    (lambda: sparse_tensor(-1), {}, ValueError, r"must lie in its shape.*indices=\[0, -1\]"),
]


def sparse_tensor(column, columns=4):
    return tf.SparseTensor([[0, column]], [1.0], [3, columns])


TORCH_ERRORS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (
        lambda: torch.utils.data.TensorDataset(torch.tensor(X)),
        {},
        TypeError,
        r"single rows. Pass `torch.utils.data.DataLoader\(data",
    )
]
ERRORS += (TENSORFLOW_ERRORS if tf else []) + (TORCH_ERRORS if torch else [])


@pytest.mark.parametrize(("make", "kwargs", "kind", "message"), ERRORS)
def test_errors_say_what_to_write(make, kwargs, kind, message):
    with np.errstate(all="ignore"), pytest.raises(kind, match=message):
        read(make(), **kwargs)


def test_errors_of_tables(tmp_path):
    mask = Y[:9] > 0
    with pytest.raises(ValueError, match=r"`mask` must have a row.*for 100 or more rows"):
        read(parquet(tmp_path), mask=mask)
    with pytest.raises(ValueError, match=r"`sample_weight` must have a row.*for 700 rows"):
        read(parquet(tmp_path), sample_weight=np.ones(701))
    twice = pandas_frame().rename(columns={"b": "a"})
    for data in (twice, [twice]):
        with pytest.raises(ValueError, match=r"different names. Received: columns='a', 'a', 'c'"):
            open_data(data)
    (tmp_path / "twice.csv").write_text("a,b,a\n1,2,3\n")
    named = arrow_table().rename_columns(list("aacde"))
    pyarrow.parquet.write_table(named, tmp_path / "twice.pq")
    for name in ("twice.csv", "twice.pq"):
        with pytest.raises(ValueError, match=r"that pyarrow can read.*Rename columns that occur"):
            open_data(tmp_path / name)
        (tmp_path / name).unlink()
    csv(tmp_path)
    with pytest.raises(ValueError, match=r"with csv and parquet of them. Open it"):
        open_data(tmp_path)


def test_no_library_is_imported(monkeypatch):
    # The reading of arrays does not ask for libraries that are not there: these would fail.
    backend = keras.backend.backend()
    for name in ("pandas", "polars", "pyarrow", "scipy", "tensorflow", "torch", "jax", "narwhals"):
        if name != backend:
            monkeypatch.setitem(sys.modules, name, None)
    for data in (X, X.tolist(), [X], iter([(X, X)]), {"a": X}, (X, X, X[:, 0] ** 2)):
        assert len(read(data)) == 1
