"""What an audit found: rows, and the forms in which they are shown."""

import importlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from keras_initkit.models.audit.rules import ERROR, NOTE, OK, WARNING

_COLUMNS = ("weight", "initializer", "fans", "variance", "intended", "follows", "findings")


class WeightAudit(NamedTuple):
    """How a weight starts.

    Attributes:
        path: Its path in the model.
        layer: The class of the layer that holds it.
        shape: Its shape.
        role: "kernel" for what multiplies inputs and is summed, "scale" for what multiplies
            element by element, "bias" for what is added, "state" for what is not trained.
        initializer: What draws it, such as "HeNormal(gain='tanh')"; "" if that is not known.
        keras_fans: (fan_in, fan_out) that Keras reads from the shape; `None` but for kernels.
        true_fans: As `keras_initkit.fans` has them; `None` but for kernels of known layers.
        variance: Of a kernel, the mean square of its values times the true fan_in: the variance
            that independent inputs of mean square 1 lead to at the layer's output, without bias.
        intended: The variance that keeps the mean square of signals at 1: 1/E f(z)² for an
            activation f that follows, 1 where none does. `None` if what follows is not known, or
            a normalization, before which any variance will do that is large against its epsilon.
        follows: What follows, such as "BatchNormalization, relu".
        findings: Of "scale" (the variance is not what is intended), "fans" (because Keras reads
            other fans from the shape), "swallowed" (a normalization's epsilon is not small
            against the variance), "zero", "constant" and "alike" (the units of a layer cannot be
            told apart), "same" and "correlated" (with another weight), "unknown" (nothing is
            known of the layer's class).
        severity: "ok", "note", "warning" or "error".
        fix: One line that says what to do about it; "" if there is nothing to do.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    role: str
    initializer: str = ""
    keras_fans: tuple[float, float] | None = None
    true_fans: tuple[float, float] | None = None
    variance: float | None = None
    intended: float | None = None
    follows: str = ""
    findings: tuple[str, ...] = ()
    severity: str = OK
    fix: str = ""


class Audit:
    """The rows of `keras_initkit.audit`, to be printed or computed with.

    `print(audit)` shows a table as text; `rich.print(audit)` one with colours.

    Args:
        name: The model's name.
        rows: One for each weight, in the model's order.
    """

    def __init__(self, name: str, rows: Sequence[WeightAudit]) -> None:
        self.name = name
        self.rows = tuple(rows)

    def __iter__(self) -> Iterator[WeightAudit]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Audit of {self.name!r}: {self.summary}>"

    @property
    def problems(self) -> tuple[WeightAudit, ...]:
        """The rows with a warning or an error."""
        return tuple(row for row in self.rows if row.severity in (WARNING, ERROR))

    @property
    def summary(self) -> str:
        """One line."""
        severities = Counter(row.severity for row in self.rows)
        findings = Counter(finding for row in self.rows for finding in row.findings)
        counts = [
            f"{severities[severity]} {severity}{'s' * (severities[severity] != 1)}"
            for severity in (ERROR, WARNING, NOTE)
        ]
        found = ", ".join(f"{name} {count}" for name, count in sorted(findings.items()))
        return f"{len(self.rows)} weights, {', '.join(counts)}" + (f" ({found})" if found else "")

    def to_dict(self) -> list[dict[str, Any]]:
        """The rows as dicts of what JSON knows."""
        return [json.loads(json.dumps(row._asdict())) for row in self.rows]

    def to_dataframe(self) -> Any:
        """The rows as a `pandas.DataFrame`.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise ImportError(
                "`to_dataframe` needs pandas, which is not installed. Install it: "
                "`pip install keras-initkit[report]`. Without it there is `to_dict`."
            ) from None
        return pandas.DataFrame([row._asdict() for row in self.rows], columns=WeightAudit._fields)

    def __str__(self) -> str:
        shown, left_out = _shown(self.rows)
        lines = [_COLUMNS, *map(_cells, shown)] if shown else []
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([f"{self.name}: {self.summary}", *table, *_notes(self.rows, left_out)])

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        shown, left_out = _shown(self.rows)
        table = Table(title=escape(f"{self.name}: {self.summary}"), title_justify="left")
        for name in _COLUMNS:
            table.add_column(name, justify="right" if name in ("variance", "intended") else "left")
        colours = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}
        for row in shown:
            table.add_row(*map(escape, _cells(row)), style=colours.get(row.severity))
        return Group(table, *map(escape, _notes(self.rows, left_out)))


def _shown(rows: Sequence[WeightAudit]) -> tuple[list[WeightAudit], int]:
    """The rows of a table, problems first; and how many are left out."""
    worst_first = [ERROR, WARNING, NOTE, OK]
    shown = [row for row in rows if row.role == "kernel" or row.severity != OK]
    shown.sort(key=lambda row: worst_first.index(row.severity))
    return shown, len(rows) - len(shown)


def _cells(row: WeightAudit) -> tuple[str, ...]:
    fans = _fans(row.true_fans) or _fans(row.keras_fans)
    if row.true_fans and row.keras_fans and row.true_fans != row.keras_fans:
        fans += f" (Keras: {_fans(row.keras_fans)})"
    return (
        row.path,
        row.initializer,
        fans,
        "" if row.variance is None else f"{row.variance:.3g}",
        "" if row.intended is None else f"{row.intended:.3g}",
        row.follows,
        f"{row.severity}: {', '.join(row.findings)}" if row.findings else row.severity,
    )


def _fans(fans: tuple[float, float] | None) -> str:
    return f"{fans[0]:g}/{fans[1]:g}" if fans else ""


def _notes(rows: Sequence[WeightAudit], left_out: int) -> list[str]:
    """What stands below the table: each fix once, with the weights that it is for."""
    lines = [f"Not shown, without findings: {left_out} that are no kernels."] if left_out else []
    groups: dict[str, list[WeightAudit]] = {}
    for row in _shown(rows)[0]:
        if row.fix:
            groups.setdefault(row.fix.replace(repr(row.path), "path"), []).append(row)
    if groups:
        lines.append("What to do:")
    for fix, group in groups.items():
        # A single weight is named in its fix; of several, the path is that of each.
        paths = ", ".join(row.path for row in group[:2])
        more = f" and {len(group) - 2} more" if len(group) > 2 else ""
        lines.append(f"- {paths}{more}: {group[0].fix if len(group) == 1 else fix}")
    return lines
