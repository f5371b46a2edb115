"""`Settings`: the arguments of a `GradientMonitor`, checked."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Self

from keras_initkit.anatomy.selectors import Selection, Selector
from keras_initkit.callbacks.announcer import CHOICES, OnFinding
from keras_initkit.callbacks.background_log import check_log_dir
from keras_initkit.callbacks.reporter import OnRecord
from keras_initkit.callbacks.schedule import Schedule, as_schedule
from keras_initkit.checks import check_choice
from tensorboard_plugin_initkit.diagnosis.kinds import check_kinds
from tensorboard_plugin_initkit.record.statistics import STATISTICS, TOTAL_STATISTICS

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

    @classmethod
    def from_arguments(
        cls,
        log_dir: str | os.PathLike[str] | None,
        every_n_steps: int | Schedule | None,
        layers: Selector | None,
        per: str,
        statistics: Iterable[str] | None,
        sample_size: int,
        scalars: Sequence[str] | bool,
        histograms: int,
        on_finding: OnFinding,
        ignore: Sequence[str],
        verbose: bool | None,
        on_record: OnRecord | None,
        logs: bool,
        spikes: bool,
    ) -> Self:
        """Check the arguments of a monitor; raise the errors that it describes."""
        settings = cls(
            check_log_dir(log_dir),
            as_schedule(every_n_steps),
            Selection("layers", layers),
            check_choice("per", per, ("layer", "variable"), _FIX_OF_PER),
            _measure_for(statistics),
            _check_count(
                "sample_size", sample_size, "the number of elements of each gradient to keep"
            ),
            _check_scalars(scalars),
            _check_count(
                "histograms",
                histograms,
                "the number of recorded steps from one to the next that is written",
            ),
            on_finding
            if callable(on_finding)
            else check_choice("on_finding", on_finding, CHOICES, _FIX_OF_ON_FINDING),
            check_kinds(ignore),
            verbose,
            on_record,
            bool(logs),
            bool(spikes),
        )
        if settings.histograms and not settings.sample_size:
            raise ValueError(
                "`histograms` are taken of sampled elements: `sample_size` must be positive. "
                f"Received: histograms={histograms!r}, sample_size={sample_size!r}. Write "
                "`sample_size=1024`."
            )
        if on_record is not None and not callable(on_record):
            raise ValueError(
                "`on_record` must be a function of one argument, called with each `Record`."
                f" Received: on_record={on_record!r}. Write `on_record=print` to try it."
            )
        return settings


_FIX_OF_PER = 'Write `per="variable"` to count every variable as a layer of its own.'
_FIX_OF_ON_FINDING = (
    "Or give a function of one argument, which is called with each `Finding`: `on_finding=print`."
)


def _measure_for(statistics: Iterable[str] | None) -> frozenset[str]:
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


def _check_scalars(scalars: Sequence[str] | bool) -> tuple[str, ...] | None:
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


def _check_count(name: str, value: Any, meaning: str) -> int:
    if not isinstance(value, Integral) or value is True or value < 0:  # False is none
        raise ValueError(
            f"`{name}` must be {meaning}, an integer of 0 or more. Received: {name}={value!r}. "
            f"Write `{name}=0` for none."
        )
    return int(value)
