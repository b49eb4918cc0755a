"""Entry points of the executables: a signal ends them quietly from the first import on.

Notable: importing a node takes half a second, in which Ctrl-C would be a traceback out of whatever
is imported just then. Nothing has been made yet, so there is nothing to clean up; `process.run`
puts its own handlers in place of these.
"""

from __future__ import annotations

import importlib
import os
import signal


def object_pose() -> int:
    return _start("object_pose_node")


def wholebody_pose() -> int:
    return _start("wholebody_pose_node")


def player() -> int:
    return _start("player_node")


def monitor() -> int:
    return _start("monitor_node")


def _start(module: str) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    return importlib.import_module(f"kd_pose.nodes.{module}").main()


def _leave(number, frame) -> None:
    # Not SystemExit: some of what is imported catches everything.
    os._exit(0)
