"""Padding of sequences: the masks that Keras makes of data, carried from call to call."""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.anatomy.tracing import LayerCall
from keras_initkit.models.propagate.tensors import Tensor


def split_masks(
    made: LayerCall, inputs: Sequence[Tensor]
) -> tuple[dict[str, Any], LayerCall, Sequence[Tensor]]:
    """Take the masks out of a call of a layer.

    Returns:
        By the argument's name, "mask" for the first, arrays that are false at padding; the call
        without masks; and the tensors in it.
    """
    parameters = inspect.signature(made.operation.call).parameters
    if not any(name.endswith("mask") for name in parameters):
        return {}, made, inputs
    # Keras notes `training` for layers that do not take it, too.
    taken = {name: value for name, value in made.kwargs.items() if name in parameters}
    bound = inspect.signature(made.operation.call).bind(*made.args, **taken)
    masks: dict[str, Any] = {}
    known = dict(zip(map(id, made.inputs), inputs, strict=True))
    for name, value in [*bound.arguments.items()]:
        if name.endswith("mask") and not isinstance(value, bool):
            found = _fill(value, lambda x: known[id(x)].values)
            masks |= {name: found} if _is_known(found) else {}
            del bound.arguments[name]
        elif any(_is_symbolic(x) for x in keras.tree.flatten(value)):
            own = f"{name}_mask" if f"{name}_mask" in parameters else "mask"
            masks.setdefault(own, _fill(value, lambda x: known[id(x)].mask))
    masks = {name: found for name, found in masks.items() if _is_known(found)}
    plain = made._replace(args=bound.args, kwargs=bound.kwargs)
    left = [x for x in keras.tree.flatten((bound.args, bound.kwargs)) if _is_symbolic(x)]
    return masks, plain._replace(inputs=tuple(left)), [known[id(x)] for x in left]


def follow_mask(made: LayerCall, inputs: Sequence[Tensor], masks: dict[str, Any]) -> Any:
    """Return the mask at a layer's output; `None` if it has none, or is unknown."""
    layer = made.operation
    has_data = any(x.values is not None or x.mask is not None for x in inputs)
    if not has_data or not getattr(layer, "supports_masking", False):
        return None
    known = dict(zip(map(id, made.inputs), inputs, strict=True))
    count = next(len(x.values if x.mask is None else x.mask) for x in inputs)

    def stand_in(x: Any) -> Any:
        values = known[id(x)].values
        return np.broadcast_to(0.0, (count, *x.shape[1:])) if values is None else values

    first = made.args[0] if made.args else next(iter(made.kwargs.values()))
    previous = masks.get("mask", _fill(first, lambda x: known[id(x)].mask))
    with contextlib.suppress(Exception):  # a user's code may do anything
        found = layer.compute_mask(_fill(first, stand_in), previous)
        if found is not None:
            return keras.ops.convert_to_numpy(keras.tree.flatten(found)[0]).astype(bool)
    return None


def _fill(value: Any, get: Callable[[Any], Any]) -> Any:
    return keras.tree.map_structure(lambda x: get(x) if _is_symbolic(x) else x, value)


def _is_known(masks: Any) -> bool:
    return any(mask is not None for mask in keras.tree.flatten(masks))


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)
