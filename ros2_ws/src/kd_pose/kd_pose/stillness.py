"""Whether anything has moved outside of known boxes: who comes in moves.

A detector has nothing new to say about a picture of which only those parts have changed that are
looked at anyway. What is compared is coarse and cheap: a fraction of a millisecond at 1920x1080.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

COARSE_PX = 96  # longer side of what is compared
SAMPLES = 4  # pixels of the image, along a side, in one of its cells
CHANGE = 12.0  # grey levels, beyond the change of the whole picture, that noise does not reach
PAD = 0.15  # of its size is a box grown on every side


class Stillness:
    """Compares images with the last one that was remembered."""

    def __init__(self) -> None:
        self._coarse: np.ndarray | None = None
        self._known = np.zeros(0, dtype=bool)

    def forget(self) -> None:
        """Everything counts as moved until `remember` is called."""
        self._coarse = None

    def remember(self, image: np.ndarray, boxes_xywh: Sequence[np.ndarray]) -> None:
        """This image uint8 (H, W, 3) has been searched; boxes: where somebody is, image px."""
        self._coarse = _coarse(image)
        self._known = _inside(self._coarse.shape, image.shape, boxes_xywh)

    def moved(self, image: np.ndarray, boxes_xywh: Sequence[np.ndarray]) -> bool:
        """Whether there is something new outside of the boxes remembered and given."""
        coarse = _coarse(image)
        if self._coarse is None or self._coarse.shape != coarse.shape:
            return True
        elsewhere = ~(self._known | _inside(coarse.shape, image.shape, boxes_xywh))
        if not elsewhere.any():
            return False
        change = coarse[elsewhere] - self._coarse[elsewhere]
        return bool(np.abs(change - np.median(change)).max() > CHANGE)


def _coarse(image: np.ndarray) -> np.ndarray:
    """The green channel, at most `COARSE_PX` long, means of `SAMPLES`² pixels: float32."""
    height, width = image.shape[:2]
    cell = max(1.0, max(height, width) / COARSE_PX)
    step = max(1, int(cell / SAMPLES))
    size = max(1, round(width / cell)), max(1, round(height / cell))
    sampled = np.ascontiguousarray(image[::step, ::step, 1])
    return cv2.resize(sampled, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _inside(shape: Sequence[int], image_shape: Sequence[int],
            boxes_xywh: Sequence[np.ndarray]) -> np.ndarray:
    """Mask of the cells that a grown box touches."""
    mask = np.zeros(shape, dtype=bool)
    scale = np.array([shape[1] / image_shape[1], shape[0] / image_shape[0]])
    for box in boxes_xywh:
        box = np.asarray(box, dtype=np.float64)
        low = np.floor((box[:2] - PAD * box[2:]) * scale).astype(int)
        high = np.ceil((box[:2] + (1 + PAD) * box[2:]) * scale).astype(int)
        low, high = np.maximum(low, 0), np.maximum(high, 0)
        mask[low[1]:high[1], low[0]:high[0]] = True
    return mask
