"""Names of layers of nested models, in groups."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Group(NamedTuple):
    """Neighbouring layers of a nested model: its name, and the first and last of them."""

    name: str
    first: int
    last: int


def groups_of(paths: Sequence[str]) -> tuple[list[Group], list[str]]:
    """Group neighbours with the same first part of their paths.

    A part shared by all paths makes no group: the parts after it do.

    Args:
        paths: Of layers, in the model's order.

    Returns:
        The groups; and the paths without the shared part and the names of groups. Without any
        group, paths are left as they are.
    """
    parts = [path.split("/") for path in paths]
    nested = [part[:-1] for part in parts]
    pairs = zip(min(nested, default=[]), max(nested, default=[]), strict=False)
    shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    heads = [part[shared] if len(part) > shared + 1 else "" for part in parts]
    groups = []
    for head, run in itertools.groupby(range(len(paths)), heads.__getitem__):
        first, *others = run
        if head and others:
            groups.append(Group(head, first, others[-1]))
    if not groups:
        return [], list(paths)
    names = ["/".join(part[shared:]) for part in parts]
    for group in groups:
        for i in range(group.first, group.last + 1):
            names[i] = names[i][len(group.name) + 1 :]
    return groups, names
