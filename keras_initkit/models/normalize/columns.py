"""Columns: the values of inputs and outputs in the data, whose statistics one pass takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_initkit.adapt.intake import Intake, Result
from keras_initkit.adapt.open import open_data
from keras_initkit.adapt.options import Reading
from keras_initkit.adapt.reader import Batch, OpenData
from keras_initkit.adapt.reading import run
from keras_initkit.models.normalize.ports import Port, Ports
from keras_initkit.models.normalize.targets import Source
from keras_initkit.statistics.moments import is_real
from keras_initkit.wording import list_few

Take = Callable[[Batch], Any]
Arrays = dict[Port, NDArray[Any]]


class Column(NamedTuple):
    """The values of an input or output: `take` returns those of a batch, of the port's rank."""

    port: Port
    intake: Intake
    take: Take


class Targets(NamedTuple):
    """Targets of a batch: y of the data, and the same rows of given arrays."""

    y: Any
    arrays: Arrays


def read_statistics(
    data: Any,
    reading: Reading,
    inputs: Ports,
    chosen: list[Port],
    outputs: Ports,
    sources: dict[Port, Source],
) -> dict[Port, Result]:
    """Take the statistics of the chosen inputs and of targets in one pass over the data.

    Raises:
        ValueError: If the data do not fit the model, or the targets the data.
    """
    arrays = {port: source for port, source in sources.items() if isinstance(source, np.ndarray)}
    if chosen or len(arrays) < len(sources):
        by_column = inputs.are_named or any(isinstance(s, str) for s in sources.values())
        opened = open_data(_name_arrays(data, inputs), reading, by_column)
    else:  # nothing of the data is needed
        opened = OpenData(iter([Batch(None)]), None)
    columns = [
        *_input_columns(opened, inputs, chosen, reading),
        *_target_columns(opened, outputs, sources, reading),
    ]
    in_data = [column.take for column in columns if column.port not in arrays]

    def count_rows(batch: Batch) -> int:
        return len(in_data[0](batch)) if in_data else max(map(len, arrays.values()))

    opened = opened._replace(batches=zip_targets(opened, arrays, reading, count_rows))
    run(opened, reading, {column.intake: column.take for column in columns})
    return {column.port: column.intake.result() for column in columns}


def zip_targets(
    opened: OpenData, arrays: Arrays, reading: Reading, count_rows: Callable[[Batch], int]
) -> Iterator[Batch]:
    """Yield batches with `Targets` in place of y, the rows of arrays beside those of the data.

    Raises:
        ValueError: If an array has fewer rows than are read, or more than the data.
    """
    if opened.rows is not None and not reading.is_limited:
        _check_rows(arrays, str(opened.rows), opened.rows, opened.rows)
    start = 0
    for batch in opened.batches:
        stop = start + count_rows(batch._replace(y=Targets(batch.y, {})))
        needed = stop if reading.max_rows is None else min(stop, reading.max_rows)
        _check_rows(arrays, f"{stop} or more", needed)
        parts = {port: array[start:stop] for port, array in arrays.items()}
        yield batch._replace(y=Targets(batch.y, parts))
        start = stop
    _check_rows(arrays, str(start), most=start)


def _check_rows(arrays: Arrays, rows: str, least: int = 0, most: float = math.inf) -> None:
    for port, array in arrays.items():
        if not least <= len(array) <= most:
            raise ValueError(
                f"`targets` must have a row for each row of `data`. Received: {len(array)} targets "
                f"of {port.name!r} for {rows} rows. Use the same rows in both."
            )


def _name_arrays(data: Any, inputs: Ports) -> Any:
    """Return data as they are, but a list of one array for each input, no stream, as a dict."""
    is_one_for_each = isinstance(data, list) and len(data) == len(inputs) > 1
    if is_one_for_each and all(hasattr(item, "shape") for item in data):
        return dict(zip(inputs.names, data, strict=True))
    return data


def _make_column(
    port: Port, label: str, values: Take, reading: Reading, names: tuple[str, ...] | None = None
) -> Column:
    features = 1 if port.axis is None else port.shape[-1]
    if names is None or len(names) != features:
        names = (port.name,) if features == 1 else None
    kept = () if port.axis is None else (port.axis,)

    intake = Intake(port.shape, kept, nan=reading.nan, label=label, names=names)
    return Column(port, intake, lambda batch: fit_rank(values(batch), port.shape, label))


