"""Normalization around a model that exists: raw values in, and for regression raw values out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.adapt.accumulate import Intake, Reading, Result, run
from keras_initkit.adapt.elements import Element
from keras_initkit.anatomy.graph import Graph
from keras_initkit.layers.normalization import Normalization
from keras_initkit.statistics.moments import Moments, is_real

Shape = tuple[int | None, ...]

_CATEGORICAL = (
    keras.layers.CategoryEncoding,
    keras.layers.Discretization,
    keras.layers.Embedding,
    keras.layers.HashedCrossing,
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)
_SCALING = (keras.layers.Normalization, keras.layers.Rescaling)
# Operations behind which the values are still those of the input. Those of `keras.ops` have no
# public class.
_MOVING = ("Cast", "ExpandDims", "Flatten", "GetItem", "Identity", "Reshape", "Squeeze")
# Activations that do not take all values, as normalized targets do.
_BOUNDED = (
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_tanh",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
)
_NAMES_SHOWN = 12


def normalize_inputs(
    model: Any,
    data: Any,
    *,
    only: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    mask_value: float | None = None,
    nan: str = "error",
    steps: int | None = None,
    max_rows: int | None = None,
    verbose: int | str = "auto",
    name: str | None = None,
) -> Any:
    """Puts a `Normalization` before each numeric input of a model.

    The statistics of all inputs are taken in one pass over the data: one mean and variance for
    each index of an input's last axis, or for all its values where that axis is the batch or has
    no fixed size.

    Left alone are categorical inputs and those that are scaled already: inputs of an integer,
    boolean or string dtype, sparse inputs, and those that feed a `CategoryEncoding`,
    `Discretization`, `Embedding`, `HashedCrossing`, `Hashing`, `IntegerLookup`, `StringLookup`,
    `TextVectorization`, `Normalization` or `Rescaling` layer, directly or after a cast, a reshape
    or a selection.

    `model` becomes a layer of the new model, with the same weights: training one trains the
    other. If `model` is compiled, so is the new one, from the same configuration and with a
    fresh optimizer; otherwise it is to be compiled. Only the forward pass of `model` is used: an
    overridden `train_step()` is not.

    Example:
    ```python
    age = keras.Input((1,), name="age")
    job = keras.Input((), dtype="int32", name="job")
    ...  # job feeds an Embedding
    model = keras.Model({"age": age, "job": job}, outputs)
    model = keras_initkit.normalize_inputs(model, dataset)
    model.compile("adam", "mse")
    model.fit(dataset)  # the raw data
    ```

    Args:
        model: A functional or `Sequential` model.
        data: What `Normalization.adapt()` takes, with inputs as `model.fit()` takes them: a dict
            of arrays, a list of arrays for a list of inputs, one array for one input; a table or
            the path of one, of which the columns are the inputs of the same names (for one
            input, all columns are its features); a `tf.data.Dataset`, a `PyDataset`, a
            `DataLoader` or an iterable of batches of any of these. Of `(x, y[, sample_weight])`,
            whole or in batches, x and the weights are taken. Columns that are no inputs are not
            read.
        only: Name or names of inputs to normalize, in place of those found by rule.
        exclude: Name or names of inputs to leave alone.
        mask_value: Steps whose features all have this value do not count.
        nan: `"error"`; `"ignore"`, to leave NaN and missing values out; or `"propagate"`.
            Defaults to `"error"`.
        steps: Number of batches to read. Defaults to `None`: all.
        max_rows: Number of rows to read. Defaults to `None`: all.
        verbose: 1 to show progress, 0 not to, `"auto"` to show it when it takes more than 5 s.
            Defaults to `"auto"`.
        name: Name of the new model. Defaults to that of `model` with `normalized_` before it.

    Returns:
        A `keras.Model` of the same inputs and outputs, by structure and names.

    Raises:
        TypeError: If the data are of a type that can't be read.
        ValueError: If the model has no symbolic inputs, or none to normalize; if names, or
            inputs in the data, are missing; or as `Normalization.adapt()` does.
    """
    reading = Reading(
        mask_value=mask_value, nan=nan, steps=steps, max_rows=max_rows, verbose=verbose
    )
    return _wrapped(model, data, None, only, exclude, reading, name)


def with_normalization(
    model: Any,
    data: Any,
    targets: Any = None,
    *,
    only: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    mask_value: float | None = None,
    nan: str = "error",
    steps: int | None = None,
    max_rows: int | None = None,
    verbose: int | str = "auto",
    name: str | None = None,
) -> Any:
    """Makes a model of raw inputs and, for regression, of raw targets.

    Inputs are normalized as by `normalize_inputs`. Where targets are given, `model` is to predict
    them normalized, (y - mean) / √variance for each index of an output's last axis. The new
    model undoes that: it predicts raw values, is fitted to raw values, and has its metrics in raw
    units. Only the losses are computed on the normalized scale, where they do not depend on the
    targets' unit, nor with several outputs on whose unit is the smallest.

    Example:
    ```python
    model = keras_initkit.with_normalization(model, x, targets=prices)
    model.compile("adam", "mse", metrics=["mae"])  # the error in the unit of the prices
    model.fit(x, prices)
    model.save("prices.keras")  # takes raw inputs, predicts prices
    ```

    Args:
        model: A functional or `Sequential` model. Outputs with targets must not end in an
            activation such as softmax or relu: normalized targets take all values.
        data: As for `normalize_inputs`.
        targets: An array; `True`, to take y from batches `(x, y[, sample_weight])` in the same
            pass; or the name of a column of `data` to take in the same pass. For several
            outputs, a dict of these by the outputs' names (keys, if they are a dict), or a list
            of them; those that are not named or are `None` are left alone. `True` for all
            outputs. Defaults to `None`: only inputs are normalized.
        only: As for `normalize_inputs`.
        exclude: As for `normalize_inputs`.
        mask_value: As for `normalize_inputs`; of inputs only.
        nan: As for `normalize_inputs`; of targets too.
        steps: As for `normalize_inputs`; targets that are arrays are read whole.
        max_rows: As for `normalize_inputs`; of targets too.
        verbose: As for `normalize_inputs`.
        name: As for `normalize_inputs`.

    Returns:
        A `keras.Model` of the same inputs and outputs, by structure and names.

    Raises:
        TypeError: If the data are of a type that can't be read.
        ValueError: As `normalize_inputs` does, and if targets do not fit the outputs.
    """
    reading = Reading(
        mask_value=mask_value, nan=nan, steps=steps, max_rows=max_rows, verbose=verbose
    )
    return _wrapped(model, data, targets, only, exclude, reading, name)


@keras.saving.register_keras_serializable(package="keras_initkit")
class NormalizedModel(keras.Model):
    """A functional model with losses on the scale of normalized targets.

    Outputs that are made by a `Normalization(invert=True)` are compared with their targets on
    the scale before it; others as they are. `with_normalization` makes it.

    Args:
        inputs: Symbolic inputs.
        outputs: Symbolic outputs.
        name: Optional name.
    """

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the losses of normalized predictions and targets.

        Args:
            x: Inputs.
            y: Targets in raw units.
            y_pred: Predictions in raw units.
            sample_weight: Optional weights.
            training: Whether the model is in training.

        Returns:
            The total loss, a scalar.
        """
        layers = [self.get_layer(name) for name in self.output_names]
        predictions = keras.tree.flatten(y_pred)
        normalized = [
            _normalized(layer, value) for layer, value in zip(layers, predictions, strict=True)
        ]
        return super().compute_loss(
            x=x,
            y=self._normalized_targets(y, layers),
            y_pred=keras.tree.pack_sequence_as(y_pred, normalized),
            sample_weight=sample_weight,
            training=training,
        )

    def _normalized_targets(self, y: Any, layers: list[Any]) -> Any:
        """Targets in all the forms in which Keras takes them; it checks them afterwards."""
        if isinstance(y, Mapping):
            by_name = dict(zip(self.output_names, layers, strict=True))
            if isinstance(self.output, Mapping):
                order = keras.tree.flatten({key: key for key in self.output})
                by_name |= dict(zip(order, layers, strict=True))
            return {key: _normalized(by_name.get(key), value) for key, value in y.items()}
        if not isinstance(y, (tuple, list)):
            return _normalized(layers[0], y) if len(layers) == 1 else y
        if len(y) != len(layers):  # those of outputs without a loss may be left out
            losses = keras.tree.flatten(self.loss)
            layers = [
                layer for layer, loss in zip(layers, losses, strict=False) if loss is not None
            ]
        if len(y) != len(layers):
            return y
        return type(y)([_normalized(layer, v) for layer, v in zip(layers, y, strict=True)])


