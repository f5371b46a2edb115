"""Residual branches: what a sum adds to the signal that a skip connection carries past it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from keras_initkit.anatomy.following import HasRule, classify
from keras_initkit.anatomy.graph import Call, Graph


class Branch(NamedTuple):
    """A residual branch.

    Attributes:
        last: The layers with the kernels nearest to the sum.
        inside: All layers with kernels in it, in the order of their calls.
        is_normalized: Whether a normalization stands between its last kernel and the sum.
        has_normalization: Whether one stands anywhere in it.
        skip: The `id` of the tensor that it is added to.
    """

    last: tuple[Any, ...]
    inside: tuple[Any, ...]
    is_normalized: bool
    has_normalization: bool
    skip: int


class Branches(NamedTuple):
    """All residual branches of a model, and how many are summed on the longest way."""

    branches: list[Branch]
    depth: int


def find_branches(graph: Graph, has_rule: HasRule) -> Branches:
    """Find the residual branches of a model, in the order of their sums.

    A sum is residual if one of its inputs, the skip connection, comes from a tensor inside the
    model past fewer kernels than the others, which come from the same tensor: as it is, or through
    a single kernel.
    """
    effects = {
        id(call): classify(call, has_rule) for calls in graph.takers.values() for call in calls
    }
    depths: dict[int, int] = {}
    sums: dict[int, int] = {}
    found: list[Branch] = []
    for call in graph.calls_before(graph.outputs):
        effect = effects.get(id(call))
        inputs = list(dict.fromkeys(call.inputs))
        depth = max((depths.get(tensor, 0) for tensor in inputs), default=0)
        count = max((sums.get(tensor, 0) for tensor in inputs), default=0)
        if effect == "add" and len(inputs) > 1:
            skip = min(inputs, key=lambda tensor: depths.get(tensor, 0))
            ends = [t for t in inputs if depths.get(t, 0) > depths.get(skip, 0)]
            origins = _walk(graph, effects, skip, 1).tensors
            branches = [_make_branch(graph, effects, end, skip, origins, depths) for end in ends]
            new = [branch for branch in branches if branch is not None]
            found += new
            count += bool(new)
        for tensor in call.outputs:
            depths[tensor] = max(depths.get(tensor, 0), depth + (effect == "kernel"))
            sums[tensor] = max(sums.get(tensor, 0), count)
    return Branches(found, max((sums.get(tensor, 0) for tensor in graph.outputs), default=0))


class _Walk(NamedTuple):
    tensors: dict[int, int]  # for the `id` of each, the number of kernels behind it
    calls: list[Call]


def _walk(
    graph: Graph,
    effects: dict[int, Any],
    start: int,
    kernels: int,
    stops: Iterable[int] = (),
) -> _Walk:
    """Walk back from a tensor past so many kernels at most, and not past `stops`."""
    tensors, calls, ends = {start: 0}, [], set(stops)
    for tensor in (waiting := [start]):  # which grows
        for call in graph.makers.get(tensor, ()) if tensor not in ends else ():
            calls.append(call)
            count = tensors[tensor] + (effects.get(id(call)) == "kernel")
            new = [t for t in call.inputs if t not in tensors]
            if count <= kernels:
                tensors |= dict.fromkeys(new, count)
                waiting += new
    return _Walk(tensors, calls)


def _make_branch(
    graph: Graph,
    effects: dict[int, Any],
    end: int,
    skip: int,
    origins: dict[int, int],
    depths: dict[int, int],
) -> Branch | None:
    """Return the branch that ends at a tensor; `None` unless it comes from the skip's origin."""
    least = min(depths.get(tensor, 0) for tensor in origins)
    walk = _walk(graph, effects, end, depths[end] - least, origins)
    # Two signals from an input of the model are two inputs, as of tokens and their positions.
    shared = [t for t in origins if t in walk.tensors and (t == skip or t in graph.makers)]
    if not shared:
        return None
    near = _walk(graph, effects, end, 0, origins)
    calls = [call for call in walk.calls if call.operation is not None]
    kernels = [call.operation for call in calls if effects.get(id(call)) == "kernel"]
    last = [call.operation for call in near.calls if effects.get(id(call)) == "kernel"]
    return Branch(
        tuple(dict.fromkeys(last)),
        tuple(dict.fromkeys(reversed(kernels))),
        any(effects.get(id(call)) == "normalization" for call in near.calls),
        any(effects.get(id(call)) == "normalization" for call in calls),
        skip,
    )
