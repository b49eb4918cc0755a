"""What published detectors answer, as boxes and scores: YOLOX, RTMDet, with and without NMS.

Convention: these networks were trained on boxes whose edge 0 is the left edge of the first pixel,
half a pixel before its centre. All functions return boxes xyxy in the coordinates of `crop.py`,
whose centres are the integers, so half a pixel less; in pixels of the network's input, float64.
All take one image's answer, look at one class, and return (M, 4) boxes and (M,) scores above the
threshold in the order of the network's cells. What is not finite is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Candidates = tuple[np.ndarray, np.ndarray]


@lru_cache(maxsize=8)
def grid_cells(
    input_size: tuple[int, int], strides: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Corner (N, 2) and stride (N,) of every cell, input px with edge 0 at 0.

    Level after level, row after row: the order in which YOLOX and RTMDet concatenate.
    """
    corners, sizes = [], []
    for stride in strides:
        columns, rows = input_size[0] // stride, input_size[1] // stride
        y, x = np.mgrid[:rows, :columns]
        corners.append(np.stack([x, y], axis=-1).reshape(-1, 2) * float(stride))
        sizes.append(np.full(rows * columns, float(stride)))
    cells = np.concatenate(corners), np.concatenate(sizes)
    for array in cells:
        array.flags.writeable = False
    return cells


def decode_yolox(
    rows: np.ndarray,
    corners: np.ndarray,
    strides: np.ndarray,
    threshold: float,
    class_index: int = 0,
    in_pixels: bool = False,
) -> Candidates:
    """Rows (N, 5 + C) of centre x, y, width, height, objectness and class scores, both 0..1.

    in_pixels: the four are input pixels already. Otherwise the centre is relative to the cell's
    corner in strides and the size is the logarithm of strides (Ge et al., arXiv 2107.08430).
    The score is objectness times class score.
    """
    scores = rows[:, 4] * rows[:, 5 + class_index]
    chosen = _above(scores, threshold)
    centre, size = np.split(rows[chosen, :4].astype(np.float64), 2, axis=1)
    if not in_pixels:
        stride = strides[chosen, None]
        centre = centre * stride + corners[chosen]
        with np.errstate(over="ignore"):  # infinite boxes are dropped below
            size = np.exp(size) * stride
    boxes = np.concatenate([centre - size / 2.0, centre + size / 2.0], axis=1)
    return _finite(boxes, scores[chosen])


def decode_boxes_scores(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, class_index: int = 0
) -> Candidates:
    """Boxes (N, 4) xyxy in input pixels and scores (N, C) 0..1, as before any suppression."""
    scores = scores[:, class_index]
    chosen = _above(scores, threshold)
    return _finite(boxes[chosen].astype(np.float64), scores[chosen])


def decode_rtmdet_maps(
    maps: Sequence[np.ndarray],
    corners: np.ndarray,
    threshold: float,
    class_index: int = 0,
) -> Candidates:
    """Logits (C, h, w) of every level, then distances (4, h, w) of every level.

    The distances, in input pixels, go from a cell's corner to the left, upper, right and lower
    edge (Lyu et al., arXiv 2212.07784; the corner because mmdet's grid has offset 0).
    """
    levels = len(maps) // 2
    logits = np.concatenate([level[class_index].ravel() for level in maps[:levels]])
    distances = np.concatenate([level.reshape(4, -1).T for level in maps[levels:]])
    with np.errstate(over="ignore"):
        scores = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    chosen = _above(scores, threshold)
    reach, corner = distances[chosen].astype(np.float64), corners[chosen]
    boxes = np.concatenate([corner - reach[:, :2], corner + reach[:, 2:]], axis=1)
    return _finite(boxes, scores[chosen])


def decode_dets_labels(
    dets: np.ndarray, labels: np.ndarray, threshold: float, class_index: int = 0
) -> Candidates:
    """Rows (N, 5) of box xyxy in input pixels and score, and labels (N,), after suppression.

    mmdeploy fills up with rows of zeros, whose label may be that of a class; they have no area
    and no score.
    """
    scores = dets[:, 4]
    chosen = _above(np.where(labels == class_index, scores, -1.0), threshold)
    return _finite(dets[chosen, :4].astype(np.float64), scores[chosen])


def _above(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Rows whose score reaches the threshold and is above 0; NaN reaches nothing."""
    return np.flatnonzero((scores >= threshold) & (scores > 0))


def _finite(boxes: np.ndarray, scores: np.ndarray) -> Candidates:
    keep = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    return boxes[keep] - 0.5, scores[keep].astype(np.float64)
