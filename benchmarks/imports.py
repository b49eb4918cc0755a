"""Time to import the whole-body runtime, against `import rtmlib`; in processes of their own.

rtmlib loads onnxruntime as it is imported, kd_pose only when a model is opened, so the second row
adds it on this side. Neither loads torch, which is checked.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from benchmarks.timing import Row, row

PEERS = ("rtmlib", "onnxruntime")
INSTALL = "--no-deps -r tools/requirements/bench.txt"
GOAL = 1.0
PEER = "import rtmlib"
OURS = "import kd_pose.wholebody_pose, kd_pose.person_detector, kd_pose.tracking"
CODE = """
import sys, time
start = time.process_time()
{}
print(1e3 * (time.process_time() - start), *sorted({{"torch", "onnx"}} & set(sys.modules)))
"""


def run(pairs: int = 30) -> list[Row]:
    return [_row("import of the runtime", OURS, pairs),
            _row("import of the runtime and onnxruntime", f"{OURS}, onnxruntime", pairs)]


def _row(name: str, ours: str, pairs: int) -> Row:
    times, loaded = np.empty((2, pairs)), set()
    for _ in range(2):  # files into the system's cache
        _measure(PEER), _measure(ours)
    for pair in range(pairs):
        for line, statement in enumerate((PEER, ours)):
            times[line, pair], names = _measure(statement)
            loaded.update(names if line else ())
    guard = f"loads {', '.join(sorted(loaded))}" if loaded else "neither torch nor onnx loaded"
    return row(f"{name}, vs rtmlib", (times[0], times[1]), GOAL, guard, not loaded)


def _measure(statement: str) -> tuple[float, list[str]]:
    """CPU milliseconds of an import in a fresh process, and which heavy modules it loaded."""
    done = subprocess.run([sys.executable, "-c", CODE.format(statement)], capture_output=True,
                          text=True, check=True)
    ms, *names = done.stdout.split()
    return float(ms), names
