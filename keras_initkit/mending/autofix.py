"""`autofix`: trials of the fixes of a diagnosis, on copies of a model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_initkit.anatomy.compilation import read_compile_arguments, read_optimizer
from keras_initkit.anatomy.seeds import random_state_kept
from keras_initkit.checks import check_count
from keras_initkit.mending.trial import Trial, try_fixes
from keras_initkit.models.check.check import check_model
from keras_initkit.models.check.sample import draw_training
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix

# A fix helps if it leaves less than this part of the loss that was left without it.
_HELPS = 0.95


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


def autofix(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int = 32,
    *,
    steps: int = 120,
    rounds: int = 3,
    seed: int = 0,
) -> Mending:
    """Find the fixes to make a model learn, by short trainings of copies of it.

    A copy is trained as it is and diagnosed. Each fix with repairs is tried on another copy, from
    the same weights, on the same batches, with the same random numbers. The copy with the best one
    is diagnosed again, in case there are several faults.

    The model itself is not changed, nor its compilation, its optimizer and the random state; it is
    only built, as by `fit`. `apply` makes the changes in it:

    Example:
    ```python
    mending = keras_initkit.autofix(model, x, y)
    print(mending)
    model = mending.apply(model, x, y)
    model.fit(x, y, epochs=10)
    ```

    Args:
        model: A compiled `keras.Model`. Keras must be able to copy it by its configuration.
        x: Data as for `check`: arrays and structures of them, or a stream of batches. Rows for at
            most 64 batches are kept in memory; a generator no longer yields these.
        y: Targets, if `x` is arrays.
        sample_weight: Weights of the samples, if `x` is arrays.
        batch_size: Number of samples of one step, if `x` is arrays.
        steps: Number of steps of each training, in whole epochs of these rows. Some faults show
            only after 100.
        rounds: Number of fixes to combine at most.
        seed: Integer for the order of the samples and the random numbers of the copies.

    Returns:
        A `Mending`: the verdict, the helpful fixes, all trials with their losses, the best copy.

    Raises:
        TypeError: If `model` is no `keras.Model`.
        ValueError: If it is not compiled by `compile`, or cannot be copied; if an argument is not
            as described; and as `check` does for data.
    """
    check_model(model)
    _check_compiled(model)
    for name, value in (("batch_size", batch_size), ("steps", steps), ("rounds", rounds)):
        check_count(name, value)
    data, size = draw_training(x, y, sample_weight, batch_size, steps, seed)
    with random_state_kept():
        best = try_fixes(model, data, size, steps, seed)
        trials = [dataclasses.replace(best, model=None)]
        for _ in range(rounds):
            better = best
            for candidates in (_list_fixes(best), _list_rates(best)):
                for finding in candidates:
                    findings = (*best.findings, finding)
                    found = try_fixes(model, data, size, steps, seed, findings)
                    trials.append(dataclasses.replace(found, model=None))
                    if found.level < min(_HELPS * best.level, better.level):
                        better = found
                if better is not best:
                    break
            else:
                break
            best = better
    return _report(best, trials)


def _check_compiled(model: Any) -> None:
    try:
        read_compile_arguments(model)
    except ValueError as error:
        raise ValueError(
            f"`model` must be compiled by `keras.Model.compile`. Received: {model.name!r}, which "
            "is not. Call `model.compile(optimizer, loss)` first."
        ) from error


def _list_fixes(trial: Trial) -> list[Finding]:
    """List the findings to mend next: where contracts are broken, these alone."""
    broken = [finding for finding in trial.diagnosis if finding.severity == "error"]
    made = [finding.fix.repairs for finding in trial.findings]
    found = [f for f in broken or trial.diagnosis if f.fix.repairs and f.fix.repairs not in made]
    return [f for i, f in enumerate(found) if f.fix not in [other.fix for other in found[:i]]]


def _list_rates(trial: Trial) -> list[Finding]:
    """List other learning rates, for a training in vain without known faults."""
    rate = read_optimizer(trial.model)[1].get("learning_rate")
    is_broken = trial.error or any(finding.severity == "error" for finding in trial.diagnosis)
    if trial.learns or is_broken or not rate:
        return []
    values = [float(f"{rate * factor:.3g}") for factor in (10, 0.1)]
    return [
        Finding(
            "learning_rate",
            "",
            None,
            f"Another learning rate: {value:g}.",
            fix=Fix(f"Use the learning rate {value:g}.", {"learning_rate": {"value": value}}),
        )
        for value in values
    ]


def _report(best: Trial, trials: Sequence[Trial]) -> Mending:
    steps, unchanged = len(best.loss), trials[0]
    losses = f"after {steps} steps the loss is {best.last:.3g}"
    if best.guess > 0:
        losses += f"; always predicting the same gives {best.guess:.3g}"
    if best.findings:
        helped = " and ".join(f"`{finding.kind}`" for finding in best.findings)
        verdict = f"Fixing {helped} helped: {losses}. Unchanged, the loss is {unchanged.last:.3g}."
        if not best.learns:
            verdict += " That is not enough to say that the model learns."
    elif best.learns:
        verdict = f"The model learns as it is: {losses}."
    else:
        verdict = f"No fix helped: {unchanged.error or losses}."
    by_hand = {f.key: f for f in best.diagnosis if f.fix and not f.fix.repairs}
    return Mending(
        verdict,
        best.model,
        tuple(finding.fix for finding in best.findings),
        tuple(trials),
        tuple(by_hand.values()),
    )


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
