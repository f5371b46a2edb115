"""What two findings have in common: outputs of the model and optimizers."""

from tensorboard_plugin_initkit.diagnosis.facts import Facts


class Scope:
    """Outputs that layers lead to, and optimizers that train them.

    A layer of which nothing is known, and the model itself, "", has all.
    """

    def __init__(self, facts: Facts) -> None:
        self._heads: dict[str, set[int]] = {}
        self._optimizers: dict[str, int] = {}
        setup = facts.setup
        self._idle = {
            number
            for number, head in enumerate(setup.heads)
            if head.arguments.get("loss_weight") == 0
        }
        if setup.has_graph and len(setup.heads) > 1:
            for number, head in enumerate(setup.heads):
                waiting, seen = [head.layer], set[int]()
                while waiting:
                    position = waiting.pop()
                    if position < 0 or position in seen:
                        continue
                    seen.add(position)
                    self._heads.setdefault(setup.layers[position].path, set()).add(number)
                    waiting += setup.layers[position].takes
        if len(facts.optimizers) > 1:
            positions = facts.optimizer_of.tolist()
            self._optimizers = dict(zip(facts.layers, positions, strict=True))

    def is_common(self, layer: str, other: str) -> bool:
        """Check for two layers with an output and an optimizer in common."""
        here, there = (self._heads.get(path) for path in (layer, other))
        if here and there and here.isdisjoint(there):
            return False
        first, second = (self._optimizers.get(path) for path in (layer, other))
        return first is None or second is None or first == second

    def is_idle(self, layer: str) -> bool:
        """Check for a layer that leads to outputs with a loss weight of 0 only: as it is meant."""
        return self._heads.get(layer, {-1}) <= self._idle
