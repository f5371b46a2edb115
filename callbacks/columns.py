"""The columns of a record: a model's trainable variables, each with the layer it belongs to."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tensorboard_plugin_initkit.schema import Layout, Variable


def layout_of(variables: Iterable[Any]) -> Layout:
    """Name variables by their paths, and layers by the paths without the variable's own name.

    Layers of one name in different places of a subclassed model can share a path: the variables
    of the second one are counted to `<path>#2`.

    Args:
        variables: `keras.Variable`s, in the order of the record.
    """
    seen: Counter[str] = Counter()
    columns = []
    for variable in variables:
        layer, _, name = variable.path.rpartition("/")
        layer = layer or name
        if repeats := seen[variable.path]:
            layer = f"{layer}#{repeats + 1}"
        seen[variable.path] += 1
        columns.append(Variable(f"{layer}/{name}", layer, tuple(variable.shape)))
    return Layout(tuple(columns))
