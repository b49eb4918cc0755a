"""The One Euro filter: less trembling where things are still, little lag where they move.

Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012. An exponential average whose cutoff grows with the speed:

    x^ = a x + (1 - a) x^_before,   a = 1 / (1 + tau / dt),   tau = 1 / (2 pi cutoff)
    cutoff = min_cutoff + beta |speed|
    speed: (x - x^_before) / dt, averaged in the same way with derivative_cutoff

Every number of an array is filtered for itself, all in one go. Time steps are the real ones, of
each number since it was last known, so that lost images and points that come and go (NaN) need no
rule of their own: after a long time a is nearly 1, and the new value stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kd_pose.results import PersonPose, TrackState


@dataclass(frozen=True)
class SmoothingOptions:
    """min_cutoff_hz: of what stands still; lower is calmer. beta: how fast the cutoff grows with
    speed, Hz per unit of speed; higher lags less. derivative_cutoff_hz: of the speed itself.
    """

    min_cutoff_hz: float = 1.0
    beta: float = 10.0
    derivative_cutoff_hz: float = 1.0

    def __post_init__(self) -> None:
        for name, low in (("min_cutoff_hz", 1e-3), ("beta", 0.0), ("derivative_cutoff_hz", 1e-3)):
            value = getattr(self, name)
            if not low <= value <= 1e4:
                raise ValueError(f"{name} must be {low:g} to 10000, got {value!r}")


class OneEuroFilter:
    """Filters arrays of one shape; NaN stays NaN and leaves what was known untouched."""

    def __init__(self, options: SmoothingOptions | None = None) -> None:
        self.options = options or SmoothingOptions()
        self._value: np.ndarray | None = None

    def filter(self, value: np.ndarray, stamp_s: float, scale: float = 1.0) -> np.ndarray:
        """`value` (...) smoothed, same shape, float64.

        stamp_s: seconds. Numbers known at this time or later keep their last result.
        scale: speeds are counted in units of it per second, so that one `beta` serves people near
        and far: their size in pixels, or 1 for metres.
        Raises ValueError for another shape than before.
        """
        value = np.asarray(value, dtype=np.float64)
        if self._value is None:
            self._value = np.full(value.shape, np.nan)
            self._speed = np.zeros(value.shape)
            self._known_s = np.full(value.shape, -np.inf)
        if value.shape != self._value.shape:
            raise ValueError(f"value has the shape {value.shape}, before it was "
                             f"{self._value.shape}")
        known = np.isfinite(value)
        first = known & ~np.isfinite(self._value)
        later = known & ~first & (stamp_s > self._known_s)
        self._value[first] = value[first]
        self._step(later, value, stamp_s, scale)
        self._known_s[first | later] = stamp_s
        return np.where(known, self._value, np.nan)

    def _step(self, at: np.ndarray, value: np.ndarray, stamp_s: float, scale: float) -> None:
        options = self.options
        elapsed = stamp_s - self._known_s[at]
        before = self._value[at]
        speed = (value[at] - before) / elapsed / scale
        share = _share(options.derivative_cutoff_hz, elapsed)
        speed = self._speed[at] + share * (speed - self._speed[at])
        self._speed[at] = speed
        share = _share(options.min_cutoff_hz + options.beta * np.abs(speed), elapsed)
        self._value[at] = before + share * (value[at] - before)


def _share(cutoff_hz: np.ndarray | float, elapsed_s: np.ndarray) -> np.ndarray:
    """Share of the new value in an exponential average with that cutoff."""
    tau = 1.0 / (2.0 * np.pi * cutoff_hz)
    return elapsed_s / (elapsed_s + tau)


class PeopleSmoother:
    """A filter for the pixels and one for the metres of every tracked person."""

    def __init__(self, options: SmoothingOptions | None = None) -> None:
        self.options = options or SmoothingOptions()
        self._filters: dict[str, tuple[OneEuroFilter, OneEuroFilter]] = {}
        self._stamp_s = -np.inf

    def reset(self) -> None:
        self._filters.clear()
        self._stamp_s = -np.inf

    def smooth(self, people: Sequence[PersonPose], stamp_s: float) -> list[PersonPose]:
        """People with keypoints smoothed by their ids; those who are not seen stay as they are.

        Filters of people who are not there any more are dropped. Time that goes back starts anew.
        """
        if stamp_s < self._stamp_s:
            self.reset()
        self._stamp_s = stamp_s
        kept = {}
        for person in people:
            if person.id and person.track_state is not TrackState.LOST:
                kept[person.id] = self._filters.get(person.id) or (
                    OneEuroFilter(self.options), OneEuroFilter(self.options))
        self._filters = kept
        return [self._smooth(person, stamp_s) for person in people]

    def _smooth(self, person: PersonPose, stamp_s: float) -> PersonPose:
        filters = self._filters.get(person.id)
        if filters is None or person.track_state is TrackState.COASTING:
            return person
        size = float(np.sqrt(max(np.prod(person.box_xywh[2:]), 1.0)))
        xyz = person.keypoints_xyz
        return replace(
            person,
            keypoints_xy=filters[0].filter(person.keypoints_xy, stamp_s, size),
            keypoints_xyz=None if xyz is None else filters[1].filter(xyz, stamp_s))
