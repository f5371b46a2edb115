"""Logs of trainings that never were, as `GradientMonitor` would have written them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.diagnosis.finding import Finding, to_json
from tensorboard_plugin_initkit.log.gradient_log import LogWriter, log_files, read_records
from tensorboard_plugin_initkit.record.chunk import TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import Layout, Variable

ALL = (
    "norm",
    "mean_abs",
    "max_abs",
    "zeros",
    "nonfinite",
    "dead_units",
    "weight_norm",
    "update_norm",
)
SIX = ALL[:6]
UNITS = 16
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"><script>alert('x')</script>",
    "a 'quoted' \"name\"",
    "two\nlines\tand a tab",
    "long" * 2500,
    "שלום עולם \u202eright to left",
    "$$ \\frac{1}{2} $$ {{name}} @layer %s &lt;b&gt;",
    "=HYPERLINK(1)",
)


def layer_names(count: int) -> list[str]:
    """As Keras calls dense layers."""
    return [f"dense_{i}" for i in range(count)]


def layout_of(layers: Sequence[str], biases: bool = True) -> Layout:
    """Dense layers, of a kernel and perhaps a bias."""
    shapes = {"kernel": (UNITS, UNITS), "bias": (UNITS,)} if biases else {"kernel": (UNITS, UNITS)}
    made_by = {"kernel": "HeNormal()", "bias": "Zeros()"}
    return Layout(
        tuple(
            Variable(f"{layer}/{name}", layer, shape, "", "Dense", made_by[name])
            for layer in layers
            for name, shape in shapes.items()
        )
    )


def depth_profile(layers: int, steps: int, factor: float, seed: int = 0) -> np.ndarray:
    """RMS of gradients, float64 array (steps, layers), that change by a factor a layer.

    The output, which is the last layer, has 0.01 in all of them.
    """
    noise = np.random.default_rng(seed).lognormal(0, 0.15, (steps, layers))
    return 1e-2 * factor ** np.arange(layers - 1, -1, -1.0) * noise


def chunk_of(
    layout: Layout, steps: np.ndarray, rms: np.ndarray, statistics: Sequence[str]
) -> Chunk:
    """Records in which the elements of all gradients of a layer have this RMS.

    Args:
        layout: The columns.
        steps: int64 array (n,).
        rms: Array (n, layers): where it is 0 no unit is alive, where it is NaN the gradient is.
        statistics: Those that are recorded.
    """
    layers = layout.layers
    columns = np.array([layers.index(variable.layer) for variable in layout.variables])
    size = layout.sizes
    scale = rms[:, columns].astype(np.float32)
    dead, broken = scale == 0, np.isnan(scale)
    # Between 0 and 1, and never the same: as ReLUs have it.
    part = np.abs(np.modf(1e3 * np.log(np.where(scale > 0, scale, 1)))[0])
    values = {
        "norm": lambda: scale * np.sqrt(size),
        "mean_abs": lambda: 0.8 * scale,
        "max_abs": lambda: 4 * scale,
        "zeros": lambda: np.where(dead, 1, 0.3 + 0.2 * part),
        "nonfinite": lambda: broken * size,
        "dead_units": lambda: np.where(dead, 1, 0.05 * part),
        "weight_norm": lambda: np.broadcast_to(np.sqrt(size / UNITS), scale.shape),
        "update_norm": lambda: 1e-2 * scale * np.sqrt(size),
    }
    one = np.ones((len(steps), 1))
    numbers = [2.3 * one, 0.01 * one, one, 0 * one, 2.3 * one, 0 * one, np.nan * one]
    totals = dict(zip(TOTALS, numbers, strict=True))
    return Chunk(
        layout,
        steps,
        {name: np.asarray(values[name](), np.float32) for name in statistics},
        {name: np.asarray(array, np.float32) for name, array in totals.items()},
    )


def write(
    log_dir: str | os.PathLike[str], *chunks: Chunk, findings: Sequence[Finding] = ()
) -> LogWriter:
    """Write a log as a process of its own does; return its writer."""
    writer = LogWriter(log_dir, scalars=None)
    for chunk in chunks:
        writer.write(chunk)
    if findings:
        writer.write_findings(to_json(findings), int(chunks[-1].steps[-1]))
    writer.end()
    return writer


def write_log(
    log_dir: str | os.PathLike[str],
    rms: np.ndarray,
    layers: Sequence[str] | None = None,
    *,
    every: int = 1,
    findings: Sequence[Finding] = (),
    statistics: Sequence[str] = ALL,
    biases: bool = True,
) -> LogWriter:
    """Write a log at once.

    Args:
        log_dir: Directory of the training; the log is its run `gradients`.
        rms: As for `chunk_of`, one row a record.
        layers: Their paths.
        every: Steps from one record to the next.
        findings: What was found wrong.
        statistics: Those that are recorded.
        biases: Whether layers have one besides their kernel.

    Returns:
        The writer, to go on with.
    """
    layout = layout_of(layers or layer_names(rms.shape[1]), biases)
    rows = np.split(np.arange(len(rms)), range(64, len(rms), 64))
    chunks = (chunk_of(layout, every * some, rms[some], statistics) for some in rows)
    return write(log_dir, *chunks, findings=findings)


def read_items(log_dir: str | os.PathLike[str]) -> list[Any]:
    """Read the chunks and findings of the last training in a directory."""
    return [item for file in log_files(log_dir)[-1] for item in read_records(file)]


def read_chunks(log_dir: str | os.PathLike[str]) -> list[Chunk]:
    """Read the chunks of a log."""
    return [item for item in read_items(log_dir) if isinstance(item, Chunk)]


def read_findings(log_dir: str | os.PathLike[str]) -> list[str]:
    """Read the texts of the findings of a log."""
    return [to_json(item) for item in read_items(log_dir) if isinstance(item, list)]


def event_file(log_dir: Path) -> Path:
    """The only event file of a log."""
    (path,) = (log_dir / "gradients").glob("events.*")
    return path


def write_half(file: Any, data: bytes) -> None:
    """Fail half way, as on a full disk; in place of `event_file._write_all`."""
    file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")
