"""Boxes in image planes: overlap, suppression, and what a detector's votes say of them.

Boxes are `xyxy` or `xywh` with continuous edges in pixels (see `crop.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kd_pose.crop import SIDES_PX, apply_affine, invert_affine

if TYPE_CHECKING:
    from kd_pose.results import Detection2D
    from kd_pose.votes import VoteInstance

MIN_SIDE_PX = 1.0  # a box with a shorter side shows nothing


def xywh_from_xyxy(boxes: np.ndarray) -> np.ndarray:
    """(..., 4) x0, y0, x1, y1 -> x0, y0, width, height."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def xyxy_from_xywh(boxes: np.ndarray) -> np.ndarray:
    """(..., 4) x0, y0, width, height -> x0, y0, x1, y1."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def shows_image(box_xywh: Sequence[float], width: int, height: int) -> bool:
    """Whether a box xywh can be looked at: four finite numbers, sides neither below `MIN_SIDE_PX`
    nor out of `SIDES_PX`, at least partly in an image of that size."""
    box = np.asarray(box_xywh, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        return False
    x, y, w, h = box.tolist()
    return (min(w, h) >= MIN_SIDE_PX and max(w, h) <= SIDES_PX[1] and x + w > -0.5
            and y + h > -0.5 and x < width - 0.5 and y < height - 0.5)


def points_box(points: np.ndarray) -> np.ndarray:
    """Bounding boxes xyxy (..., 4) of points (..., K, 2)."""
    points = np.asarray(points)
    return np.concatenate([points.min(axis=-2), points.max(axis=-2)], axis=-1)


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one xyxy box (4,) with others (N, 4) -> (N,), 0 where empty."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = np.prod(np.maximum(size, 0.0), axis=1)
    union = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1) - intersection
    union += float(np.prod(np.maximum(np.asarray(box[2:]) - box[:2], 0.0)))
    return np.divide(intersection, union, out=np.zeros(len(boxes)), where=union > 0)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Greedy non-maximum suppression of xyxy boxes (N, 4) -> kept indices, best score first.

    A box is dropped when its overlap with a better kept one is above `threshold`.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    x0, y0, x1, y1 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)[order].T.copy()
    areas = np.maximum(x1 - x0, 0.0) * np.maximum(y1 - y0, 0.0)
    free = np.ones(len(order), dtype=bool)
    kept = []
    for best in range(len(order)):
        if not free[best]:
            continue
        kept.append(order[best])
        rest = slice(best + 1, None)
        width = np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest])
        height = np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest])
        shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        free[rest] &= shared <= threshold * (areas[best] + areas[rest] - shared)
    return np.array(kept, dtype=np.int64)


def decode_boxes(
    instances: Sequence[VoteInstance],
    M: np.ndarray,
    names: Sequence[str] | None = None,
) -> list[Detection2D]:
    """Detector instances (votes for two box corners, input px) -> boxes in image px.

    Every corner is the mean of the member votes weighted by their scores. `M` (2, 3) is the affine
    image -> input that the crop was made with; names: class names by index.
    Boxes that come out without area are left out. Amodal: a box may reach over the image's edge.
    """
    from kd_pose.results import Detection2D

    inverse = invert_affine(np.asarray(M, dtype=np.float64))
    detections = []
    for instance in instances:
        corners = np.average(instance.points, axis=0, weights=instance.weights)
        box = xywh_from_xyxy(points_box(apply_affine(inverse, corners)))
        if box[2] > 0 and box[3] > 0:
            name = str(instance.class_index) if names is None else names[instance.class_index]
            detections.append(Detection2D(name, float(instance.score), box))
    return detections
