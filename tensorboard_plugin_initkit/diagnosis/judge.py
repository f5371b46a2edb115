"""`judge`: all findings in a history, by pure rules; what follows from another is folded into it.

There are tiers of rules, from causes to symptoms:

- contracts between output, loss and targets: told at once where they are broken;
- causes in data, structure and updates: told only where there is a symptom;
- faults of gradients and updates, and symptoms in output and loss: told where they hold.

Of those with layers, heads and optimizers in common, the first in this order is told, and the
others are its consequences.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import IntEnum

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.ruled_out import (
    find_not_learning,
    find_own_step,
    find_part_learned,
)
from tensorboard_plugin_initkit.diagnosis.rules.contracts import CONTRACT_RULES
from tensorboard_plugin_initkit.diagnosis.rules.data import (
    DATA_CAUSES,
    find_losses_of_two_classes,
    find_missing_classes,
    find_other_losses,
    find_rare_classes,
)
from tensorboard_plugin_initkit.diagnosis.rules.progress import (
    find_constant_loss,
    find_constant_output,
    find_early_averages,
    find_early_end,
    find_no_better_than_guessing,
    find_oscillation,
    find_rising_loss,
)
from tensorboard_plugin_initkit.diagnosis.rules.silent import (
    find_cut_off,
    find_dead_units,
    find_no_gradient,
)
from tensorboard_plugin_initkit.diagnosis.rules.strength import (
    find_growth,
    find_nonfinite,
    find_slopes,
    find_spikes,
)
from tensorboard_plugin_initkit.diagnosis.rules.structure import STRUCTURE_CAUSES
from tensorboard_plugin_initkit.diagnosis.rules.updates import (
    find_large_updates,
    find_noisy_gradient,
    find_small_updates,
    find_tight_clipping,
    find_unfit_updates,
)
from tensorboard_plugin_initkit.diagnosis.scope import Scope
from tensorboard_plugin_initkit.record.history import GradientHistory

Rule = Callable[[Facts], Iterable[Finding]]


class Tier(IntEnum):
    """Place of a rule between causes and symptoms: an earlier one explains a later one."""

    CONTRACT = 0
    DATA = 1
    STRUCTURE = 2
    FAULT = 3
    UPDATE = 4
    HINT = 5  # of an output that could be better
    SYMPTOM = 6
    VERDICT = 7


# Told after faults of gradients, which make updates small, too.
UPDATE_CAUSES: tuple[Rule, ...] = (
    find_other_losses,
    find_unfit_updates,
    find_tight_clipping,
    find_noisy_gradient,
    find_losses_of_two_classes,
)

# At the same step, an earlier one speaks first, and its echoes are folded into it.
FAULTS: tuple[Rule, ...] = (
    find_slopes,
    find_cut_off,
    find_no_gradient,
    find_large_updates,
    find_small_updates,
    find_growth,
    find_dead_units,
)
SYMPTOMS: tuple[Rule, ...] = (
    find_constant_output,
    find_rising_loss,
    find_oscillation,
    find_constant_loss,
    find_no_better_than_guessing,
)
# Of a training that is over, if nothing else is told: the first that speaks.
ENDS: tuple[Rule, ...] = (
    find_missing_classes,
    find_rare_classes,
    find_part_learned,
    find_early_averages,
    find_early_end,
    find_own_step,
)
# Scales that make a training slow.
_SLOW = ("input_scale", "feature_scales", "target_scale")
# These are told as consequences of others, or of the verdict.
_BARE_SYMPTOMS = ("no_better_than_guessing", "constant_loss")

# Of causes, those with which numbers can grow beyond all measure.
_OVERFLOWS = ("bad_start", "learning_rate")
# Faults that are told of a training that learns, too: nobody builds them on purpose.
_NEVER_MEANT = ("output_dropout", "wrong_axis", "unused_input")

# Courses of the loss with which causes are told, though no symptom is.
_FLAT, _FAR, _LEFT, _STILL = "flat", "far", "left", "still"

Ranked = tuple[Tier, Finding]


def judge(
    history: GradientHistory, ended: bool = False, ignore: Collection[str] = ()
) -> list[Finding]:
    """Return all findings in a history, in order of step.

    Each is at the first record with enough evidence, at any schedule. While records are only added,
    they are found again later: ask `news` for the new ones. What follows from a finding, and came
    with it or later, is in its `consequences`; what came before its cause stays by itself as well.

    Args:
        history: The records, with the model's setup where it is known.
        ended: If the training has ended.
        ignore: Kinds of findings to leave out; what follows from one is told by itself.
    """
    # Of spikes hardly anything is known, and they are no part of the course of a training.
    is_ordinary = np.isnan(history["spike"]).all(axis=1)
    spikes = [] if is_ordinary.all() else list(find_spikes(Facts(history)))
    if spikes:
        history = history.select(is_ordinary)
    whole = Facts(history, ended=ended)
    is_read = bool(len(history) and history.variables)
    # Of a training that was refused there are data, and no gradients.
    has_loss = any(head.loss for head in whole.setup.heads)
    is_asked = "nonfinite" not in ignore and (is_read or (len(history) and has_loss))
    lost = list(find_nonfinite(whole)) if is_asked else []
    facts = whole
    if lost:  # What comes after it follows from it.
        row = int(np.searchsorted(whole.steps, lost[0].rank))
        whole, facts = (Facts(history, slice(0, end)) for end in (row + 1, row))
    contracts = _apply(Tier.CONTRACT, CONTRACT_RULES, whole)
    found = [(Tier.CONTRACT if x.severity == "error" else Tier.HINT, x) for _, x in contracts]
    if is_read and len(facts.steps):
        found += _apply(Tier.FAULT, FAULTS, facts)
        found += _apply(Tier.SYMPTOM, SYMPTOMS, facts)
        verdict = functools.partial(find_not_learning, fits=not contracts)
        found += _apply(Tier.VERDICT, (verdict,), facts)
    scope = Scope(whole)
    found = [(tier, finding) for tier, finding in found if not scope.is_idle(finding.layer)]
    # Data that are not finite follow from nothing else.
    found += [(Tier.CONTRACT if "data" in x.evidence else Tier.FAULT, x) for x in lost]
    symptoms = [finding for tier, finding in found if tier != Tier.HINT]
    found += _told_causes(whole, scope, symptoms)
    found.sort(key=lambda ranked: (ranked[1].rank, ranked[0]))
    roots = [root for root in _fold(found, scope, ignore) if root.kind not in _BARE_SYMPTOMS]
    if is_read and not roots:
        ends = ([end for end in rule(facts) if end.kind not in ignore] for rule in ENDS)
        roots = next(filter(None, ends), [])
        if roots and roots[0].kind == "ended_early":
            roots = _fold(_note_causes(facts, roots[0]), scope, ignore)
    roots += [spike for spike in spikes if spike.kind not in ignore]
    return sorted(roots, key=lambda finding: finding.rank)


def _apply(tier: Tier, rules: Iterable[Rule], facts: Facts) -> list[Ranked]:
    return [(tier, finding) for rule in rules for finding in rule(facts)]


def _told_causes(facts: Facts, scope: Scope, symptoms: list[Finding]) -> Iterator[Ranked]:
    """Find the causes of symptoms; each is told at the step of the first symptom at least.

    A loss that falls no more opens the door to causes, too, and one far above that of the best
    constant, or above it in the end, to causes in the data; if most of it is left in the end, to
    extreme inputs. What is certain needs neither.
    """
    # Guessing is a flat loss, which may fall by the time that a cause has waited for.
    doors = [x for x in symptoms if x.step is not None and x.kind != "no_better_than_guessing"]
    loss = facts.loss
    courses = {_FLAT: loss.flat | loss.failed, _FAR: loss.far}
    courses |= {_LEFT: loss.left, _STILL: loss.still}
    if not len(facts.steps):
        return
    causes = [
        *_apply(Tier.DATA, DATA_CAUSES, facts),
        *_apply(Tier.STRUCTURE, STRUCTURE_CAUSES, facts),
        *_apply(Tier.UPDATE, UPDATE_CAUSES, facts),
    ]
    for tier, cause in causes:
        if cause.confidence == "certain":
            yield Tier.CONTRACT, cause
            continue
        steps = [
            max(cause.rank, door.rank)
            for door in doors
            if _can_explain(tier, door) and scope.is_common(cause.layer, door.layer)
        ]
        for course, mask in courses.items():
            if _opens(course, tier, cause):
                steps += facts.steps[mask & (facts.steps >= cause.rank)][:1].tolist()
        if steps:
            yield tier, dataclasses.replace(cause, step=min(steps))
        elif cause.kind in _NEVER_MEANT and not cause.evidence.get("used"):
            yield Tier.HINT, cause


def _note_causes(facts: Facts, end: Finding) -> list[Ranked]:
    """Return the end of a training, behind the scales that have made it slow."""
    causes = [
        dataclasses.replace(cause, step=end.step, severity=end.severity)
        for tier, cause in _apply(Tier.DATA, DATA_CAUSES, facts)
        if cause.kind in _SLOW
    ]
    return [*((Tier.DATA, cause) for cause in causes), (Tier.SYMPTOM, end)]


def _fold(found: Iterable[Ranked], scope: Scope, ignore: Collection[str]) -> list[Finding]:
    """Fold each finding that is not ignored into the first explanation, in order of steps."""
    roots: list[_Root] = []
    for tier, finding in found:
        if finding.kind in ignore:
            continue
        explained_by = None
        for root in roots:
            is_common = scope.is_common(root.finding.layer, finding.layer)
            if is_common and _explains((root.tier, root.finding), (tier, finding)):
                explained_by = root
                break
        if explained_by is None:
            before = [
                other.message
                for known, other in ((root.tier, root.finding) for root in roots)
                if (tier == Tier.VERDICT or known > max(tier, Tier.STRUCTURE))
                and known not in (Tier.HINT, Tier.VERDICT)
                and (tier == Tier.VERDICT or _explains((tier, finding), (known, other)))
                and scope.is_common(other.layer, finding.layer)
            ]
            roots.append(_Root(tier, finding, before))
        elif finding.key != explained_by.finding.key and tier != Tier.VERDICT:
            explained_by.add(tier, finding)
    return [root.tell() for root in roots]


@dataclasses.dataclass
class _Root:
    """A finding of its own, and the messages of its consequences."""

    tier: Tier
    finding: Finding
    consequences: list[str]

    def add(self, tier: Tier, other: Finding) -> None:
        """Add a consequence, or another cause; the root of an error is an error."""
        is_cause = tier in (Tier.DATA, Tier.STRUCTURE)
        self.consequences.append(f"{'Also: ' * is_cause}{other.message}")
        ours, theirs = self.finding.fix, other.fix
        if self._is_beside(other) and theirs.repairs and not theirs.repairs.keys() & ours.repairs:
            repairs = ours.repairs | theirs.repairs if ours.repairs else {}
            fix = Fix(f"{ours} {theirs}", repairs)
            self.finding = dataclasses.replace(self.finding, fix=fix)
        if other.severity == "error":
            self.finding = dataclasses.replace(self.finding, severity="error")

    def _is_beside(self, other: Finding) -> bool:
        """Check for a fault of its own, which is left when that of the root is mended."""
        is_loss = self.finding.kind == "loss_choice" and other.kind == "small_updates"
        is_scale = self.tier == Tier.CONTRACT and other.kind in _SLOW
        return is_loss or (is_scale and "with_normalization" not in self.finding.fix.text)

    def tell(self) -> Finding:
        """Return the finding with its consequences."""
        return dataclasses.replace(self.finding, consequences=tuple(self.consequences))


def _opens(course: str, tier: Tier, cause: Finding) -> bool:
    """Check for a course of the loss as a reason to tell a cause."""
    if course == _FAR:
        return tier == Tier.DATA
    if course == _LEFT:
        return cause.kind == "input_scale" and cause.confidence == "likely"
    # Much is left of a loss that falls no more: beside a penalty, or with a linear model.
    is_heavy = cause.kind == "strong_penalty" and cause.confidence == "likely"
    return course == _FLAT or is_heavy or cause.kind == "no_activation"


def _can_explain(tier: Tier, symptom: Finding) -> bool:
    """Check if causes of a tier can have a symptom: data do not cut the graph or slope depth."""
    is_slope = symptom.kind in ("vanishing", "exploding") and bool(symptom.layer)
    is_cut = symptom.kind == "no_gradient" and symptom.confidence == "certain"
    return not (tier == Tier.DATA and (is_slope or is_cut))


def _explains(root: Ranked, other: Ranked) -> bool:
    """Check if a finding follows from another one with layers in common."""
    (tier, finding), (below, symptom) = root, other
    if symptom.kind == "nonfinite" and tier != Tier.CONTRACT:
        return below == Tier.FAULT and finding.kind in _OVERFLOWS and finding.confidence == "likely"
    if {tier, below} <= {Tier.DATA, Tier.STRUCTURE}:  # The first is told.
        return True
    if tier == below:
        if tier in (Tier.CONTRACT, Tier.FAULT):  # These may be several.
            return _echoes(symptom, finding)
        # A bare one says less than any other.
        return finding.kind not in _BARE_SYMPTOMS or symptom.kind in _BARE_SYMPTOMS
    if below == Tier.VERDICT and finding.kind in _BARE_SYMPTOMS:
        return False
    return tier < below and _can_explain(tier, symptom)


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
        or {finding.kind, other.kind} == {"exploding", "rising_loss"}
        or (finding.kind == "dead_units" and other.kind == "large_updates")
    )


def _is_at_input(finding: Finding) -> bool:
    return finding.kind == "vanishing" or finding.evidence.get("from_input") == 1


def _is_partly_dead(finding: Finding) -> bool:
    return finding.kind == "dead_units" and finding.evidence["share"] < 1
