"""Time to draw a large orthogonal matrix: ours, Keras's and PyTorch's.

    python benchmarks/orthogonal.py [--size N] [--repeats N]

Each time is that of a whole call, with its random numbers, until the weights are there; a call
each alternates, and times are medians of wall-clock seconds. Keras's is left out where it would
take minutes, by a first call on a matrix of half the size. The backend is from
`KERAS_BACKEND`; PyTorch is timed where it can be imported. Errors are the largest deviation of
the products of columns from those of orthonormal ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_initkit.initializers import Orthogonal

# Of one call of Keras's, in seconds.
TOO_LONG = 120


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=4096, help="rows and columns")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    size = arguments.size
    calls: dict[str, Callable[[int], Any]] = {
        "keras_initkit": lambda n: on_host(Orthogonal(seed=None)((n, n))),
        "Keras": lambda n: on_host(keras.initializers.Orthogonal(seed=None)((n, n))),
    }
    try:
        import torch
    except ImportError:
        print("PyTorch cannot be imported: it is not timed.")
    else:
        calls["PyTorch"] = lambda n: torch.nn.init.orthogonal_(torch.empty(n, n)).numpy()
    for call in calls.values():
        call(16)  # starts what is started once
    half = seconds(lambda: calls["Keras"](size // 2))
    if 8 * half > TOO_LONG:
        print(f"Keras: {half:.1f} s for half the size; left out.")
        del calls["Keras"]
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(arguments.repeats):
        for name, call in calls.items():
            times[name].append(seconds(lambda call=call: call(size)))  # type: ignore[misc]
    print(f"{size} x {size}, {keras.backend.backend()}, Keras {keras.__version__}")
    for name, call in calls.items():
        matrix = call(size)
        error = np.abs(matrix.T @ matrix - np.eye(size, dtype=np.float32)).max()
        low, high = min(times[name]), max(times[name])
        print(
            f"{name:14} {statistics.median(times[name]):7.3f} s "
            f"({low:.3f} to {high:.3f}, {arguments.repeats} runs), error {error:.0e}"
        )


def on_host(tensor: Any) -> Any:
    """Wait for a tensor, and return it as an array."""
    return keras.ops.convert_to_numpy(tensor)


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
