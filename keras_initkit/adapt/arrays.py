"""Arrays and tensors of any library as NumPy arrays, and the structures they come in.

No library is imported: data can be its only where it already is.
"""

import numbers
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.adapt.tables import (
    is_column,
    is_table,
    read_column,
    read_columns,
    stack_columns,
    wrap_table,
)

Array = NDArray[Any]
_MOST_AXES = 64  # of an array of NumPy
ACCEPTED = (
    "an array, a tensor, a table (pandas, polars, pyarrow), the path of a Parquet, CSV or "
    "Feather file, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a `DataLoader`, a dict of "
    "arrays, or an iterable of batches (arrays, or tuples `(x, y, sample_weight)`)"
)


def refuse(received: str, fix: str) -> NoReturn:
    """Refuse data of a type that can't be read."""
    raise TypeError(f"`data` must be {ACCEPTED}. Received: {received}. {fix}")


def refuse_scalar() -> NoReturn:
    """Refuse a number."""
    raise ValueError(
        "`data` must have a batch axis. Received: a scalar. Pass an array of shape (rows, ...), "
        "e.g. `np.reshape(data, (-1, 1))`; batch a stream of single values."
    )


def refuse_class(kind: type) -> NoReturn:
    """Refuse a class in place of an object."""
    refuse(f"the class {kind.__name__}", f"Create it: pass `{kind.__name__}(…)`.")


def refuse_symbolic(tensor: Any) -> NoReturn:
    """Refuse a `keras.Input`."""
    fix = "Pass the values themselves, not an `Input`."
    refuse(f"a symbolic tensor of shape {tensor.shape}", fix)


def is_instance(value: Any, module: str, *names: str) -> bool:
    """Check for a class of a library; it need not be installed."""
    package = sys.modules.get(module)
    if package is None:
        return False
    for name in names:
        try:
            kind = operator.attrgetter(name)(package)
        except AttributeError:
            continue
        if isinstance(value, kind):
            return True
    return False


def is_sparse(value: Any) -> bool:
    """Check for a sparse matrix or array of SciPy; one of its formats is a dict."""
    return is_instance(value, "scipy.sparse", "sparray", "spmatrix")


def is_ragged(value: Any) -> bool:
    """Check for a ragged tensor."""
    return is_instance(value, "tensorflow", "RaggedTensor")