def _normalized(layer: Any, value: Any) -> Any:
    """Values on the scale before a layer, if that undoes a normalization."""
    if value is None or not (isinstance(layer, Normalization) and layer.invert):
        return value
    ops = keras.ops
    value = ops.convert_to_tensor(value)
    # As losses do, which take targets (rows,) for outputs (rows, 1).
    missing = len(layer.get_build_config()["input_shape"]) - len(value.shape)
    if missing == 1:
        return ops.squeeze(layer.transform(ops.expand_dims(value, -1), False), -1)
    if missing == -1:
        return ops.expand_dims(layer.transform(ops.squeeze(value, -1), False), -1)
    return layer.transform(value, False)


class _Port(NamedTuple):
    """An input or output of a model.

    Attributes:
        name: The key in a dict, or the name of the input, or of the layer that makes the output.
        tensor: What the model has there, symbolic.
        operation: What makes it.
    """

    name: str
    tensor: Any
    operation: Any


def _wrapped(
    model: Any,
    data: Any,
    targets: Any,
    only: str | Sequence[str] | None,
    exclude: str | Sequence[str] | None,
    reading: Reading,
    name: str | None,
) -> Any:
    input_structure, output_structure = _ends(model)
    inputs, outputs = _ports(input_structure), _ports(output_structure)
    chosen, reasons = _chosen(model, inputs, only, exclude)
    sources = _sources(targets, outputs)
    if not chosen and not sources:
        reason = "; ".join(f"{name!r} {reason}" for name, reason in reasons.items())
        raise ValueError(
            "`model` must have an input to normalize. Received: a model of which "
            f"{reason or 'all inputs are excluded'}. Name continuous inputs with `only=`."
        )
    is_dict = isinstance(input_structure, Mapping)
    of_inputs, of_targets = _statistics(data, reading, inputs, is_dict, chosen, outputs, sources)

    taken = {model.name, *(port.name for port in inputs)}
    # Outputs keep the names by which losses and metrics go.
    operations = [_unused(port.operation.name, taken) for port in outputs]
    raw = [_same_input(port) for port in inputs]
    normalized = list(raw)
    for index, port in enumerate(inputs):
        if port.name in of_inputs:
            unused = _unused(f"{port.name}_normalization", taken)
            layer = _normalization(port, of_inputs[port.name], unused)
            normalized[index] = layer(raw[index])
    predictions = model(_packed(input_structure, normalized))
    undone = []
    for index, (port, operation) in enumerate(zip(outputs, operations, strict=True)):
        if port.name in of_targets:
            layer = _normalization(port, of_targets[port.name], operation, invert=True)
        else:
            layer = keras.layers.Identity(name=operation, dtype=port.tensor.dtype)
        undone.append(layer(_at(predictions, index, port.name)))
    make = NormalizedModel if of_targets else keras.Model
    wrapped = make(
        _packed(input_structure, raw),
        _packed(output_structure, undone),
        name=name or f"normalized_{model.name}",
    )
    _compile_as(wrapped, model)
    return wrapped


