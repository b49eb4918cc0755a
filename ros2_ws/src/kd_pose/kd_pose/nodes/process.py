"""What every executable does from its start to its exit code.

Notable: rclpy's own signal handlers are not used. They shut the context down under threads that
are publishing, which ends in errors, now and then in a hanging wait or a crash. Here a signal only
asks for the end; then threads stop, the node goes, and the context goes last.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from kd_pose.nodes import startup_errors

WAKE_UP_S = 0.2  # how late a signal may be noticed
TOGETHER_S = 1.0  # signals within are one request to end


def run(make_node: Callable[[], Node], name: str, args: list[str] | None = None,
        at_end: Callable[[Node], int] | None = None) -> int:
    """Serve a node until its future `done` has an exit code, SIGINT or SIGTERM -> exit code.

    What is wrong with arguments, parameters or, as a ValueError of `make_node`, with anything else
    is a sentence for the user and exit code 1. at_end: called with the node that was served,
    before it goes; its exit code counts where the node itself has none but 0.
    """
    asked_to_end = _listen_to_signals()
    node = None
    try:
        try:
            unknown = remove_ros_args(args if args is not None else sys.argv)[1:]
            if unknown:
                print(f"{name}: unknown argument(s) {' '.join(unknown)}; parameters are given as "
                      "--ros-args -p name:=value", file=sys.stderr)
                return 2
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
            node = make_node()
        except startup_errors.ERRORS as error:
            print(f"{name}: {startup_errors.sentence(error)}", file=sys.stderr)
            return 2 if isinstance(error, startup_errors.UnknownArguments) else 1
        code = _serve(node, asked_to_end)
        _ending()
        last = at_end(node) if at_end else 0
        return code or last
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def _serve(node: Node, asked_to_end: threading.Event) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not asked_to_end.is_set() and not node.done.done():
            executor.spin_until_future_complete(node.done, timeout_sec=WAKE_UP_S)
    except ExternalShutdownException:
        return 0
    return (node.done.result() or 0) if node.done.done() else 0


def _listen_to_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; a SIGTERM later on ends what hangs.

    `ros2 launch` and people send SIGINT twice, and both signals may come before Python sees the
    first: a handler must not take away another one, whose signal may be waiting already.
    """
    asked_to_end = threading.Event()
    first = 0.0

    def on_signal(number, frame) -> None:
        nonlocal first
        if not asked_to_end.is_set():
            first = time.monotonic()
            asked_to_end.set()
        elif number == signal.SIGTERM and time.monotonic() - first > TOGETHER_S:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return asked_to_end


def _ending() -> None:
    """From now on SIGINT is ignored, and SIGTERM ends the process even where it hangs in C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
