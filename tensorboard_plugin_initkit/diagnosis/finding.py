"""`Finding`: what is wrong with a training, in one sentence with its numbers; stored as JSON."""

import dataclasses
import json
import math
from collections.abc import Iterable

FINDINGS_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Finding:
    """A verdict on a training.

    Attributes:
        kind: What is wrong, one of a few words: `"vanishing"`, `"non_finite"`, …
        layer: Path of the layer where it shows, or "" if it concerns the whole model.
        step: `optimizer.iterations` at the record with which it could first be said.
        message: One sentence for people, with the layer, the step and the numbers.
        evidence: The numbers, by name.
    """

    kind: str
    layer: str
    step: int
    message: str
    evidence: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """What makes two findings the same one, said once."""
        return self.kind, self.layer


def to_json(findings: Iterable[Finding]) -> str:
    """Serialise; numbers that are not finite become strings, as JSON has none."""
    content = [
        dataclasses.asdict(finding)
        | {"evidence": {name: _encoded(value) for name, value in finding.evidence.items()}}
        for finding in findings
    ]
    return json.dumps({"version": FINDINGS_VERSION, "findings": content}, allow_nan=False)


def from_json(text: str | bytes) -> list[Finding]:
    """Read what `to_json` wrote.

    Raises:
        ValueError: If it was written by another version.
    """
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


def merged(texts: Iterable[str | bytes]) -> list[Finding]:
    """All findings of a log, each once, in order of steps; each text repeats those before it.

    Args:
        texts: What `to_json` wrote, in the order of the log.

    Raises:
        ValueError: If one was written by another version.
    """
    found = [finding for text in texts for finding in from_json(text)]
    unique = {(f.kind, f.layer, f.step, f.message): f for f in found}
    return sorted(unique.values(), key=lambda finding: finding.step)


def _encoded(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))
