"""Normalization around a model that exists: raw values in, and for regression raw values out."""

from typing import Any

import keras

from keras_initkit.adapt.intake import Result
from keras_initkit.adapt.reader import Reading
from keras_initkit.anatomy.selectors import Selector
from keras_initkit.layers.normalization import Normalization
from keras_initkit.models.normalize.choice import choose_inputs, find_sources
from keras_initkit.models.normalize.columns import read_statistics
from keras_initkit.models.normalize.normalized_model import NormalizedModel
from keras_initkit.models.normalize.ports import Port, Ports, read_ports
from keras_initkit.user_warnings import warn_user


def with_normalization(
    model: Any,
    data: Any,
    targets: Any = None,
    *,
    only: Selector | None = None,
    exclude: Selector | None = None,
    mask_value: float | None = None,
    nan: str = "error",
    steps: int | None = None,
    max_rows: int | None = None,
    verbose: int | str = "auto",
    name: str | None = None,
) -> Any:
    """Make a model of raw inputs and, for regression, of raw targets.

    A `Normalization` is put before each numeric input. The statistics of all inputs and targets
    are taken in one pass over the data: one mean and variance for each index of the last axis,
    or for all values if this axis is the batch or has no fixed size.

    Categorical inputs and those scaled already are left alone: inputs of an integer, boolean or
    string dtype, sparse inputs, and those feeding a `CategoryEncoding`, `Discretization`,
    `Embedding`, `HashedCrossing`, `Hashing`, `IntegerLookup`, `StringLookup`, `TextVectorization`,
    `Normalization` or `Rescaling` layer, directly or after a cast, a reshape or a selection.

    With targets, `model` learns to predict them normalized, (y - mean) / √variance. The new model
    undoes this: it predicts raw values, is fitted to raw values, and has its metrics in raw units.
    Only the losses are computed on the normalized scale, where they do not depend on the unit of
    the targets; with several outputs, none outweighs the others because of its unit.

    `model` becomes a layer of the new model, with the same weights: training one trains the
    other. If `model` is compiled, so is the new one, from the same configuration and with a fresh
    optimizer; otherwise you have to compile it. Only the forward pass of `model` is used: an
    overridden `train_step()` is not.

    Example:
    ```python
    age = keras.Input((1,), name="age")
    job = keras.Input((), dtype="int32", name="job")
    ...  # job feeds an Embedding
    model = keras.Model({"age": age, "job": job}, outputs)
    model = keras_initkit.with_normalization(model, {"age": ages, "job": jobs}, targets=prices)
    model.compile("adam", "mse", metrics=["mae"])  # the error in the unit of the prices
    model.fit({"age": ages, "job": jobs}, prices)
    model.save("prices.keras")  # takes raw inputs, predicts prices
    ```

    Args:
        model: A functional or `Sequential` model. Outputs with targets must not end in an
            activation such as softmax or relu: normalized targets take all values.
        data: What `Normalization.adapt()` takes, with inputs as `model.fit()` takes them: a dict
            of arrays, a list of arrays for a list of inputs, one array for one input; a table or
            the path of one, with the inputs in the columns of their names (for one input, all
            columns are its features); a `tf.data.Dataset`, a `PyDataset`, a `DataLoader` or an
            iterable of batches of any of these. Of `(x, y[, sample_weight])`, whole or in
            batches, x and the weights are taken. Other columns are not read.
        targets: An array with a row for each row of the data; `True`, to take y from
            `(x, y[, sample_weight])`; or the name of a column of `data`. For several outputs, a
            dict of these by the outputs' names (keys, if they are a dict), or a list of them;
            others, and those of `None`, are left alone. `True` for all outputs. Defaults to
            `None`: only inputs are normalized.
        only: Inputs to normalize, in place of those by the rule above: a name, a compiled regular
            expression, a function of the `InputLayer`, a list of these (any may hold) or a tuple
            (all must).
        exclude: Inputs to leave alone, likewise.
        mask_value: As for `Normalization.adapt()`; for inputs only.
        nan: As for `Normalization.adapt()`, like `steps`, `max_rows` and `verbose`.
        steps: Number of batches to read.
        max_rows: Number of rows to read.
        verbose: Display of progress.
        name: Name of the new model. Defaults to that of `model` with `normalized_` before it.

    Returns:
        A `keras.Model` of the same inputs and outputs, by structure and names.

    Raises:
        TypeError: If data of this type can't be read.
        ValueError: If the model has no symbolic inputs, or none to normalize; if inputs are
            missing in the data, or targets do not fit the outputs; or as `Normalization.adapt()`
            does.
    """
    inputs, outputs = read_ports(model)
    chosen, reasons = choose_inputs(model, inputs, only, exclude)
    sources = find_sources(targets, outputs)
    if not chosen and not sources:
        reason = "; ".join(f"{name!r} {reason}" for name, reason in reasons.items())
        raise ValueError(
            "`model` must have an input to normalize. Received: a model of which "
            f"{reason or 'all inputs are excluded'}. Name continuous inputs with `only=`."
        )
    reading = Reading(
        mask_value=mask_value, nan=nan, steps=steps, max_rows=max_rows, verbose=verbose
    )
    results = read_statistics(data, reading, inputs, chosen, outputs, sources)
    wrapped = _wrap(model, inputs, outputs, results, name or f"normalized_{model.name}")
    _compile_as(wrapped, model)
    return wrapped


