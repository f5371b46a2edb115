"""Faults inside a monitor or a probe: each function that a `fit` calls raises in turn.

python -m benchmarks.fault_injection           # some minutes; exit code 1 if one is not contained
python -m benchmarks.fault_injection --every 5 # every 5th function
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.callbacks.test_fault_injection import Trainings, name


def main() -> int:
    """Make functions raise in eager and in graph mode; print what went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="try every so many functions")
    every, failed = parser.parse_args().every, 0
    for mode in ("eager", "graph"):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            trainings = Trainings(Path(folder), mode == "eager")
            functions = trainings.functions()[::every]
            for function in functions:
                if fault := trainings.find_faults(function):
                    failed += 1
                    print(f"{mode}  {name(function):50}  {fault}", flush=True)
                    trainings = Trainings(Path(folder) / str(failed), mode == "eager")
        seconds = time.perf_counter() - start
        print(f"{mode}: {len(functions)} functions, {failed} failed up to now, {seconds:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
