"""`Judge`: the new faults of a training, as it goes on."""

import time

from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.judge import judge, news
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory

# The largest share of the time to spend on judging, and the number of records to judge.
_TIME_SHARE = 0.002
_MAX_STEPS = 512


class Judge:
    """Judges the records of a training as they come, and reports each fault once."""

    def __init__(self) -> None:
        self._next = 0.0
        self.restart()

    def restart(self) -> None:
        """Forget the training: the records to come are of another one."""
        self._history = GradientHistory(_MAX_STEPS)
        self._reported: list[Finding] = []
        self._is_behind = False

    def add(self, chunk: Chunk) -> list[Finding]:
        """Take records; return new faults, or none if it is too early to judge again."""
        if len(self._history) and self._history.frozen != list(chunk.layout.frozen):
            self.restart()
        self._history.append(chunk)
        self._is_behind = True
        return self.finish() if time.monotonic() >= self._next else []

    def finish(self) -> list[Finding]:
        """Return the new faults in records not judged yet."""
        if not self._is_behind:
            return []
        start = time.monotonic()
        self._is_behind = False
        found = news(self._reported, judge(self._history))
        self._reported += found
        now = time.monotonic()
        self._next = now + (now - start) / _TIME_SHARE
        return found
