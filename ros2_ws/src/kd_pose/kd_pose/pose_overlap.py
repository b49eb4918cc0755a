"""How much poses overlap: mean Gaussian of the distance of their joints, as COCO's OKS.

Unlike OKS every joint has one tolerance, and only points that are sure in both poses count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kd_pose.results import PersonPose
from kd_pose.wholebody_keypoints import PARTS

BODY = PARTS["body"]
# Distance at which a joint's overlap is exp(-1/2), of the square root of the box's area: twice
# COCO's sigma of a hip.
JOINT_TOLERANCE = 0.2
# Two poses of one image that overlap so much in so narrow a tolerance are one person twice.
TWIN_TOLERANCE, TWIN_OVERLAP = 0.05, 0.6
# Two looks at boxes that overlap are at one person.
ALIKE_OVERLAP = 0.7
MIN_POINTS = 4  # fewer sure keypoints say nothing of a pose


class Keypoints(Protocol):
    """A person or a track. keypoints_xy: (133, 2) px. keypoint_scores: (133,)."""

    keypoints_xy: np.ndarray
    keypoint_scores: np.ndarray


def sure_keypoints(item: Keypoints, threshold: float) -> np.ndarray:
    """(K,) whether a keypoint is estimated, and not below the threshold."""
    return (item.keypoint_scores >= threshold) & np.isfinite(item.keypoints_xy).all(axis=1)


def pose_overlaps(a: np.ndarray, b: np.ndarray, sure_a: np.ndarray, sure_b: np.ndarray,
                  areas: np.ndarray, tolerance: float) -> np.ndarray:
    """Every pose of `a` with every one of `b`: mean of exp(-d^2 / (2 area tolerance^2)), (N, M).

    The mean is over the body keypoints that are sure in both, over all keypoints where too few are
    of the body; NaN where too few are sure at all.
    a: (N, K, 2) px. b: (M, K, 2). sure_a, sure_b: (N, K), (M, K). areas: (M,) px^2, those of b.
    """
    def means(points: slice) -> np.ndarray:
        both = sure_a[:, None, points] & sure_b[None, :, points]
        count = both.sum(axis=2)
        apart = np.where(both[..., None], a[:, None, points] - b[None, :, points], 0.0)
        near = np.exp(-(apart**2).sum(axis=3) / (2.0 * areas[None, :, None] * tolerance**2))
        enough = (count >= MIN_POINTS) & (areas > 0)
        return np.divide((near * both).sum(axis=2), count, where=enough,
                         out=np.full(count.shape, np.nan))

    with np.errstate(invalid="ignore", divide="ignore"):
        result = means(BODY)
        unknown = np.isnan(result)
        return np.where(unknown, means(slice(None)), result) if unknown.any() else result


def without_twins(people: Sequence[PersonPose], threshold: float) -> list[int]:
    """Indices of people, those left out that repeat the pose of one with a better score."""
    if len(people) < 2:
        return list(range(len(people)))
    poses = np.array([person.keypoints_xy for person in people])
    sure = np.array([sure_keypoints(person, threshold) for person in people])
    areas = np.array([float(np.prod(person.box_xywh[2:])) for person in people])
    overlaps = pose_overlaps(poses, poses, sure, sure, areas, TWIN_TOLERANCE)
    kept: list[int] = []
    for i in sorted(range(len(people)), key=lambda i: -people[i].score):
        if not (overlaps[kept, i] > TWIN_OVERLAP).any():
            kept.append(i)
    return sorted(kept)


def looks_like(person: PersonPose, others: Sequence[PersonPose], threshold: float) -> bool:
    """Whether most of a person's sure joints lie at those of one of the others."""
    if not others:
        return False
    overlaps = pose_overlaps(
        np.array([other.keypoints_xy for other in others]), person.keypoints_xy[None],
        np.array([sure_keypoints(other, threshold) for other in others]),
        sure_keypoints(person, threshold)[None],
        np.array([float(np.prod(person.box_xywh[2:]))]), JOINT_TOLERANCE / 2)
    return bool((overlaps > ALIKE_OVERLAP).any())
