"""Time to `import keras_initkit` beside `import keras`.

    python benchmarks/import_time.py

Processes alternate; times are medians, in milliseconds.
"""

import argparse
import os
import statistics
import subprocess
import sys

BAR_MS = 100

SCRIPT = """
import keras, time
start = time.perf_counter()
import keras_initkit
print((time.perf_counter() - start) * 1000)
"""


def added_ms() -> float:
    """Import both in a fresh process; return what the second one took."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    return float(output)


def main() -> None:
    """Print the median."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    times = [added_ms() for _ in range(parser.parse_args().runs)]
    print(
        f"import keras_initkit adds {statistics.median(times):.0f} ms to import keras "
        f"(bar: {BAR_MS} ms; {len(times)} runs, {min(times):.0f} to {max(times):.0f} ms)"
    )


if __name__ == "__main__":
    main()
