"""What every executable does from its start to its exit code.

Notable: rclpy's own signal handlers are not used. They shut the context down under threads that
are publishing, which ends in errors, now and then in a hanging wait or a crash. Here a signal only
asks for the end; then threads stop, the node goes, and the context goes last.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

WAKE_UP_S = 0.2  # how late a signal may be noticed


def run(make_node: Callable[[], Node], name: str, args: list[str] | None = None) -> int:
    """Serve a node until its future `done` has an exit code, SIGINT or SIGTERM -> exit code.

    A ValueError of `make_node` is a sentence for the user and exit code 1.
    """
    unknown = remove_ros_args(args if args is not None else sys.argv)[1:]
    if unknown:
        print(f"{name}: unknown argument(s) {' '.join(unknown)}; parameters are given as "
              "--ros-args -p name:=value", file=sys.stderr)
        return 2
    asked_to_end = _listen_to_signals()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = None
    try:
        try:
            node = make_node()
        except (ValueError, ParameterException) as error:  # also a value of a wrong type or range
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok() and not asked_to_end.is_set() and not node.done.done():
            executor.spin_until_future_complete(node.done, timeout_sec=WAKE_UP_S)
        return (node.done.result() or 0) if node.done.done() else 0
    except ExternalShutdownException:
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def _listen_to_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets.

    After it SIGINT is ignored, because `ros2 launch` and people send it twice, and a SIGTERM ends
    a process that hangs.
    """
    asked_to_end = threading.Event()

    def on_signal(number, frame) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        asked_to_end.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return asked_to_end
