"""Columns: the values of inputs and outputs in the data, whose statistics one pass takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_initkit.adapt.accumulate import Intake, Reading, Result, run
from keras_initkit.adapt.elements import Element, Elements
from keras_initkit.models.normalize.ports import Port, Ports
from keras_initkit.models.normalize.targets import Source
from keras_initkit.statistics.moments import Moments, is_real
from keras_initkit.wording import list_few

Take = Callable[[Element], Any]
Arrays = dict[Port, NDArray[Any]]


class Column(NamedTuple):
    """Values of an input or output in the data.

    Attributes:
        port: The input or output.
        intake: Takes their statistics.
        take: Returns those of an element, of the port's rank.
    """

    port: Port
    intake: Intake
    take: Take


class Targets(NamedTuple):
    """Targets of an element: y of the data, and the same rows of arrays that were given."""

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
    """Take the statistics of inputs and targets in one pass over the data.

    Args:
        data: The data.
        reading: How to read them.
        inputs: All inputs of the model.
        chosen: Those to normalize.
        outputs: All outputs of the model.
        sources: Where the targets of outputs are.

    Raises:
        ValueError: If the data do not fit the model, or the targets the data.
    """
    arrays = {port: source for port, source in sources.items() if isinstance(source, np.ndarray)}
    if chosen or len(arrays) < len(sources):
        by_column = inputs.are_named or any(isinstance(s, str) for s in sources.values())
        elements = reading.open(_name_arrays(data, inputs), "columns" if by_column else "matrix")
    else:  # nothing of the data is needed
        elements = Elements(iter([Element(None)]), None, None, None)
    columns = [
        *_input_columns(elements, inputs, chosen, reading),
        *_target_columns(elements, outputs, sources, reading),
    ]
    taken = next((column.take for column in columns if column.port not in arrays), None)

    def count_rows(element: Element) -> int:
        return max(map(len, arrays.values())) if taken is None else len(taken(element))

    elements = elements._replace(items=zip_targets(elements, arrays, reading, count_rows))
    run(elements, reading, {column.intake: column.take for column in columns})
    return {column.port: column.intake.result() for column in columns}


def zip_targets(
    elements: Elements, arrays: Arrays, reading: Reading, count_rows: Callable[[Element], int]
) -> Iterator[Element]:
    """Yield elements with the rows of arrays that belong to them, as `Targets` in place of y.

    Args:
        elements: The data.
        arrays: Arrays with a row for each row of the data.
        reading: Limits of the pass.
        count_rows: Counts the rows of an element.

    Raises:
        ValueError: If an array lacks rows, or has more than the data.
    """
    limited = reading.steps is not None or reading.max_rows is not None
    if elements.rows is not None and not limited:
        _check_rows(arrays, str(elements.rows), elements.rows, elements.rows)
    start = 0
    for element in elements.items:
        zipped = element._replace(y=Targets(element.y, {}))
        stop = start + count_rows(zipped)
        needed = stop if reading.max_rows is None else min(stop, reading.max_rows)
        _check_rows(arrays, f"{stop} or more", needed)
        parts = {port: array[start:stop] for port, array in arrays.items()}
        yield zipped._replace(y=Targets(element.y, parts))
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

    def make(size: int) -> Moments:
        return Moments((size,), extremes=False)

    def take(element: Element) -> Any:
        return fit_rank(values(element), port.shape, label)

    return Column(port, Intake(port.shape, kept, make, reading.nan, label, names), take)


def _input_columns(
    elements: Elements, inputs: Ports, chosen: list[Port], reading: Reading
) -> Iterator[Column]:
    if not chosen:
        return
    keys = find_keys(elements.shape, inputs, chosen)
    for port, key in zip(chosen, keys, strict=True):

        def values(element: Element, key: Any = key) -> Any:
            return element.x if key is None else element.x[key]

        label = inputs.label("data", port)
        yield _make_column(port, label, values, reading, elements.names)


def find_keys(shape: Any, inputs: Ports, chosen: list[Port]) -> list[Any]:
    """Find where inputs are in x of an element: a key, an index, or `None` where x is the input.

    Args:
        shape: The structure of shapes of x.
        inputs: All inputs of the model.
        chosen: The inputs to find.

    Raises:
        ValueError: If they are not there.
    """
    if isinstance(shape, Mapping):
        names = [port.name for port in chosen]
        missing = [name for name in names if name not in shape]
        if missing:
            raise ValueError(
                f"`data` must hold the inputs {list_few(names)}. Received: {list_few(shape)}, "
                f"without {list_few(missing)}. Rename columns, or leave inputs out with "
                "`exclude=`."
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
    elements: Elements, outputs: Ports, sources: dict[Port, Source], reading: Reading
) -> Iterator[Column]:
    for port, source in sources.items():

        def values(element: Element, port: Port = port, source: Source = source) -> Any:
            if isinstance(source, str):
                return element.x[source]
            return pick(element.y.y, port, outputs) if source is True else element.y.arrays[port]

        if isinstance(source, str):
            _check_column(source, elements.shape)
        yield _make_column(port, outputs.label("targets", port), values, reading)


def _check_column(name: str, columns: Any) -> None:
    is_named = isinstance(columns, Mapping)
    if not is_named or name not in columns:
        known = list_few(columns) if is_named else "data without names"
        raise ValueError(
            f"`targets` must name a column of `data`. Received: {name!r}. The columns are {known}."
        )


def pick(y: Any, port: Port, outputs: Ports) -> Any:
    """Return the targets of an output in y of a batch.

    Raises:
        ValueError: If they are not there.
    """
    if y is None:
        raise ValueError(
            "`data` must hold `(x, y)` where `targets=True`. Received: inputs alone. Pass the "
            "targets as an array, or the name of a column."
        )
    if isinstance(y, Mapping):
        name = port.name if port.name in y else port.operation.name
        if name not in y:
            raise ValueError(
                f"`data` must hold targets of the output {port.name!r}. Received: {list_few(y)}. "
                "Name others: `targets={name: True}`."
            )
        return y[name]
    is_sequence = isinstance(y, (tuple, list))
    if is_sequence and len(y) == len(outputs):
        return y[list(outputs).index(port)]
    if is_sequence or len(outputs) > 1:
        count = len(y) if is_sequence else 1
        raise ValueError(
            f"`data` must hold targets of the outputs {list_few(outputs.names)}. "
            f"Received: {count} array{'s' * (count != 1)} without names. Yield a dict of them."
        )
    return y


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
