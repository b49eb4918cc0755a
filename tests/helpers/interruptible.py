"""Jobs in processes as a program of its own, so that tests can interrupt it."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from kd_pose_training.engine.processes import in_processes
from kd_pose_training.engine.signals import terminate_like_interrupt


def long_job(folder: Path, number: int) -> int:
    """Leaves ``<number>.begun``; stopped, it takes a while until there is ``<number>.saved``."""
    try:
        (folder / f"{number}.begun").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)
        (folder / f"{number}.saved").touch()
        raise
    return number


def job(number: int) -> int | str:
    """Its number; 3 is refused, 4 dies, 5 gives more than a pipe holds."""
    if number == 3:
        raise ValueError("3 is not allowed")
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1_000_000 * "5" if number == 5 else number


def main() -> int:
    jobs = [(number,) for number in range(6)]
    try:
        with terminate_like_interrupt():
            list(in_processes(partial(long_job, Path(sys.argv[1])), jobs, 2))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
