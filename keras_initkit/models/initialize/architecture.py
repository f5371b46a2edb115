"""What a scheme sees of a model: its kernels, each with its place, and its residual branches."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.branches import Branch, Branches, find_branches
from keras_initkit.anatomy.following import NORMALIZATIONS, classify, find_caller, makes_output_of
from keras_initkit.anatomy.graph import Call, Graph
from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.tracing import graph_of
from keras_initkit.connectivity.layer_fans import has_rule, is_known_call
from keras_initkit.models.audit.parts import Part, parts_of

_ATTENTIONS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_SCORES = (keras.layers.Attention, keras.layers.AdditiveAttention)


class Kernel(NamedTuple):
    """A kernel to draw.

    Attributes:
        part: The weight, with its view and what follows.
        caller: The outermost layer around it that is called in the graph; `None` without a graph.
        branch: The residual branch it is in, or `None`.
        is_last_of_branch: Whether its output is what the branch adds.
        is_first: Whether it takes an input of the model, with no kernel before.
        bias: The bias of its layer, if that starts at zeros and may be set.
    """

    part: Part
    caller: Any
    branch: Branch | None
    is_last_of_branch: bool
    is_first: bool
    bias: Part | None

    @property
    def name(self) -> str:
        """The name of the variable."""
        return str(self.part.weight.variable.name)

    @property
    def attention(self) -> Any | None:
        """The attention layer around it, or `None`."""
        return next((x for x in self.part.weight.layers if isinstance(x, _ATTENTIONS)), None)

    @property
    def recurrence(self) -> Any | None:
        """The recurrent layer around it, or `None`."""
        return next((x for x in self.part.weight.layers if isinstance(x, keras.layers.RNN)), None)

    @property
    def is_embedding(self) -> bool:
        """Whether it is looked up, not multiplied."""
        return isinstance(self.part.weight.holder, keras.layers.Embedding)

    @property
    def is_tied(self) -> bool:
        """Whether an embedding also leads back from features to logits."""
        return bool(getattr(self.part.weight.holder, "tie_weights", False))

    @property
    def is_convolution(self) -> bool:
        """Whether it has a window."""
        return bool(self.part.view and self.part.view.window)

    @property
    def is_linear(self) -> bool:
        """Whether its layer is known to be linear in it, but for the bias and the activation."""
        return is_known_call(self.part.weight.owner)


class Architecture(NamedTuple):
    """A model for a scheme.

    Attributes:
        kernels: Those to draw, in the model's order.
        residual: Its residual branches.
        graph: Its calls; empty if its `call` cannot be traced.
        has_normalization: Whether there are normalization layers.
        plain_depth: The number of kernels in a row with an activation behind them and neither a
            normalization nor a skip connection.
    """

    kernels: list[Kernel]
    residual: Branches
    graph: Graph
    has_normalization: bool
    plain_depth: int


@contextlib.contextmanager
def architecture_of(model: Any, selects: Callable[[Part], bool]) -> Iterator[Architecture]:
    """Read the architecture of a model; its graph is there inside the context alone.

    Args:
        model: A built model or layer.
        selects: Tells if a weight may be changed.
    """
    with graph_of(model) as (graph, _):
        residual = find_branches(graph, has_rule)
        inside = {id(layer): b for b in residual.branches for layer in b.inside}
        last = {id(layer) for b in residual.branches for layer in b.last if not b.is_normalized}
        first = _find_first(graph)
        parts = parts_of(model, graph)
        biases = {id(part.weight.holder): part for part in parts if _is_free_bias(part, selects)}
        kernels = []
        for part in parts:
            if not (_is_random_kernel(part) and selects(part)):
                continue
            holder = part.weight.holder
            caller = find_caller(graph, part.weight.layers)
            is_last = id(caller) in last and makes_output_of(holder, caller)
            if is_last and isinstance(caller, _ATTENTIONS):
                is_last = holder.name == "attention_output"
            branch = inside.get(id(caller))
            is_first = id(caller) in first
            kernels.append(Kernel(part, caller, branch, is_last, is_first, biases.get(id(holder))))
        plain = [
            kernel
            for kernel in kernels
            if kernel.branch is None
            and kernel.part.following.function is not None
            and kernel.part.following.normalization is None
        ]
        has_normalization = any(isinstance(x, NORMALIZATIONS) for x in layers_inside(model))
        yield Architecture(kernels, residual, graph, has_normalization, len(plain))


def _find_first(graph: Graph) -> set[int]:
    """Return the `id`s of the layers with kernels that take the inputs of a model."""

    def is_kernel(call: Call) -> bool:
        return classify(call, has_rule) == "kernel"

    inputs = [tensor for tensor in graph.takers if tensor not in graph.makers]
    calls = graph.calls_on(graph.reach(inputs, lambda call: not is_kernel(call)))
    return {id(call.operation) for call in calls if is_kernel(call)}


def _is_random_kernel(part: Part) -> bool:
    """Check for a kernel whose layer starts it at random: others are meant as they are."""
    weight = part.weight
    return (
        part.role == "kernel"
        and part.view is not None
        and weight.is_float
        and not weight.variable.name.startswith("lora_")
        and not isinstance(weight.holder, _SCORES)
        and (part.initializer is None or hasattr(part.initializer, "seed"))
    )


def _is_free_bias(part: Part, selects: Callable[[Part], bool]) -> bool:
    is_bias = part.role == "bias" and part.weight.variable.name == "bias" and part.weight.is_float
    is_zero = isinstance(part.initializer, keras.initializers.Zeros)
    return is_bias and is_zero and selects(part)