def _input_columns(
    opened: OpenData, inputs: Ports, chosen: list[Port], reading: Reading
) -> Iterator[Column]:
    keys = find_keys(opened.shape, inputs, chosen) if chosen else []

    def find(key: Any, batch: Batch) -> Any:
        return batch.x if key is None else batch.x[key]

    for port, key in zip(chosen, keys, strict=True):
        values = functools.partial(find, key)
        yield _make_column(port, inputs.label("data", port), values, reading, opened.names)


def find_keys(shape: Any, inputs: Ports, chosen: list[Port]) -> list[Any]:
    """Find where inputs are in x, of the structure `shape`: keys, indices, or `None` for all of x.

    Raises:
        ValueError: If they are not there.
    """
    if isinstance(shape, Mapping):
        names = [port.name for port in chosen]
        missing = [name for name in names if name not in shape]
        if missing:
            raise ValueError(
                f"`data` must hold the inputs {list_few(names)}. Received: {list_few(shape)}, "
                f"without {list_few(missing)}. Rename columns, or leave inputs out with `exclude=`."
            )
        return list(names)
    is_array = all(size is None or isinstance(size, int) for size in shape)
    if len(inputs) == 1 and is_array:
        return [None]
    if inputs.is_dict or is_array or len(shape) != len(inputs):
        form = "a dict of" if inputs.is_dict else "a list or dict of"
        received = "one array" if is_array else f"{len(shape)} arrays without names"
        raise ValueError(
            f"`data` must hold the inputs of the model, {form} {list_few(inputs.names)}. "
            f"Received: {received}. A tuple is `(x, y)` or `(x, y, sample_weight)`; pass inputs "
            "as `{name: array, ...}`."
        )
    return [index for index, port in enumerate(inputs) if port in chosen]


def _target_columns(
    opened: OpenData, outputs: Ports, sources: dict[Port, Source], reading: Reading
) -> Iterator[Column]:
    def find(port: Port, source: Source, batch: Batch) -> Any:
        if isinstance(source, str):
            return batch.x[source]
        return pick(batch.y.y, port, outputs) if source is True else batch.y.arrays[port]

    known = opened.shape if isinstance(opened.shape, Mapping) else {}
    for port, source in sources.items():
        if isinstance(source, str) and source not in known:
            raise ValueError(
                f"`targets` must name a column of `data`. Received: {source!r}. The columns are "
                f"{list_few(known) or 'without names'}."
            )
        values = functools.partial(find, port, source)
        yield _make_column(port, outputs.label("targets", port), values, reading)


def pick(y: Any, port: Port, outputs: Ports) -> Any:
    """Return the targets of an output in y of a batch.

    Raises:
        ValueError: If they are not there.
    """
    received = "no targets" if y is None else "one array"
    if isinstance(y, Mapping):
        for name in (port.name, port.operation.name):
            if name in y:
                return y[name]
        received = f"targets of {list_few(y)}"
    elif isinstance(y, (tuple, list)):
        if len(y) == len(outputs):
            return y[outputs.names.index(port.name)]
        received = f"{len(y)} arrays without names"
    elif y is not None and len(outputs) == 1:
        return y
    raise ValueError(
        f"`data` must hold `(x, y)`, with targets of the output {port.name!r} in y. Received: "
        f"{received}. Yield y as a dict of the outputs {list_few(outputs.names)}; or pass "
        "`targets={name: array or column, ...}`."
    )


def fit_rank(batch: Any, shape: tuple[int | None, ...], label: str) -> Any:
    """Give a batch the rank of an input or output: Keras takes a last axis of size 1 or none.

    Raises:
        TypeError: If it does not hold numbers.
    """
    if not hasattr(batch, "dtype") or not is_real(batch.dtype):
        kind = getattr(batch, "dtype", type(batch).__name__)
        raise TypeError(
            f"{label} must hold booleans, integers or real floating point numbers. Received: "
            f"dtype={kind}. Convert it, or leave the input out with `exclude=`."
        )
    if batch.ndim == len(shape) - 1 and shape[-1] == 1:
        return batch[..., np.newaxis]
    if batch.ndim == len(shape) + 1 and batch.shape[-1] == 1:
        return batch[..., 0]
    return batch
