"""Names from a log, made safe to show: they may hold any characters."""

import html
import itertools
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"
_RIGHT_TO_LEFT = {"R", "AL", "AN"}
_MATH = {"$$": "$\u2060$", "\\[": "\\\u2060[", "\\(": "\\\u2060("}


def display_name(name: str, most: int = 48) -> str:
    r"""Make one short line: shortened in the middle, control characters written out.

    Bokeh reads `$$` and `\[` as the beginning of a formula: they are separated by an invisible
    character. Text from right to left is isolated: its neighbours stay in place.

    Args:
        name: Any text.
        most: Largest number of kept characters, an integer of at least 3.
    """
    if len(name) > most:
        tail = (most - 1) // 2
        name = f"{name[: most - 1 - tail]}…{name[-tail:]}"
    text = "".join(map(_visible, name))
    for begin, separated in _MATH.items():
        text = text.replace(begin, separated)
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in text):
        text = f"{_ISOLATE}{text}{_END_ISOLATE}"
    return text


def display_names(names: list[str], most: int = 48) -> list[str]:
    """Apply `display_name` to each, and number them where two would look the same."""
    shown = [display_name(name, most) for name in names]
    count = Counter(shown)
    return [f"{name} ({i + 1})" if count[name] > 1 else name for i, name in enumerate(shown)]


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


def as_html(text: str, most: int = 600) -> str:
    """Escape text for HTML."""
    return html.escape(display_name(text, most))


def _visible(char: str) -> str:
    """Escape a character without a look of its own, or one with an effect on others."""
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return char.encode("unicode_escape").decode()
    return char
