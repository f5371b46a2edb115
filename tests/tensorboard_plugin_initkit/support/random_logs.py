"""Logs of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.log.gradient_log import LogWriter
from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import Layout, Variable

_FRACTIONS = ("zeros", "dead_units", "clip_ratio")


def layout_of(
    *layers: str, types: Sequence[str] = ("Dense",), optimizers: tuple[str, ...] = ("",)
) -> Layout:
    """A kernel and a bias a layer; types and optimizers take turns."""
    return Layout(
        tuple(
            Variable(f"{layer}/{name}", layer, shape, optimizer, kind, "HeNormal()")
            for i, layer in enumerate(layers)
            for kind in [types[i % len(types)]]
            for optimizer in [optimizers[i % len(optimizers)]]
            for name, shape in (("kernel", (3, 2)), ("bias", (2,)))
        ),
        optimizers,
    )


def chunk_of(
    layout: Layout,
    steps: Any,
    seed: int = 0,
    statistics: Sequence[str] = RECORDED,
    specials: Sequence[float] = (),
) -> Chunk:
    """Random numbers of these statistics; a tenth of them is each of the special ones."""
    rng = np.random.default_rng(seed)
    shape = (len(steps), len(layout.variables))
    values = {name: rng.lognormal(sigma=3, size=shape).astype("f4") for name in statistics}
    for name in set(_FRACTIONS) & values.keys():
        values[name] = rng.random(shape, np.float32)
    values["nonfinite"] = np.zeros(shape, np.float32)
    for array in values.values():
        for special in specials:
            array[rng.random(shape) < 0.1] = special
    shape = (len(steps), len(layout.optimizers))
    totals = {name: rng.lognormal(size=shape).astype("f4") for name in TOTALS}
    return Chunk(layout, np.asarray(steps, np.int64), values, totals)


def write(log_dir: Path, *chunks: Chunk) -> LogWriter:
    """Write a log as a process of its own does; return its writer."""
    writer = LogWriter(log_dir, scalars=0)
    for chunk in chunks:
        writer.write(chunk)
    writer.end()
    return writer
