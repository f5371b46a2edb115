"""`Finding`: one diagnosed fault, in one sentence with its numbers; stored as JSON."""

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

from tensorboard_plugin_initkit.diagnosis.fix import Fix, read_fix
from tensorboard_plugin_initkit.diagnosis.kinds import KINDS
from tensorboard_plugin_initkit.safe_text import write_number
from tensorboard_plugin_initkit.stored_json import (
    Checks,
    check_fields,
    is_count,
    is_list_of,
    is_text,
    load_object,
)

FINDINGS_VERSION = 4

# The page on all kinds, in the folder of this project.
KINDS_PAGE = "docs/explanations/kinds.md"

Severity = Literal["note", "warning", "error"]
Confidence = Literal["certain", "likely", "possible"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault of a training, or of a model before its training.

    Attributes:
        kind: Name of the fault, one of a few: `"vanishing"`, `"nonfinite"`, …
        layer: Path of the layer where it shows, or "" if it concerns the whole model.
        step: `optimizer.iterations` at the first record with enough evidence; `None` for a
            model before its training.
        message: One sentence for people, with the layer, the step and the numbers.
        evidence: The numbers, by name.
        severity: `"note"`, `"warning"` or `"error"`.
        cause: Why it is so, in a sentence, or "".
        fix: The `Fix`: text with code that can be pasted, and what `finding.fix.apply(model, x, y)`
            changes in the model. False if there is no advice.
        confidence: `"certain"` where a contract is broken or a number is no longer one; `"likely"`
            by numbers; `"possible"` for a cause offered because the training fails to learn.
        consequences: Messages of the findings which follow from this one, in order of their steps;
            "Also: " begins those of other causes beside it.
    """

    kind: str
    layer: str
    step: int | None
    message: str
    evidence: dict[str, float] = dataclasses.field(default_factory=dict)
    severity: Severity = dataclasses.field(default="warning", kw_only=True)
    cause: str = dataclasses.field(default="", kw_only=True)
    fix: Fix = dataclasses.field(default=Fix(), kw_only=True)
    confidence: Confidence = dataclasses.field(default="likely", kw_only=True)
    consequences: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    @property
    def key(self) -> tuple[str, str]:
        """Identity of the fault: two findings with the same key are reported once."""
        return self.kind, self.layer

    @property
    def text(self) -> str:
        """The message, the cause and what to change, in one paragraph."""
        change = f"What to change: {str(self.fix).rstrip('.')}." if self.fix else ""
        return " ".join(part for part in (self.message, self.cause, change) if part)

    @property
    def numbers(self) -> dict[str, str]:
        """The evidence as text for people, by names without underscores."""
        return {name.replace("_", " "): write_number(x) for name, x in self.evidence.items()}

    @property
    def link(self) -> str:
        """Place of its kind on the page of kinds; "" for one that has no section there."""
        return f"{KINDS_PAGE}#{self.kind}" if self.kind in KINDS else ""

    @property
    def rank(self) -> int:
        """Place in a list by step: -1 for a model before its training."""
        return -1 if self.step is None else self.step


def count_layers(count: int) -> str:
    """Write a number of layers for a message."""
    return "1 layer" if count == 1 else f"{count} layers"


def to_json(findings: Iterable[Finding]) -> str:
    """Serialise; NaN and infinity become strings, as JSON has neither."""
    content = [
        dataclasses.asdict(finding)
        | {"evidence": {name: _encode(value) for name, value in finding.evidence.items()}}
        for finding in findings
    ]
    return json.dumps({"version": FINDINGS_VERSION, "findings": content}, allow_nan=False)


def from_json(text: str | bytes) -> list[Finding]:
    """Read the output of `to_json`; raise ValueError for anything else."""
    content = load_object(text, FINDINGS_VERSION, _CONTENT, "findings of a log")
    items = [check_fields(item, _FIELDS, "finding") for item in content["findings"]]
    return [
        Finding(
            **item
            | {"evidence": _decode(item["evidence"]), "fix": read_fix(item["fix"])}
            | {"consequences": tuple(item["consequences"])}
        )
        for item in items
    ]


def merge_findings(reports: Iterable[Iterable[Finding]]) -> list[Finding]:
    """Return all findings of a log, each once, in order of steps; each report repeats earlier ones.

    The reports are in the order of the log.
    """
    unique = {(f.kind, f.layer, f.step, f.message): f for report in reports for f in report}
    return sorted(unique.values(), key=lambda finding: finding.rank)


def _decode(evidence: dict[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in evidence.items()}


def _is_evidence(value: Any) -> bool:
    try:
        return isinstance(_decode(value), dict)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return False


_CONTENT: Checks = {"version": is_count, "findings": lambda value: isinstance(value, list)}
_FIELDS: Checks = dict.fromkeys(("kind", "layer", "message", "cause"), is_text) | {
    "step": lambda value: value is None or is_count(value),
    "evidence": _is_evidence,
    "fix": lambda value: isinstance(value, dict),
    "severity": lambda value: value in get_args(Severity),
    "confidence": lambda value: value in get_args(Confidence),
    "consequences": is_list_of(is_text),
}


def _encode(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))
