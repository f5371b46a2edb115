"""The reader: items of any source become batches of NumPy arrays."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np

from keras_initkit.adapt.arrays import (
    Array,
    batch_shape,
    find_converter,
    is_ragged,
    map_arrays,
    refuse_scalar,
    repeat_rows,
    to_numpy,
)
from keras_initkit.adapt.tables import is_table, read_columns, stack_columns
from keras_initkit.checks import check_choice, check_count, is_number, list_few
from keras_initkit.statistics.moments import is_real

# Numbers that are read at once: a call costs nothing beside them, and they are some megabytes.
NUMBERS_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Options of a pass over data.

    Attributes:
        mask: Booleans of the leading axes of the data, true where values count. For data
            given whole.
        mask_value: Steps all of whose features (along the last axis) have this value do not
            count, as for `keras.layers.Masking`.
        sample_weight: Weights of the leading axes of the data. For data given whole; in
            streams, weights are the third item of a batch.
        nan: Meaning of NaN: "error", "ignore" or "propagate".
        steps: Number of batches to read at most.
        max_rows: Number of rows to read at most.
        verbose: Whether to show progress: 0, 1 or "auto", for passes of more than 5 s.
    """

    mask: Any = None
    mask_value: float | None = None
    sample_weight: Any = None
    nan: str = "error"
    steps: int | None = None
    max_rows: int | None = None
    verbose: int | str = "auto"

    def __post_init__(self) -> None:
        check_choice("nan", self.nan, ("error", "ignore", "propagate"))
        for name in ("steps", "max_rows"):
            limit = getattr(self, name)
            if limit is not None:
                check_count(name, limit, "or None for all there is")
        value = self.mask_value
        if value is not None and (not is_number(value) or value != value):
            raise ValueError(
                "`mask_value` must be a number, the one that masked steps hold. Received: "
                f"mask_value={value!r}. Pass `mask=` for other masks, `nan='ignore'` for NaN."
            )
        if not isinstance(self.verbose, int | str) or self.verbose not in (0, 1, "auto"):
            raise ValueError(
                f'`verbose` must be 0, 1 or "auto". Received: verbose={self.verbose!r}. Write '
                "`verbose=0` to see no progress."
            )

    @property
    def is_limited(self) -> bool:
        """Whether the pass stops by itself, so that data may be endless."""
        return self.steps is not None or self.max_rows is not None