def _wrap(model: Any, inputs: Ports, outputs: Ports, results: dict[Port, Result], name: str) -> Any:
    """Make the model of raw inputs and outputs; `results` are those of ports to normalize."""
    taken = {model.name, *inputs.names}
    # Outputs keep the names by which losses and metrics go.
    output_names = [_find_unused(port.operation.name, taken) for port in outputs]
    raw = [keras.Input(**port.operation.get_config() | {"name": port.name}) for port in inputs]
    normalized = list(raw)
    for index, port in enumerate(inputs):
        if port in results:
            unused = _find_unused(f"{port.name}_normalization", taken)
            normalized[index] = _make_normalization(port, results[port], unused)(raw[index])
    predictions = outputs.unpack(model(inputs.pack(normalized)))
    undone = []
    for port, output_name, prediction in zip(outputs, output_names, predictions, strict=True):
        if port in results:
            layer = _make_normalization(port, results[port], output_name, invert=True)
        else:
            layer = keras.layers.Identity(name=output_name, dtype=port.tensor.dtype)
        undone.append(layer(prediction))
    make = NormalizedModel if any(port in results for port in outputs) else keras.Model
    return make(inputs.pack(raw), outputs.pack(undone), name=name)


def _make_normalization(
    port: Port, result: Result, name: str, invert: bool = False
) -> Normalization:
    """Make the layer for an input or output. Its statistics are float32 at least."""
    dtype = port.dtype
    if dtype in ("float16", "bfloat16"):  # raw targets may exceed what float16 holds
        dtype = "float32" if invert else f"mixed_{dtype}"
    layer = Normalization(port.axis, invert=invert, dtype=dtype, name=name)
    layer.take_statistics(result)
    return layer


def _find_unused(name: str, taken: set[str]) -> str:
    """Find a name for one more layer of the new model, and take it."""
    unused, number = name, 0
    while unused in taken:
        number += 1
        unused = f"{name}_{number}"
    taken.add(unused)
    return unused


def _compile_as(wrapped: Any, model: Any) -> None:
    if not model.compiled:
        return
    try:
        wrapped.compile_from_config(model.get_compile_config())
    except (AttributeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        warn_user(
            f"The new model is not compiled as `model` is, whose configuration can't be copied: "
            f"{reason} Call its `compile()`, or register custom functions with "
            "`keras.saving.register_keras_serializable()`."
        )
