"""The columns of a record: variables, with their layers and optimizers."""

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from tensorboard_plugin_initkit.stored_json import (
    Checks,
    check_fields,
    is_count,
    is_list_of,
    is_text,
    load_object,
    refuse,
)

SCHEMA_VERSION = 4


class Variable(NamedTuple):
    """A column of the record: a trainable variable and its layer.

    Attributes:
        path: Path in the model.
        layer: Path of the layer.
        shape: Its shape.
        optimizer: Name of its optimizer; a model's only one is called "".
        layer_type: Class of the layer, "" if it is not known.
        initializer: Its initializer as written in Python; "" if it is not known.
        receivers: Layers that take the output of its layer, as pairs of a path, "" for an output
            of the model, and the activation before it, "linear" for none. Empty if not known.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    optimizer: str = ""
    layer_type: str = ""
    initializer: str = ""
    receivers: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str, tuple[int, ...], str]:
        """Identity of the column, without its descriptions."""
        return self[:4]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def units(self) -> int:
        """Number of the variable's units: of elements along its last axis."""
        return self.shape[-1] if self.shape else 1


class Port(NamedTuple):
    """A tensor of a training step: an input, target, prediction or sample weight of the model.

    Attributes:
        role: "x", "y", "y_pred" or "sample_weight", as in `Model.compute_loss`.
        name: Its key or position; "" for the only one of its role.
        shape: Shape of one sample.
        dtype: Name of its dtype.
    """

    role: str
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of a record.

    Attributes:
        variables: In the model's order (input first).
        optimizers: Names of the optimizers; a model's only one is called "".
        frozen: Paths of the untrained layers.
        replicas: Number of replicas, each with the gradient of a part of the batch.
        ports: Tensors of which a step computes its loss; empty if they are not known.
    """

    variables: tuple[Variable, ...]
    optimizers: tuple[str, ...] = ("",)
    frozen: tuple[str, ...] = ()
    replicas: int = 1
    ports: tuple[Port, ...] = ()

    @functools.cached_property
    def layers(self) -> list[str]:
        """Paths of the layers, each once, in order of first appearance."""
        return list(dict.fromkeys(variable.layer for variable in self.variables))

    @property
    def layer_types(self) -> dict[str, str]:
        """Class of each layer, by `layers`; "" where the log does not say it."""
        return {variable.layer: variable.layer_type for variable in self.variables}

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Number of elements of each variable: float64 array (variables,)."""
        return np.array([variable.size for variable in self.variables], np.float64)

    @functools.cached_property
    def columns_by_layer(self) -> tuple[np.ndarray | slice, np.ndarray]:
        """Columns sorted by layer, all if they are already, and where in them each layer starts."""
        layers = self.layers
        layer_of = np.array(positions(layers, [v.layer for v in self.variables]), np.int64)
        order = np.argsort(layer_of, kind="stable")
        starts = np.searchsorted(layer_of[order], np.arange(len(layers)))
        return slice(None) if (layer_of[order] == layer_of).all() else order, starts

    def union(self, later: "Layout") -> "Layout":
        """Return all columns of both, in the order of the one with all of them, if there is one."""
        first, second = ({v.key: v for v in layout.variables} for layout in (self, later))
        order = second | first if first.keys() < second.keys() else first | second
        newest = first | second
        return Layout(
            tuple(newest[key] for key in order),
            tuple(dict.fromkeys(self.optimizers + later.optimizers)),
            later.frozen,
            later.replicas,
            tuple(dict.fromkeys(self.ports + later.ports)),
        )

    def columns_of(self, other: "Layout") -> list[int]:
        """Return the position here of each column of `other`."""
        return positions([v.key for v in self.variables], [v.key for v in other.variables])

    def to_json(self) -> str:
        """Serialise."""
        content = dataclasses.asdict(self) | {
            "version": SCHEMA_VERSION,
            "variables": [variable._asdict() for variable in self.variables],
            "ports": [port._asdict() for port in self.ports],
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the output of `to_json`; raise ValueError for anything else."""
        content = load_object(text, SCHEMA_VERSION, _FIELDS, "layout of a log")
        variables = [
            Variable(
                **variable
                | {"shape": tuple(variable["shape"])}
                | {"receivers": tuple(map(tuple, variable["receivers"]))}
            )
            for variable in (check_fields(v, _COLUMN, "column") for v in content["variables"])
        ]
        ports = [
            Port(**port | {"shape": tuple(port["shape"])})
            for port in (check_fields(port, _PORT, "port") for port in content["ports"])
        ]
        optimizers, frozen = tuple(content["optimizers"]), tuple(content["frozen"])
        strangers = {variable.optimizer for variable in variables}.difference(optimizers)
        if strangers:
            refuse("The columns of a layout must be of its optimizers", sorted(strangers))
        return cls(tuple(variables), optimizers, frozen, content["replicas"], tuple(ports))


def _is_shape(value: Any) -> bool:
    # NumPy's arrays have at most 64 dimensions.
    return is_list_of(is_count)(value) and len(value) <= 64 and is_count(math.prod(value))


_COLUMN: Checks = dict.fromkeys(Variable._fields, is_text) | {
    "shape": _is_shape,
    "receivers": is_list_of(lambda pair: is_list_of(is_text)(pair) and len(pair) == 2),
}
_PORT: Checks = dict.fromkeys(Port._fields, is_text) | {"shape": _is_shape}
_FIELDS: Checks = {
    "version": is_count,
    "variables": is_list_of(lambda variable: isinstance(variable, dict)),
    "optimizers": is_list_of(is_text),
    "frozen": is_list_of(is_text),
    "replicas": lambda value: is_count(value) and value > 0,
    "ports": is_list_of(lambda port: isinstance(port, dict)),
}


def positions(here: Sequence[Any], others: Sequence[Any]) -> list[int]:
    """Return the position in a list of each item of another."""
    position = {item: i for i, item in enumerate(here)}
    return [position[item] for item in others]
