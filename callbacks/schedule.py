"""Schedules: the steps to record."""

import functools
from collections.abc import Callable

from keras_initkit.checks import check_count

Schedule = Callable[[int], bool]

# By default: each step of the first, so that a short training never needs a second function of a
# step beside the recorded one; then every 10th; and every 50th.
_EACH, _EVERY_10TH, _LATER = 100, 200, 50


def as_schedule(every_n_steps: int | Schedule | None) -> Schedule:
    """Make a schedule of an argument `every_n_steps`, a positive integer, a schedule or `None`.

    None is each of the first 100 steps, where a bad start shows, every 10th of the next 100, and
    every 50th later.
    """
    if every_n_steps is None:
        return _is_multiple_by_age
    if callable(every_n_steps):
        return every_n_steps
    n = check_count(
        "every_n_steps",
        every_n_steps,
        "a function that says for a step (int) whether to record it, or None",
        fix="Write `every_n_steps=1` to record every step.",
    )
    return functools.partial(_is_multiple, n)


def _is_multiple(n: int, step: int) -> bool:
    return step % n == 0


def _is_multiple_by_age(step: int) -> bool:
    return step < _EACH or step % (10 if step < _EVERY_10TH else _LATER) == 0
