"""`Trial`: a short training of a copy of a model, with some fixes."""

import dataclasses
import math
import random
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.callbacks.gradient_monitor import GradientMonitor
from keras_initkit.models.check.check import check
from keras_initkit.models.check.sample import Batch
from keras_initkit.models.repair.rebuild import copy_model
from tensorboard_plugin_initkit.diagnosis.diagnosis import Diagnosis, diagnose_history
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.loss import read_loss
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup

# Below this part of the loss of the best constant, or of the first one, something is learned.
LEARNED = 0.9


@dataclasses.dataclass(frozen=True)
class Trial:
    """A short training of a copy of a model.

    Attributes:
        findings: Those mended, in order; none for the model as it is.
        model: The copy, trained. `None` if it could not be made, or is not kept.
        loss: The loss of each step without penalties, (steps,).
        guess: The loss of the best constant prediction; NaN if it is not known.
        diagnosis: The diagnosis of this training.
        error: The exception at its end, or of the fix; "" for none.
    """

    findings: tuple[Finding, ...] = ()
    model: Any = None
    loss: npt.NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))
    guess: float = math.nan
    diagnosis: Diagnosis = dataclasses.field(default_factory=lambda: Diagnosis(()))
    error: str = ""

    @property
    def name(self) -> str:
        """The kinds of the mended findings, with learning rates."""
        return " + ".join(map(_name, self.findings)) or "unchanged"

    @property
    def last(self) -> float:
        """The loss over the last fifth of the steps, on average."""
        count = max(1, len(self.loss) // 5)
        return float(np.mean(self.loss[-count:])) if len(self.loss) else math.nan

    @property
    def level(self) -> float:
        """The loss relative to that of the best constant, or to the first one if it is not known.

        Infinite where a contract is broken: then a loss that falls is no proof.
        """
        reference = self.guess if np.isfinite(self.guess) else self.loss[:1].sum()
        is_broken = any(finding.severity == "error" for finding in self.diagnosis)
        if self.error or is_broken or not np.isfinite(self.last) or not reference > 0:
            return math.inf
        return self.last / float(reference)

    @property
    def learns(self) -> bool:
        """Whether it learns more than a constant."""
        return self.level < LEARNED


def try_fixes(
    model: Any, data: Batch, size: int, steps: int, seed: int, findings: Sequence[Finding] = ()
) -> Trial:
    """Train a copy of a model with fixes, always with the same numbers and batches of a size."""
    trial = Trial(tuple(findings))
    random.seed(seed)
    np.random.seed(seed)
    copy = copy_model(model, data[0])
    with warnings.catch_warnings():  # findings say the same
        warnings.simplefilter("ignore")
        try:
            for finding in findings:
                copy = finding.fix.apply(copy, *data[:2])
        except ValueError as error:
            return dataclasses.replace(trial, error=str(error))
        history, raised = _train(copy, data, size, steps)
        diagnosis = _explain(copy, data) if raised else diagnose_history(history)
    loss = read_loss(history, history.setup or Setup())
    guess = float(loss.guess[-1]) if len(history) else math.nan
    return Trial(trial.findings, copy, loss.value, guess, diagnosis, raised)


def _name(finding: Finding) -> str:
    rate = finding.fix.repairs.get("learning_rate", {}).get("value")
    return finding.kind if rate is None else f"{finding.kind} ({rate:g})"


def _explain(model: Any, data: Batch) -> Diagnosis:
    """Explain an exception in a training, by the data alone."""
    try:
        return check(model, *data)
    except Exception:  # the same one, which nothing explains
        return Diagnosis(())


def _train(model: Any, data: Batch, size: int, steps: int) -> tuple[GradientHistory, str]:
    """Train a model; return its record, and the exception at its end, if any."""
    monitor = GradientMonitor(every_n_steps=1, on_finding=lambda finding: None)
    x, y, weight = data
    epochs = math.ceil(steps * size / len(keras.tree.flatten(x)[0]))
    arguments = {"epochs": epochs, "shuffle": False, "verbose": 0, "callbacks": [monitor]}
    try:
        model.fit(x, y, size, sample_weight=weight, **arguments)
    except Exception as error:  # of a model that does not fit its data, which a finding explains
        return monitor.history, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return monitor.history, ""
