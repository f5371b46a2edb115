"""`judge`: all findings in a history, by pure rules."""

from collections.abc import Callable, Iterable

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.rules.silent import (
    find_cut_off,
    find_dead_units,
    find_no_gradient,
)
from tensorboard_plugin_initkit.diagnosis.rules.strength import (
    find_growth,
    find_nonfinite,
    find_slopes,
)
from tensorboard_plugin_initkit.diagnosis.rules.updates import (
    find_large_updates,
    find_small_updates,
)
from tensorboard_plugin_initkit.record.history import GradientHistory

Rule = Callable[[Facts], Iterable[Finding]]

# At the same step, an earlier one speaks first, and its echoes stay silent.
RULES: tuple[Rule, ...] = (
    find_slopes,
    find_cut_off,
    find_no_gradient,
    find_large_updates,
    find_small_updates,
    find_growth,
    find_dead_units,
)


def judge(history: GradientHistory) -> list[Finding]:
    """Return all findings in a history, in order of step.

    Each is at the first record with enough evidence, at any schedule. While records are only added,
    they are found again later: ask `news` for the new ones.
    """
    if not len(history) or not history.variables:
        return []
    facts = Facts(history)
    lost = list(find_nonfinite(facts))
    if lost:  # What comes after it follows from it.
        facts = Facts(history, slice(0, int(np.searchsorted(facts.steps, lost[0].rank))))
    found = [finding for rule in RULES for finding in rule(facts)] if len(facts.steps) else []
    return news((), [*sorted(found, key=lambda finding: finding.rank), *lost])


def news(known: Iterable[Finding], judged: Iterable[Finding]) -> list[Finding]:
    """Return the new findings of a history under repeated judgement.

    A thinned history loses records: later on a finding can come a few records later, and with
    another layer.
    """
    said = list(known)
    count = len(said)
    for finding in judged:
        if not any(_echoes(finding, other) for other in said):
            said.append(finding)
    return said[count:]


def _echoes(finding: Finding, other: Finding) -> bool:
    """Check for a finding implied by another one."""
    return (
        finding.key == other.key
        or other.kind == "nonfinite"
        or (_is_at_input(finding) and _is_at_input(other))
        or (_is_partly_dead(finding) and other.kind in ("dead_units", "vanishing"))
    )


def _is_at_input(finding: Finding) -> bool:
    return finding.kind == "vanishing" or finding.evidence.get("from_input") == 1


def _is_partly_dead(finding: Finding) -> bool:
    return finding.kind == "dead_units" and finding.evidence["share"] < 1
