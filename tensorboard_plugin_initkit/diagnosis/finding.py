"""`Finding`: one diagnosed fault, in one sentence with its numbers; stored as JSON."""

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Literal

FINDINGS_VERSION = 2

Severity = Literal["note", "warning", "error"]


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
        fix: Advice in a few words, or "".
    """

    kind: str
    layer: str
    step: int | None
    message: str
    evidence: dict[str, float] = dataclasses.field(default_factory=dict)
    severity: Severity = dataclasses.field(default="warning", kw_only=True)
    fix: str = dataclasses.field(default="", kw_only=True)

    @property
    def key(self) -> tuple[str, str]:
        """Identity of the fault: two findings with the same key are reported once."""
        return self.kind, self.layer

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
    """Read the output of `to_json`; raise ValueError for another version."""
    content = json.loads(text)
    if content["version"] != FINDINGS_VERSION:
        raise ValueError(
            f"The findings must have version {FINDINGS_VERSION}. Received: version "
            f"{content['version']}. Read them with the keras-initkit that wrote them."
        )
    return [
        Finding(
            **item | {"evidence": {name: float(value) for name, value in item["evidence"].items()}}
        )
        for item in content["findings"]
    ]


def merge_findings(texts: Iterable[str | bytes]) -> list[Finding]:
    """Return all findings of a log, each once, in order of steps; each text repeats earlier ones.

    The texts are outputs of `to_json`, in the order of the log.
    """
    found = [finding for text in texts for finding in from_json(text)]
    unique = {(f.kind, f.layer, f.step, f.message): f for f in found}
    return sorted(unique.values(), key=lambda finding: finding.rank)


def _encode(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))
