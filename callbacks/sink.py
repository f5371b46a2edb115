"""`Sink`: where records and findings go."""

import contextlib
import functools
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_initkit.callbacks.background_log import BackgroundLog
from tensorboard_plugin_initkit.diagnosis.finding import Finding, to_json
from tensorboard_plugin_initkit.log.paths import path_at
from tensorboard_plugin_initkit.log.runs import RunPlace
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup


class Sink:
    """The history of a `GradientMonitor`, with findings, and its log once that is open.

    Scalars are written of the statistics named, or none; histograms at every so many recorded
    steps, 0 for none.
    """

    def __init__(
        self,
        log_dir: Path | str | None = None,
        scalars: Collection[str] | None = ("norm",),
        histograms: int = 0,
    ) -> None:
        self.history = GradientHistory()
        self._histograms = histograms
        self._log: BackgroundLog | None = None
        self._unopened = log_dir and BackgroundLog(
            functools.partial(_open_writer, scalars, histograms),
            RunPlace(log_dir, "gradients"),
            "GradientMonitor",
            "monitor.history",
        )

    def open(self) -> None:
        """Open the log, if there is to be one; it takes what is to be written."""
        self._log = self._unopened or None
        if self._log is not None:
            self._log.begin()

    def take(self, chunk: Chunk, samples: Sequence[np.ndarray], resumes: bool = False) -> None:
        """Keep records, and have them written with the samples of their gradients.

        With the first ones, writing begins; `resumes`: their training goes on from earlier steps.
        """
        self.history.append(chunk)
        self.history.ended = False
        if self._log is not None:
            self._log.start(resumes)
            self._log.write(len(chunk.steps), chunk, samples if self._histograms else None)

    def describe(self, setup: Setup, step: int) -> None:
        """Keep how the model trained from a step on is built and compiled, and have it written."""
        self.history.setup = setup
        if self._log is not None:
            self._log.call("write_setup", setup.to_json(), step)

    def report(self, findings: Sequence[Finding]) -> None:
        """Keep new findings, and have all written."""
        self.history.findings.extend(findings)
        if findings and self._log is not None:
            found = self.history.findings
            faults = sum(finding.severity != "note" for finding in found)
            self._log.call("write_findings", to_json(found), findings[-1].rank, faults)

    def flush(self) -> None:
        """Wait until all is written that can be soon."""
        if self._log is not None:
            self._log.flush()

    @property
    def run(self) -> str:
        """The name of the run in the log's directory; "" without a log."""
        return self._log.place.choose() if self._log is not None else ""

    def finish(self, has_ended: bool = True) -> None:
        """Wait until all is written, and that the training has ended, if it has."""
        self.history.ended |= has_ended
        if self._log is not None:
            self._log.finish(*(["end"] if has_ended else []), "flush")


def _open_writer(
    scalars: Collection[str] | None, histograms: int, log_dir: Path | str, run: str
) -> Any:
    # TensorBoard's protocol buffers take 70 ms to import: off the training thread.
    from tensorboard_plugin_initkit.log.gradient_log import LogWriter

    _follow(path_at(log_dir) / run)
    return LogWriter(log_dir, scalars, histograms, run)


def _follow(directory: Any) -> None:
    """Have a run of Weights & Biases with `sync_tensorboard=True` read the events in a directory.

    By itself it reads those of the writers that it has patched, and ours is none of them. Nothing
    happens without such a run, or with a version of the package that is made otherwise.
    """
    run: Any = getattr(sys.modules.get("wandb"), "run", None)
    with contextlib.suppress(AttributeError, TypeError):
        if run.settings.sync_tensorboard:
            run._tensorboard_callback(str(directory))
