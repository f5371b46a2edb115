"""Names from a log, made safe to show: they may hold any characters."""

import html
import unicodedata
from collections import Counter

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


def as_html(text: str, most: int = 600) -> str:
    """Escape text for HTML."""
    return html.escape(display_name(text, most))


def _visible(char: str) -> str:
    """Escape a character without a look of its own, or one with an effect on others."""
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return char.encode("unicode_escape").decode()
    return char