def _normalization(port: _Port, result: Result, name: str, invert: bool = False) -> Normalization:
    """The layer for an input or output. Its statistics are float32 at least."""
    dtype = port.tensor.dtype
    if dtype in ("float16", "bfloat16"):  # raw targets may exceed what float16 holds
        dtype = "float32" if invert else f"mixed_{dtype}"
    layer = Normalization(_axis(port.tensor.shape), invert=invert, dtype=dtype, name=name)
    layer.take_statistics(result)
    return layer


# The model.


def _ends(model: Any) -> tuple[Any, Any]:
    """The structures of symbolic inputs and outputs."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a `keras.Model`. Received: model={model!r}.")
    if not getattr(model, "inputs", None):
        advice = (
            "Give it inputs first: `x = keras.Input(shape); model = keras.Model(x, model(x))`. Or "
            "put a `keras_initkit.Normalization` at the beginning of its `call()`, and adapt it."
        )
        if isinstance(model, keras.Sequential):
            advice = "Begin it with `keras.Input(shape)`, or call `model.build(shape)` first."
        raise ValueError(
            f"`model` must have symbolic inputs. Received: {model.name!r} of type "
            f"{type(model).__name__}, which has none. {advice}"
        )
    if isinstance(model, keras.Sequential):  # its own attributes are of its calls
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def _ports(structure: Any) -> list[_Port]:
    def port(tensor: Any, name: str | None = None) -> _Port:
        operation = tensor._keras_history.operation
        return _Port(name or operation.name, tensor, operation)

    if isinstance(structure, Mapping):
        return [port(tensor, name) for name, tensor in structure.items()]
    if isinstance(structure, (tuple, list)):
        return [port(tensor) for tensor in structure]
    return [port(structure)]


def _packed(structure: Any, values: list[Any]) -> Any:
    """Values in the structure of a model's inputs or outputs."""
    if isinstance(structure, Mapping):
        return dict(zip(structure, values, strict=True))
    if isinstance(structure, (tuple, list)):
        return type(structure)(values)
    return values[0]


