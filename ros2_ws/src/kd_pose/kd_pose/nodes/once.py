"""`~/estimate_once`: requests that wait for the result of the next image.

Notable: the callback is a coroutine, so that a waiting request blocks nobody, on one executor
thread as on many. The worker only leaves results behind; a guard condition has them handed over in
the executor's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

DEFAULT_TIMEOUT_S = 5.0


class OnceService:
    """The service of one node. kind: a type with `timeout` -> `success`, `message`, `result`.

    refusal: why no image can come, "" if one can. missing: what is known where none came.
    """

    def __init__(self, node: Node, kind: type, refusal: Callable[[], str],
                 missing: Callable[[], str]) -> None:
        self._node, self._refusal, self._missing = node, refusal, missing
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, Future]] = []
        self._ready: list[tuple[Future, Any]] = []
        self._guard = node.create_guard_condition(self._hand_over)
        # A group of its own: a group lets nobody else in while one of its callbacks waits.
        node.create_service(kind, "~/estimate_once", self._serve,
                            callback_group=ReentrantCallbackGroup())

    def offer(self, received: float, message: Any) -> None:
        """The result of an image that was received then (time.perf_counter()); by the worker."""
        if self._waiting:
            self._answer(lambda asked: asked < received, message)

    def refuse_all(self, reason: str) -> None:
        """Nobody's image will come."""
        self._answer(lambda asked: True, reason)

    def _answer(self, whose: Callable[[float], bool], answer: Any) -> None:
        with self._lock:
            self._ready += [(future, answer) for asked, future in self._waiting if whose(asked)]
            self._waiting = [item for item in self._waiting if not whose(item[0])]
            found = bool(self._ready)
        if found and self._node.context.ok():
            self._guard.trigger()

    def _hand_over(self) -> None:
        with self._lock:
            ready, self._ready = self._ready, []
        for future, answer in ready:
            if not future.done():
                future.set_result(answer)

    async def _serve(self, request: Any, response: Any) -> Any:
        """A text as answer is the reason why there is none."""
        timeout_s = request.timeout.sec + 1e-9 * request.timeout.nanosec or DEFAULT_TIMEOUT_S
        answer = self._refusal()
        if timeout_s < 0:
            answer = f"timeout must not be negative, got {timeout_s:g} s"
        if not answer:
            answer = await self._next_image(timeout_s)
        response.success = not isinstance(answer, str)
        if response.success:
            response.result = answer
        else:
            response.message = answer
        return response

    def _next_image(self, timeout_s: float) -> Future:
        """A future of the answer, at the latest after that time."""
        future = Future()

        def give_up() -> None:
            if not future.done():
                with self._lock:
                    self._waiting = [item for item in self._waiting if item[1] is not future]
                future.set_result(f"no result within {timeout_s:g} s: {self._missing()}")

        timer = self._node.create_timer(timeout_s, give_up,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))
        future.add_done_callback(lambda _: self._node.destroy_timer(timer))
        with self._lock:
            self._waiting.append((time.perf_counter(), future))
        return future
