"""`python -m benchmarks [name ...]`: run, print the table, exit 1 if a goal is missed."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import platform
import sys

import cv2
import numpy as np

from benchmarks.timing import table

NAMES = ("crop", "pnp", "alignment")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    cv2.setNumThreads(1)
    rows, skipped = [], []
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        missing = [peer for peer in module.PEERS if importlib.util.find_spec(peer) is None]
        if missing:
            skipped.append(f"{name}: needs pip install {' '.join(missing)}")
            continue
        rows += module.run()
    print(f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}, "
          f"NumPy {np.__version__}, one thread\n")
    print(table(rows))
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)
    return 0 if all(item.holds for item in rows) and not skipped else 1


if __name__ == "__main__":
    sys.exit(main())
