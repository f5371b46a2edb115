"""`Diagnosis`: the findings in a history, the worst first, and the verdict on it."""

import json
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Self, overload

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding, to_json
from tensorboard_plugin_initkit.diagnosis.judge import judge
from tensorboard_plugin_initkit.diagnosis.kinds import check_kinds
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.notebook import FINDING_COLUMNS, finding_rows, make_card
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import write_number

_SEVERITIES = ("error", "warning", "note")
_CONFIDENCES = ("certain", "likely", "possible")


class Verdict(NamedTuple):
    """What is said of a whole training.

    Attributes:
        level: `"error"` if it does not learn, `"warning"` if it does with a fault, `"healthy"`, or
            `"open"`.
        text: A sentence or two.
        finding: The worst finding, of which it speaks, if there is one.
    """

    level: Literal["error", "warning", "healthy", "open"]
    text: str
    finding: Finding | None = None


class Diagnosis(Sequence[Finding]):
    """The findings in a training, or in a model before its training.

    A sequence of `Finding`s, the worst one first; without any it is false, as an empty list.
    `print(diagnosis)` tells everything: for each finding what was seen, why that stops learning,
    and what to change.

    Example:
    ```python
    diagnosis = keras_initkit.diagnose("runs/first")
    print(diagnosis.verdict)
    for finding in diagnosis:
        print(finding.kind, finding.fix)
    ```

    Attributes:
        findings: Tuple of `Finding`s: errors first, then warnings, then notes.
        verdict: A sentence or two on the whole.
        notes: Sentences on what could not be looked at, as damaged parts of a log.
    """

    def __init__(
        self, findings: Iterable[Finding], verdict: str = "", notes: Iterable[str] = ()
    ) -> None:
        self.findings = tuple(sorted(findings, key=_weigh))
        self.verdict = verdict
        self.notes = tuple(notes)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self.findings[index]

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        return f"<Diagnosis with {len(self)} findings: {self.verdict}>"

    def _repr_html_(self) -> str:
        level = self[0].severity if self else ""
        return make_card(self.verdict, level, self.notes, FINDING_COLUMNS, finding_rows(self))

    def __str__(self) -> str:
        told = [_tell(number, finding) for number, finding in enumerate(self, 1)]
        return "\n\n".join([self.verdict, *told, *(f"Note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Return verdict, findings and notes for JSON; NaN and infinity are strings."""
        findings = json.loads(to_json(self.findings))["findings"]
        return {"verdict": self.verdict, "findings": findings, "notes": list(self.notes)}

    def raise_for_errors(self) -> Self:
        """Raise a ValueError if a finding is an error; return the diagnosis otherwise.

        Raises:
            ValueError: With the diagnosis as text.
        """
        if any(finding.severity == "error" for finding in self):
            raise ValueError(str(self))
        return self


def diagnose_history(
    history: GradientHistory, ignore: Collection[str] = (), *, is_start: bool = False
) -> Diagnosis:
    """Judge a history.

    Args:
        history: The records.
        ignore: Kinds of findings to leave out.
        is_start: If the history is a check before training, of one record.

    Raises:
        ValueError: If there is no such kind.
    """
    found = Diagnosis(judge(history, history.ended, check_kinds(ignore))).findings
    verdict = _tell_start(found) if is_start else tell_verdict(history, found).text
    return Diagnosis(found, verdict, history.notes)


def _weigh(finding: Finding) -> tuple[int, int, int]:
    return (
        _SEVERITIES.index(finding.severity),
        _CONFIDENCES.index(finding.confidence),
        finding.rank,
    )


def _tell_start(findings: Sequence[Finding]) -> str:
    """Return the verdict on a model before its training."""
    faults = [finding for finding in findings if finding.severity != "note"]
    if not faults:
        return "Nothing wrong found before training."
    is_error = faults[0].severity == "error"
    return f"{'Will not learn' if is_error else 'May not learn'}. {faults[0].message}"


def tell_verdict(history: GradientHistory, findings: Iterable[Finding]) -> Verdict:
    """Return the verdict on a training with these findings."""
    facts = Facts(history)
    worst = min(findings, key=_weigh, default=None)
    if worst is None or worst.severity == "note":
        verdict = _tell_faultless(facts)
        if worst is None or verdict.level == "healthy":
            return verdict
        return Verdict("open", f"{verdict.text} {worst.message}", worst)
    last = facts.loss.at(slice(-1, None))
    # A window of small batches may fall by chance: then the loss is not far below the guess.
    near = last.recent > (1 - THRESHOLDS["guess_near"].value) * last.guess
    if (last.halved | (last.falling & ~near)).any() and worst.severity != "error":
        return Verdict("warning", f"Learns, but something is wrong. {worst.message}", worst)
    return Verdict("error", f"Does not learn. {worst.message}", worst)


def _tell_faultless(facts: Facts) -> Verdict:
    """Return the verdict on a training in which nothing, or nothing but notes, was found."""
    needed = int(THRESHOLDS["depth_window_steps"].value)
    steps = int(facts.steps[-1] - facts.steps[0]) + 1 if len(facts.steps) else 0
    if steps < needed:
        return Verdict("open", f"Too early to say: {steps} of {needed} steps.")
    loss = facts.loss.value[np.isfinite(facts.loss.value)]
    if not len(loss):
        return Verdict("open", f"Nothing wrong found in {steps:,} steps; the loss is not known.")
    now, guess = facts.loss.recent[-1], facts.loss.guess[-1]
    if now > (1 - THRESHOLDS["guess_margin"].value) * guess:
        return Verdict(
            "open",
            f"No better than guessing yet: the loss is {write_number(now, 3)}; always "
            f"predicting the same gives {write_number(guess, 3)}.",
        )
    begin, end = (write_number(value, 3) for value in loss[[0, -1]])
    course = f"the loss was {begin} at first and {end} after {steps:,} steps"
    # In a step of one's own that computes its loss elsewhere.
    is_seen = facts.ports_of("y_pred") or not facts.setup.layers
    unseen = "" if is_seen else " Outputs and targets are not seen: no `compute_loss` is called."
    if facts.loss.good[-1:].any():
        return Verdict("healthy", f"Healthy: {course}.{unseen}")
    return Verdict("open", f"Nothing wrong found: {course}.{unseen}")


def _tell(number: int, finding: Finding) -> str:
    """Return a finding as a paragraph."""
    where = [finding.kind, *([f"`{finding.layer}`"] if finding.layer else [])]
    if finding.step is not None:
        where.append(f"step {finding.step:,}")
    parts = [f"{number}. {finding.severity}, {finding.confidence}: {', '.join(where)}"]
    parts.append(_wrap(finding.message))
    if finding.cause:
        parts.append(_wrap(f"Why: {finding.cause}"))
    if finding.fix:
        parts.append(_wrap("What to change:"))
        # Code in a sentence is folded with it, a block of code stays as it is.
        is_block = "\n" in finding.fix.text
        indent = " " * 7
        fold = textwrap.indent if is_block else _wrap
        parts.append(fold(finding.fix.text, indent))
    if finding.evidence:
        numbers = ", ".join(map(" ".join, finding.numbers.items()))
        parts.append(_wrap(f"Numbers: {numbers}"))
    if finding.consequences:
        parts.append(_wrap("What follows from this:"))
        parts += [_wrap(f"- {message}", "     ", "       ") for message in finding.consequences]
    if finding.link:
        parts.append(_wrap(f"More: {finding.link}"))
    return "\n".join(parts)


def _wrap(text: str, indent: str = "   ", below: str = "") -> str:
    return textwrap.fill(
        text,
        96,
        initial_indent=indent,
        subsequent_indent=below or indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
