"""Counting batches and updates, as a table."""

import pytest

from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.clock import StepClock

pytestmark = pytest.mark.numpy_alone


def clock_at(iterations=0, per_update=1, batches=0):
    """A clock in an epoch that began when the optimizer had some iterations."""
    clock = StepClock()
    clock.begin_training(0, per_update)
    if batches:
        clock.begin_epoch(0)
        clock.end_batch(batches - 1)
    clock.begin_epoch(iterations)
    return clock


@pytest.mark.parametrize(
    ("iterations", "per_update", "block", "updates", "call"),
    [
        (0, 1, range(1), [0], Call(0, 0, 0)),
        (6, 1, range(2, 3), [8], Call(8, 8, 0)),
        (6, 1, range(4), [6, 7, 8, 9], Call(6, 9, 0)),
        # Two batches an update: the second one completes it.
        (0, 2, range(1), [], Call(0, 0, 0)),
        (0, 2, range(1, 2), [0], Call(0, 0, 0)),
        (3, 2, range(1), [1], Call(1, 1, 0)),
        (0, 2, range(4), [0, 1], Call(0, 1, 0)),
        (1, 2, range(4), [0, 1], Call(0, 2, 0)),
        (1, 3, range(1, 2), [0], Call(0, 0, 0)),
    ],
)
def test_a_block_of_batches_completes_these_updates(iterations, per_update, block, updates, call):
    clock = clock_at(iterations, per_update)
    assert list(clock.updates(block)) == updates
    assert clock.call(block) == call


@pytest.mark.parametrize("per_update", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_every_update_is_completed_by_one_block(per_update, size):
    clock = clock_at(4, per_update)
    blocks = [range(start, start + size) for start in range(0, 15 * size, size)]
    updates = [update for block in blocks for update in clock.updates(block)]
    assert updates == list(range(4 // per_update, (4 + 15 * size) // per_update))
    for block in blocks:
        first, last, _ = clock.call(block)
        assert set(clock.updates(block)) <= set(range(first, last + 1))


@pytest.mark.parametrize(
    ("looks", "block", "updates", "size"),
    [
        ([], range(4, 5), [14], 1),
        ([(4, 14)], range(4, 5), [14], 1),
        # A loss scale has skipped two updates, or nearly all.
        ([(4, 12)], range(4, 5), [12], 1),
        ([(40, 11)], range(40, 41), [11], 1),
        # Two updates of every batch, and three.
        ([(4, 18)], range(4, 5), [18, 19], 2),
        ([(1, 13), (3, 19)], range(3, 5), [19, 20, 21, 22, 23, 24], 6),
        # Looked at before the first batch, and twice at one.
        ([(0, 10)], range(1), [10], 1),
        ([(4, 18), (4, 18)], range(5, 6), [20, 21], 2),
    ],
)
def test_the_optimizers_own_count_corrects_the_clock(looks, block, updates, size):
    clock = clock_at(10)
    for batch, iterations in looks:
        clock.look(batch, iterations)
    assert list(clock.updates(block)) == updates
    assert len(clock.iterations(block)) == size


@pytest.mark.parametrize(
    ("batches", "iterations", "batch", "skipped"),
    [(0, 0, 3, 0), (6, 6, 2, 0), (6, 4, 0, 2), (6, 4, 5, 2), (6, 12, 0, 0)],
)
def test_batches_without_an_update_were_skipped(batches, iterations, batch, skipped):
    clock = clock_at(iterations, batches=batches)
    block = range(batch, batch + 1)
    assert clock.call(block, may_skip=True).skipped == skipped
    assert clock.call(block).skipped == 0
    clock.begin_training(iterations)  # those of this training
    clock.begin_epoch(iterations)
    assert clock.call(block, may_skip=True).skipped == 0


def test_epochs_without_the_optimizers_count_are_counted_in_batches():
    clock = StepClock()
    clock.begin_training(8)
    for epoch in range(3):
        clock.begin_epoch(None)
        assert list(clock.updates(range(2))) == [8 + 5 * epoch, 9 + 5 * epoch]
        for batch in (0, 4, 2):  # another thread may be late
            clock.end_batch(batch)


@pytest.mark.parametrize(
    ("last_step", "iterations", "per_update", "offset"),
    [
        (-1, 0, 1, 0),  # nothing is recorded
        (11, 0, 1, 12),  # compiled again
        (11, 5, 1, 7),
        (11, 12, 1, 0),  # a loaded optimizer goes on
        (11, 500, 1, 0),
        (11, 8, 4, 10),
    ],
)
def test_a_new_optimizers_steps_come_after_those_before(last_step, iterations, per_update, offset):
    clock = StepClock()
    clock.begin_training(iterations, per_update)
    clock.continue_after(last_step)
    assert clock.offset == offset
    assert iterations // per_update + clock.offset > last_step
    clock.begin_training(iterations + 3, per_update)
    assert clock.offset == offset


def test_updates_wait_from_when_they_are_expected_until_they_are_read():
    clock = clock_at()
    assert not clock.settle()
    clock.expect(range(3))
    assert clock.waiting == 3
    clock.read()  # before the step has run
    assert clock.waiting == 3
    assert clock.settle()
    clock.expect(range(3, 5))
    assert clock.waiting == 5
    clock.read()
    assert clock.waiting == 2
    assert clock.settle()
    assert not clock.settle()
    clock.read()
    assert clock.waiting == 0