def _at(structure: Any, index: int, name: str) -> Any:
    """One of the outputs of a model; of a list of one Keras gives the item."""
    if isinstance(structure, Mapping):
        return structure[name]
    return structure[index] if isinstance(structure, (tuple, list)) else structure


def _same_input(port: _Port) -> Any:
    tensor, options = port.tensor, {}
    if getattr(port.operation, "optional", False):
        options["optional"] = True
    if getattr(tensor, "ragged", False):
        options["ragged"] = True
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=port.name,
        **options,
    )


def _chosen(
    model: Any,
    inputs: list[_Port],
    only: str | Sequence[str] | None,
    exclude: str | Sequence[str] | None,
) -> tuple[list[_Port], dict[str, str]]:
    """The inputs to normalize, and the reasons why others are left alone."""
    named = _names("only", only, inputs), _names("exclude", exclude, inputs)
    graph = Graph(model)
    reasons = {port.name: reason for port in inputs if (reason := _reason(port, graph))}
    if only is None:
        chosen = [port for port in inputs if port.name not in reasons]
    else:
        chosen = [port for port in inputs if port.name in named[0]]
    chosen = [port for port in chosen if port.name not in named[1]]
    for port in chosen:
        if (kind := _kind(port)) is not None:
            raise ValueError(
                "`only` must name inputs of a floating point dtype, which can hold normalized "
                f"values. Received: {port.name!r}, which {kind}. Declare it with "
                "`keras.Input(..., dtype='float32')`."
            )
        for taker in _taking(graph, port.tensor):
            if isinstance(taker, keras.layers.Masking):
                raise ValueError(
                    f"`model` must not look for masked steps in normalized values. Received: input "
                    f"{port.name!r}, which feeds the Masking layer {taker.name!r}. Put a "
                    "`Normalization` after that layer, adapt it with `mask_value="
                    f"{taker.mask_value}`, and pass `exclude={port.name!r}`."
                )
    return chosen, reasons


