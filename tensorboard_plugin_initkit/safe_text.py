"""Names and numbers for people to read; names from a log may hold any characters."""

import html
import re
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


def write_number(value: float, digits: int = 4) -> str:
    """Write a number: 488,458 with groups of digits, whole ones in full, small ones as 3e-5."""
    is_small = abs(value) < 1e9
    rounded = value if is_small and value == round(value) else float(f"{value:.{digits}g}")
    if is_small and rounded == round(rounded):
        return f"{rounded:,.0f}"
    return re.sub(r"e([+-])0?", lambda sign: "e" + sign[1].strip("+"), f"{rounded:.{digits}g}")


def write_part(factor: float) -> str:
    """Write a factor between 0 and 1/10 as a part, such as 1/33,000; another one as it is."""
    if 0 < factor < 0.1:
        return f"1/{write_number(1 / factor, 2)}"
    return write_number(factor, 2)


def _visible(char: str) -> str:
    """Escape a character without a look of its own, or one with an effect on others."""
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return char.encode("unicode_escape").decode()
    return char
