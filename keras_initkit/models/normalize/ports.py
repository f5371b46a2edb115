"""Ports: the inputs and outputs of a model, in the structure in which the model has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_initkit.anatomy.graph import find_maker


@dataclass(frozen=True, eq=False)
class Port:
    """An input or output of a model.

    Attributes:
        name: The key in a dict; else the name of the input, or of the layer that makes the output.
        tensor: The symbolic tensor.
        operation: The layer or operation that makes it.
        label: The name of its data, for messages: "`data`" or "`data['age']`".
    """

    name: str
    tensor: Any
    operation: Any
    label: str

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape, the batch axis first as `None`."""
        return (None, *self.tensor.shape[1:])

    @property
    def axis(self) -> int | None:
        """The axis of the features; `None` if the last axis is the batch or of no fixed size."""
        return None if len(self.shape) < 2 or self.shape[-1] is None else -1

    @property
    def dtype(self) -> str:
        """The name of the dtype."""
        return str(keras.backend.standardize_dtype(self.tensor.dtype))

    @property
    def is_float(self) -> bool:
        """True for a floating point dtype."""
        return self.dtype.startswith(("float", "bfloat"))


class Ports(list[Port]):
    """All inputs or all outputs of a model, in order.

    Args:
        structure: Symbolic tensors as the model has them: one, or a list, tuple or dict.
        argument: Name of the argument that holds their data.

    Attributes:
        are_named: True if data go by names: in a dict, or for several ports.
        by_name: The ports by their names, and by those of the layers that make them.
    """

    def __init__(self, structure: Any, argument: str) -> None:
        self.structure = structure
        self.is_dict = isinstance(structure, Mapping)
        tensors = list(structure.values()) if self.is_dict else keras.tree.flatten(structure)
        makers = [find_maker(tensor) for tensor in tensors]
        self.names = list(structure) if self.is_dict else [maker.name for maker in makers]
        self.are_named = self.is_dict or len(tensors) > 1
        for name, tensor, maker in zip(self.names, tensors, makers, strict=True):
            label = f"`{argument}[{name!r}]`" if self.are_named else f"`{argument}`"
            self.append(Port(name, tensor, maker, label))
        self.by_name = {port.operation.name: port for port in self}
        self.by_name |= {port.name: port for port in self}

    def pack(self, values: list[Any]) -> Any:
        """Put one value for each port into the model's structure."""
        if self.is_dict:
            return dict(zip(self.names, values, strict=True))
        return keras.tree.pack_sequence_as(self.structure, values)

    def unpack(self, values: Any) -> list[Any]:
        """List the value of each port; of a list of one, Keras gives the item."""
        if self.is_dict:
            return [values[name] for name in self.names]
        return list(keras.tree.flatten(values))


def read_ports(model: Any) -> tuple[Ports, Ports]:
    """Return the inputs and the outputs of a model.

    Raises:
        ValueError: If it has no symbolic inputs.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a `keras.Model`. Received: model={model!r}.")
    if not getattr(model, "inputs", None):
        advice = (
            "Give it inputs first: `x = keras.Input(shape); model = keras.Model(x, model(x))`. Or "
            "put a `keras_initkit.layers.Normalization` at the beginning of its `call()`, and "
            "adapt it."
        )
        if isinstance(model, keras.Sequential):
            advice = "Begin it with `keras.Input(shape)`, or call `model.build(shape)` first."
        raise ValueError(
            f"`model` must have symbolic inputs. Received: {model.name!r} of type "
            f"{type(model).__name__}, which has none. {advice}"
        )
    is_stack = isinstance(model, keras.Sequential)  # whose own attributes are of its calls
    ends = (model.inputs[0], model.outputs[0]) if is_stack else (model.input, model.output)
    return Ports(ends[0], "data"), Ports(ends[1], "targets")
