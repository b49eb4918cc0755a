"""Estimates against the truth of one image, objects and people: errors and one-to-one matching.

The numbers a person watches live (the `monitor` node) need no mesh: those of objects are taken at
the origin and at the eight corners of the box, with symmetries. The offline evaluation
(`kd-pose-train evaluate`) has the meshes and reports ADD and ADD-S, and of people AP and AR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kd_pose.geometry import box_corners, rotation_angle_deg, transform_points
from kd_pose.person_scoring import estimate_oks
from kd_pose.wholebody_keypoints import PARTS

PERSON_OKS = 0.5


@dataclass(frozen=True)
class PoseError:
    """How far an estimate is from the truth, for the symmetry member that fits best.

    translation: distance of the object origins, metres. rotation_deg: geodesic angle, degrees.
    corners: mean distance of the eight box corners, metres: ADD with the corners in place of the
    mesh vertices. The corners lie outside the mesh, so a wrong rotation costs more than in ADD.
    """

    translation: float
    rotation_deg: float
    corners: float


def pose_error(
    T_est: np.ndarray, T_true: np.ndarray, box_min, box_max, symmetries: np.ndarray
) -> PoseError:
    """Error of `T_est` (4, 4) against `T_true` (4, 4), both `T_cam_obj` in metres.

    `symmetries` (S, 4, 4) holds the object's symmetry transforms, identity included; the member
    with the smallest corner distance counts.
    """
    corners = box_corners(box_min, box_max)
    estimated = transform_points(T_est, corners)
    members = [T_true @ S for S in np.asarray(symmetries, float).reshape(-1, 4, 4)]
    distances = [
        float(np.linalg.norm(transform_points(T, corners) - estimated, axis=1).mean())
        for T in members
    ]
    best = int(np.argmin(distances))
    T = members[best]
    return PoseError(
        translation=float(np.linalg.norm(T[:3, 3] - T_est[:3, 3])),
        rotation_deg=float(rotation_angle_deg(T[:3, :3], T_est[:3, :3])),
        corners=distances[best],
    )


def match(cost: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """Greedy one-to-one pairs (row, column) of `cost` (E, T), cheapest first, none above `limit`.

    Greedy is enough here: two instances of a class are never closer than their own size, while
    the errors worth matching are a fraction of it.
    """
    cost = np.array(cost, float, copy=True)
    pairs: list[tuple[int, int]] = []
    while cost.size and np.nanmin(cost) <= limit:
        row, column = np.unravel_index(int(np.nanargmin(cost)), cost.shape)
        pairs.append((int(row), int(column)))
        cost[row, :] = np.inf
        cost[:, column] = np.inf
    return pairs


def match_poses(
    estimates: Sequence[tuple[str, np.ndarray]],
    truths: Sequence[tuple[str, np.ndarray]],
    max_distance: float = 0.1,
) -> list[tuple[int, int]]:
    """Pair estimates with truths of the same class, (class, T_cam_obj) each, by origin distance.

    Returns index pairs (estimate, truth); origins further apart than `max_distance` metres are
    not paired.
    """
    if not estimates or not truths:
        return []
    cost = np.full((len(estimates), len(truths)), np.inf)
    for i, (class_e, T_e) in enumerate(estimates):
        for j, (class_t, T_t) in enumerate(truths):
            if class_e == class_t:
                cost[i, j] = np.linalg.norm(T_e[:3, 3] - T_t[:3, 3])
    return match(cost, max_distance)


@dataclass(frozen=True)
class PersonMatch:
    """An estimate, by index, of a true person, by index.

    oks: object keypoint similarity of the 17 body points with the true box's area. error: median
    distance of those points over the root of that area.
    """

    estimate: int
    truth: int
    oks: float
    error: float


def match_people(estimates: np.ndarray, truths: np.ndarray, areas: np.ndarray,
                 min_oks: float = PERSON_OKS) -> list[PersonMatch]:
    """Pair people one to one, most alike first, none below `min_oks`.

    estimates: (E, 133, 2), truths: (T, 133, 2), pixels of one picture, NaN: not known. areas: (T,)
    of the true boxes, square pixels. A true person without labelled body points finds nobody.
    """
    estimates = np.asarray(estimates, dtype=np.float64).reshape(-1, *truths.shape[1:])
    if not len(estimates) or not len(truths):
        return []
    # Points of hands and face would outvote the body, and say little about who is whose.
    body = np.full_like(truths, np.nan)
    body[:, PARTS["body"]] = truths[:, PARTS["body"]]
    oks = np.stack([estimate_oks(points, estimates, area, np.full(len(estimates), area))
                    for points, area in zip(body, areas)], axis=1)
    found = []
    for i, j in match(1.0 - oks, 1.0 - min_oks):
        distances = np.linalg.norm(estimates[i] - body[j], axis=1)
        found.append(PersonMatch(i, j, float(oks[i, j]),
                                 float(np.nanmedian(distances) / np.sqrt(areas[j]))))
    return found
