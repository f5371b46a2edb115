"""The values of inputs and outputs in the data, whose statistics one pass takes."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_initkit.adapt.intake import Intake, Result
from keras_initkit.adapt.open import open_data
from keras_initkit.adapt.reader import Batch, OpenData, Reading, count_rows
from keras_initkit.adapt.reading import run
from keras_initkit.checks import list_few
from keras_initkit.models.normalize.choice import Source
from keras_initkit.models.normalize.ports import Port, Ports
from keras_initkit.statistics.moments import is_real

Arrays = dict[Port, NDArray[Any]]


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
    columns = {port: source for port, source in sources.items() if isinstance(source, str)}
    if chosen or len(arrays) < len(sources):
        opened = open_data(_name_arrays(data, inputs), reading, inputs.are_named or bool(columns))
    else:  # nothing of the data is needed
        opened = OpenData(iter([Batch(np.empty(max(map(len, arrays.values()))))]), (None,))
    _check_columns(opened.shape, columns)
    keys = (find_keys(opened.shape, inputs, chosen) if chosen else {}) | columns

    def take(port: Port, batch: Batch) -> Any:
        y, rows = batch.y
        if port in keys:
            values = batch.x if keys[port] is None else batch.x[keys[port]]
        else:
            values = rows[port] if port in rows else pick(y, port, outputs)
        return fit_rank(values, port)

    intakes = {
        port: _make_intake(port, reading, opened.names if port in chosen else None)
        for port in [*chosen, *sources]
    }
    batches = _zip_rows(opened, arrays, reading)
    takes = {intake: functools.partial(take, port) for port, intake in intakes.items()}
    run(opened._replace(batches=batches), reading, takes)
    return {port: intake.result() for port, intake in intakes.items()}


def _zip_rows(opened: OpenData, arrays: Arrays, reading: Reading) -> Iterator[Batch]:
    """Yield batches with a pair in place of y: y, and the rows of arrays beside those of the data.

    Raises:
        ValueError: If an array has fewer rows than are read, or more than the data.
    """
    if opened.rows is not None and not reading.is_limited:
        _check_rows(arrays, str(opened.rows), opened.rows, opened.rows)
    start = 0
    for batch in opened.batches:
        stop = start + count_rows(batch.x)
        needed = stop if reading.max_rows is None else min(stop, reading.max_rows)
        _check_rows(arrays, f"{stop} or more", needed)
        yield batch._replace(y=(batch.y, {port: a[start:stop] for port, a in arrays.items()}))
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


def _make_intake(port: Port, reading: Reading, names: tuple[str, ...] | None) -> Intake:
    axis = () if port.axis is None else (port.axis,)
    names = names if axis and port.shape[-1] != 1 else (port.name,)
    return Intake(port.shape, axis, nan=reading.nan, label=port.label, names=names)


def _check_columns(shape: Any, columns: dict[Port, str]) -> None:
    known = shape if isinstance(shape, Mapping) else {}
    for name in columns.values():
        if name not in known:
            raise ValueError(
                f"`targets` must name a column of `data`. Received: {name!r}. The columns are "
                f"{list_few(known) or 'without names'}."
            )


def find_keys(shape: Any, inputs: Ports, chosen: list[Port]) -> dict[Port, Any]:
    """Find where inputs are in x, of the structure `shape`: a key, an index, or `None` for all.

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
        return {port: port.name for port in chosen}
    is_array = all(size is None or isinstance(size, int) for size in shape)
    if len(inputs) == 1 and is_array:
        return {inputs[0]: None}
    if inputs.is_dict or is_array or len(shape) != len(inputs):
        form = "a dict of" if inputs.is_dict else "a list or dict of"
        received = "one array" if is_array else f"{len(shape)} arrays without names"
        raise ValueError(
            f"`data` must hold the inputs of the model, {form} {list_few(inputs.names)}. "
            f"Received: {received}. A tuple is `(x, y)` or `(x, y, sample_weight)`; pass inputs "
            "as `{name: array, ...}`."
        )
    return {port: index for index, port in enumerate(inputs)}


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


def fit_rank(batch: Any, port: Port) -> Any:
    """Give a batch the rank of an input or output: Keras takes a last axis of size 1 or none.

    Raises:
        TypeError: If it does not hold numbers.
    """
    if not hasattr(batch, "dtype") or not is_real(batch.dtype):
        kind = getattr(batch, "dtype", type(batch).__name__)
        raise TypeError(
            f"{port.label} must hold booleans, integers or real floating point numbers. Received: "
            f"dtype={kind}. Convert it, or leave the input out with `exclude=`."
        )
    if batch.ndim == len(port.shape) - 1 and port.shape[-1] == 1:
        return batch[..., np.newaxis]
    if batch.ndim == len(port.shape) + 1 and batch.shape[-1] == 1:
        return batch[..., 0]
    return batch
