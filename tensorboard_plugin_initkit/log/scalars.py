"""Scalars for TensorBoard's own dashboards, in a run of their own."""

import os
import time
from collections.abc import Mapping

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from tensorboard_plugin_initkit.log.uploaded_event_file import open_event_file


class ScalarLog:
    """Appends scalars to a new event file of a run.

    Args:
        log_dir: Directory or URL for TensorBoard.
        run: Name of the run in it.

    Raises:
        OSError: If the directory or file cannot be written.
    """

    def __init__(self, log_dir: str | os.PathLike[str], run: str) -> None:
        self._file = open_event_file(log_dir, run)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one number for each tag; NaN is left out.

        Raises:
            OSError: If the file is gone or cannot be written.
        """
        with np.errstate(over="ignore"):  # what exceeds float32 is written as infinite
            values = [
                Summary.Value(tag=tag, simple_value=float(np.float32(value)))
                for tag, value in scalars.items()
                if not np.isnan(value)
            ]
        event = Event(step=step, wall_time=time.time(), summary=Summary(value=values))
        self._file.write([event.SerializeToString()])

    def flush(self) -> None:
        """Upload the rest, if the run is at a URL.

        Raises:
            OSError: If it cannot be uploaded.
        """
        self._file.flush()
