"""What SIGINT and SIGTERM do: a training stops after the present iteration, other work at once.
And how a process is known whose helper was killed.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager


@contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """In here SIGTERM, too, raises KeyboardInterrupt, and reaches this process's children.

    A terminal sends Ctrl-C to all processes of a command; ``kill``, a container that is stopped
    and batch systems send SIGTERM to the first one only, whose children would work on and then
    be in the way of the same command when it is given again. A second SIGTERM ends the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for child in multiprocessing.active_children():
            child.terminate()
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def is_of_killed_process(error: BaseException) -> bool:
    """Whether an error says that a process of a pool or of a data loader was killed.

    torch raises a plain RuntimeError, from a signal handler and so wherever the program is.
    """
    return isinstance(error, BrokenExecutor) or (
        isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"))


class StopRequest:
    """Context manager; ``requested`` turns true on the first signal, the second interrupts."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
