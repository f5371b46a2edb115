"""The result of an audit: its rows, as text, a table, dicts or a data frame."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.notebook import import_pandas, make_card

_SEVERITIES = ("ok", "note", "warning", "error")
_COLUMNS = ("weight", "initializer", "fans", "variance", "intended", "follows", "findings")


class WeightAudit(NamedTuple):
    """The start of a weight.

    Attributes:
        path: Path in the model.
        layer: Class of its holder.
        shape: Shape.
        role: "kernel" if it multiplies inputs for a sum, "scale" if it multiplies element by
            element, "bias" if it is added, "state" if it is not trained.
        initializer: Its initializer, such as "HeNormal(gain='tanh')"; "" if unknown.
        keras_fans: (fan_in, fan_out) read by Keras from the shape; `None` but for kernels.
        true_fans: As `keras_initkit.fans` has them; `None` but for kernels of known layers.
        variance: Of a kernel, the mean square of its values times the true fan_in: the variance
            at the layer's output for independent inputs of mean square 1, without bias.
        intended: The variance to keep the mean square of signals at 1: 1/E f(z)² before an
            activation f, 1 without one. `None` if unknown, or before a normalization: any variance
            will do if it is large against its epsilon.
        follows: The way to the next activation, such as "BatchNormalization, relu".
        findings: `Finding`s of the kinds "bad_start" (of signal or gradient over the whole depth,
            at the second layer), "scale" (the variance is not the intended one), "fans"
            (because Keras reads other fans from the shape), "swallowed" (a normalization's
            epsilon is not small against the variance), "zero", "constant" and "alike" (the units
            of a layer cannot be told apart), "same" and "correlated" (with another weight),
            "unknown" (nothing is known of the layer's class).
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
    findings: tuple[Finding, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the findings."""
        return tuple(finding.kind for finding in self.findings)

    @property
    def severity(self) -> str:
        """The worst severity: "ok", "note", "warning" or "error"."""
        severities = [finding.severity for finding in self.findings]
        return max(severities, key=_SEVERITIES.index, default="ok")

    @property
    def fix(self) -> str:
        """The fixes in one line; "" if there is nothing to do."""
        return "; ".join(str(finding.fix) for finding in self.findings if finding.fix)

    def to_dict(self) -> dict[str, Any]:
        """Return the row with the kinds of findings, the severity and the fix."""
        more = {"findings": self.kinds, "severity": self.severity, "fix": self.fix}
        return self._asdict() | more


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
        return tuple(row for row in self.rows if row.severity in ("warning", "error"))

    @property
    def summary(self) -> str:
        """The numbers of weights, severities and findings in one line."""
        severities = Counter(row.severity for row in self.rows)
        findings = Counter(kind for row in self.rows for kind in row.kinds)
        counts = [
            f"{severities[severity]} {severity}{'s' * (severities[severity] != 1)}"
            for severity in ("error", "warning", "note")
        ]
        found = ", ".join(f"{name} {count}" for name, count in sorted(findings.items()))
        return f"{len(self.rows)} weights, {', '.join(counts)}" + (f" ({found})" if found else "")

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the rows as dicts for JSON."""
        return [json.loads(json.dumps(row.to_dict())) for row in self.rows]

    def to_dataframe(self) -> Any:
        """Return the rows as a `pandas.DataFrame`.

        Raises:
            ImportError: If pandas is not installed.
        """
        return import_pandas("`to_dict`").DataFrame([row.to_dict() for row in self.rows])

    def __str__(self) -> str:
        lines = [_COLUMNS, *map(_format_cells, self._shown)] if self._shown else []
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([f"{self.name}: {self.summary}", *table, *self._notes_below()])

    def _repr_html_(self) -> str:
        level = max((row.severity for row in self.rows), key=_SEVERITIES.index, default="ok")
        title = f"{self.name}: {self.summary}"
        rows = [_format_cells(row) for row in self._shown]
        level = "healthy" if level == "ok" else level
        return make_card(title, level, self._notes_below(), _COLUMNS, rows)

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(f"{self.name}: {self.summary}"), title_justify="left")
        for name in _COLUMNS:
            table.add_column(name, justify="right" if name in ("variance", "intended") else "left")
        colours = {"error": "bold red", "warning": "yellow", "note": "cyan"}
        for row in self._shown:
            table.add_row(*map(escape, _format_cells(row)), style=colours.get(row.severity))
        return Group(table, *map(escape, self._notes_below()))

    @property
    def _shown(self) -> list[WeightAudit]:
        """The rows of a table, problems first."""
        shown = [row for row in self.rows if row.role == "kernel" or row.severity != "ok"]
        return sorted(shown, key=lambda row: -_SEVERITIES.index(row.severity))

    def _notes_below(self) -> list[str]:
        """List the lines below the table: each fix once, with its weights."""
        lines = []
        if left_out := len(self.rows) - len(self._shown):
            lines.append(f"Not shown: {left_out} weights without findings, none of them a kernel.")
        groups: dict[str, list[WeightAudit]] = {}
        for row in self.problems:
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


def _format_cells(row: WeightAudit) -> tuple[str, ...]:
    fans = _format_fans(row.true_fans) or _format_fans(row.keras_fans)
    if row.true_fans and row.keras_fans and row.true_fans != row.keras_fans:
        fans += f" (Keras: {_format_fans(row.keras_fans)})"
    return (
        row.path,
        row.initializer,
        fans,
        "" if row.variance is None else f"{row.variance:.3g}",
        "" if row.intended is None else f"{row.intended:.3g}",
        row.follows,
        f"{row.severity}: {', '.join(row.kinds)}" if row.findings else row.severity,
    )


def _format_fans(fans: tuple[float, float] | None) -> str:
    return f"{fans[0]:g}/{fans[1]:g}" if fans else ""
