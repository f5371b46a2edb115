"""`StepClock`: from the batches of a training to the updates of its optimizer."""

from collections.abc import Callable
from typing import Any

from keras_initkit.callbacks.capture.recorded_step import Call


class StepClock:
    """Counts batches and updates, and recorded updates not yet read.

    An optimizer counts in its iterations how often it was given gradients: usually once a batch;
    less often where a loss scale skips some, more often where a train step makes several updates.
    With gradient accumulation, several iterations make one update. The number of an update, from
    0, is `optimizer.iterations` before it.

    Attributes:
        offset: Number to add to this optimizer's updates, to come after those of the optimizers
            before it.
        has_due: Whether a call that was due has run since the last read.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._iterations_per_update = 1
        self._iterations_per_batch = 1
        self._iterations_at_start = 0
        self._iterations_at_epoch_start = 0
        self._last_look = (0, 0)
        self._batches_before_epoch = 0
        self._batches_in_epoch = 0
        self._expected = 0
        self._is_due = False
        self._run = 0
        self.has_due = False

    def begin_training(self, iterations: int, iterations_per_update: int = 1) -> None:
        """Begin to count, from the optimizer's iterations now and its accumulation steps."""
        self._iterations_per_update = iterations_per_update
        self._iterations_per_batch = 1
        self._iterations_at_start = self._iterations_at_epoch_start = iterations
        self._batches_before_epoch = self._batches_in_epoch = 0
        self._run = self._expected = 0

    def continue_after(self, last_step: int) -> None:
        """Set the offset: the steps of this optimizer come after a step, -1 for none."""
        next_step = self._iterations_at_start // self._iterations_per_update
        self.offset = max(0, last_step + 1 - next_step)

    def begin_epoch(self, iterations: int | None) -> None:
        """Begin an epoch, from the optimizer's iterations now; `None` counts a batch as one."""
        self._batches_before_epoch += self._batches_in_epoch
        self._batches_in_epoch = 0
        if iterations is None:
            iterations = self._iterations_at_start + self._batches_before_epoch
        if not self._batches_before_epoch:  # a callback may have restored the optimizer
            self._iterations_at_start = iterations
        self._iterations_at_epoch_start = iterations
        self._last_look = (0, iterations)

    def end_batch(self, batch: int) -> None:
        """Count a batch of the epoch as run."""
        self._batches_in_epoch = max(self._batches_in_epoch, batch + 1)

    def look(self, batch: int, iterations: int) -> None:
        """Correct the count by the optimizer's iterations before a batch."""
        last_batch, last_iterations = self._last_look
        if batch > last_batch:
            rate = round((iterations - last_iterations) / (batch - last_batch))
            self._iterations_per_batch = max(1, rate)
        self._last_look = (batch, iterations)
        self._iterations_at_epoch_start = iterations - batch * self._iterations_per_batch

    def iterations(self, block: range) -> range:
        """Return the iterations of a block of batches: the optimizer is given gradients in each."""
        begin, per_batch = self._iterations_at_epoch_start, self._iterations_per_batch
        return range(begin + block.start * per_batch, begin + block.stop * per_batch)

    def updates(self, block: range) -> range:
        """Return the updates completed by a block of batches."""
        iterations, per_update = self.iterations(block), self._iterations_per_update
        return range(iterations.start // per_update, iterations.stop // per_update)

    def is_due(self, block: range, schedule: Callable[[int], bool]) -> bool:
        """Check for an update of a block of batches that a schedule records."""
        return any(map(schedule, self.updates(block)))

    def call(self, block: range, may_skip: bool = False) -> Call:
        """Describe a block; `may_skip`: a loss scale has skipped the batches without an update."""
        iterations, per_update = self.iterations(block), self._iterations_per_update
        batches = self._batches_before_epoch + block.start
        skipped = batches - (iterations.start - self._iterations_at_start) if may_skip else 0
        first, last = iterations.start // per_update, (iterations.stop - 1) // per_update
        return Call(first, last, max(0, skipped))

    def expect(self, block: range, is_due: bool = True) -> None:
        """Count the updates of a block as recorded by the next call, which may be due or not."""
        self._expected, self._is_due = len(self.iterations(block)), is_due

    def settle(self) -> bool:
        """Count the expected call as run; return whether there was one that was due."""
        expected, self._expected = self._expected, 0
        self._run += expected
        was_due = expected > 0 and self._is_due
        self.has_due = self.has_due or was_due
        return was_due

    def count_updates(self, params: dict[str, Any] | None) -> int:
        """Return the number of updates of a training by Keras's `params`; 0 if it is not known."""
        params = params or {}
        batches = (params.get("steps") or 0) * (params.get("epochs") or 0)
        return int(batches // self._iterations_per_update)

    @property
    def steps_before(self) -> int:
        """Number of steps of all trainings before."""
        return self.offset + self._iterations_at_start // self._iterations_per_update

    @property
    def resumes(self) -> bool:
        """True if the optimizer had made steps before the training."""
        return self._iterations_at_start > 0

    @property
    def waiting(self) -> int:
        """Number of recorded updates possibly not read yet, those of the next call included."""
        return self._run + self._expected

    def read(self) -> None:
        """Count all updates as read but those of the next call."""
        self._run, self.has_due = 0, False
