"""The parts of a model for a capture: its optimizers, and its frozen layers."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import keras

from keras_initkit.anatomy.layers_inside import trainable_weights
from keras_initkit.anatomy.weights import places_of, weights_of

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
    roots: list[tuple[str, Any]]  # optimizers by name, those inside others left out
    several: bool  # whether there are several optimizers, or may be

    @classmethod
    def of_model(cls, model: Any) -> Self:
        """Find the optimizers of a compiled model: `compile`'s own, and attributes of the model."""
        roots = list(_optimizers(model))
        target = cls(model, roots, False)
        return target._replace(several=len(target.leaves) > 1 or bool(target.undecided))

    @property
    def leaves(self) -> list[Leaf]:
        """All optimizers known up to now, holding no other ones."""
        leaves: dict[int, Leaf] = {}
        for name, optimizer in self.roots:
            for leaf in _leaves(name, optimizer):
                leaves.setdefault(id(leaf.optimizer), leaf)
        names: Counter[str] = Counter()
        unique = []
        for leaf in leaves.values():
            names[leaf.name] += 1
            count = names[leaf.name]
            unique.append(leaf if count == 1 else leaf._replace(name=f"{leaf.name}_{count}"))
        return unique

    @property
    def undecided(self) -> list[Any]:
        """Optimizers that choose those inside them at the first update, and have not yet."""
        roots = [getattr(optimizer, "inner_optimizer", optimizer) for _, optimizer in self.roots]
        return [root for root in roots if isinstance(root, _MULTI_OPTIMIZER) and not root.built]

    def trained_variables(self, was_used: bool) -> dict[int, bool]:
        """Tell for the `id` of each variable if it is trained; of used optimizers, if they do."""
        trained = set(map(id, self.model.trainable_variables))
        if was_used:
            built = [leaf.optimizer for leaf in self.leaves if leaf.optimizer.built]
            before = {id(v) for optimizer in built for v in optimizer._trainable_variables}
            # A step of the model's own need not train all there is.
            trained = trained | before if self.own_step else before
        return {id(variable): id(variable) in trained for variable in self.model.variables}

    def changed_layers(self, trained: dict[int, bool]) -> list[str]:
        """Name the layers frozen or unfrozen since `trained_variables` was asked."""
        now = self.trained_variables(was_used=False)
        changed = {key for key in now if trained.get(key, now[key]) != now[key]}
        weights = [weight for weight in weights_of(self.model) if id(weight.variable) in changed]
        return list(dict.fromkeys(weight.layer or weight.path for weight in weights))

    @property
    def batches_per_update(self) -> int:
        """Number of batches for one update."""
        steps = [leaf.optimizer.gradient_accumulation_steps or 1 for leaf in self.leaves]
        return max(steps, default=1)

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
        return any(isinstance(o, keras.optimizers.LossScaleOptimizer) for _, o in self.roots)


def frozen_layers(model: Any) -> tuple[str, ...]:
    """Return paths of the frozen layers with weights, in the model's order."""
    return tuple(
        places[0].path
        for places in places_of(model).values()
        if not (layer := places[0].layers[-1]).trainable and trainable_weights(layer)
    )


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


def _leaves(name: str, optimizer: Any) -> Iterator[Leaf]:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        for leaf in _leaves(name, optimizer.inner_optimizer):
            yield leaf._replace(loss_scale=optimizer)
    elif isinstance(optimizer, _MULTI_OPTIMIZER):
        for inner in optimizer.optimizers:
            yield from _leaves(inner.name, inner)
    else:
        yield Leaf(name, optimizer, None)
