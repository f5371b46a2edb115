"""`Setup`: a model as it is built and compiled, for rules that need more than numbers."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from tensorboard_plugin_initkit.stored_json import (
    Checks,
    check_fields,
    is_count,
    is_list_of,
    is_text,
    load_object,
)

SETUP_VERSION = 3

# A size that is not fixed, such as that of the batch.
ANY_SIZE = -1
# What is taken is an input of the model.
MODEL_INPUT = -1

Shape = tuple[int, ...]


class LayerSetup(NamedTuple):
    """A layer of a model, or an operation between layers.

    Attributes:
        path: Path in the model, as of the columns of a record.
        type: Name of its class.
        activation: Name of the activation applied inside it, or that it is itself; "" for none.
        takes: Positions of the layers with the outputs that it takes, `MODEL_INPUT` for an input
            of the model. Empty if it is not known.
        shape: Shape of its output, the batch first; empty if it is not known.
        weights: Number of its variables.
        trainable: Whether they are trained.
        arguments: Those of its configuration that rules ask for, by name: numbers, strings, lists
            of numbers. Initializers, regularizers and constraints are written as in Python. Of a
            class of the user's `is_own`, and `makes`, the layer that its `call` makes anew.
    """

    path: str
    type: str
    activation: str = ""
    takes: tuple[int, ...] = ()
    shape: Shape = ()
    weights: int = 0
    trainable: bool = True
    arguments: dict[str, Any] = {}  # noqa: RUF012 (never written)


class HeadSetup(NamedTuple):
    """An output of a model, and the loss computed of it.

    Attributes:
        name: Its name; "" for a model's only one.
        layer: Position of the layer or operation that makes it; `MODEL_INPUT` if not known.
        activation: Name of the last activation on the way to it: "linear" if the last weights
            lead to it without one, "" if it is not known.
        shape: The batch first; empty if it is not known.
        loss: Name of the loss as in `keras.losses`, as "binary_crossentropy"; another function's or
            class's own name; "" for none.
        arguments: Those of the loss, by name: `from_logits`, `label_smoothing`, `axis`, …
        metrics: Names of its metrics.
    """

    name: str = ""
    layer: int = MODEL_INPUT
    activation: str = ""
    shape: Shape = ()
    loss: str = ""
    arguments: dict[str, Any] = {}  # noqa: RUF012 (never written)
    metrics: tuple[str, ...] = ()


class InputUse(NamedTuple):
    """What the outputs of a model depend on, of an input or of its parts along an axis.

    Attributes:
        name: Name of the input, as of its port.
        axis: Of a batch; 0 for the input as a whole, which is its only part.
        used: For each part, in order: 1 if an output depends on it, 0 if none does, and -1 if it is
            not known.
    """

    name: str
    axis: int
    used: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model as it is built and compiled.

    Attributes:
        layers: Layers and operations, in the order of the model's graph, input first.
        heads: Outputs, in the order of the model's.
        optimizer: Name of its class; "" for none.
        optimizer_arguments: Numbers of its configuration, as `learning_rate`, by name.
        dtype_policy: Name of the model's dtype policy.
        steps: Number of updates that the training is to make in all; 0 if it is not known.
        has_graph: Whether it is known what leads to what.
        backend: Name of the backend of Keras; "" if it is not known.
        prediction: For the paths of layers, the mean square of their outputs and their signal at
            the first step, as `keras_initkit.propagate` predicts them for normal inputs; signals
            up to one factor for all. Empty if nothing was predicted.
        uses: Of each input, as a whole and along each axis, what outputs depend on; empty if it is
            not known.
        mixes_samples: Whether the output for a sample depends on the others of its batch.
    """

    layers: tuple[LayerSetup, ...] = ()
    heads: tuple[HeadSetup, ...] = ()
    optimizer: str = ""
    optimizer_arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtype_policy: str = "float32"
    steps: int = 0
    has_graph: bool = False
    backend: str = ""
    prediction: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    uses: tuple[InputUse, ...] = ()
    mixes_samples: bool = False

    def to_json(self) -> str:
        """Serialise."""
        content = dataclasses.asdict(self) | {
            "version": SETUP_VERSION,
            "layers": [layer._asdict() for layer in self.layers],
            "heads": [head._asdict() for head in self.heads],
            "uses": [use._asdict() for use in self.uses],
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the output of `to_json`; raise ValueError for anything else."""
        content = load_object(text, SETUP_VERSION, _SETUP, "setup of a log")
        del content["version"]
        layers = [check_fields(item, _LAYER, "layer of a setup") for item in content.pop("layers")]
        heads = [check_fields(item, _HEAD, "output of a setup") for item in content.pop("heads")]
        uses = [check_fields(item, _USE, "use of an input") for item in content.pop("uses")]
        content["uses"] = tuple(InputUse(**_with_tuples(use)) for use in uses)
        content["prediction"] = _with_tuples(content["prediction"])
        return cls(
            tuple(LayerSetup(**_with_tuples(layer)) for layer in layers),
            tuple(HeadSetup(**_with_tuples(head)) for head in heads),
            **content,
        )


def _with_tuples(item: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in item.items()}


def _is_size(value: Any) -> bool:
    return type(value) is int and -1 <= value < 2**63


def _is_value(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_value, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)


def _are_arguments(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_value, value.values()))


def _is_prediction(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_positive, pair))
        for pair in value.values()
    )


def _is_positive(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value < math.inf


_LAYER: Checks = {
    "path": is_text,
    "type": is_text,
    "activation": is_text,
    "takes": is_list_of(_is_size),
    "shape": is_list_of(_is_size),
    "weights": is_count,
    "trainable": lambda value: isinstance(value, bool),
    "arguments": _are_arguments,
}
_HEAD: Checks = {
    "name": is_text,
    "layer": _is_size,
    "activation": is_text,
    "shape": is_list_of(_is_size),
    "loss": is_text,
    "arguments": _are_arguments,
    "metrics": is_list_of(is_text),
}
_USE: Checks = {
    "name": is_text,
    "axis": is_count,
    "used": is_list_of(_is_size),
}
_SETUP: Checks = {
    "version": is_count,
    "layers": is_list_of(lambda item: isinstance(item, dict)),
    "heads": is_list_of(lambda item: isinstance(item, dict)),
    "optimizer": is_text,
    "optimizer_arguments": _are_arguments,
    "dtype_policy": is_text,
    "steps": is_count,
    "backend": is_text,
    "has_graph": lambda value: isinstance(value, bool),
    "prediction": _is_prediction,
    "uses": is_list_of(lambda item: isinstance(item, dict)),
    "mixes_samples": lambda value: isinstance(value, bool),
}


def match_heads(heads: Sequence[HeadSetup], names: Sequence[str]) -> list[int | None]:
    """Return for each output the place of its target among named ones, `None` if it has none.

    A dictionary of targets is in the order of its keys, whatever the order of the outputs: names
    decide where they are those of outputs.
    """
    places = {name: place for place, name in enumerate(names)}
    if len(names) != len(heads) or places.keys() == {head.name for head in heads}:
        return [places.get(head.name) for head in heads]
    return list(range(len(heads)))
