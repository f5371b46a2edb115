"""Tables of pandas, Polars, PyArrow and the like, all read through narwhals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_initkit.checks import list_few
from keras_initkit.statistics.moments import is_real

Array = NDArray[Any]

_LIBRARIES = {"cudf", "modin", "narwhals", "pandas", "polars", "pyarrow"}


def wrap_table(value: Any) -> Any:
    """Wrap a table, or a column, by narwhals, for cutting rows; return other values unchanged."""
    modules = {base.__module__.partition(".")[0] for base in type(value).__mro__}
    if not modules & _LIBRARIES:
        return value
    import narwhals
    from narwhals.exceptions import DuplicateError

    if modules & {"pyarrow"}:
        import pyarrow

        if isinstance(value, pyarrow.RecordBatch):
            value = pyarrow.Table.from_batches([value])
        elif isinstance(value, pyarrow.Array):
            value = pyarrow.chunked_array([value])
    try:
        return narwhals.from_native(value, eager_only=True, allow_series=True, pass_through=True)
    except DuplicateError:
        names = getattr(value, "column_names", value.columns)
        raise ValueError(
            "`data` must have columns of different names. Received: columns="
            f"{list_few(names)}. Rename those that occur twice."
        ) from None


def is_table(value: Any) -> bool:
    """Check for a table: a data frame, no column."""
    return hasattr(wrap_table(value), "iter_columns")


def is_column(value: Any) -> bool:
    """Check for a column of a table, such as a pandas Series."""
    return hasattr(wrap_table(value), "is_null")


def read_columns(table: Any) -> dict[str, Array]:
    """Read each column of a table as an array; nulls become NaN."""
    return {str(column.name): read_column(column) for column in wrap_table(table).iter_columns()}


def read_column(column: Any) -> Array:
    """Read a column as an array; nulls become NaN."""
    import narwhals

    column = wrap_table(column)
    dtype, native = column.dtype, column.to_native()
    if dtype == narwhals.Struct:  # to be refused: no numbers
        return np.array(column.to_list(), object)
    if dtype == narwhals.Categorical and column.implementation.is_pyarrow():
        # Arrow itself misplaces the values of a dictionary with nulls.
        column = wrap_table(native.cast(native.type.value_type))
    elif (
        dtype.is_decimal()
        or dtype in (narwhals.Int128, narwhals.UInt128)
        or (dtype == narwhals.Boolean and column.null_count())
        or (dtype == narwhals.Unknown and column.null_count() == len(column))
    ):
        column = column.cast(narwhals.Float64)
    return np.asarray(column.to_numpy())


def stack_columns(columns: dict[str, Array]) -> Array:
    """Make a matrix (rows, columns) of the columns of a table; all must be numbers."""
    other = [
        f"{name!r} ({a.dtype}{'' if a.ndim == 1 else f' of shape {a.shape}'})"
        for name, a in columns.items()
        if not is_real(a.dtype) or a.ndim != 1
    ]
    if other or not columns:
        raise TypeError(
            "`data` must have numeric columns. Received: a table with the "
            f"column{'s' * (len(other) != 1)} {', '.join(other) or 'list empty'}. Select the "
            'numeric ones, e.g. `data[["age", "income"]]` or '
            '`dataset.scanner(columns=["age", "income"])`, or use `with_normalization`, '
            "which leaves the others alone."
        )
    arrays = list(columns.values())
    rows = np.empty((len(arrays), len(arrays[0])), np.result_type(*arrays))
    for row, array in zip(rows, arrays, strict=True):
        row[:] = array
    # Four times as fast as writing each column with a stride.
    return np.ascontiguousarray(rows.T)
