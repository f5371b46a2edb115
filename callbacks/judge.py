"""`Judge`: the new faults of a training, as it goes on."""

import time

from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.judge import judge, news
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup

# The largest share of the time to spend on judging, and the number of records to judge.
_TIME_SHARE = 0.002
_MAX_STEPS = 512


class Judge:
    """Judges the records of a training as they come, and reports each fault once.

    Args:
        ignore: Kinds of findings to leave out.
    """

    def __init__(self, ignore: frozenset[str] = frozenset()) -> None:
        self._ignore = ignore
        self._next = 0.0
        self.restart()

    def restart(self) -> None:
        """Forget the training: the records to come are of another one."""
        self._history = GradientHistory(_MAX_STEPS)
        self._reported: list[Finding] = []
        self._is_behind = False

    @property
    def knows_setup(self) -> bool:
        """True if it is known how the model is built and compiled."""
        return self._history.setup is not None

    def describe(self, setup: Setup) -> None:
        """Take how the model is built and compiled, to be judged with the next record."""
        self._history.setup = setup

    def add(self, chunk: Chunk) -> list[Finding]:
        """Take records; return new faults, or none if it is too early to judge again."""
        if len(self._history) and self._history.frozen != list(chunk.layout.frozen):
            setup = self._history.setup
            self.restart()
            self._history.setup = setup
        self._history.append(chunk)
        self._is_behind = True
        return self._find(ended=False) if time.monotonic() >= self._next else []

    def finish(self) -> list[Finding]:
        """Return the new faults, now that the training has ended."""
        return self._find(ended=True)

    def _find(self, ended: bool) -> list[Finding]:
        if not self._is_behind and not ended:
            return []
        start = time.monotonic()
        self._is_behind = False
        found = news(self._reported, judge(self._history, ended))
        self._reported += found
        found = [finding for finding in found if finding.kind not in self._ignore]
        now = time.monotonic()
        self._next = now + (now - start) / _TIME_SHARE
        return found
