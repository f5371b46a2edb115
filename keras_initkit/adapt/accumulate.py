"""One pass over data: elements go in, the statistics of features come out.

What is read (`elements`) and what is computed of it (`Moments` and the like) meet here: axes,
masks, weights, missing values, limits, progress, Ctrl-C.
"""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.adapt.elements import Element, Elements, Tables, open_elements
from keras_initkit.adapt.engines import Engine, engine_of
from keras_initkit.statistics.moments import Moments
from keras_initkit.wording import list_few

Batch = NDArray[Any]
Shape = tuple[int | None, ...]

NAN_POLICIES = ("error", "ignore", "propagate")

# Measured: enough to make the cost of a call vanish, still within the caches.
_COALESCED_ELEMENTS = 1 << 19
_SECONDS_WITHOUT_PROGRESS = 5.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How data are read.

    Attributes:
        mask: True where values count; for data that are given whole.
        mask_value: Steps of which all features have this value do not count.
        sample_weight: Weights; for data that are given whole.
        nan: What NaN means: one of `NAN_POLICIES`.
        steps: Number of batches after which to stop.
        max_rows: Number of rows after which to stop.
        verbose: Whether to show progress: 0, 1 or "auto", for passes that take some seconds.
    """

    mask: Any = None
    mask_value: float | None = None
    sample_weight: Any = None
    nan: str = "error"
    steps: int | None = None
    max_rows: int | None = None
    verbose: int | str = "auto"

    def __post_init__(self) -> None:
        if self.nan not in NAN_POLICIES:
            raise ValueError(
                f"`nan` must be one of {', '.join(map(repr, NAN_POLICIES))}. Received: "
                f"nan={self.nan!r}."
            )
        for name in ("steps", "max_rows"):
            limit = getattr(self, name)
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise ValueError(
                    f"`{name}` must be a positive integer, or None for all there is. Received: "
                    f"{name}={limit!r}."
                )

    def open(self, data: Any, tables: Tables = "matrix") -> Elements:
        """Finds out how to read the data."""
        return open_elements(
            data,
            mask=self.mask,
            mask_value=self.mask_value,
            sample_weight=self.sample_weight,
            tables=tables,
            limited=self.steps is not None or self.max_rows is not None,
        )


class Result(NamedTuple):
    """What is known of data after a pass.

    Attributes:
        shape: Shape of the data, the batch axis first as `None`.
        accumulator: Statistics of the features, one after the other as the kept axes have them.
        names: Names of the columns, if the data are a table.
    """

    shape: Shape
    accumulator: Any
    names: tuple[str, ...] | None = None


def statistics_of(
    data: Any,
    reading: Reading,
    axis: Sequence[int],
    make: Callable[[int], Moments],
    *,
    check: Callable[[Shape], None],
    initial: Any = None,
    engine: str | Engine | None = None,
) -> Result:
    """Takes statistics of the features of data, in one pass.

    Args:
        data: What `open_elements` accepts, but one array each, not a structure; with an engine,
            a list of such, or of functions that give such.
        reading: How.
        axis: The axes along which each index is a feature.
        make: Makes the accumulator, given the number of features.
        check: Is called with the data's shape, before anything is read if there is no engine.
        initial: An accumulator to go on from; it is left as it is.
        engine: What reads the parts of data: see `engine_of`.

    Returns:
        Of `Result`.

    Raises:
        TypeError: If the data are of a type that can't be read.
        ValueError: If they are empty, endless, or not as `reading` and `axis` say.
    """
    if engine is None:
        result = _read(data, reading, axis, make, check)
    else:
        part = functools.partial(_read_part, reading, tuple(axis), make)
        result = engine_of(engine)(data, part, merged)
        check(result.shape)
    if initial is not None:
        result = merged(result, Result(result.shape, initial, result.names))
    return result


def merged(first: Result, second: Result) -> Result:
    """Joins what is known of two parts of the same data."""
    if len(first.shape) != len(second.shape) or first.names != second.names:
        raise ValueError(
            f"All parts of `data` must have the same features. Received: parts of shape "
            f"{first.shape} and {second.shape}."
        )
    shape = tuple(a if a == b else None for a, b in zip(first.shape, second.shape, strict=True))
    return Result(shape, first.accumulator.merge(second.accumulator), first.names)


def _read(
    data: Any,
    reading: Reading,
    axis: Sequence[int],
    make: Callable[[int], Moments],
    check: Callable[[Shape], None] = lambda shape: None,
) -> Result:
    elements = reading.open(data)
    if not isinstance(elements.shape, tuple) or not all(
        size is None or isinstance(size, int) for size in elements.shape
    ):
        is_dict = isinstance(elements.shape, Mapping)
        keys = elements.shape if is_dict else range(len(elements.shape))
        raise TypeError(
            "`data` must be one array a batch, for one layer. Received: inputs of the structure "
            f"{list_few(keys)}. Use `keras_initkit.with_normalization(model, data)`, or "
            "adapt one layer for each input."
        )
    check(elements.shape)
    intake = Intake(elements.shape, axis, make, reading.nan, names=elements.names)
    run(elements, reading, {intake: lambda element: element.x})
    return intake.result()


def _read_part(
    reading: Reading, axis: tuple[int, ...], make: Callable[[int], Moments], part: Any
) -> Result:
    """Statistics of one part of data, which may be a function that gives it."""
    return _read(part() if callable(part) else part, reading, axis, make)


def run(
    elements: Elements,
    reading: Reading,
    intakes: Mapping[Intake, Callable[[Element], Any]],
) -> None:
    """Reads elements until there are no more, a limit is reached, or Ctrl-C is pressed.

    Args:
        elements: To be read.
        reading: Limits, progress.
        intakes: What takes in which array of an element.
    """
    progress = _Progress(elements.rows, reading)
    rows = steps = 0
    with _interruptible() as stop:
        for element in elements.items:
            count = 0
            for intake, take in intakes.items():
                batch = take(element)
                weight = element.sample_weight
                if reading.max_rows is not None:
                    batch = batch[: reading.max_rows - rows]
                    weight = weight if weight is None else weight[: len(batch)]
                intake.push(batch, weight)
                count = len(batch)
            rows, steps = rows + count, steps + 1
            progress.update(rows)
            if stop or steps == reading.steps or rows == reading.max_rows:
                break
        for intake in intakes:
            intake.flush()
    progress.close(rows)
    if stop:
        warnings.warn(
            f"Interrupted: the statistics are those of the {rows} rows that were read.",
            stacklevel=4,
        )


def kept_axes(axis: Sequence[int], shape: Shape) -> tuple[int, ...]:
    """The kept axes counted from 0, ascending as Keras has them."""
    rank = len(shape)
    if any(not -rank <= a < rank for a in axis):
        raise ValueError(
            f"`axis` must lie in [{-rank}, {rank}) for data of shape {tuple(shape)}. "
            f"Received: axis={tuple(axis)}. Use the axis or axes of the features."
        )
    return tuple(sorted(a % rank for a in axis))


def feature_tables(
    batch: Batch, keep_axis: tuple[int, ...], *beside: Batch | None
) -> Iterator[tuple[Any, ...]]:
    """Views a batch as tables of shape `(rows, features)`.

    Where the kept axes are the last ones, that is one view of the whole batch; otherwise
    pieces are transposed one after the other.

    Args:
        batch: Array of shape `(rows, ...)`.
        keep_axis: The axes that make up the features, ascending, without axis 0.
        *beside: Arrays of the same shape, or `None`, that are cut alike.

    Returns:
        An iterator of tuples: a table of the batch, and of what is beside it.
    """
    features = math.prod(batch.shape[axis] for axis in keep_axis)
    last = range(batch.ndim - len(keep_axis), batch.ndim)
    moved = [None if a is None else np.moveaxis(a, keep_axis, last) for a in (batch, *beside)]
    step = max(1, len(batch))
    if not all(a is None or a.flags.c_contiguous for a in moved):
        step = max(1, _COALESCED_ELEMENTS // max(1, math.prod(batch.shape[1:])))
    for start in range(0, len(batch), step):
        yield tuple(
            None
            if a is None
            else np.ascontiguousarray(a[start : start + step]).reshape(-1, features)
            for a in moved
        )


@dataclass(eq=False)
class Intake:
    """Takes in the batches of one array: joins small ones, finds what must not be there.

    Attributes:
        shape: Shape of the data, the batch axis first.
        axis: The axes along which each index is a feature.
        make: Makes the accumulator, given the number of features.
        nan: What NaN means: one of `NAN_POLICIES`.
        label: What the data are called in errors.
        names: Names of the features, for errors.
    """

    shape: Shape
    axis: Sequence[int]
    make: Callable[[int], Moments]
    nan: str = "error"
    label: str = "`data`"
    names: tuple[str, ...] | None = None
    _rows: int = field(default=0, init=False)
    _buffer: Batch = field(default_factory=lambda: np.empty(0), init=False)
    _used: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.keep_axis = kept_axes(self.axis, self.shape)
        self._check_features()
        self._sizes = tuple(self.shape[axis] for axis in self.keep_axis)
        self.accumulator = self.make(math.prod(size or 0 for size in self._sizes))

    def push(self, batch: Any, sample_weight: Any = None) -> None:
        """Takes in a batch.

        Args:
            batch: Array of shape `(rows, ...)`, masked or not. It is copied or done with when
                this returns.
            sample_weight: Optional weights, of the shape of leading axes of the batch.
        """
        shape = batch.shape
        if len(shape) != len(self.shape) or self._sizes != tuple(
            [shape[axis] for axis in self.keep_axis]
        ):
            raise ValueError(
                f"{self.label} must yield batches of the shape {self.shape}. Received: a batch "
                f"of an incompatible shape, {shape}. Give all batches the same features."
            )
        if sample_weight is not None or isinstance(batch, np.ma.MaskedArray):
            self.flush()
            self._take_in(batch, sample_weight)
        elif batch.size > _COALESCED_ELEMENTS // 4:
            self.flush()
            self._take_in(batch)
        else:
            self._join(batch)

    def flush(self) -> None:
        """Takes in what was only joined up to now."""
        if self._used:
            used, self._used = self._used, 0
            self._take_in(self._buffer[:used])

    def result(self) -> Result:
        """What is known of the data.

        Raises:
            ValueError: If there was nothing.
        """
        if not self._rows:
            raise ValueError(
                f"{self.label} must hold at least one value. Received: no rows, of shape "
                f"{self.shape}. Check what filtered them out."
            )
        empty = np.broadcast_to(self.accumulator.count == 0, self.accumulator.nan_count.shape)
        if empty.any():
            names = feature_names(empty, [size or 0 for size in self._sizes], self.names)
            raise ValueError(
                f"{self.label} must hold a value that counts for each feature. Received: none in "
                f"{self._rows} rows for {empty.sum()} of {empty.size} features: {names}. Check the "
                "mask, the weights, or where values are missing; or drop these features."
            )
        return Result(self.shape, self.accumulator, self.names)

    def _join(self, batch: Batch) -> None:
        """Copies a small batch behind the former ones: a generator may reuse its array."""
        rows = len(batch)
        fits = self._buffer.shape[1:] == batch.shape[1:] and self._buffer.dtype == batch.dtype
        if not fits or self._used + rows > len(self._buffer):
            self.flush()
            if not fits or rows > len(self._buffer):
                most = _COALESCED_ELEMENTS // max(1, math.prod(batch.shape[1:]))
                self._buffer = np.empty((max(rows, most), *batch.shape[1:]), batch.dtype)
        self._buffer[self._used : self._used + rows] = batch
        self._used += rows

    def _take_in(self, batch: Any, sample_weight: Any = None) -> None:
        mask = None
        if isinstance(batch, np.ma.MaskedArray):
            masked = np.ma.getmaskarray(batch)
            batch, mask = np.asarray(batch.data), ~masked
        if sample_weight is not None:
            sample_weight = _spread(np.asarray(sample_weight), batch.shape)
        known = self.accumulator.nan_count, self.accumulator.inf_count
        before = [counts.copy() for counts in known]
        for table, valid, weights in feature_tables(batch, self.keep_axis, mask, sample_weight):
            if self.nan == "ignore" and table.dtype.kind not in "biu":
                missing = np.isnan(table)
                if missing.any():
                    valid = ~missing if valid is None else valid & ~missing
            self.accumulator.update(table, valid, weights)
        after = self.accumulator.nan_count, self.accumulator.inf_count
        nans, infs = (int((b - a).sum()) for a, b in zip(before, after, strict=True))
        if infs or (nans and self.nan == "error"):
            raise ValueError(self._not_finite(batch, mask, nans, infs))
        self._rows += len(batch)

    def _not_finite(self, batch: Batch, mask: Any, nans: int, infs: int) -> str:
        bad = np.isinf(batch) if self.nan != "error" else ~np.isfinite(batch)
        if mask is not None:
            bad &= mask
        first = np.argwhere(bad)[0].tolist()
        where = f"row {self._rows + first[0]}"
        if self.keep_axis:
            where += f", feature {self._name([first[axis] for axis in self.keep_axis])}"
        kinds = f"{nans} NaN and {infs} infinite values"
        advice = (
            "or pass `nan='ignore'` to leave NaN out"
            if nans
            else "or clip them: `np.clip(data, …)`"
        )
        return (
            f"{self.label} must be finite. Received: {batch[tuple(first)]} at {where}, the first "
            f"of {kinds} in rows {self._rows} to {self._rows + len(batch) - 1}. Drop these rows "
            f"or replace the values first, e.g. with `np.nan_to_num(data)`, {advice}."
        )

    def _name(self, index: list[int]) -> str:
        if self.names is not None and len(index) == 1:
            return f"{index[0]} ({self.names[index[0]]!r})"
        return str(index[0] if len(index) == 1 else tuple(index))

    def _check_features(self) -> None:
        axis, shape, keep = tuple(self.axis), self.shape, self.keep_axis
        if 0 in keep:
            raise ValueError(
                "`axis` must not be the batch axis. Received: "
                f"axis={axis} for data of shape {shape}: each row would have its own "
                "mean. Use `axis=None` for one mean and variance of all values, or give the "
                "data a feature axis: `np.reshape(data, (-1, 1))`."
            )
        if any(shape[a] is None for a in keep):
            raise ValueError(
                f"{self.label} must have a known size along axis={axis}. Received: shape="
                f"{shape}. Set it, e.g. with `dataset.map(lambda x: tf.ensure_shape(x, …))`."
            )
        if any(shape[a] == 0 for a in keep):
            raise ValueError(
                f"{self.label} must have at least one feature along axis={axis}. Received: "
                f"shape={shape}. Check what dropped the columns."
            )


def feature_names(
    chosen: NDArray[np.bool_], shape: Sequence[int], names: tuple[str, ...] | None
) -> str:
    """Names some features, for a message.

    Args:
        chosen: Booleans (features,).
        shape: Sizes of the kept axes.
        names: Names of the features, if they have any.
    """
    if not shape:
        return "the only one"
    indices = np.argwhere(chosen.reshape(shape)).tolist()

    def write(index: list[int]) -> str:
        if len(index) > 1:
            return str(tuple(index))
        return str(index[0]) if names is None else repr(names[index[0]])

    return list_few(indices, write=write)


class _Progress:
    """Keras's own bar, with a rate; by default only for a pass that takes long."""

    def __init__(self, rows: int | None, reading: Reading) -> None:
        limits = [n for n in (rows, reading.max_rows) if n is not None]
        self._target = None if reading.steps is not None or not limits else min(limits)
        self._bar = keras.utils.Progbar(self._target, unit_name="row")
        self._verbose = reading.verbose
        self._start, self._is_shown = time.monotonic(), False

    def update(self, rows: int) -> None:
        if not self._is_shown:
            waits = time.monotonic() - self._start < _SECONDS_WITHOUT_PROGRESS
            if not self._verbose or (self._verbose == "auto" and waits):
                return
            self._is_shown = True
        if rows != self._target:
            self._bar.update(rows, finalize=False)

    def close(self, rows: int) -> None:
        if self._is_shown:
            self._bar.update(rows, finalize=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """Lets a first Ctrl-C only be noted, in a list that is then no longer empty.

    A second one interrupts as ever. An update is never cut in two.
    """
    stop: list[bool] = []
    former = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or former is not signal.default_int_handler:
        yield stop
        return

    def note(*_: Any) -> None:
        stop.append(True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, former)


def _spread(weights: Batch, shape: tuple[int, ...]) -> Batch:
    """Weights of the leading axes of a batch, one for each value."""
    if weights.shape != shape[: weights.ndim]:
        raise ValueError(
            f"`sample_weight` must have the shape of leading axes of the inputs, {shape}. "
            f"Received: shape {weights.shape}. Give one weight for each row."
        )
    wide = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return np.broadcast_to(wide, shape)
