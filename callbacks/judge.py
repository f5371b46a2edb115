"""`Judge`: the new faults of a training, as it goes on."""

import dataclasses
import time
from collections.abc import Callable

from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.judge import judge, news
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup

# The largest share of the time to spend on judging.
_TIME_SHARE = 0.002
# The greatest number of records to judge, fewer where they have many columns: so many numbers are
# about a second and 250 MB. The least number of records, for the rules' windows, however many
# columns they have; and the seconds that a column of a record takes.
_MAX_STEPS, _MAX_NUMBERS, _MIN_STEPS, _SECONDS = 512, 2**21, 64, 4e-7
# Records that wait to come into the history, and numbers in them, at most: many at once are thinned
# in less time.
_MAX_WAITING, _MAX_WAITING_NUMBERS = 2048, 2**18
# A model that takes so long to give no answer is not asked again.
_ASK_SECONDS = 0.5

# Asks the model what its outputs depend on: it takes the setup, and returns one that says so, or
# `None` without an answer.
Ask = Callable[[Setup], Setup | None]


class Judge:
    """Judges the records of a training as they come, and reports each fault once.

    Args:
        ignore: Kinds of findings to leave out.
    """

    def __init__(self, ignore: frozenset[str] = frozenset()) -> None:
        self._ignore = ignore
        # Of the last judgement: when it ended, the seconds that it took, and the numbers judged.
        self._last, self._took, self._judged = float("-inf"), 0.0, 0
        self.restart()

    def restart(self) -> None:
        """Forget the training: the records to come are of another one."""
        self._history = GradientHistory(_MAX_STEPS)
        self._waiting: list[Chunk] = []  # records to come into the history
        self._reported: list[Finding] = []
        self._is_behind = False
        self._has_answer: bool | None = None  # not asked yet

    @property
    def setup(self) -> Setup | None:
        """The model as it is built and compiled, if that is known."""
        return self._history.setup

    def describe(self, setup: Setup) -> None:
        """Take how the model is built and compiled, to be judged with the next record."""
        former = self._history.setup
        if former is not None and former.layers == setup.layers:
            setup = dataclasses.replace(setup, uses=former.uses, mixes_samples=former.mixes_samples)
        else:
            self._has_answer = None
        self._history.setup = setup

    def add(self, chunk: Chunk, ask: Ask = lambda setup: None) -> list[Finding]:
        """Take records; return new faults, or none if it is too early to judge again.

        The model is asked with the first fault that is no error; and at the end, if it has not
        answered.
        """
        before = self._waiting[-1].layout.frozen if self._waiting else self._history.frozen
        if (self._waiting or len(self._history)) and list(before) != list(chunk.layout.frozen):
            setup = self.setup
            self.restart()
            self._history.setup = setup
        self._waiting.append(chunk)
        self._is_behind = True
        width, waiting = len(chunk.layout.variables), sum(len(c.steps) for c in self._waiting)
        # More records take longer than they did.
        length = min(len(self._history) + waiting, _most_steps(chunk))
        grown = max(0, length * width - self._judged) if self._judged else 0
        expected = self._took + _SECONDS * grown
        if time.monotonic() - self._last >= expected / _TIME_SHARE:
            return self._find(ask, ended=False)
        if waiting > _MAX_WAITING or waiting * width > _MAX_WAITING_NUMBERS:
            self._take_waiting()
        return []

    def _take_waiting(self) -> None:
        if self._waiting and not len(self._history):
            setup, self._history = self.setup, GradientHistory(_most_steps(self._waiting[0]))
            self._history.setup = setup
        self._history.append(*self._waiting)
        self._waiting = []

    def finish(self, ask: Ask = lambda setup: None) -> list[Finding]:
        """Return the new faults, now that the training has ended."""
        return self._find(ask, ended=True)

    def _find(self, ask: Ask, ended: bool) -> list[Finding]:
        if not self._is_behind and not ended:
            return []
        self._is_behind = False
        found = self._judge_anew(ended)
        if self._learns_why(ask, found, ended):
            found = self._judge_anew(ended)
        self._reported += found
        self._judged = len(self._history) * len(self._history.variables)
        return found

    def _judge_anew(self, ended: bool) -> list[Finding]:
        start = time.monotonic()
        self._take_waiting()
        found = news(self._reported, judge(self._history, ended, self._ignore))
        self._last = time.monotonic()
        self._took = self._last - start
        return found

    def _learns_why(self, ask: Ask, found: list[Finding], ended: bool) -> bool:
        """Ask the model, if it is time to; return whether it has answered."""
        severities = {finding.severity for finding in [*self._reported, *found]}
        is_due = self._has_answer is None or (ended and not self._has_answer)
        if self._history.setup is None or not is_due or severities - {"note"} != {"warning"}:
            return False
        begin, answer = time.monotonic(), ask(self._history.setup)
        # Without an answer it is asked again at the end, unless that took long.
        self._has_answer = answer is not None or time.monotonic() - begin > _ASK_SECONDS
        self._history.setup = answer or self._history.setup
        return answer is not None


def _most_steps(chunk: Chunk) -> int:
    columns = max(1, len(chunk.layout.variables))
    return max(_MIN_STEPS, min(_MAX_STEPS, _MAX_NUMBERS // columns))
