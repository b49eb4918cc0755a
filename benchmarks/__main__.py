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

NAMES = ("crop", "pnp", "codes", "simcc", "alignment", "imports")
# only when named: the peer is on no package index, or needs NumPy 1, or it takes many minutes
ASKED_FOR = ("bop_errors", "wholebody_data", "wholebody_eval", "wholebody_frame",
             "wide_convolutions")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = NAMES + ASKED_FOR
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(known)}")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    cv2.setNumThreads(1)
    rows, skipped = [], []
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        missing = [peer for peer in module.PEERS if importlib.util.find_spec(peer) is None]
        if missing:
            wanted = getattr(module, "INSTALL", " ".join(missing))
            skipped.append(f"{name}: needs pip install {wanted}")
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