def _names(
    argument: str, names: str | Sequence[str] | None, inputs: list[_Port]
) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names or ())
    known = [port.name for port in inputs]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"`{argument}` must name inputs of the model. Received: {_few(unknown)}. The inputs "
            f"are {_few(known)}."
        )
    return names


def _reason(port: _Port, graph: Graph) -> str | None:
    """Why an input is left alone by rule."""
    kind = _kind(port)
    if kind is not None:
        return kind
    for taker in _taking(graph, port.tensor):
        inner = taker.layer if isinstance(taker, keras.layers.Wrapper) else taker
        if isinstance(inner, (*_CATEGORICAL, *_SCALING)):
            return f"feeds the {type(inner).__name__} layer {inner.name!r}"
    return None


def _kind(port: _Port) -> str | None:
    """What an input is, if not dense floating point values."""
    dtype = keras.backend.standardize_dtype(port.tensor.dtype)
    if not dtype.startswith(("float", "bfloat")):
        return f"is of dtype {dtype}"
    return "is sparse" if port.tensor.sparse else None


def _taking(graph: Graph, tensor: Any) -> Iterator[Any]:
    """The layers and operations that take an input's values, in inner models too."""
    queue, seen = [id(tensor)], {id(tensor)}
    while queue:
        for call in graph.takers.get(queue.pop(), []):
            if call.operation is None or type(call.operation).__name__ in _MOVING:
                queue += [output for output in call.outputs if output not in seen]
                seen |= set(call.outputs)
            else:
                yield call.operation


def _axis(shape: Shape) -> int | None:
    """The axis of the features, `None` where there is none of a known size."""
    return None if len(shape) < 2 or shape[-1] is None else -1


def _unused(name: str, taken: set[str]) -> str:
    """A name for one more layer of the new model."""
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
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(
            f"The new model is not compiled as `model` is, whose configuration can't be copied: "
            f"{reason} Call its `compile()`, or register custom functions with "
            "`keras.saving.register_keras_serializable()`.",
            stacklevel=4,
        )


# The statistics.


def _statistics(
    data: Any,
    reading: Reading,
    inputs: list[_Port],
    is_dict: bool,
    chosen: list[_Port],
    outputs: list[_Port],
    sources: dict[str, Any],
) -> tuple[dict[str, Result], dict[str, Result]]:
    """Statistics of inputs and targets by names, in one pass over the data."""
    by_column = len(inputs) > 1 or is_dict or any(isinstance(s, str) for s in sources.values())
    from_data = {
        name: source for name, source in sources.items() if isinstance(source, (bool, str))
    }
    arrays = {name: _array(source) for name, source in sources.items() if name not in from_data}
    of_targets: dict[str, Intake] = {}
    of_inputs: dict[str, Intake] = {}
    takes: dict[Intake, Callable[[Element], Any]] = {}
    if chosen or from_data:
        elements = reading.open(_by_name(data, inputs), "columns" if by_column else "matrix")
        for port in chosen:
            # One input's data need no name.
            label = "`data`" if len(inputs) == 1 and not is_dict else f"`data[{port.name!r}]`"
            intake = of_inputs[port.name] = _intake(port, label, reading, elements.names)
            position = _position(port, inputs, is_dict, chosen, elements.shape)
            takes[intake] = _from_inputs(position, port.tensor.shape, label)
        for index, port in enumerate(outputs):
            if port.name in from_data:
                label = _target_label(port, outputs)
                intake = of_targets[port.name] = _intake(port, label, reading)
                source = from_data[port.name]
                takes[intake] = (
                    _from_column(source, elements.shape, port.tensor.shape, label)
                    if isinstance(source, str)
                    else _from_targets(index, port, outputs, label)
                )
        for name, array in arrays.items():
            _check_rows(name, array, elements.rows, reading)
        run(elements, reading, takes)
    for port in outputs:
        if port.name in arrays:
            label = _target_label(port, outputs)
            intake = of_targets[port.name] = _intake(port, label, reading)
            intake.push(_fitted(arrays[port.name][: reading.max_rows], port.tensor.shape, label))
            intake.flush()
    return (
        {name: intake.result() for name, intake in of_inputs.items()},
        {name: intake.result() for name, intake in of_targets.items()},
    )


