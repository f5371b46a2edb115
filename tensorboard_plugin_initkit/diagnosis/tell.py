"""`tell`: a finding of a rule on outputs, data or structure."""

from collections.abc import Mapping
from types import MappingProxyType

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Confidence, Finding, Severity
from tensorboard_plugin_initkit.diagnosis.fix import Fix


def tell(
    facts: Facts,
    kind: str,
    seen: str,
    cause: str,
    fix: str | Fix,
    layer: str = "",
    numbers: Mapping[str, float] = MappingProxyType({}),
    *,
    row: int = 0,
    confidence: Confidence = "possible",
    severity: Severity = "warning",
) -> Finding:
    """Make a finding at a record, of numbers by name; its step is `None` without any records.

    A broken contract is an error, and certain. A fix without repairs may be a string.
    """
    step = int(facts.steps[row]) if len(facts.steps) else None
    evidence = {name: float(number) for name, number in numbers.items()}
    return Finding(
        kind,
        layer,
        step,
        seen,
        evidence,
        severity=severity,
        cause=cause,
        fix=Fix(fix) if isinstance(fix, str) else fix,
        confidence="certain" if severity == "error" else confidence,
    )
