"""`Announcer`: what becomes of a new finding; and the line at the end of a training."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_initkit.user_warnings import tell_user, warn_user
from tensorboard_plugin_initkit.diagnosis.diagnosis import tell_verdict
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.record.history import GradientHistory, tell_extent

OnFinding = str | Callable[[Finding], Any]
CHOICES = ("warn", "stop", "raise")


class GradientWarning(UserWarning):
    """A fault of a training, found by a `GradientMonitor`."""


class FindingError(RuntimeError):
    """A fault of a training, raised by a `GradientMonitor` with `on_finding="raise"`.

    Attributes:
        finding: The `Finding`.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


class UserError(Exception):
    """An error of a function that the user gave, which ends the training.

    Attributes:
        error: The error.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def sum_up(history: GradientHistory, log_dir: Path | str | None, run: str) -> None:
    """Print one line at the end of a training: the records, the verdict, how to see them."""
    see = "`keras_initkit.plot(monitor.history)`"
    where = ""
    if log_dir is not None:
        place = str(log_dir)
        if isinstance(log_dir, Path) and log_dir.is_relative_to(Path.cwd()):
            place = str(log_dir.relative_to(Path.cwd()))
        see, where = f"`tensorboard --logdir {shlex.quote(place)}`", f" in {place}/{run}"
    verdict = tell_verdict(history, history.findings).text
    line = f"GradientMonitor: {tell_extent(history)}{where}. {verdict} To see it: {see}\n"
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "replace").decode(encoding))


class Announcer:
    """Announces findings on the training thread, each once; mere notes it leaves out."""

    def __init__(self, on_finding: OnFinding) -> None:
        self._on_finding = on_finding
        self._unsaid: list[Finding] = []

    def take(self, findings: Sequence[Finding]) -> None:
        """Take findings, to announce them when the training thread is at hand."""
        self._unsaid += [finding for finding in findings if finding.severity != "note"]

    def announce(self, model: Any, is_over: bool = False) -> None:
        """Announce what was taken; of a training that is over, all without an exception.

        Raises:
            FindingError: With `on_finding="raise"`.
            UserError: Caused by the exception of the user's function.
        """
        say = tell_user if is_over else warn_user
        while self._unsaid:
            finding = self._unsaid.pop(0)
            if callable(self._on_finding):
                try:
                    self._on_finding(finding)
                except Exception as error:
                    raise UserError(error) from error
            elif self._on_finding == "raise":
                raise FindingError(finding)
            else:
                if self._on_finding == "stop":
                    model.stop_training = True
                say(finding.text, GradientWarning)
