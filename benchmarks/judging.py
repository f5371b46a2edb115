"""Cost of judging the records of a training as it goes on, on the thread that trains.

    python -m benchmarks.judging
    python -m benchmarks.judging --layers 200 --milliseconds 2
    python -m benchmarks.judging --every-step
    python -m benchmarks.judging --write               # the rows into the docs, too

Records of dense layers that do not learn are handed to `Judge` as `GradientMonitor` does. Its
clock is moved on by what the training steps would take, so that ten minutes of training are
measured in seconds. "Share" is the time in `Judge` of the time of training; the last judgement,
when the training has ended, is not in it, but in a column of its own. Figures are medians; behind ±
is half the distance of the extremes. The peak of memory, of the kept records as well, is that of
another round, as counting it takes time.
"""

import argparse
import dataclasses
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from unittest import mock

import numpy as np

from benchmarks.tables import print_row
from keras_initkit.callbacks import judge
from tests.tensorboard_plugin_initkit.diagnosis.made import made, supervised

# Records that are read at once: by default, and if every step is recorded; and those that differ.
USUAL_READ, FULL_READ, PATTERN = 16, 64, 1024


class Clock:
    """A clock that trainings in no time can move on."""

    def __init__(self) -> None:
        self.trained = 0.0

    def monotonic(self) -> float:
        """Return seconds: those that have passed, and those of training."""
        return time.monotonic() + self.trained


def measure(layers: int, step: float, minutes: float, every_step: bool) -> tuple[float, float, int]:
    """Return the share of the time that is spent in `Judge`, seconds at the end, and peak bytes.

    The peak is 0 unless memory is traced.
    """
    steps, at_once = int(60 * minutes / step), FULL_READ if every_step else USUAL_READ
    # By default the first 100 steps are recorded, then (nearly) every 50th.
    recorded = np.concatenate([np.arange(100), np.arange(100, steps, 1 if every_step else 50)])
    record = made(recorded[:PATTERN], layers)
    supervised("sparse_categorical_crossentropy", 2.3, integers=1.0)(record)
    whole = record.chunk()
    clock, spent, judged = Clock(), 0.0, judge.Judge()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with mock.patch.object(judge, "time", clock):
        assert record.setup is not None
        judged.describe(record.setup)
        for begin in range(0, len(recorded), at_once):
            of = recorded[begin : begin + at_once]
            rows = np.arange(begin, begin + len(of)) % len(whole.steps)
            chunk = dataclasses.replace(whole.select(rows), steps=of)
            clock.trained = step * float(of[-1])
            start = time.monotonic()
            judged.add(chunk)
            spent += time.monotonic() - start
        start = time.monotonic()
        judged.finish()
    peak = tracemalloc.get_traced_memory()[1] - before
    return spent / clock.trained, time.monotonic() - start, peak


def tell(values: Sequence[float], unit: str) -> str:
    """Tell the median of figures, and half the distance of the extremes."""
    return f"{statistics.median(values):.2f} ± {(max(values) - min(values)) / 2:.2f} {unit}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[20, 200, 2_000, 10_000])
    parser.add_argument(
        "--milliseconds", type=float, default=0.05, help="of a training step, a layer"
    )
    parser.add_argument("--minutes", type=float, default=10, help="of training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every-step", action="store_true", help="have every step recorded")
    parser.add_argument("--write", action="store_true", help="write the rows into the docs")
    arguments = parser.parse_args()
    for layers in arguments.layers:
        step = layers * arguments.milliseconds / 1e3
        case = layers, step, arguments.minutes, arguments.every_step
        shares, ends, _ = zip(*(measure(*case) for _ in range(arguments.rounds)), strict=True)
        tracemalloc.start()
        peak = measure(*case)[-1]
        tracemalloc.stop()
        recorded = "every step" if arguments.every_step else "by default"
        row = [f"{layers:,} layers", f"{1e3 * step:g} ms, {recorded}"]
        row += [tell([100 * share for share in shares], "%"), tell(ends, "s")]
        row += [f"{peak / 1e6:.0f} MB"]
        print_row("judging", row, arguments.write)


if __name__ == "__main__":
    main()
