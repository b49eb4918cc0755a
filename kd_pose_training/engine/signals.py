"""What SIGINT and SIGTERM do: a training stops after the present iteration, other work at once.
And how a process is known whose helper was killed.

Who starts processes stops them: a terminal sends Ctrl-C to all processes of a command; ``kill``,
a container that is stopped and batch systems send a signal to the first one only.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker

TOGETHER_S = 1.0  # SIGTERMs within are one request to end


@contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """In here SIGTERM, too, raises KeyboardInterrupt. A second SIGTERM ends the process, unless it
    comes at once: ``timeout`` sends one to its child and one to the child's group."""
    if not _in_main_thread():
        yield
        return

    first: list[float] = []

    def on_signal(number: int, frame: object) -> None:
        if not first:
            first.append(time.monotonic())
            raise KeyboardInterrupt
        if time.monotonic() - first[0] > TOGETHER_S:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def deferred() -> Iterator[None]:
    """A SIGINT or SIGTERM that comes in here takes effect at the end.

    For code that swallows a KeyboardInterrupt (``except BaseException`` around an optional
    import) or must not be left half done.
    """
    if not _in_main_thread():
        yield
        return
    arrived: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        arrived.append(number)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in previous.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in arrived:
            handlers[number](number, None)


@contextmanager
def starting_processes(*held: int) -> Iterator[None]:
    """Around the start of processes: they are born with the signals ``held`` blocked, and a
    signal to this process waits until all of them are known to it."""
    with deferred():
        # It is begun with the first process otherwise, and unblocks both signals afterwards.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


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
        self._first_s = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if _in_main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        if not self.requested:
            self.requested, self._first_s = True, time.monotonic()
        elif number == signal.SIGINT or time.monotonic() - self._first_s > TOGETHER_S:
            raise KeyboardInterrupt
