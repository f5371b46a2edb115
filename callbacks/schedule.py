"""Schedules: which steps are recorded."""

import functools
from collections.abc import Callable
from numbers import Integral

Schedule = Callable[[int], bool]


def as_schedule(every_n_steps: int | Schedule) -> Schedule:
    """Make a schedule of an argument `every_n_steps`.

    Args:
        every_n_steps: A positive integer n, for the steps 0, n, 2n, …; or a schedule.

    Raises:
        ValueError: If it is neither.
    """
    if callable(every_n_steps):
        return every_n_steps
    is_integer = isinstance(every_n_steps, Integral) and not isinstance(every_n_steps, bool)
    if not is_integer or every_n_steps < 1:
        raise ValueError(
            "`every_n_steps` must be a positive integer, or a function that says for a step "
            f"(int) whether to record it. Received: every_n_steps={every_n_steps!r}. Write "
            "`every_n_steps=1` to record every step."
        )
    return functools.partial(_is_multiple, int(every_n_steps))


def _is_multiple(n: int, step: int) -> bool:
    return step % n == 0
