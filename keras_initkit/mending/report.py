"""`Mending`: the results of the trials of fixes."""

import dataclasses
from typing import Any

from keras_initkit.mending.trial import Trial
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix


@dataclasses.dataclass(frozen=True)
class Mending:
    """The trials of fixes on copies of a model. `print(mending)` shows all of it.

    Attributes:
        verdict: A sentence or two on the whole.
        model: The copy with `fixes`, trained for the steps of a trial.
        fixes: The helpful fixes, in order; empty if none is, or none is needed.
        trials: All trials, the model as it is first. Their models are not kept.
        by_hand: Findings with changes outside of the model.
    """

    verdict: str
    model: Any
    fixes: tuple[Fix, ...]
    trials: tuple[Trial, ...]
    by_hand: tuple[Finding, ...]

    def apply(self, model: Any, x: Any = None, y: Any = None) -> Any:
        """Make the helpful changes in a model; return the model to train on.

        Arguments, results and errors are those of `Fix.apply`.
        """
        for fix in self.fixes:
            model = fix.apply(model, x, y)
        return model

    def __str__(self) -> str:
        width = max(len(trial.name) for trial in self.trials)
        lines = [self.verdict, "", f"{'tried':{width}}  {'first':>9} {'last':>9} {'guess':>9}"]
        for trial in self.trials:
            first = trial.loss[0] if len(trial.loss) else float("nan")
            told = "  ".join(filter(None, [_tell(trial), trial.error]))
            numbers = f"{first:9.4g} {trial.last:9.4g} {trial.guess:9.4g}"
            lines.append(f"{trial.name:{width}}  {numbers}  {told}".rstrip())
        if self.fixes:
            lines += ["", "What helped:"]
            lines += [f"- {fix}\n  Made: {_write(fix)}" for fix in self.fixes]
        if self.by_hand:
            lines += ["", "To do by hand:", *(f"- {f.kind}: {f.fix}" for f in self.by_hand)]
        return "\n".join(lines)


def _write(fix: Fix) -> str:
    """Write the repairs of a fix, of which the text may name several."""
    calls = []
    for name, arguments in fix.repairs.items():
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        calls.append(f"{name}({shown})")
    return ", ".join(calls)


def _tell(trial: Trial) -> str:
    if trial.learns:
        return "learns"
    faults = [finding.kind for finding in trial.diagnosis if finding.severity == "error"]
    return ", ".join(dict.fromkeys(faults))
