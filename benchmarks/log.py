"""Cost of a log: CPU time and bytes for each recorded step, off the training thread; of reading.

    python benchmarks/log.py                     # 200 layers of a kernel and a bias
    python benchmarks/log.py --layers 50 --chunk 1

Random values are written in chunks, as GradientMonitor does. "6 statistics" are those that are
always recorded; "all" are those of `RECORDED`. What is read is all of them, and one is looked at.
"Columns that change" are those of another layout in each chunk, of two in turn. Figures are
medians over the repeats.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tensorboard_plugin_initkit.log.gradient_log import LogWriter
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tensorboard_plugin_initkit.record.statistics import STATISTICS, TOTAL_STATISTICS

SIX = ("norm", "mean_abs", "max_abs", "zeros", "nonfinite", "weight_norm")
SAMPLES = 64
CASES = {
    "6 statistics": (SIX, None, 0),
    "all 12": (RECORDED, None, 0),
    "all and the default scalars": (RECORDED, ("norm",), 0),
    "all and all scalars": (RECORDED, (*STATISTICS, *TOTAL_STATISTICS), 0),
    "all and histograms at every 10th": (RECORDED, None, 10),
}


def layout_of(layers: int) -> Layout:
    """Dense layers of 256 units."""
    variables = [
        Variable(f"sequential/dense_{i}/{name}", f"sequential/dense_{i}", shape)
        for i in range(layers)
        for name, shape in (("kernel", (256, 256)), ("bias", (256,)))
    ]
    return Layout(tuple(variables))


def chunk_of(layout: Layout, names: tuple[str, ...], steps: range) -> Chunk:
    """Random values of some statistics."""
    rng = np.random.default_rng(0)

    def table(width: int) -> np.ndarray:
        return rng.lognormal(size=(len(steps), width)).astype(np.float32)

    values = {name: table(len(layout.variables)) for name in names}
    return Chunk(layout, np.array(steps), values, {name: table(1) for name in TOTALS})


def cost(
    layers: int,
    names: tuple[str, ...],
    scalars: tuple[str, ...] | None,
    histograms: int,
    chunk: int,
    steps: int,
) -> tuple[float, float]:
    """CPU milliseconds and bytes a recorded step."""
    layout = layout_of(layers)
    samples = [
        np.random.default_rng(0).normal(size=(chunk, SAMPLES)).astype(np.float32)
        for _ in layout.variables
    ]
    with tempfile.TemporaryDirectory() as log_dir:
        writer = LogWriter(log_dir, scalars, histograms)
        chunks = [
            chunk_of(layout, names, range(start, start + chunk)) for start in range(0, steps, chunk)
        ]
        start = time.process_time()
        for one in chunks:
            writer.write(one, samples)
        seconds = time.process_time() - start
        (path,) = Path(log_dir).rglob("events.*")
        return 1e3 * seconds / steps, path.stat().st_size / steps


def cost_of_reading(layers: int, chunk: int, steps: int, repeats: int, changes: bool) -> list[str]:
    """CPU milliseconds for 1,000 steps: all of them, and at most 512 and 64."""
    layouts = [layout_of(layers), layout_of(layers + changes)]
    parts = [chunk_of(layout, RECORDED, range(chunk)) for layout in layouts]
    with tempfile.TemporaryDirectory() as log_dir:
        writer = LogWriter(log_dir, None)
        for i, start in enumerate(range(0, steps, chunk)):
            steps_of = np.arange(start, start + chunk)
            writer.write(dataclasses.replace(parts[i % 2], steps=steps_of))
        figures: list[list[float]] = []
        for _ in range(repeats):
            figures.append([])
            for most in (None, 512, 64):
                began = time.process_time()
                read_log(log_dir, most)["norm"]
                figures[-1].append(1e6 * (time.process_time() - began) / steps)
    return [f"{statistics.median(column):.0f}" for column in zip(*figures, strict=True)]


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--chunk", type=int, default=64, help="recorded steps a chunk")
    parser.add_argument("--steps", type=int, default=2_560)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{arguments.layers} layers, two variables each, {arguments.chunk} steps a chunk\n")
    print("| what is written | CPU ms a step | bytes a layer and step |\n|---|---|---|")
    for case, (names, scalars, histograms) in CASES.items():
        figures = [
            cost(arguments.layers, names, scalars, histograms, arguments.chunk, arguments.steps)
            for _ in range(arguments.repeats)
        ]
        milliseconds, size = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"| {case} | {milliseconds:.2f} | {size / arguments.layers:.0f} |", flush=True)
    print("\n| CPU ms to read 1,000 steps | all | `max_steps=512` | `max_steps=64` |")
    print("|---|---|---|---|")
    for case, times, changes in (
        (f"{arguments.steps:,} steps", 1, False),
        (f"{4 * arguments.steps:,} steps", 4, False),
        (f"{arguments.steps:,} steps, columns that change", 1, True),
        (f"{4 * arguments.steps:,} steps, columns that change", 4, True),
    ):
        row = cost_of_reading(
            arguments.layers, arguments.chunk, times * arguments.steps, arguments.repeats, changes
        )
        print(f"| {case} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
