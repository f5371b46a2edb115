"""`Announcer`: what becomes of a new finding: a warning, the end of the training, or a call."""

from collections.abc import Callable, Sequence
from typing import Any

from keras_initkit.user_warnings import tell_user, warn_user
from tensorboard_plugin_initkit.diagnosis.finding import Finding

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


class Announcer:
    """Announces findings on the training thread, each once; mere notes it leaves out."""

    def __init__(self, on_finding: OnFinding) -> None:
        self._on_finding = on_finding
        self._unsaid: list[Finding] = []

    def restart(self) -> None:
        """Forget the findings that were not announced, of a training that is over."""
        self._unsaid = []

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
