"""Opening of data of any kind: given whole, or a stream of batches as `fit()` takes it."""

import functools
import itertools
import math
import numbers
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import keras
import numpy as np

from keras_initkit.adapt.arrays import (
    batch_shape,
    is_instance,
    is_numbers,
    is_ragged,
    is_sparse,
    map_arrays,
    refuse,
    refuse_class,
    refuse_scalar,
    refuse_symbolic,
    shape_of,
    to_rows,
)
from keras_initkit.adapt.files import open_path, open_tables
from keras_initkit.adapt.reader import (
    NUMBERS_AT_ONCE,
    OpenData,
    Reader,
    Reading,
    refuse_length,
    split_batch,
)
from keras_initkit.adapt.tables import wrap_table
from keras_initkit.checks import list_few


def open_data(data: Any, reading: Reading, by_columns: bool = False) -> OpenData:
    """Open data as a stream of batches.

    Data given whole are arrays (in memory, memory mapped, of h5py), tensors of any
    framework, dense, sparse or ragged, lists of numbers, tables, paths of tables, dicts of
    these, and tuples of these: a tuple is `(x, y[, sample_weight])`, as for `fit()`.
    Everything else is a stream of batches, as for `fit()` too: `tf.data.Dataset`, `PyDataset`,
    `DataLoader`, generators and other iterables; tuples are batches `(x, y[, sample_weight])`.

    No framework is imported: data can be its only where it already is. Paths need pyarrow.

    Args:
        data: The data.
        reading: Options: masks, weights, limits.
        by_columns: Whether a table is a dict of one array of shape `(rows,)` for each column
            instead of one array of shape `(rows, columns)`. Nulls become NaN.

    Raises:
        TypeError: If data of this type can't be read.
        ValueError: If the data are empty or endless, have no batch axis, or don't fit the
            mask or the weights.
    """
    reader = Reader(reading, by_columns)
    if isinstance(data, np.ndarray):
        return _open_whole(data, reader)
    if isinstance(data, type):
        refuse_class(data)
    if isinstance(data, keras.KerasTensor):
        refuse_symbolic(data)
    if isinstance(data, (numbers.Number, np.generic)):
        refuse_scalar()
    if isinstance(data, (str, os.PathLike)):
        return open_path(data, reader)
    if (
        is_instance(data, "pyarrow.dataset", "Dataset", "Scanner")
        or is_instance(data, "pyarrow", "RecordBatchReader")
        or is_instance(data, "polars", "LazyFrame")
    ):
        return open_tables(data, reader)
    try:
        return _open_whole(data, reader) if _is_whole(data) else _open_stream(data, reader)
    except RecursionError:
        refuse(f"a {type(data).__name__} that contains itself", "Pass the arrays in it.")


def _is_whole(data: Any) -> bool:
    if isinstance(data, list):
        return bool(data) and is_numbers(data)
    if isinstance(data, (Mapping, tuple)) or is_sparse(data) or wrap_table(data) is not data:
        return True
    if isinstance(data, keras.utils.PyDataset) or is_instance(data, "torch.utils.data", "Dataset"):
        return False
    # A sparse tensor of TensorFlow has no rows to be cut.
    sparse = is_instance(data, "tensorflow", "SparseTensor")
    return sparse or (hasattr(data, "shape") and hasattr(data, "__getitem__"))


def _open_whole(data: Any, reader: Reader) -> OpenData:
    x, y, weight = (*split_batch(data), None, None)[:3]
    if weight is not None and reader.reading.sample_weight is not None:
        raise ValueError(
            "`sample_weight` must be given once. Received: `sample_weight` and a third item of "
            "`data`. Drop one of them."
        )
    weight = reader.reading.sample_weight if weight is None else weight
    x = map_arrays(to_rows, x)
    y, weight = (None if part is None else map_arrays(to_rows, part) for part in (y, weight))
    mask = reader.check_mask()
    arrays = keras.tree.flatten(x)
    if not arrays:
        raise ValueError(
            f"`data` must hold at least one array. Received: an empty {type(x).__name__}. Check "
            "what dropped them."
        )
    flat = [*arrays, *keras.tree.flatten((y, weight))]
    sizes = [int(shape_of(array)[0]) for array in flat if array is not None]
    rows = sizes[0]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"`data` must have the same number of rows in all arrays. Received: {list_few(sizes)} "
            "rows. A tuple is taken as (x, y, sample_weight); pass a list of batches as a list."
        )
    if mask is not None and len(mask) != rows:
        refuse_length("mask", mask.shape, str(rows))
    if not rows:
        shapes = list_few(shape_of(array) for array in arrays)
        raise ValueError(
            f"`data` must hold at least one row. Received: no rows, of shape {shapes}. Check "
            "what filtered them out."
        )
    shape = map_arrays(batch_shape, x) if any(map(is_ragged, arrays)) else None
    cuts = _cut((x, y, weight, mask), rows, _count_rows_at_once(arrays, rows))
    return reader.open(cuts, "arrays", tuple, rows, shape)


