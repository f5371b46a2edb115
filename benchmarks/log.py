"""Cost of a log: CPU time and bytes for each recorded step, off the training thread; of reading.

    python benchmarks/log.py                     # 200 layers of a kernel and a bias
    python benchmarks/log.py --layers 50 --chunk 1

Random values are written in chunks, as GradientMonitor does. "6 statistics" are those that are
always recorded; "all" are those of `RECORDED`. What is read is all of them, and one is looked at.
"Columns that change" are those of another layout in each chunk, of two in turn; "new columns" are
of a layer in each chunk that no other has. All has its turn in each round. Figures are medians;
behind ± is half the distance of the extremes. The last column is the median of ratios in a round.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
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
# Layers of a chunk beside the usual ones, by the chunk's number.
CHANGES: dict[str, Callable[[int], tuple[str, ...]]] = {
    "": lambda chunk: (),
    ", columns that change": lambda chunk: ("other",) * (chunk % 2),
    ", new columns": lambda chunk: (f"new_{chunk}",),
}


def layout_of(layers: int, more: Sequence[str] = ()) -> Layout:
    """Dense layers of 256 units, and more of these names."""
    variables = [
        Variable(f"sequential/{layer}/{name}", f"sequential/{layer}", shape)
        for layer in (*(f"dense_{i}" for i in range(layers)), *more)
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


def write_log(log_dir: str, layers: int, chunk: int, steps: int, changes: str) -> None:
    """Write all statistics of some steps."""
    more, writer = CHANGES[changes], LogWriter(log_dir, None)
    parts = [chunk_of(layout_of(layers, more(i)), RECORDED, range(chunk)) for i in range(2)]
    for i, start in enumerate(range(0, steps, chunk)):
        layout, steps_of = layout_of(layers, more(i)), np.arange(start, start + chunk)
        writer.write(dataclasses.replace(parts[i % 2], layout=layout, steps=steps_of))


def cost_of_reading(log_dir: str, steps: int) -> list[float]:
    """CPU milliseconds for 1,000 steps: all of them, at most 512 and 64; 512 relative to all."""
    figures = []
    for most in (None, 512, 64):
        began = time.process_time()
        read_log(log_dir, most)["norm"]
        figures.append(1e6 * (time.process_time() - began) / steps)
    return [*figures, figures[1] / figures[0]]


def tell(values: Sequence[float], digits: int) -> str:
    """Tell the median, and half the distance of the extremes."""
    error = (max(values) - min(values)) / 2
    return f"{statistics.median(values):.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--chunk", type=int, default=64, help="recorded steps a chunk")
    parser.add_argument("--steps", type=int, default=2_560)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    layers, chunk, steps = arguments.layers, arguments.chunk, arguments.steps
    print(f"{layers} layers, two variables each, {chunk} steps a chunk\n")
    print("| what is written | CPU ms a step | bytes a layer and step |\n|---|---|---|")
    rounds = [
        [cost(layers, *case, chunk, steps) for case in CASES.values()]
        for _ in range(arguments.rounds)
    ]
    for case, of_case in zip(CASES, zip(*rounds, strict=True), strict=True):
        milliseconds, sizes = zip(*of_case, strict=True)
        size = statistics.median(sizes) / layers
        print(f"| {case} | {tell(milliseconds, 2)} | {size:.0f} |", flush=True)
    print("\n| CPU ms to read 1,000 steps | all | `max_steps=512` | `max_steps=64` | 512 : all |")
    print("|---|---|---|---|---|")
    cases = [(length, changes) for changes in CHANGES for length in (steps, 4 * steps)]
    with tempfile.TemporaryDirectory() as folder:
        logs = [str(Path(folder, str(i))) for i in range(len(cases))]
        for log_dir, (length, changes) in zip(logs, cases, strict=True):
            write_log(log_dir, layers, chunk, length, changes)
        readings = [
            [cost_of_reading(log, length) for log, (length, _) in zip(logs, cases, strict=True)]
            for _ in range(arguments.rounds)
        ]
    for (length, changes), of_log in zip(cases, zip(*readings, strict=True), strict=True):
        *times, ratio = zip(*of_log, strict=True)
        cells = [f"{length:,} steps{changes}", *(tell(t, 0) for t in times), tell(ratio, 2)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
