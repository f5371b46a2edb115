"""`read_log`: a log as a `GradientHistory`, with its findings."""

import os

from tensorboard_plugin_initkit.diagnosis.finding import merge_findings
from tensorboard_plugin_initkit.record.history import GradientHistory


def read_log(log_dir: str | os.PathLike[str], max_steps: int | None = None) -> GradientHistory:
    """Read the log of a `GradientMonitor`, also while it is still training.

    Args:
        log_dir: The directory or URL given to the monitor.
        max_steps: Number of recorded steps to keep; by default all.

    Returns:
        A `GradientHistory` with its findings, equal to `monitor.history` of the training, unless
        that is thinned.

    Raises:
        FileNotFoundError: If there is no log in `log_dir`.
        ImportError: If a package for the URL is missing.
        ValueError: If the log is damaged, or of another schema version, or `max_steps` is not as
            described.
    """
    # TensorBoard's protocol buffers take 70 ms to import: only those pay who read a log.
    from tensorboard_plugin_initkit.log.gradient_log import read_records

    history, texts = GradientHistory(max_steps), []
    for item in read_records(log_dir):
        if isinstance(item, str):
            texts.append(item)
        else:
            history.append(item)
    history.findings = merge_findings(texts)
    return history
