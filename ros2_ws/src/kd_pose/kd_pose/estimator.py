"""What the estimators of objects and of people share: a stopwatch and a look at the image."""

from __future__ import annotations

import time

import numpy as np

from kd_pose.results import STAGES


def check_image(image: np.ndarray) -> None:
    """Raise ValueError for anything but uint8 (H, W, 3) with pixels."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")


class Stopwatch:
    """Milliseconds by stage; stages that do not run stay 0."""

    def __init__(self) -> None:
        self.ms = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.ms[stage] += 1e3 * (now - self._last)
        self._last = now
