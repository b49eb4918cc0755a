"""Stamps of images as the time by which tracks and filters go on."""

from __future__ import annotations

import time
from collections.abc import Callable


class StampClock:
    """Seconds of images: their stamps, or for stamps that stand still the time that passes here.

    Drivers exist that leave the stamp at 0 or give several images one stamp; nobody would ever be
    lost by such a clock. A stamp that goes back takes the time back with it.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._stamp_ns: int | None = None
        self._since_s = self._last_s = 0.0

    def seconds(self, stamp_ns: int) -> float:
        """The time of an image that has just come."""
        now_s, stamp_s = self._now_s(), 1e-9 * stamp_ns
        if self._stamp_ns is not None and stamp_ns == self._stamp_ns:
            self._last_s = max(self._last_s, stamp_s + now_s - self._since_s)
        elif self._stamp_ns is not None and stamp_ns > self._stamp_ns:
            # Here more may have passed than from stamp to stamp.
            self._last_s, self._since_s = max(self._last_s, stamp_s), now_s
        else:
            self._last_s, self._since_s = stamp_s, now_s
        self._stamp_ns = stamp_ns
        return self._last_s