def _intake(
    port: _Port, label: str, reading: Reading, names: tuple[str, ...] | None = None
) -> Intake:
    shape = (None, *port.tensor.shape[1:])
    axis = _axis(shape)
    features = 1 if axis is None else shape[-1]
    if names is None or len(names) != features:
        names = (port.name,) if features == 1 else None
    kept = () if axis is None else (axis,)
    return Intake(
        shape, kept, lambda size: Moments((size,), extremes=False), reading.nan, label, names
    )


def _by_name(data: Any, inputs: list[_Port]) -> Any:
    """Data as they are, but a list of one array for each input as a dict: it is no stream."""
    is_one_for_each = isinstance(data, list) and len(data) == len(inputs) > 1
    if is_one_for_each and all(hasattr(item, "shape") for item in data):
        return {port.name: item for port, item in zip(inputs, data, strict=True)}
    return data


def _position(
    port: _Port, inputs: list[_Port], is_dict: bool, chosen: list[_Port], shape: Any
) -> Any:
    """Where an input is in the inputs of an element: a key, an index, or `None`: it is all."""
    names = [p.name for p in inputs]
    if isinstance(shape, Mapping):
        missing = [p.name for p in chosen if p.name not in shape]
        if missing:
            raise ValueError(
                f"`data` must hold the inputs {_few(p.name for p in chosen)}. Received: "
                f"{_few(shape)}, without {_few(missing)}. Rename columns, or leave inputs out "
                "with `exclude=`."
            )
        return port.name
    is_array = all(size is None or isinstance(size, int) for size in shape)
    if len(inputs) == 1 and is_array:
        return None
    if is_dict or is_array or len(shape) != len(inputs):
        form = f"a dict of {_few(names)}" if is_dict else f"a list or dict of {_few(names)}"
        received = "one array" if is_array else f"{len(shape)} arrays without names"
        raise ValueError(
            f"`data` must hold the inputs of the model, {form}. Received: {received}. A tuple is "
            "`(x, y)` or `(x, y, sample_weight)`; pass inputs as `{name: array, ...}`."
        )
    return inputs.index(port)


def _from_inputs(position: Any, shape: Shape, label: str) -> Callable[[Element], Any]:
    if position is None:
        return lambda element: _fitted(element.x, shape, label)
    return lambda element: _fitted(element.x[position], shape, label)


def _from_column(name: str, columns: Any, shape: Shape, label: str) -> Callable[[Element], Any]:
    if not isinstance(columns, Mapping) or name not in columns:
        known = _few(columns) if isinstance(columns, Mapping) else "data without names"
        raise ValueError(
            f"`targets` must name a column of `data`. Received: {name!r}. The columns are {known}."
        )
    return lambda element: _fitted(element.x[name], shape, label)


def _from_targets(
    index: int, port: _Port, outputs: list[_Port], label: str
) -> Callable[[Element], Any]:
    def take(element: Element) -> Any:
        y = element.y
        if y is None:
            raise ValueError(
                "`data` must hold `(x, y)` where `targets=True`. Received: inputs alone. Pass the "
                "targets as an array, or the name of a column."
            )
        if isinstance(y, Mapping):
            name = port.name if port.name in y else port.operation.name
            if name not in y:
                raise ValueError(
                    f"`data` must hold targets of the output {port.name!r}. Received: {_few(y)}. "
                    "Name others: `targets={name: True}`."
                )
            y = y[name]
        elif isinstance(y, (tuple, list)) and len(y) == len(outputs):
            y = y[index]
        elif len(outputs) > 1 or isinstance(y, (tuple, list)):
            count = len(y) if isinstance(y, (tuple, list)) else 1
            raise ValueError(
                f"`data` must hold targets of the outputs {_few(p.name for p in outputs)}. "
                f"Received: {count} array{'s' * (count != 1)} without names. Yield a dict of them."
            )
        return _fitted(y, port.tensor.shape, label)

    return take


