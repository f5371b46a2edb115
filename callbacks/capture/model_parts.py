"""The parts of a model for a capture: its optimizers, and its frozen layers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.layers_inside import layers_inside, trainable_weights
from keras_initkit.anatomy.places import places_of

# Since Keras 3.14.
_MULTI_OPTIMIZER = getattr(keras.optimizers, "MultiOptimizer", ())


class Leaf(NamedTuple):
    """An optimizer, holding no other one."""

    name: str  # among the model's optimizers; "" for the only one
    optimizer: Any
    loss_scale: Any  # the `LossScaleOptimizer` around it, if there is one


class Target(NamedTuple):
    """A compiled model and its optimizers."""

    model: Any
    leaves: list[Leaf]

    @property
    def several(self) -> bool:
        """Whether there are several optimizers."""
        return len(self.leaves) > 1

    @property
    def batches_per_update(self) -> int:
        """Number of batches for one update."""
        return max(leaf.optimizer.gradient_accumulation_steps or 1 for leaf in self.leaves)

    @property
    def own_step(self) -> bool:
        """Whether the model has a `train_step` of its own."""
        return type(self.model).train_step is not keras.Model.train_step

    @property
    def loss_sums(self) -> tuple[Any, ...]:
        """Variables (total, count) of the model's loss metric; empty if it has none."""
        for metric in self.model.metrics:
            if metric.name == "loss" and isinstance(metric, keras.metrics.Mean):
                return metric.total, metric.count
        return ()

    @property
    def skips(self) -> bool:
        """Whether a loss scale can skip updates."""
        return any(leaf.loss_scale is not None for leaf in self.leaves)


def leaf_optimizers(model: Any) -> list[Leaf]:
    """Find the optimizers of a compiled model: `compile`'s own, and attributes of the model.

    Raises:
        ValueError: If they cannot be known yet.
    """
    leaves: dict[int, Leaf] = {}
    for name, optimizer in _optimizers(model):
        _build_choice(optimizer, model)
        for leaf in _leaves(name, optimizer):
            leaves.setdefault(id(leaf.optimizer), leaf)
    if len(leaves) == 1:
        return [leaf._replace(name="") for leaf in leaves.values()]
    names: dict[str, int] = {}
    unique = []
    for leaf in leaves.values():
        count = names[leaf.name] = names.get(leaf.name, 0) + 1
        unique.append(leaf._replace(name=leaf.name if count == 1 else f"{leaf.name}_{count}"))
    return unique


def frozen_layers(model: Any) -> tuple[str, ...]:
    """Return paths of the frozen layers with weights, in the model's order."""
    return tuple(
        places[0].path
        for places in places_of(model).values()
        if not (layer := places[0].layers[-1]).trainable and trainable_weights(layer)
    )


def unit_kernels(model: Any) -> set[int]:
    """Return the `id`s of the kernels with the layer's units along the last axis."""
    kinds = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    return {
        id(variable)
        for layer in layers_inside(model)
        if isinstance(layer, kinds)
        for variable in trainable_weights(layer)
        if variable.name == "kernel"
    }


def _optimizers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield optimizers by name, the compiled one last: the others' names say more."""
    members = list(vars(model).items())
    inside = [
        (name, member)
        for name, value in members
        if isinstance(value, list | tuple | dict)
        for member in (value.values() if isinstance(value, dict) else value)
    ]
    # Keras itself keeps lists of them, in which they have no name of their own: these come last.
    for name, value in [*members, *inside]:
        if isinstance(value, keras.Optimizer) and value is not model.optimizer:
            yield name, value
    if model.optimizer is not None:
        yield "optimizer", model.optimizer


def _build_choice(optimizer: Any, model: Any) -> None:
    """Build a MultiOptimizer now, as the first update would."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(optimizer, _MULTI_OPTIMIZER) and not optimizer.built:
        if not model.built:
            raise ValueError(
                "A model with a MultiOptimizer must be built before training, so that its "
                "optimizers are known. Received: a model that is not. Give it an input shape, or "
                "call it on a batch first."
            )
        optimizer.build(model.trainable_variables)
        optimizer.built = True


def _leaves(name: str, optimizer: Any) -> Iterator[Leaf]:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        for leaf in _leaves(name, optimizer.inner_optimizer):
            yield leaf._replace(loss_scale=optimizer)
    elif isinstance(optimizer, _MULTI_OPTIMIZER):
        for inner in optimizer.optimizers:
            yield from _leaves(inner.name, inner)
    else:
        yield Leaf(name, optimizer, None)
