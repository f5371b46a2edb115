"""`Sink`: where records and findings go."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_initkit.callbacks.background_log import BackgroundLog
from tensorboard_plugin_initkit.diagnosis.finding import Finding, to_json
from tensorboard_plugin_initkit.log.runs import RunPlace
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup


class Sink:
    """The history of a `GradientMonitor`, with findings, and its log once that is open.

    Scalars and histograms are written at every so many recorded steps; 0 for none.
    """

    def __init__(
        self, log_dir: Path | str | None = None, scalars: int = 1, histograms: int = 0
    ) -> None:
        self.history = GradientHistory()
        self._place = None if log_dir is None else RunPlace(log_dir, "gradients")
        self._scalars = scalars
        self._histograms = histograms
        self._log: BackgroundLog | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy or pickle, for a log of its own."""
        return self.__dict__ | {"_log": None}

    def open(self) -> None:
        """Open the log, if there is to be one and it is not open."""
        if (place := self._place) is not None and self._log is None:
            self._log = BackgroundLog(
                self._open_writer, place.log_dir, "GradientMonitor", "monitor.history"
            )
        if self._log is not None:
            self._log.begin()

    def take(self, chunk: Chunk, samples: Sequence[np.ndarray], resumes: bool = False) -> None:
        """Keep records, and have them written with the samples of their gradients.

        Of the first ones, `resumes` says that their training goes on from earlier steps.
        """
        self.history.append(chunk)
        if self._log is not None and self._place is not None:
            self._place.begin(resumes)
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
            self._log.call("write_findings", to_json(self.history.findings), findings[-1].rank)

    def flush(self) -> None:
        """Wait until all is written that can be soon."""
        if self._log is not None:
            self._log.flush()

    def finish(self) -> None:
        """Wait until all is written."""
        if self._log is not None:
            self._log.finish("end", "flush")

    def _open_writer(self) -> Any:
        # TensorBoard's protocol buffers take 70 ms to import: off the training thread.
        from tensorboard_plugin_initkit.log.gradient_log import LogWriter

        assert self._place is not None
        run = self._place.choose()
        return LogWriter(self._place.log_dir, self._scalars, self._histograms, run)
