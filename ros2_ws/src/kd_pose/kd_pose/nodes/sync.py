"""Which messages belong together, and which frame is worked on next. No ROS: stamps are numbers.

Notable: callbacks only store (`FrameSync.add_*` costs microseconds), one worker takes the newest
complete frame (`take`), and whatever is passed over is counted. Order of arrival decides what is
newer, not stamps, so that a bag played in a loop goes on.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IMAGE = "image"
MAX_PARTNERS = 50  # messages of other topics kept while their image is on its way
MAX_WAITING = 10  # images kept while their partners are on their way


@dataclass
class Counters:
    """Images since activation; see kd_pose_msgs/Timing.

    received: by the node. processed: results were published. replaced: a newer one was complete
    before the worker was free. unsynced: camera_info, depth or boxes did not come. rejected:
    unusable.
    """

    received: int = 0
    processed: int = 0
    replaced: int = 0
    unsynced: int = 0
    rejected: int = 0


@dataclass
class Frame:
    """An image message with its partners. received: time.perf_counter() at its callback."""

    stamp: int
    image: Any
    partners: dict[str, Any]
    received: float


class FrameSync:
    """Joins each image with one message of every partner topic; keeps the newest complete frame.

    exact: partner topics matched by equal stamp. latest: partner topics of which the last message
    counts, whatever its stamp. tolerance_ns: by exact topic, how far its stamp may be off; the
    nearest one that is there counts. Thread-safe.
    """

    def __init__(self, exact: tuple[str, ...] = (), latest: tuple[str, ...] = (),
                 timeout_s: float = 1.0, tolerance_ns: Mapping[str, int] | None = None) -> None:
        self.timeout_s = timeout_s
        self._tolerance = dict(tolerance_ns or {})
        self.counters = Counters()
        # time.perf_counter() when an image last had all that it needs.
        self.completed_at = -float("inf")
        self.missing: dict[str, int] = {}
        self._exact = {name: OrderedDict() for name in exact}
        self._latest: dict[str, Any] = dict.fromkeys(latest)
        self._waiting: OrderedDict[int, Frame] = OrderedDict()
        self._ready: Frame | None = None
        self._closed = False
        self._condition = threading.Condition()

    def add_image(self, stamp: int, image: Any) -> None:
        with self._condition:
            self.counters.received += 1
            frame = Frame(stamp, image, {}, time.perf_counter())
            if stamp in self._waiting:  # the same stamp again: only the newer can be completed
                self._give_up(self._waiting.pop(stamp))
            self._waiting[stamp] = frame
            self._drop_old()
            self._complete()

    def add_partner(self, topic: str, stamp: int, message: Any) -> None:
        with self._condition:
            if topic in self._latest:
                self._latest[topic] = message
            else:
                kept = self._exact[topic]
                kept.pop(stamp, None)
                kept[stamp] = message
                if len(kept) > MAX_PARTNERS:
                    kept.popitem(last=False)
            self._complete()

    def uses_latest(self, topic: str) -> bool:
        """Whether the last message of a partner topic counts, whatever its stamp."""
        return topic in self._latest

    def take(self, timeout_s: float | None = None) -> Frame | None:
        """Wait for the newest complete frame; None after the timeout or `close`."""
        with self._condition:
            self._condition.wait_for(lambda: self._ready or self._closed, timeout_s)
            frame, self._ready = self._ready, None
            return None if self._closed else frame

    def count(self, name: str) -> None:
        """Add one to a counter by name."""
        with self._condition:
            setattr(self.counters, name, getattr(self.counters, name) + 1)

    def expire(self) -> None:
        """Give up images that have waited too long; call it now and then."""
        with self._condition:
            self._drop_old()

    def clear(self, counters: bool = False) -> None:
        """Forget what belongs to one time, e.g. when it jumps backwards; also set `counters` to 0.

        The last messages of `latest` topics stay: who published them once does not do it again.
        """
        with self._condition:
            self._waiting.clear()
            for kept in self._exact.values():
                kept.clear()
            self._ready = None
            if counters:
                self.counters, self.missing = Counters(), {}

    def close(self) -> None:
        """Wake the worker up for good."""
        with self._condition:
            self._closed = True
            self._ready = None
            self._condition.notify_all()

    def _partners(self, stamp: int) -> dict[str, Any]:
        found = {}
        for name, kept in self._exact.items():
            near = self._nearest(name, stamp)
            found[name] = None if near is None else kept[near]
        found.update(self._latest)
        return found

    def _nearest(self, name: str, stamp: int) -> int | None:
        """Stamp of the message of an exact topic that belongs to an image, if it is there."""
        kept, tolerance = self._exact[name], self._tolerance.get(name, 0)
        if stamp in kept or not kept or not tolerance:
            return stamp if stamp in kept else None
        near = min(kept, key=lambda other: abs(other - stamp))
        return near if abs(near - stamp) <= tolerance else None

    def _complete(self) -> None:
        """Make the newest image that has all its partners ready; older ones are passed over."""
        for stamp in reversed(self._waiting):
            partners = self._partners(stamp)
            if all(message is not None for message in partners.values()):
                break
        else:
            return
        while True:
            oldest, frame = self._waiting.popitem(last=False)
            if oldest == stamp:
                break
            self._give_up(frame)
        if self._ready is not None:
            self.counters.replaced += 1
        frame.partners = partners
        self._ready = frame
        self.completed_at = time.perf_counter()
        self._forget_partners(stamp)
        self._condition.notify()

    def _forget_partners(self, stamp: int) -> None:
        """Partners that arrived no later than those just used belong to images of the past.

        The one just used stays, for a second image with the same stamp.
        """
        for name, kept in self._exact.items():
            near = self._nearest(name, stamp)
            while near is not None and next(iter(kept)) != near:
                kept.popitem(last=False)

    def _give_up(self, frame: Frame) -> None:
        """A waiting image that newer ones overtook: replaced if complete, else unsynced."""
        absent = [name for name, message in self._partners(frame.stamp).items() if message is None]
        if not absent:
            self.counters.replaced += 1
            return
        self.counters.unsynced += 1
        for name in absent:
            self.missing[name] = self.missing.get(name, 0) + 1

    def _drop_old(self) -> None:
        limit = time.perf_counter() - self.timeout_s
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if len(self._waiting) <= MAX_WAITING and oldest.received > limit:
                return
            self._waiting.popitem(last=False)
            self._give_up(oldest)
