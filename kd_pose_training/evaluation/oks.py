"""Object keypoint similarity (OKS): how near estimated keypoints are to true ones.

COCO's measure (cocodataset.org/#keypoints-eval): OKS = mean over labelled keypoints of
exp(-d^2 / (2 A (2 sigma)^2)), with d the distance in pixels, A the person's area in pixels and
sigma per keypoint. The parts of a whole body are sums over the same exponentials, so these are
computed once for all parts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kd_pose.wholebody_keypoints import COUNT, PARTS, SIGMAS

WHOLE = "wholebody"
# What is scored: the five parts, then all points as one.
SCORED: Mapping[str, slice] = {**PARTS, WHOLE: slice(0, COUNT)}
CHUNK = 4096  # pairs at a time: some 20 MB


def part_matrix() -> np.ndarray:
    """(133, 6) ones where a keypoint belongs to a scored part."""
    matrix = np.zeros((COUNT, len(SCORED)))
    for column, part in enumerate(SCORED.values()):
        matrix[part, column] = 1.0
    return matrix


def part_oks(estimated_xy: np.ndarray, estimated_row: np.ndarray, true_points: np.ndarray,
             true_row: np.ndarray, boxes_xywh: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """OKS of P pairs for every scored part, (P, 6) float64.

    Of a person without a labelled point in a part, the distance is that to the box, doubled about
    its middle to three times its size; such people are never targets, but COCO lets estimates be
    spent on them.

    Args:
        estimated_xy: (D, 133, 2) pixels. estimated_row: (P,) which of them.
        true_points: (G, 133, 3) x, y, visibility. true_row: (P,). boxes_xywh: (G, 4). areas: (G,).
    """
    parts = part_matrix()
    counts = parts.sum(axis=0)
    variance = (2.0 * SIGMAS) ** 2
    labelled = true_points[..., 2] > 0
    label_counts = labelled @ parts
    low = boxes_xywh[:, :2] - boxes_xywh[:, 2:]
    high = boxes_xywh[:, :2] + 2.0 * boxes_xywh[:, 2:]
    result = np.empty((len(estimated_row), len(counts)))
    for start in range(0, len(estimated_row), CHUNK):
        d, g = estimated_row[start:start + CHUNK], true_row[start:start + CHUNK]
        xy, scale = estimated_xy[d], 2.0 * variance * (areas[g] + np.spacing(1))[:, None]
        squared = ((xy - true_points[g, :, :2]) ** 2).sum(axis=2)
        near = np.exp(-squared / scale)
        near *= labelled[g]
        n = label_counts[g]
        out = np.divide(near @ parts, n, out=np.zeros_like(n), where=n > 0)
        empty = (n == 0).any(axis=1)
        if empty.any():
            g = g[empty]
            beyond = np.maximum(low[g][:, None] - xy[empty], 0.0)
            beyond += np.maximum(xy[empty] - high[g][:, None], 0.0)
            inside = np.exp(-(beyond**2).sum(axis=2) / scale[empty]) @ parts / counts
            out[empty] = np.where(n[empty] == 0, inside, out[empty])
        result[start:start + CHUNK] = out
    return result
