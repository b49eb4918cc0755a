"""Comparing two functions on a machine that others use too.

The two are called in turn (A, B, A, B, ...), so that a slow moment hits both, and the ratio of the
medians is reported beside that of the minima, which hardly sees other load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MIN_PAIRS = 30


@dataclass(frozen=True)
class Row:
    """One line of the table. peer_ms, ours_ms: medians. goal: the least ratio wanted, 0 = none."""

    name: str
    peer_ms: float
    ours_ms: float
    ratio_median: float
    ratio_minimum: float
    goal: float
    guard: str
    guard_holds: bool

    @property
    def holds(self) -> bool:
        return self.guard_holds and self.ratio_median >= self.goal


def interleave(
    peer: Callable[[int], object], ours: Callable[[int], object], pairs: int, warm_up: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of `pairs` calls of each, in turn; both are given the number of the call."""
    if pairs < MIN_PAIRS:
        raise ValueError(f"pairs must be at least {MIN_PAIRS}, got {pairs}")
    for index in range(warm_up):
        peer(index), ours(index)
    times = np.empty((2, pairs))
    for index in range(pairs):
        for row, function in enumerate((peer, ours)):
            start = time.perf_counter()
            function(index)
            times[row, index] = 1e3 * (time.perf_counter() - start)
    return times[0], times[1]


def row(
    name: str, times: tuple[np.ndarray, np.ndarray], goal: float, guard: str, guard_holds: bool
) -> Row:
    peer, ours = times
    return Row(
        name,
        float(np.median(peer)),
        float(np.median(ours)),
        float(np.median(peer) / np.median(ours)),
        float(peer.min() / ours.min()),
        goal,
        guard,
        bool(guard_holds),
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| what | peer ms | ours ms | ratio of medians | of minima | goal | equality | holds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in rows:
        lines.append(
            f"| {item.name} | {item.peer_ms:.3f} | {item.ours_ms:.3f} | {item.ratio_median:.1f} | "
            f"{item.ratio_minimum:.1f} | {item.goal:g} | {item.guard} | "
            f"{'yes' if item.holds else 'NO'} |"
        )
    return "\n".join(lines)