class Batch(NamedTuple):
    """One batch of data.

    Attributes:
        x: Inputs: an array of shape `(rows, ...)`, masked where values don't count, or a
            dict, tuple or list of such.
        y: Targets in the same form, or `None`.
        sample_weight: Array of the leading axes of `x`, or `None`.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None


class OpenData(NamedTuple):
    """Data to read once.

    Attributes:
        batches: The batches. Their arrays are valid until the next one is asked for.
        shape: Shape of `x` with the batch axis first, `None` where it may vary; for dicts,
            tuples and lists the same structure of shapes.
        rows: Number of rows, if it is known beforehand.
        names: Names of the columns, if the data are a table.
    """

    batches: Iterator[Batch]
    shape: Any
    rows: int | None = None
    names: tuple[str, ...] | None = None


def split_batch(batch: Any) -> tuple[Any, ...]:
    """Split a batch `(x, y[, sample_weight])`; any other is x alone."""
    if not isinstance(batch, tuple):
        return (batch,)
    if not 1 <= len(batch) <= 3:
        raise ValueError(
            "`data` must be x, `(x, y)` or `(x, y, sample_weight)`. Received: a tuple of "
            f"{len(batch)} items. Nest several inputs: `((a, b), y)`."
        )
    return batch


class Reader:
    """Maker of batches from the items of a source; it keeps the names of columns.

    Args:
        reading: Options of the pass.
        by_columns: Whether a table becomes a dict of its columns instead of a matrix.
    """

    def __init__(self, reading: Reading, by_columns: bool) -> None:
        self.reading = reading
        self.names: tuple[str, ...] | None = None
        self._by_columns = by_columns
        # The kind of an array is looked up once for each type.
        self._converters: dict[type, Callable[[Any], Any]] = {}

    def open(
        self,
        items: Iterable[Any],
        source: str,
        split: Callable[[Any], tuple[Any, ...]] = split_batch,
        rows: int | None = None,
        shape: Any = None,
    ) -> OpenData:
        """Open an iterable of items, of which `split` makes the arguments of `read`.

        The shape is by default the first batch's. The source is named in errors.
        """
        batches = self._read_all(items, split, source)
        if shape is None:
            first = next(batches)
            shape = map_arrays(batch_shape, first.x)
            batches = itertools.chain([first], batches)
        return OpenData(batches, shape, rows, self.names)

    def read(self, x: Any, y: Any = None, weight: Any = None, mask: Any = None) -> Batch:
        """Make a batch, and check it."""
        if type(x) is not np.ndarray:
            if is_ragged(x):
                weight, mask = repeat_rows(weight, x), repeat_rows(mask, x)
            x = map_arrays(self._convert, x)
        is_alone = not isinstance(x, (dict, tuple, list))
        if is_alone and not is_real(x.dtype):
            raise TypeError(
                "`data` must hold booleans, integers or real floating point numbers. Received: "
                f"dtype={x.dtype}. Convert it first, e.g. with `data.astype('float32')`."
            )
        if not all(array.ndim for array in keras.tree.flatten(x)):
            refuse_scalar()
        if mask is not None:
            x = map_arrays(lambda array: _mask_more(array, ~_spread_mask(mask, array)), x)
        if self.reading.mask_value is not None:
            x = map_arrays(self._mask_steps, x)
        if weight is not None:
            weight = _check_weight(map_arrays(self._convert, weight), x)
        return Batch(x, None if y is None else map_arrays(self._convert_target, y), weight)

    def check_mask(self) -> Array | None:
        """Return the mask of data given whole; it must be an array of booleans."""
        if self.reading.mask is None:
            return None
        mask = np.asarray(to_numpy(self.reading.mask))
        if mask.dtype != np.bool_ or not mask.ndim:
            raise ValueError(
                "`mask` must be a boolean array, true where values count. Received: an array of "
                f"dtype={mask.dtype} and shape {mask.shape}. Convert it: `mask.astype(bool)`."
            )
        return mask

    def _read_all(
        self, items: Iterable[Any], split: Callable[[Any], tuple[Any, ...]], source: str
    ) -> Iterator[Batch]:
        known: Any = None
        empty = True
        for item in items:
            # What most streams consist of comes first: no call of a function.
            if type(item) is np.ndarray and item.dtype is known and item.ndim:
                yield Batch(item)
                continue
            batch = self.read(*split(item))
            empty = empty and not count_rows(batch.x)
            if type(batch.x) is np.ndarray and not empty and self.reading.mask_value is None:
                known = batch.x.dtype
            yield batch
        if empty:
            raise ValueError(
                f"`data` must hold at least one row. Received: no rows, of {source}: an empty "
                "iterable, or empty batches. Check what filtered them out; a generator can be read "
                "only once: create a new one."
            )

    def _convert(self, value: Any) -> Any:
        """Convert an array of any library; a table becomes a dict of columns if they are wanted."""
        convert = self._converters.get(type(value))
        if convert is None:
            convert = self._convert_table if is_table(value) else find_converter(value)
            self._converters[type(value)] = convert
        return convert(value)

    def _convert_target(self, value: Any) -> Any:
        try:
            return self._convert(value)
        except TypeError:  # targets are passed on as they are
            return value

    def _convert_table(self, table: Any) -> Any:
        columns = read_columns(table)
        self.names = tuple(columns)
        return columns if self._by_columns else stack_columns(columns)

    def _mask_steps(self, array: Any) -> Any:
        """Mask the steps with the mask value in all features."""
        if not is_real(array.dtype):
            return array
        values, ignored = np.ma.getdata(array), self.reading.mask_value
        if array.ndim > 1 and not (values[..., :1] == ignored).any():
            return array
        invalid = np.asarray(values == ignored)
        if array.ndim > 1:
            invalid = np.broadcast_to(invalid.all(axis=-1, keepdims=True), array.shape)
        return _mask_more(array, invalid)


def count_rows(x: Any) -> int:
    """Count the rows of an array, or of the arrays of a structure."""
    arrays = keras.tree.flatten(x)
    return len(arrays[0]) if arrays else 0


def _check_weight(weight: Any, x: Any) -> Array:
    if isinstance(weight, (dict, tuple, list)) or not is_real(weight.dtype):
        what = getattr(weight, "dtype", type(weight).__name__)
        raise ValueError(
            f"`sample_weight` must be one array of numbers. Received: {what}. Of weights for each "
            "output, none tells how much a row of the inputs counts: drop them."
        )
    if weight.ndim > 1 and weight.shape[-1] == 1:  # as Keras takes (rows, 1)
        weight = weight[..., 0]
    if weight.shape == (1,):  # the same for all
        weight = np.repeat(weight, count_rows(x))
    for array in keras.tree.flatten(x):
        if not weight.ndim or weight.shape != array.shape[: weight.ndim]:
            raise ValueError(
                "`sample_weight` must have the leading axes of the inputs. Received: "
                f"sample_weight of shape {weight.shape} for inputs of shape {array.shape}. Use one "
                "weight for each row."
            )
    if not (np.min(weight, initial=0) >= 0 and np.max(weight, initial=0) < np.inf):
        bad = weight[~((weight >= 0) & np.isfinite(weight))]
        raise ValueError(
            f"`sample_weight` must be finite and not negative. Received: {list_few(bad.tolist())} "
            f"among {weight.size} weights. Drop these rows, or give them weight 0."
        )
    return np.asarray(weight)


def _mask_more(array: Any, invalid: Array) -> Any:
    """Mask more of an array's values."""
    if isinstance(array, np.ma.MaskedArray):
        invalid = invalid | np.ma.getmaskarray(array)
    if not invalid.any():
        return array
    return np.ma.MaskedArray(np.ma.getdata(array), mask=invalid)


def _spread_mask(mask: Array, array: Any) -> Array:
    """Spread a mask of leading axes over all axes of an array."""
    if mask.shape != array.shape[: mask.ndim]:
        raise ValueError(
            "`mask` must have the leading axes of the inputs. Received: mask of shape "
            f"{mask.shape} for inputs of shape {array.shape}. Use one value for each row, or each "
            "step, or each number."
        )
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (array.ndim - mask.ndim)), array.shape)


def refuse_length(name: str, shape: tuple[int, ...], rows: str) -> NoReturn:
    """Refuse a mask or weights of another number of rows than the data."""
    raise ValueError(
        f"`{name}` must have a row for each row of `data`. Received: {name} of shape "
        f"{shape} for {rows} rows. Use the same rows in both."
    )
