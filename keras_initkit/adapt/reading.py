"""One pass over data: batches go in, the statistics of features come out."""

import contextlib
import functools
import reprlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_initkit.adapt.engines import Engine, find_engine
from keras_initkit.adapt.intake import Intake, Result, Shape
from keras_initkit.adapt.open import open_data
from keras_initkit.adapt.reader import Batch, OpenData, Reading
from keras_initkit.checks import list_few
from keras_initkit.statistics.moments import Moments
from keras_initkit.user_warnings import warn_user

_SECONDS_WITHOUT_PROGRESS = 5.0


def read_statistics(
    data: Any,
    reading: Reading,
    axis: Sequence[int],
    *,
    extremes: bool = False,
    check: Callable[[Shape], None] = lambda shape: None,
    initial: Moments | None = None,
    engine: str | Engine | None = None,
) -> Result:
    """Read data in one pass and return the statistics of their features.

    Args:
        data: Data of any kind accepted by `open_data`, one array a batch; with an engine, a list
            of shards: data each, or functions returning data.
        reading: Options.
        axis: The axes of the features.
        extremes: Whether minima and maxima are wanted.
        check: Is called with the data's shape, before anything is read if there is no engine.
        initial: Moments to go on from; they are left as they are.
        engine: Reader of shards: see `find_engine`.

    Raises:
        TypeError: If data of this type can't be read.
        ValueError: If they are empty, endless, or do not fit `reading` and `axis`.
    """
    if initial is not None and not isinstance(initial, Moments):
        raise TypeError(
            "`initial` must be `keras_initkit.Moments`, to add to. Received: "
            f"initial={reprlib.repr(initial)} of type {type(initial).__name__}. Pass the `moments` "
            "of an adapted layer, or `Moments.from_state(state)`."
        )
    if engine is None:
        result = _read_array(reading, tuple(axis), extremes, check, data)
    else:
        read_shard = functools.partial(_read_shard, reading, tuple(axis), extremes)
        result = find_engine(engine)(data, read_shard)
        check(result.shape)
    if initial is not None:
        result = result.merge(result._replace(moments=initial))
    return result


def run(data: OpenData, reading: Reading, intakes: Mapping[Intake, Callable[[Batch], Any]]) -> None:
    """Read batches until there are no more, a limit is reached, or Ctrl-C is pressed.

    For each intake there is the function to pick its array from a batch.
    """
    limits = [rows for rows in (data.rows, reading.max_rows) if rows is not None]
    target = min(limits, default=None) if reading.steps is None else None
    bar = keras.utils.Progbar(target, unit_name="row")
    is_shown = bool(reading.verbose) and reading.verbose != "auto"
    start, rows, steps = time.monotonic(), 0, 0
    with _note_interrupt() as stop:
        for batch in data.batches:
            count = 0
            for intake, pick in intakes.items():
                array, weight = pick(batch), batch.sample_weight
                if reading.max_rows is not None:
                    array = array[: reading.max_rows - rows]
                    weight = weight if weight is None else weight[: len(array)]
                intake.push(array, weight)
                count = len(array)
            rows, steps = rows + count, steps + 1
            if reading.verbose == "auto":
                is_shown = time.monotonic() - start >= _SECONDS_WITHOUT_PROGRESS
            if is_shown and rows != target:
                bar.update(rows, finalize=False)
            if stop or steps == reading.steps or rows == reading.max_rows:
                break
        for intake in intakes:
            intake.flush()
    if is_shown:
        bar.update(rows, finalize=True)
    if stop:
        warn_user(f"Interrupted: the statistics are those of the {rows} rows that were read.")


@contextlib.contextmanager
def _note_interrupt() -> Iterator[list[bool]]:
    """Note a first Ctrl-C in a list, so that no update is cut in two; a second one interrupts."""
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


@contextlib.contextmanager
def _explain_memory() -> Iterator[None]:
    """Say in an error of memory what takes it."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            "`data` must have batches and features that fit into memory, sparse ones too. "
            f"Received: {error}. Read fewer rows at once, or drop features."
        ) from error


@_explain_memory()
def _read_array(
    reading: Reading,
    axis: tuple[int, ...],
    extremes: bool,
    check: Callable[[Shape], None],
    data: Any,
) -> Result:
    source = open_data(data, reading)
    if not isinstance(source.shape, tuple) or not all(
        size is None or isinstance(size, int) for size in source.shape
    ):
        is_dict = isinstance(source.shape, Mapping)
        keys = source.shape if is_dict else range(len(source.shape))
        raise TypeError(
            "`data` must be one array a batch, for one layer. Received: inputs of the structure "
            f"{list_few(keys)}. Use `keras_initkit.with_normalization(model, data)`, or "
            "adapt one layer for each input."
        )
    check(source.shape)
    intake = Intake(source.shape, axis, extremes=extremes, nan=reading.nan, names=source.names)
    run(source, reading, {intake: lambda batch: batch.x})
    return intake.result()


def _read_shard(reading: Reading, axis: tuple[int, ...], extremes: bool, shard: Any) -> Result:
    """Read a shard: data, or a function returning data."""
    data = shard() if callable(shard) else shard
    return _read_array(reading, axis, extremes, lambda shape: None, data)
