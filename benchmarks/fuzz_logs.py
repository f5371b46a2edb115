"""Damaged logs by the thousand: each must be refused with file and offset, or read right.

python -m benchmarks.fuzz_logs                 # 2,400 mutants of a log
python -m benchmarks.fuzz_logs --mutants 50000 --first 2400
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tensorboard_plugin_initkit.log.read_log import read_log
from tests.tensorboard_plugin_initkit.log.test_damage import check_mutant, make_log, values_of


def main() -> None:
    """Try mutants; an assertion fails at one that is read wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=2_400)
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        log_dir = Path(directory)
        records = make_log(log_dir)
        whole, start = values_of(read_log(log_dir)), time.perf_counter()
        numbers = range(options.first, options.first + options.mutants)
        outcomes = Counter(check_mutant(log_dir, records, whole, number) for number in numbers)
        print(dict(outcomes), f"in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
