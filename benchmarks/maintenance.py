"""Maintenance beside work: writers, collections without grace, squashes, deletions and kills on one store.

    python benchmarks/maintenance.py --minutes 10 --writers 6

Prints how many commits were promised and kept. Exits with 1 when any was lost, or anything cannot be read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.crashes import OPERATIONS, crash_everywhere
from tests.support.maintenance_world import work_beside_gc


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    end, seed, failed = time.monotonic() + arguments.minutes * 60, arguments.seed, False
    for name in OPERATIONS:
        with tempfile.TemporaryDirectory() as folder:
            steps, problems = crash_everywhere(Path(folder), name)
        failed |= bool(problems)
        print(f"{name}: a crash at each of {steps} steps, {len(problems)} problems", *problems, sep="\n  ")
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            work = work_beside_gc(Path(folder), seconds=20, writers=arguments.writers, kills=2, seed=seed)
        failed |= bool(work.problems)
        print(
            f"seed {seed}: {work.promised} commits promised beside {work.collections} collections and "
            f"{work.kills} kills, {len(work.problems)} problems",
            *work.problems,
            sep="\n  ",
            flush=True,
        )
        seed += 100
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
