"""Opening of data of any kind: the kind is found here, and its own module reads it."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_initkit.adapt import errors, files, streams
from keras_initkit.adapt.arrays import (
    batch_shape,
    is_instance,
    is_numbers,
    is_ragged,
    map_arrays,
    shape_of,
    to_rows,
)
from keras_initkit.adapt.options import Reading
from keras_initkit.adapt.reader import (
    NUMBERS_AT_ONCE,
    OpenData,
    Reader,
    split_batch,
)
from keras_initkit.adapt.tables import wrap_table
from keras_initkit.wording import list_few


def open_data(data: Any, reading: Reading, by_columns: bool = False) -> OpenData:
    """Open data as a stream of batches.

    Data given whole are arrays (in memory, memory mapped, of h5py), tensors of any
    framework, dense, sparse or ragged, lists of numbers, tables, paths of tables, dicts of
    these, and tuples of these: a tuple is `(x, y[, sample_weight])`, as for `fit()`.
    Everything else is a stream of batches, as for `fit()` too: `tf.data.Dataset`,
    `DistributedDataset`, `PyDataset`, `DataLoader`, generators and other iterables; tuples are
    batches `(x, y[, sample_weight])`.

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
    for is_kind, open_kind in _KINDS:
        if is_kind(data):
            return open_kind(data, reader)
    return errors.refuse_type(data)


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
        errors.refuse_no_arrays(x)
    rows = _count_common_rows([*arrays, *keras.tree.flatten((y, weight))])
    if mask is not None and len(mask) != rows:
        errors.refuse_length("mask", mask.shape, str(rows))
    if not rows:
        shapes = list_few(shape_of(array) for array in arrays)
        raise ValueError(
            f"`data` must hold at least one row. Received: no rows, of shape {shapes}. Check "
            "what filtered them out."
        )
    parts = (x, y, weight, mask)
    shape = map_arrays(batch_shape, x) if any(map(is_ragged, arrays)) else None
    cuts = _cut(parts, rows, _count_rows_at_once(arrays, rows))
    return reader.open(cuts, "arrays", tuple, rows, shape)


def _cut(parts: tuple[Any, ...], rows: int, step: int) -> Iterator[list[Any]]:
    """Cut all arrays alike, some rows at a time."""
    for start in range(0, rows, step):
        take = operator.itemgetter(slice(start, start + step))
        yield [None if part is None else map_arrays(take, part) for part in parts]


def _count_rows_at_once(arrays: list[Any], rows: int) -> int:
    values = [array.flat_values if is_ragged(array) else array for array in arrays]
    size = sum(math.prod(map(int, shape_of(value))) for value in values)
    step = max(1, NUMBERS_AT_ONCE * rows // max(1, size))
    for array in arrays:
        # A compressed chunk of a file is unpacked as a whole: it must not be read twice.
        chunks = getattr(array, "chunks", None)
        if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int) and chunks[0]:
            step = max(1, step // chunks[0]) * chunks[0]
    return step


def _count_common_rows(arrays: list[Any]) -> int:
    sizes = [int(shape_of(array)[0]) for array in arrays if array is not None]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"`data` must have the same number of rows in all arrays. Received: {list_few(sizes)} "
            "rows. A tuple is taken as (x, y, sample_weight); pass a list of batches as a list."
        )
    return sizes[0]


def _is_whole(data: Any) -> bool:
    if isinstance(data, list):
        return bool(data) and is_numbers(data)
    if isinstance(data, (Mapping, tuple)) or wrap_table(data) is not data:
        return True
    # A sparse tensor of TensorFlow has no rows to be cut.
    sparse = is_instance(data, "tensorflow", "SparseTensor")
    return sparse or (hasattr(data, "shape") and hasattr(data, "__getitem__"))


def _is_of(module: str, *names: str) -> Callable[[Any], bool]:
    return lambda data: is_instance(data, module, *names)


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Reader], OpenData]], ...] = (
    (lambda data: isinstance(data, np.ndarray), _open_whole),
    (lambda data: isinstance(data, keras.KerasTensor), errors.refuse_symbolic),
    (lambda data: isinstance(data, (numbers.Number, np.generic)), errors.refuse_scalar),
    (lambda data: isinstance(data, (str, os.PathLike)), files.open_path),
    (_is_of("pyarrow.dataset", "Dataset", "Scanner"), files.open_tables),
    (_is_of("pyarrow", "RecordBatchReader"), files.open_tables),
    (_is_of("polars", "LazyFrame"), files.open_tables),
    (_is_of("tensorflow", "data.Dataset"), streams.open_tf_dataset),
    (_is_of("tensorflow", "distribute.DistributedDataset"), streams.open_distributed_dataset),
    (lambda data: isinstance(data, keras.utils.PyDataset), streams.open_py_dataset),
    (_is_of("torch.utils.data", "DataLoader"), streams.open_data_loader),
    (_is_of("torch.utils.data", "Dataset"), errors.refuse_torch_dataset),
    (_is_whole, _open_whole),
    (lambda data: hasattr(data, "__iter__") and not isinstance(data, bytes), streams.open_iterable),
    (callable, errors.refuse_function),
)
