"""Mend the CMake files that the ROS 2 wheels put into a virtual environment.

Their exported targets name the include folders of NumPy and Python on the machine that built the
wheels, which CMake refuses because they do not exist. This puts the environment's own folders in.
Run it with the environment's Python; a second run changes nothing.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

NUMPY = re.compile(r"/opt/python/cp3\d+-cp3\d+/lib/python3\.\d+/site-packages/numpy/_core/include")
PYTHON = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")


def mend(prefix: Path) -> int:
    """Rewrite `prefix`/share/*/cmake/*.cmake; returns how many files were changed."""
    folders = {NUMPY: numpy.get_include(), PYTHON: sysconfig.get_paths()["include"]}
    changed = 0
    for path in sorted(prefix.glob("share/*/cmake/*.cmake")):
        text = mended = path.read_text(encoding="utf-8")
        for pattern, folder in folders.items():
            mended = pattern.sub(lambda _, folder=folder: folder, mended)
        if mended != text:
            path.write_text(mended, encoding="utf-8")
            changed += 1
    return changed


if __name__ == "__main__":
    print(f"mended {mend(Path(sys.prefix))} CMake files of the ROS 2 wheels")