def _cut(parts: tuple[Any, ...], rows: int, step: int) -> Iterator[list[Any]]:
    """Cut all arrays alike, some rows at a time."""
    for start in range(0, rows, step):
        take = functools.partial(_take_rows, slice(start, min(rows, start + step)))
        yield [None if part is None else map_arrays(take, part) for part in parts]


def _take_rows(rows: slice, array: Any) -> Any:
    """Cut rows of an array; it may be of any class, and cut them otherwise than it says."""
    taken = array[rows]
    shape = rows.stop - rows.start, *shape_of(array)[1:]
    if not is_ragged(taken) and shape_of(taken) != shape:
        raise ValueError(
            f"`data` must yield the rows that its shape has. Received: a {type(array).__name__} of "
            f"shape {shape_of(array)} with {rows.stop - rows.start} rows of shape "
            f"{shape_of(taken)}. Convert it first, e.g. with `np.asarray(data)`."
        )
    return taken


def _count_rows_at_once(arrays: list[Any], rows: int) -> int:
    values = [array.flat_values if is_ragged(array) else array for array in arrays]
    size = sum(math.prod(map(int, shape_of(value))) for value in values)
    step = max(1, NUMBERS_AT_ONCE * rows // max(1, size))
    for array in arrays:
        # A compressed chunk of a file of h5py is unpacked whole: it must not be read twice.
        if is_instance(array, "h5py", "Dataset") and array.chunks:
            step = max(1, step // array.chunks[0]) * array.chunks[0]
    return step


def _open_stream(data: Any, reader: Reader) -> OpenData:
    fixes = {
        "mask": "Use `mask_value=`, or yield masked arrays (`np.ma.MaskedArray`).",
        "sample_weight": "Yield tuples `(x, y, sample_weight)`.",
    }
    for name, fix in fixes.items():
        if getattr(reader.reading, name) is not None:
            raise ValueError(
                f"`{name}` must come with arrays or tables given whole. Received: `{name}` "
                f"beside a stream of batches. {fix}"
            )
    batches = data
    if is_instance(data, "tensorflow", "data.Dataset"):
        return _open_tf_dataset(data, reader)
    if isinstance(data, keras.utils.PyDataset):
        batches = _list_py_dataset(data, reader)
    elif is_instance(data, "torch.utils.data", "DataLoader"):  # a list is a batch [x, y, ...]
        batches = (tuple(batch) if isinstance(batch, list) else batch for batch in data)
    elif is_instance(data, "torch.utils.data", "Dataset"):
        refuse(
            f"a torch dataset of type {type(data).__name__}, of single rows",
            "Pass `torch.utils.data.DataLoader(data, batch_size=1024)`.",
        )
    elif not hasattr(data, "__iter__") or isinstance(data, bytes):
        if callable(data):
            name = getattr(data, "__name__", "data")
            refuse(f"the function {name}", f"Call it: pass `{name}()`.")
        refuse(
            f"data={data!r} of type {type(data).__name__}",
            "Convert it to an array first, e.g. with `np.asarray(data)`.",
        )
    return reader.open(batches, f"an object of type {type(data).__name__}")


def _open_tf_dataset(data: Any, reader: Reader) -> OpenData:
    """Open a `tf.data.Dataset`; it must be batched, as for `fit()`."""
    cardinality = int(data.cardinality())
    infinite = sys.modules["tensorflow"].data.INFINITE_CARDINALITY
    if cardinality == infinite and not reader.reading.is_limited:
        _refuse_endless("an infinite `tf.data.Dataset`", "`dataset.take(number_of_batches)`")
    specs = [spec for spec in keras.tree.flatten(data.element_spec) if hasattr(spec, "shape")]
    if any(spec.shape.rank == 0 or getattr(spec, "ragged_rank", 1) == 0 for spec in specs):
        raise ValueError(
            "`data` must be batched if it is a `tf.data.Dataset`, as for `fit()`. Received: a "
            f"dataset of single rows, with scalars: {data.element_spec}. Pass "
            "`dataset.batch(1024)`."
        )
    x, *_ = split_batch(data.element_spec)
    x_specs = keras.tree.flatten(x)
    rows = shape = None
    if all(spec in specs and spec.shape.rank is not None for spec in x_specs):
        shape = map_arrays(batch_shape, x)
        size = x_specs[0].shape[0]
        rows = cardinality * size if cardinality > 0 and size is not None else None
    return reader.open(data, "a `tf.data.Dataset`", rows=rows, shape=shape)


def _list_py_dataset(data: Any, reader: Reader) -> Iterator[Any]:
    try:
        length = data.num_batches
    except NotImplementedError:
        length = None
    if length is None and not reader.reading.is_limited:
        _refuse_endless("a `PyDataset` without a length", "define `__len__()` as their number")
    return (data[i] for i in (itertools.count() if length is None else range(length)))


def _refuse_endless(what: str, fix: str) -> NoReturn:
    raise ValueError(
        f"`data` must be finite, or limited by `steps=`. Received: {what}. Pass `steps=`, the "
        f"number of batches to read, or {fix}."
    )
