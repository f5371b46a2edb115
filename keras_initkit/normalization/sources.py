"""What `adapt()` accepts, as NumPy batches: one small reader for each kind of data."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.moments import is_real

Batch = NDArray[Any]

# Measured: enough to make the cost of a call vanish, still within the caches.
_COALESCED_ELEMENTS = 1 << 19
# A tensor on a device comes to the host by pieces of this size.
_TENSOR_ELEMENTS = 1 << 22
_ROWS_OF_UNBATCHED = 1024

_ACCEPTED = (
    "a NumPy array, a tensor, a `tf.data.Dataset`, a `keras.utils.PyDataset`, or an "
    "iterable of batches (arrays, or tuples whose first item is the inputs)"
)


class Source(NamedTuple):
    """Data to read once.

    Attributes:
        shape: Shape of the inputs with the batch axis first, `None` where it may vary.
        batches: The inputs, as NumPy arrays of shape `(rows, ...)`. A batch is valid until
            the next one is asked for.
    """

    shape: tuple[int | None, ...]
    batches: Iterator[Batch]


def open_source(data: Any) -> Source:
    """Finds out how to read the data.

    TensorFlow is not imported: data can be a `tf.data.Dataset` only where it already is.

    Args:
        data: A NumPy array (memory mapped ones are read by pieces), a tensor of the
            backend, a `tf.data.Dataset`, a `keras.utils.PyDataset`, or an iterable of
            batches. Of batches that are tuples `(x, y[, sample_weight])`, x is taken.

    Returns:
        The shape of the inputs and an iterator of their batches.

    Raises:
        TypeError: If data of this type can't be read.
        ValueError: If the data are empty or endless, or have no batch axis.
    """
    if isinstance(data, np.ndarray):
        array = _to_numpy(data)
        return Source(_with_rows(array.shape), iter([array]))
    if isinstance(data, keras.KerasTensor):
        raise TypeError(
            f"`data` must be {_ACCEPTED}. Received: a symbolic tensor of shape "
            f"{data.shape}. Pass the values themselves, not an `Input`."
        )
    if keras.ops.is_tensor(data):
        return Source(_with_rows(tuple(data.shape)), _slices(_dense(data)))
    if _is_tf_dataset(data):
        return _open_tf_dataset(data)
    if isinstance(data, keras.utils.PyDataset):
        _check_length(data)
        return _open_iterable(data)
    if isinstance(data, dict):
        raise TypeError(
            f"`data` must be {_ACCEPTED}. Received: a dict of keys {_few(data)}. Use one "
            "layer for each input, and adapt it on `data[key]`."
        )
    if isinstance(data, (str, bytes)) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"`data` must be {_ACCEPTED}. Received: data={data!r} of type "
            f"{type(data).__name__}. Convert it to an array first, e.g. with "
            "`np.asarray(data)`."
        )
    return _open_iterable(data)


def coalesce(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Joins small batches into larger ones, for which the cost of a call is negligible.

    Batches are copied as they come, since a generator may use one array again and again;
    the joined batch is valid until the next one is asked for.

    Args:
        batches: Arrays of shape `(rows, ...)`.

    Returns:
        An iterator of the same rows in the same order.
    """
    buffer, used = np.empty(0), 0
    for batch in batches:
        if batch.size > _COALESCED_ELEMENTS // 4:
            if used:
                yield buffer[:used]
                used = 0
            yield batch
            continue
        fits = buffer.shape[1:] == batch.shape[1:] and buffer.dtype == batch.dtype
        if used and not (fits and used + len(batch) <= len(buffer)):
            yield buffer[:used]
            used = 0
        if not fits:
            rows = _COALESCED_ELEMENTS // max(1, math.prod(batch.shape[1:]))
            buffer = np.empty((max(rows, len(batch)), *batch.shape[1:]), batch.dtype)
        elif len(batch) > len(buffer):
            yield batch
            continue
        buffer[used : used + len(batch)] = batch
        used += len(batch)
    if used:
        yield buffer[:used]


