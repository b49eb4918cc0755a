"""How sure a person is, and which of two estimates of the same person stays.

The protocol of the published whole-body results, for robots and evaluation alike: box score times
the mean of the keypoints' scores, suppression by object keypoint similarity (OKS, COCO's measure:
the mean over keypoints of exp(-d^2 / (2 A (2 sigma)^2)), d the distance in pixels, A the person's
area in pixels, sigma per keypoint).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_pose.wholebody_keypoints import SIGMAS

MIN_KEYPOINT_SCORE = 0.2
NMS_OKS = 0.9


def estimate_oks(xy: np.ndarray, others: np.ndarray, area: float, areas: np.ndarray) -> np.ndarray:
    """OKS between one estimate (133, 2) and others (N, 133, 2): (N,).

    Counted are the points that both have (NaN: not estimated); 0 where there is none. The area is
    the mean of both.
    """
    scale = 2.0 * (2.0 * SIGMAS) ** 2 * ((area + areas) / 2.0 + np.spacing(1))[:, None]
    near = np.exp(-((others - xy) ** 2).sum(axis=2) / scale)
    shared = np.isfinite(near)
    counts = shared.sum(axis=1)
    sums = np.where(shared, near, 0.0).sum(axis=1)
    return np.divide(sums, counts, out=np.zeros(len(sums)), where=counts > 0)


def oks_nms(xy: np.ndarray, scores: np.ndarray, areas: np.ndarray,
            threshold: float = NMS_OKS) -> np.ndarray:
    """Greedy suppression of estimates of the same person -> kept indices, best score first.

    An estimate is dropped when its OKS with a better kept one is above `threshold`. Of equal
    scores the first wins. xy: (N, 133, 2) pixels of one picture. scores, areas: (N,); areas in
    pixels.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        if len(order):
            similar = estimate_oks(xy[best], xy[order], areas[best], areas[order])
            order = order[similar <= threshold]
    return np.array(kept, dtype=np.int64)


def rescore(box_scores: np.ndarray, keypoint_scores: np.ndarray,
            threshold: float = MIN_KEYPOINT_SCORE) -> np.ndarray:
    """Score of people (N,): the box's times the mean of their keypoints' scores above a threshold.

    keypoint_scores: (N, K). 0 where no keypoint is above.
    """
    counted = keypoint_scores > threshold
    counts = counted.sum(axis=1)
    sums = np.where(counted, keypoint_scores, 0.0).sum(axis=1, dtype=np.float64)
    return box_scores * np.divide(sums, counts, out=np.zeros(len(sums)), where=counts > 0)


def crop_areas(boxes_xywh: Sequence[Sequence[float]], aspect: float,
               pad: float = 1.25) -> np.ndarray:
    """Areas (N,) of the crops around boxes (N, 4): what suppression takes for the people's size.

    aspect: width over height of the network's input.
    """
    size = pad * np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)[:, 2:]
    width = np.maximum(size[:, 0], aspect * size[:, 1])
    return width * width / aspect
