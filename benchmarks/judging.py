"""Cost of judging the records of a training as it goes on, on the thread that trains.

    python -m benchmarks.judging
    python -m benchmarks.judging --layers 200 --milliseconds 2

Records of dense layers that do not learn are handed to `Judge` as `GradientMonitor` does. Its
clock is moved on by what the training steps would take, so that ten minutes of training are
measured in seconds. "Share" is the time in `Judge` of the time of training; the last judgement,
when the training has ended, is not in it, but in a column of its own.
"""

import argparse
import time
from unittest import mock

import numpy as np

from keras_initkit.callbacks import judge
from tests.tensorboard_plugin_initkit.diagnosis.made import made, supervised

RECORDS_A_READ = 16


class Clock:
    """A clock that trainings in no time can move on."""

    def __init__(self) -> None:
        self.trained = 0.0

    def monotonic(self) -> float:
        """Return seconds: those that have passed, and those of training."""
        return time.monotonic() + self.trained


def measure(layers: int, step: float, minutes: float) -> tuple[float, float, float]:
    """Return the seconds of training, and in `Judge`: while training, and at its end."""
    steps = int(60 * minutes / step)
    # The first 100 steps are recorded, then every 50th.
    recorded = np.concatenate([np.arange(100), np.arange(100, steps, 50)])
    record = made(recorded, layers)
    supervised("sparse_categorical_crossentropy", 2.3, integers=1.0)(record)
    whole = record.chunk()
    clock, spent, judged = Clock(), 0.0, judge.Judge()
    with mock.patch.object(judge, "time", clock):
        assert record.setup is not None
        judged.describe(record.setup)
        for begin in range(0, len(recorded), RECORDS_A_READ):
            chunk = whole.select(slice(begin, begin + RECORDS_A_READ))
            clock.trained = step * float(chunk.steps[-1])
            start = time.monotonic()
            judged.add(chunk)
            spent += time.monotonic() - start
        start = time.monotonic()
        judged.finish()
        return clock.trained, spent, time.monotonic() - start


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[20, 200, 2_000, 10_000])
    parser.add_argument(
        "--milliseconds", type=float, default=0.05, help="of a training step, a layer"
    )
    parser.add_argument("--minutes", type=float, default=10, help="of training")
    arguments = parser.parse_args()
    print("| layers | a step | training | judging it, share | at its end |\n|---|---|---|---|---|")
    for layers in arguments.layers:
        step = layers * arguments.milliseconds / 1e3
        trained, spent, end = measure(layers, step, arguments.minutes)
        share = 100 * spent / trained
        print(
            f"| {layers:,} | {1e3 * step:.0f} ms | {trained:.0f} s | {share:.2f} % | {end:.2f} s |"
        )


if __name__ == "__main__":
    main()
