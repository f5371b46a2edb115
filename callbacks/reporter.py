"""`Reporter`: records for a function of the user, and for Keras's logs."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from keras_initkit.user_warnings import tell_user
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.log.scalars import Scalars
from tensorboard_plugin_initkit.record.chunk import Chunk

OnRecord = Callable[["Record"], Any]
# Of the totals, those for Keras's logs, where the learning rate has its place already.
_FOR_LOGS = ("global_norm", "first_to_last", "largest_share", "nonfinite")


@dataclasses.dataclass(frozen=True)
class Record:
    """A recorded step, as `GradientMonitor(on_record=...)` hands it on.

    Attributes:
        step: `optimizer.iterations` before the update, as in `history.steps`.
        epoch: The epoch, counted from 0.
        scalars: Numbers by tag, as in TensorBoard's own dashboards: `gradient_norm/<layer>` and
            the totals, `gradients/<total>`; others as the argument `scalars` says. NaN is left out.
            Empty if findings came after their record.
        findings: The faults found since the previous record; mere notes are left out.
    """

    step: int
    epoch: int
    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


class Reporter:
    """Takes records as they come, and reports them where the thread of `fit` is at hand.

    Args:
        on_record: Called with each `Record`, or `None`.
        names: Statistics, as for `Scalars`.
        is_for_logs: If totals are put into Keras's logs.
    """

    def __init__(self, on_record: OnRecord | None, names: Sequence[str], is_for_logs: bool) -> None:
        self._on_record, self._is_for_logs = on_record, is_for_logs
        self._scalars = Scalars(names)
        self._waiting: list[Record] = []
        self._last = Record(0, 0)
        self._has_failed = False
        self.epoch = 0

    @property
    def is_needed(self) -> bool:
        """True if records are reported at all: they are then read at the end of each epoch."""
        return self._on_record is not None or self._is_for_logs

    def begin(self) -> None:
        """Begin a training: an error of the function is said anew."""
        self._has_failed = False

    def take(self, chunk: Chunk) -> None:
        """Take records of the present epoch."""
        if not self.is_needed:
            return
        tags, table = self._scalars.tabulate(chunk)
        for step, row in zip(chunk.steps.tolist(), table.tolist(), strict=True):
            known = {tag: x for tag, x in zip(tags, row, strict=True) if not math.isnan(x)}
            self._last = Record(step, self.epoch, known)
            self._waiting.append(self._last)

    def take_findings(self, findings: Sequence[Finding]) -> None:
        """Take what was found in the records up to now."""
        faults = tuple(finding for finding in findings if finding.severity != "note")
        if faults and self.is_needed:
            none = Record(self._last.step, self._last.epoch)
            record = self._waiting.pop() if self._waiting else none
            self._waiting.append(dataclasses.replace(record, findings=(*record.findings, *faults)))

    def report(self) -> None:
        """Call the function with what was taken; its first exception is one warning."""
        while self._waiting:
            record = self._waiting.pop(0)
            try:
                if self._on_record is not None:
                    self._on_record(record)
            except Exception as error:
                if not self._has_failed:
                    tell_user(
                        f"`on_record` of the GradientMonitor failed at step {record.step}: "
                        f"{error!r}. Training goes on, and so do the calls of `on_record`."
                    )
                self._has_failed = True

    def add_to(self, logs: dict[str, Any] | None) -> None:
        """Add the totals of the last record to Keras's logs, if asked for; unknown ones are NaN."""
        if self._is_for_logs and logs is not None:
            known = self._last.scalars
            tags = {f"gradients/{name}": math.nan for name in _FOR_LOGS}
            several = {tag: x for tag, x in known.items() if tag.split("/")[-1] in _FOR_LOGS}
            logs.update(several if any(tag.count("/") > 1 for tag in several) else tags | several)