def map_arrays(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to each array in dicts, tuples and lists; a list of numbers is an array."""
    if isinstance(value, Mapping) and not is_sparse(value):
        return {key: map_arrays(function, item) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [map_arrays(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list) and not is_numbers(value):
        return [map_arrays(function, item) for item in value]
    return function(value)


def is_numbers(values: list[Any]) -> bool:
    """Check for a list of numbers (or of lists of them), as opposed to one of arrays."""
    first: Any = values
    for _ in range(_MOST_AXES + 1):
        if not isinstance(first, list):
            break
        if not first:
            return True
        first = first[0]
    else:
        refuse(f"a list of lists, more than {_MOST_AXES} deep", "Does it contain itself?")
    return isinstance(first, (numbers.Number, np.generic, str, bytes))


def find_converter(value: Any) -> Callable[[Any], Any]:
    """Find the function from arrays of this type to NumPy arrays."""
    if isinstance(value, type):
        refuse_class(value)
    if isinstance(value, np.ma.MaskedArray):
        return lambda array: array
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray
    if isinstance(value, keras.KerasTensor):
        return refuse_symbolic
    if isinstance(value, keras.Variable):
        return lambda variable: to_numpy(variable.value)
    for module, names, function in _CONVERTERS:
        if is_instance(value, module, *names):
            return function
    if isinstance(value, list):
        return _convert_list
    if is_column(value):
        return read_column
    if is_table(value):
        return lambda table: stack_columns(read_columns(table))
    if hasattr(value, "__array__") and hasattr(value, "shape"):
        return np.asarray
    return refuse(
        f"a batch of type {type(value).__name__}, without a `.shape`",
        "Convert it first, e.g. with `np.asarray(data)`.",
    )


def to_numpy(value: Any) -> Any:
    """Convert an array or tensor of any library to a NumPy array."""
    return find_converter(value)(value)


def to_rows(value: Any) -> Any:
    """Prepare an array for cutting rows; on a device or on disk it stays there."""
    if isinstance(value, type):
        refuse_class(value)
    rows: Any = wrap_table(value)
    if isinstance(value, keras.Variable):
        return to_rows(value.value)
    if is_sparse(value):
        rows = value.tocsr()
    elif isinstance(value, keras.KerasTensor):
        refuse_symbolic(value)
    elif rows is value and (_is_on_host(value) or not hasattr(value, "shape")):
        rows = to_numpy(value)
    if not shape_of(rows):
        refuse_scalar()
    return rows


def shape_of(array: Any) -> tuple[Any, ...]:
    """Return a shape, of a ragged tensor with the number of its rows."""
    if is_ragged(array):
        return (int(array.nrows()), *array.shape[1:])
    return tuple(array.shape)


def batch_shape(array: Any) -> tuple[int | None, ...]:
    """Return the shape of an array or of its specification, with `None` where it may vary."""
    shape = tuple(array.shape)
    ragged = 1 + getattr(array, "ragged_rank", 0)
    return (None,) * ragged + shape[ragged:]


def repeat_rows(rows: Any, tensor: Any) -> Any:
    """Repeat weights or a mask of a ragged tensor's rows for each of its values."""
    if rows is None:
        return None
    rows = np.asarray(to_numpy(rows))
    for lengths in tensor.nested_row_lengths():
        if rows.ndim != 1 or len(rows) != int(lengths.shape[0]):
            raise ValueError(
                "`sample_weight` and `mask` of a ragged tensor must have one item for each row. "
                f"Received: shape={rows.shape} for {int(lengths.shape[0])} rows. Pass one for "
                "each row, or only the values that count."
            )
        rows = np.repeat(rows, np.asarray(lengths))
    return rows


def _is_on_host(value: Any) -> bool:
    """Check for a tensor in host memory, an array without a copy, or one that can't be cut."""
    if is_instance(value, "torch", "Tensor"):
        return value.device.type == "cpu" or value.layout is not sys.modules["torch"].strided
    if is_instance(value, "jax", "Array"):
        devices = list(value.devices())
        return len(devices) == 1 and devices[0].platform == "cpu"
    if is_instance(value, "tensorflow", "SparseTensor"):
        return True
    return is_instance(value, "tensorflow", "Tensor") and "CPU" in getattr(value, "device", "")


def _convert_list(values: list[Any]) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            "`data` must have rows of one length. Received: a list of lists of different "
            "lengths. Pad them, or pass `tf.ragged.constant(data)`."
        ) from error


def _convert_ragged(tensor: Any) -> Array:
    """Return the values at hand, with an axis of size 1 for each ragged one."""
    values = np.asarray(tensor.flat_values)
    return values.reshape(len(values), *(1,) * tensor.ragged_rank, *values.shape[1:])


def _convert_sparse(tensor: Any) -> Array:
    sparse = sys.modules["tensorflow"].sparse
    indices, shape = np.asarray(tensor.indices), np.asarray(tensor.dense_shape)
    outside = ((indices < 0) | (indices >= shape)).any(axis=-1)
    if outside.any():
        raise ValueError(
            "The indices of a sparse tensor in `data` must lie in its shape. Received: indices="
            f"{indices[outside][0].tolist()} for shape={shape.tolist()}. Check how they were made."
        )
    try:
        return np.asarray(sparse.to_dense(sparse.reorder(tensor)))
    except sys.modules["tensorflow"].errors.ResourceExhaustedError:
        raise MemoryError(f"a sparse tensor of shape {shape.tolist()}") from None


def _convert_torch(tensor: Any) -> Array:
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype == torch.bfloat16:  # unknown to `.numpy()`
        bits = tensor.detach().view(torch.int16).numpy(force=True)
        return np.asarray(bits.view(np.dtype("bfloat16")))
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    return np.asarray(tensor.numpy(force=True))


# Ordered: a class comes before the classes that it inherits from.
_CONVERTERS: tuple[tuple[str, tuple[str, ...], Callable[[Any], Any]], ...] = (
    ("tensorflow", ("RaggedTensor",), _convert_ragged),
    ("tensorflow", ("SparseTensor",), _convert_sparse),
    ("tensorflow", ("Tensor", "Variable"), np.asarray),
    ("torch", ("Tensor",), _convert_torch),
    ("jax.experimental.sparse", ("JAXSparse",), lambda matrix: np.asarray(matrix.todense())),
    ("jax", ("Array",), np.asarray),
    ("scipy.sparse", ("sparray", "spmatrix"), lambda matrix: matrix.toarray()),
)
