"""`diagnose`: the faults of a training, from a monitor, its history or its log."""

import os
from collections.abc import Collection
from typing import Any

from tensorboard_plugin_initkit.diagnosis.diagnosis import Diagnosis, diagnose_history
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.history import GradientHistory


def diagnose(source: Any, *, ignore: Collection[str] = ()) -> Diagnosis:
    """Tell why a network does not learn, and what to change.

    Example:
    ```python
    monitor = keras_initkit.callbacks.GradientMonitor("runs/first")
    model.fit(x, y, callbacks=[monitor])
    print(keras_initkit.diagnose(monitor))
    ```

    Args:
        source: A `GradientMonitor`; a `GradientHistory`; or the directory or URL of a log, also
            while the training goes on.
        ignore: Kinds of findings to leave out, by name.

    Returns:
        A `Diagnosis`: a sequence of `Finding`s, the worst first, with a verdict. Printed, it tells
        for each what was seen, why that stops learning, and what to change. If a log is damaged,
        `notes` say so.

    Raises:
        FileNotFoundError: If there is no log in a directory.
        TypeError: If `source` is something else.
        ValueError: If there is no such kind of finding.
    """
    history = getattr(source, "history", source)
    if isinstance(source, str | os.PathLike):
        history = read_log(source, damaged="skip")
    if not isinstance(history, GradientHistory):
        raise TypeError(
            "`source` must be a GradientMonitor, its history, or the directory or URL of its log. "
            f"Received: source={source!r}. To look at a model before training, write "
            "`keras_initkit.check(model, x, y)`."
        )
    return diagnose_history(history, ignore)
