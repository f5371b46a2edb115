"""`Settings`: the arguments of a `GradientMonitor`, checked."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from keras_initkit.anatomy.selectors import Selection
from keras_initkit.callbacks.announcer import CHOICES, OnFinding
from keras_initkit.callbacks.reporter import OnRecord
from keras_initkit.checks import check_choice, check_count
from tensorboard_plugin_initkit.record.statistics import STATISTICS, TOTAL_STATISTICS

Schedule = Callable[[int], bool]

# By default: each step of the first, so that a short training never needs a second function of a
# step beside the recorded one; then every 10th; and every 50th.
_EACH, _EVERY_10TH, _LATER = 100, 200, 50

# Statistics to choose from, and the measurements each of them takes.
OPTIONAL_STATISTICS = {
    "mean_abs": ("mean_abs",),
    "max_abs": ("max_abs",),
    "zeros": ("zeros",),
    "dead_units": ("dead_units", "zeros"),
    "weight_norm": ("weight_norm",),
    "update_ratio": ("weight_norm", "update_norm"),
}
_ALWAYS = ("norm", "nonfinite", "clip_ratio", "local_norm")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The checked arguments of a `GradientMonitor`, and the names of `MEASURED` they take."""

    log_dir: Path | str | None
    schedule: Schedule
    layers: Selection
    per: str
    statistics: frozenset[str]
    sample_size: int
    scalars: tuple[str, ...] | None
    histograms: int
    on_finding: OnFinding
    ignore: frozenset[str]
    verbose: bool | None
    on_record: OnRecord | None
    logs: bool
    spikes: bool

    def __post_init__(self) -> None:
        if self.histograms and not self.sample_size:
            raise ValueError(
                "`histograms` are taken of sampled elements: `sample_size` must be positive. "
                f"Received: histograms={self.histograms}, sample_size={self.sample_size}. Write "
                "`sample_size=1024`."
            )
        if self.on_record is not None and not callable(self.on_record):
            raise ValueError(
                "`on_record` must be a function of one argument, called with each `Record`."
                f" Received: on_record={self.on_record!r}. Write `on_record=print` to try it."
            )


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


def check_per(per: str) -> str:
    """Return the argument `per`; raise a ValueError if it is none."""
    fix = 'Write `per="variable"` to count every variable as a layer of its own.'
    return check_choice("per", per, ("layer", "variable"), fix)


def check_on_finding(on_finding: OnFinding) -> OnFinding:
    """Return the argument `on_finding`; raise a ValueError if it is none."""
    if callable(on_finding):
        return on_finding
    fix = "Or give a function of one argument, called with each `Finding`: `on_finding=print`."
    return check_choice("on_finding", on_finding, CHOICES, fix)


def measure_for(statistics: Iterable[str] | None) -> frozenset[str]:
    """Return the names of `MEASURED` for an argument `statistics`; raise ValueError for others."""
    names = OPTIONAL_STATISTICS if statistics is None else statistics
    is_names = isinstance(names, Iterable) and not isinstance(names, str)
    if not is_names or not all(name in OPTIONAL_STATISTICS for name in names):
        raise ValueError(
            "`statistics` must be a list of names out of "
            f"{', '.join(map(repr, OPTIONAL_STATISTICS))}, or None for all. Received: "
            f"statistics={statistics!r}. Norms and counts of non-finite elements are always "
            "recorded: write `statistics=[]` for these alone."
        )
    return frozenset(_ALWAYS).union(*(OPTIONAL_STATISTICS[name] for name in names))


def check_scalars(scalars: Sequence[str] | bool) -> tuple[str, ...] | None:
    """Return the names in an argument `scalars`, `None` for no scalars; raise ValueError."""
    if isinstance(scalars, bool):
        return (*STATISTICS, *TOTAL_STATISTICS) if scalars else None
    is_names = isinstance(scalars, Iterable) and not isinstance(scalars, str)
    if not is_names or not all(name in (*STATISTICS, *TOTAL_STATISTICS) for name in scalars):
        raise ValueError(
            "`scalars` must be a list of names out of "
            f"{', '.join(map(repr, (*STATISTICS, *TOTAL_STATISTICS)))}; or True for all, or False "
            f"for no scalars. Received: scalars={scalars!r}. Write `scalars=[]` for a few totals."
        )
    return tuple(scalars)


def check_amount(argument: str, value: Any, meaning: str) -> int:
    """Return an argument that counts, 0 or False for none; raise a ValueError for others."""
    fix = f"Write `{argument}=0` for none."
    return check_count(argument, 0 if value is False else value, meaning, least=0, fix=fix)
