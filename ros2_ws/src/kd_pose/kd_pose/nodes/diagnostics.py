"""/diagnostics of a node: small, in node time, with what to do in the message.

Notable: statuses are functions that are asked when it is time, so nothing is paid per frame. The
timer runs on the steady clock: diagnostics must go on when simulated time stands still. Published
every period and as soon as a level changes. Names are `<node>: <part>` (REP 107).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
# How often levels are looked at, and how long something that happened once stays visible.
CHECK_PERIOD_S = 0.2
SHOWN_S = 5.0


@dataclass
class Status:
    """What one part of the node says of itself."""

    level: bytes = OK
    message: str = "ok"
    values: dict[str, Any] = field(default_factory=dict)

    def worsen(self, level: bytes, message: str) -> None:
        """Add a problem; the worst one comes first."""
        if self.level == OK:
            self.level, self.message = level, message
        elif level > self.level:
            self.level, self.message = level, f"{message}; {self.message}"
        else:
            self.message = f"{self.message}; {message}"


class Incident:
    """Something that happens now and then: its last text, how often, and whether lately."""

    def __init__(self) -> None:
        self.count = 0
        self.text = ""
        self._when = -np.inf

    def note(self, text: str) -> None:
        self.count += 1
        self.text = text
        self._when = time.monotonic()

    @property
    def recent(self) -> bool:
        return time.monotonic() - self._when < SHOWN_S


class Statistics:
    """The last `size` values of something measured once a frame, and the rate of frames."""

    def __init__(self, size: int = 100) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self._times: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        self._values.append(value)
        self._times.append(time.monotonic())

    def clear(self) -> None:
        self._values.clear()
        self._times.clear()

    @property
    def last(self) -> float:
        return self._values[-1] if self._values else float("nan")

    @property
    def rate_hz(self) -> float:
        """Over the values of the last `SHOWN_S` seconds."""
        now = time.monotonic()
        recent = sum(1 for when in tuple(self._times) if now - when < SHOWN_S)
        return recent / SHOWN_S

    def summary(self) -> dict[str, str]:
        """Mean, 95th percentile and maximum as text; empty without values."""
        values = [value for value in tuple(self._values) if np.isfinite(value)]
        if not values:
            return {}
        return {
            "mean": f"{np.mean(values):.1f}",
            "p95": f"{np.percentile(values, 95):.1f}",
            "max": f"{np.max(values):.1f}",
        }


class Diagnostics:
    """Publishes the statuses of a node until `close`."""

    def __init__(self, node: Node, period_s: float = 1.0) -> None:
        self.period_s = period_s
        self._node = node
        self._sources: dict[str, Callable[[], Status]] = {}
        self._levels: dict[str, bytes] = {}
        self._published = -np.inf
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(
            CHECK_PERIOD_S, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def add(self, part: str, source: Callable[[], Status]) -> None:
        """Ask `source` for the status of `part` from now on."""
        self._sources[part] = source

    def publish(self) -> None:
        """Publish all statuses now."""
        self._send(self._collect())

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)

    def _check(self) -> None:
        statuses = self._collect()
        levels = {part: status.level for part, status in statuses.items()}
        # A little early is better than one check too late.
        due = time.monotonic() - self._published > self.period_s - CHECK_PERIOD_S / 2
        if due or levels != self._levels:
            self._send(statuses)

    def _collect(self) -> dict[str, Status]:
        statuses = {}
        for part, source in self._sources.items():
            try:
                statuses[part] = source()
            except Exception as error:  # a diagnostic must never take the node down
                statuses[part] = Status(ERROR, f"diagnostics failed: {error!r}")
        return statuses

    def _send(self, statuses: dict[str, Status]) -> None:
        self._published = time.monotonic()
        self._levels = {part: status.level for part, status in statuses.items()}
        name = self._node.get_name()
        namespace = self._node.get_namespace().strip("/")
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        for part, status in statuses.items():
            message.status.append(
                DiagnosticStatus(
                    level=status.level,
                    name=f"{name}: {part}",
                    message=status.message,
                    hardware_id=f"{namespace}/{name}" if namespace else name,
                    values=[KeyValue(key=k, value=str(v)) for k, v in status.values.items()],
                )
            )
        self._publisher.publish(message)
