"""Jobs in processes of their own, some at a time, that are all stopped when one has to stop.

A pool takes the next jobs into its queue while the present ones are done, and cannot take them
back; here a job is begun when another has ended. Its process does not hear Ctrl-C, only what it is
sent from here, once: two signals would be taken for an impatient user.
"""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from kd_pose_training.engine import signals
from kd_pose_training.engine.failure import Failure, can_be_sent


def in_processes(run: Callable[..., Any], jobs: Sequence[tuple], at_a_time: int) -> Iterator[Any]:
    """Results of ``run(*job)`` as they finish, ``at_a_time`` of them at once.

    A signal or an error sends SIGTERM to what is running, and waits for it.

    Raises:
        Exception: what a job raises, as it is.
        BrokenProcessPool: a process was killed.
    """
    left, running = list(jobs), {}
    try:
        while left or running:
            while left and len(running) < at_a_time:
                with signals.starting_processes(signal.SIGINT, signal.SIGTERM):
                    connection, process = _start(run, left.pop(0))
                    running[connection] = process
            for connection in wait(list(running)):
                yield _received(connection, running)
    except BaseException:
        _stop(running)
        raise


def _start(run: Callable[..., Any], job: tuple) -> tuple[Connection, BaseProcess]:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(run, job, sender))
    process.start()
    sender.close()  # the process has its own: where that ends, so does the pipe
    return receiver, process


def _received(connection: Connection, running: dict[Connection, BaseProcess]) -> Any:
    """What a process has sent, which is then no longer one of those that run."""
    try:
        outcome = connection.recv()
    except EOFError:
        outcome = None
    process = running.pop(connection)
    process.join()
    connection.close()
    if process.exitcode:
        raise BrokenProcessPool(f"the process of a job ended with {process.exitcode}")
    if isinstance(outcome, Failure):
        raise outcome.error from RuntimeError(f"in the process of a job:\n{outcome.where}")
    return outcome


def _stop(running: dict[Connection, BaseProcess]) -> None:
    """Ask processes to stop and wait for them; a signal meanwhile kills them."""
    processes = list(running.values())
    try:
        with signals.deferred():
            for connection, process in running.items():
                process.terminate()
                connection.close()  # or who is sending a large result would wait for a reader
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise


def _work(run: Callable[..., Any], job: tuple, connection: Connection) -> None:
    """In the process: do a job and send what comes of it."""
    first: list[float] = []

    def on_signal(number: int, frame: object) -> None:
        if not first or time.monotonic() - first[0] > signals.TOGETHER_S:
            first.append(time.monotonic())
            raise KeyboardInterrupt

    outcome: Any
    try:
        signal.signal(signal.SIGTERM, on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        outcome = run(*job)
    except BaseException as error:
        where = traceback.format_exc()
        outcome = Failure(error if can_be_sent(error) else RuntimeError(where), where)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        connection.send(outcome)