def _fitted(batch: Any, shape: Shape, label: str) -> Any:
    """A batch of the rank of an input or output; Keras takes a last axis of size 1 or none."""
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


# The targets.


def _sources(targets: Any, outputs: list[_Port]) -> dict[str, Any]:
    """Where the targets of outputs are, by the outputs' names: `True`, a column, an array."""
    if targets is None:
        return {}
    if isinstance(targets, Mapping):
        known = {port.operation.name: port.name for port in outputs}
        known |= {port.name: port.name for port in outputs}
        unknown = [name for name in targets if name not in known]
        if unknown:
            raise ValueError(
                f"`targets` must name outputs of the model. Received: {_few(unknown)}. The outputs "
                f"are {_few(port.name for port in outputs)}."
            )
        sources = {known[name]: source for name, source in targets.items()}
    elif targets is True:
        sources = {port.name: True for port in outputs}
    elif len(outputs) == 1:
        sources = {outputs[0].name: targets}
    elif isinstance(targets, (tuple, list)) and len(targets) == len(outputs):
        sources = {port.name: source for port, source in zip(outputs, targets, strict=True)}
    else:
        raise ValueError(
            f"`targets` must be a dict or list for the {len(outputs)} outputs "
            f"{_few(port.name for port in outputs)}. Received: targets of type "
            f"{type(targets).__name__}. Pass `{{name: array}}`; outputs that are not named are "
            "left alone."
        )
    sources = {
        name: source
        for name, source in sources.items()
        if source is not None and source is not False
    }
    for port in outputs:
        if port.name in sources:
            _check_output(port)
    return sources


def _check_output(port: _Port) -> None:
    """Checks that an output can be a normalized value."""
    activation = getattr(port.operation, "activation", None)
    name = getattr(activation, "__name__", None)
    if isinstance(port.operation, (keras.layers.ReLU, keras.layers.Softmax)):
        name = type(port.operation).__name__.lower()
    if name in _BOUNDED or not _is_float(port.tensor):
        what = f"activation {name}" if name in _BOUNDED else f"dtype {port.tensor.dtype}"
        raise ValueError(
            "`targets` must be those of outputs that take all values, as normalized ones do. "
            f"Received: targets of {port.name!r}, which is of {what}. End it without activation, "
            "or name only outputs of regression: `targets={name: ...}`."
        )


def _is_float(tensor: Any) -> bool:
    return keras.backend.standardize_dtype(tensor.dtype).startswith(("float", "bfloat"))


def _array(source: Any) -> NDArray[Any]:
    """Targets that are given whole."""
    array = np.asarray(keras.ops.convert_to_numpy(source) if _is_tensor(source) else source)
    if not array.ndim:
        raise ValueError(
            "`targets` must be arrays with a row for each row of `data`, `True`, or names of "
            f"columns. Received: {source!r}."
        )
    return array


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.Variable) or keras.ops.is_tensor(value)


def _target_label(port: _Port, outputs: list[_Port]) -> str:
    return "`targets`" if len(outputs) == 1 else f"`targets[{port.name!r}]`"


def _check_rows(name: str, array: NDArray[Any], rows: int | None, reading: Reading) -> None:
    limited = reading.steps is not None or reading.max_rows is not None
    if rows is not None and not limited and len(array) != rows:
        raise ValueError(
            f"`targets` must have a row for each row of `data`. Received: {len(array)} targets of "
            f"{name!r} for {rows} rows. Use the same rows in both."
        )


def _few(names: Any) -> str:
    shown = [repr(name) for name in names]
    more = len(shown) > _NAMES_SHOWN
    return ", ".join(shown[:_NAMES_SHOWN]) + (", …" if more else "")
