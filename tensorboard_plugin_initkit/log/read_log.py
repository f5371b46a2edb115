"""`read_log`: a log as a `GradientHistory`, with its findings."""

import math
import os
from typing import Literal, get_args

import numpy as np

from tensorboard_plugin_initkit.diagnosis.finding import Finding, merge_findings
from tensorboard_plugin_initkit.log.content import note_damage, note_gaps
from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup

Damaged = Literal["error", "skip"]


def read_log(
    log_dir: str | os.PathLike[str], max_steps: int | None = None, *, damaged: Damaged = "error"
) -> GradientHistory:
    """Read the log of a `GradientMonitor`, also while it is still training.

    Args:
        log_dir: The directory or URL given to the monitor.
        max_steps: Number of recorded steps to keep; by default all.
        damaged: `"error"`, or `"skip"` to leave out what is damaged; `notes` then say so.

    Returns:
        A `GradientHistory` with its findings, equal to `monitor.history` of the training, unless
        that is thinned. If there were several trainings in the directory, it is the last; `notes`
        say so, and which steps are missing if a training was interrupted and resumed.

    Raises:
        FileNotFoundError: If there is no log in `log_dir`.
        ImportError: If a package for the URL is missing.
        ValueError: If the log is damaged, with file and offset, or of another schema version, or
            if `max_steps` or `damaged` is not as described.
    """
    # TensorBoard's protocol buffers take 70 ms to import: only those pay who read a log.
    from tensorboard_plugin_initkit.log.gradient_log import log_files, read_records

    if damaged not in get_args(Damaged):
        raise ValueError(
            f'`damaged` must be one of "error", "skip". Received: damaged={damaged!r}. Write '
            "`damaged='skip'` to read what is intact."
        )
    history = GradientHistory(max_steps)
    findings: list[list[Finding]] = []
    errors: list[ValueError] = []
    # Thinning costs as much as reading: it is done for many records at once.
    waiting: list[Chunk] = []
    rows, most = 0, math.inf if max_steps is None else 8 * max_steps

    def report(error: ValueError) -> None:
        if damaged == "error":
            raise ValueError(f"{error} `damaged='skip'` reads what is intact.") from None
        errors.append(errors[0] if errors else error)  # there may be millions

    trainings = log_files(log_dir)
    steps: list[list[np.ndarray]] = []
    for file in trainings[-1]:
        steps.append([])
        for item in read_records(file, report):
            history.ended = isinstance(item, str)
            if isinstance(item, Setup):
                history.setup = item
            elif isinstance(item, list):
                findings.append(item)
            if not isinstance(item, Chunk):
                continue
            steps[-1].append(item.steps)
            waiting.append(item)
            rows += len(item.steps)
            if rows > most:
                history.append(*waiting)
                waiting, rows = [], 0
    history.append(*waiting)
    history.findings = merge_findings(findings)
    history.notes = note_damage(errors) + note_gaps([np.concatenate(s) for s in steps if s])
    if len(trainings) > 1:
        first, *_, last = (str(files[0].parent) for files in trainings)
        history.notes.append(
            f"This is the last of {len(trainings)} trainings in {str(log_dir)!r}: {last!r}. "
            f"`read_log` reads the others by the names of their runs, such as {first!r}."
        )
    return history