def feature_tables(batch: Batch, keep_axis: tuple[int, ...]) -> Iterator[Batch]:
    """Views a batch as tables of shape `(rows, features)`.

    Where the kept axes are the last ones, that is one view of the whole batch; otherwise
    pieces are transposed one after the other.

    Args:
        batch: Array of shape `(rows, ...)`.
        keep_axis: The axes that make up the features, ascending, without axis 0.

    Returns:
        An iterator of arrays.
    """
    features = math.prod(batch.shape[axis] for axis in keep_axis)
    moved = np.moveaxis(batch, keep_axis, range(batch.ndim - len(keep_axis), batch.ndim))
    if moved.flags.c_contiguous:
        yield moved.reshape(-1, features)
        return
    step = max(1, _COALESCED_ELEMENTS // max(1, math.prod(batch.shape[1:])))
    for start in range(0, len(moved), step):
        yield np.ascontiguousarray(moved[start : start + step]).reshape(-1, features)


def _open_iterable(data: Iterable[Any]) -> Source:
    iterator = iter(data)
    first = next(iterator, None)
    if first is None:
        raise ValueError(
            f"`data` must yield at least one batch. Received: an empty {type(data).__name__}. "
            "A generator can be read once only: create a new one."
        )
    batch = _to_numpy(_inputs_of(first))
    shape = _with_rows(batch.shape)
    batches = (_to_numpy(_inputs_of(element)) for element in iterator)
    return Source(shape, coalesce(itertools.chain([batch], batches)))


def _open_tf_dataset(data: Any) -> Source:
    tf = sys.modules["tensorflow"]
    if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "`data` must be finite. Received: an infinite `tf.data.Dataset`. Adapt before "
            "`.repeat()`, or limit it: `adapt(dataset.take(number_of_batches))`."
        )
    spec = _inputs_of(data.element_spec)
    if isinstance(spec, dict):
        raise TypeError(
            f"`data` must be {_ACCEPTED}. Received: a dataset of dicts of keys "
            f"{_few(spec)}. Use one layer for each input, and adapt it on "
            "`dataset.map(lambda x, *rest: x[key])`."
        )
    if not isinstance(spec, tf.TensorSpec):
        raise TypeError(
            "`data` must be a dataset of dense tensors. Received: element_spec="
            f"{data.element_spec}. Map it first, e.g. with `tf.sparse.to_dense` or "
            "`x.to_tensor()`."
        )
    if spec.shape.rank is None:
        return _open_iterable(data)
    shape = tuple(spec.shape)
    if len(shape) == 0 or (len(shape) == 1 and shape[0] is not None):
        data, shape = data.batch(_ROWS_OF_UNBATCHED), (None, *shape)
    batches = (_to_numpy(_inputs_of(element)) for element in data)
    return Source(_with_rows(shape), coalesce(batches))


def _is_tf_dataset(data: Any) -> bool:
    tf = sys.modules.get("tensorflow")
    return tf is not None and hasattr(tf, "data") and isinstance(data, tf.data.Dataset)


def _inputs_of(element: Any) -> Any:
    """The inputs of an element `(x, y[, sample_weight])`, or the element itself."""
    return element[0] if isinstance(element, tuple) and element else element


def _to_numpy(batch: Any) -> Batch:
    """A batch as an array of real numbers."""
    if isinstance(batch, np.ma.MaskedArray):
        raise TypeError(
            "`data` must be plain arrays. Received: a masked array. Fill it or drop the "
            "masked rows first, e.g. with `data.filled(0)` or `np.ma.compress_rows(data)`."
        )
    if isinstance(batch, np.ndarray):
        array = np.asarray(batch)
    elif keras.ops.is_tensor(batch):
        array = keras.ops.convert_to_numpy(_dense(batch))
    elif hasattr(batch, "__array__") and hasattr(batch, "shape"):
        array = np.asarray(batch)
    else:
        raise TypeError(
            f"`data` must yield batches that are arrays or tensors. Received: a batch of type "
            f"{type(batch).__name__}. Convert it first: to adapt on one array, pass "
            "`np.asarray(data)`; of a batch of named inputs, yield the one to normalize."
        )
    if not is_real(array.dtype):
        raise TypeError(
            "`data` must hold booleans, integers or real floating point numbers. Received: "
            f"dtype={array.dtype}. Convert it first, e.g. with `data.astype('float32')`."
        )
    return array


def _dense(tensor: Any) -> Any:
    if type(tensor).__name__ in ("RaggedTensor", "SparseTensor", "IndexedSlices"):
        raise TypeError(
            f"`data` must be dense tensors. Received: a {type(tensor).__name__}. Convert it "
            "first, e.g. with `tf.sparse.to_dense(data)` or `data.to_tensor()`."
        )
    return tensor


def _slices(tensor: Any) -> Iterator[Batch]:
    rows, *rest = tensor.shape
    step = max(1, _TENSOR_ELEMENTS // max(1, math.prod(rest)))
    for start in range(0, rows, step):
        yield _to_numpy(tensor[start : start + step])


def _with_rows(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The shape with a batch axis of any size."""
    if not shape:
        raise ValueError(
            "`data` must have a batch axis. Received: a scalar. Pass an array of shape "
            "(rows, ...), e.g. `np.reshape(data, (-1, 1))`."
        )
    return (None, *shape[1:])


def _check_length(data: Any) -> None:
    try:
        length = data.num_batches
    except NotImplementedError:
        length = None
    if length is None:
        raise ValueError(
            "`data` must be finite. Received: a `PyDataset` without a length. Define "
            "`__len__()`, the number of batches."
        )


def _few(keys: Iterable[Any]) -> str:
    names = [repr(key) for key in keys]
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
