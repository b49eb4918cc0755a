"""Estimated against true poses of one image: symmetry-aware errors and one-to-one matching.

The numbers a person watches live (the `monitor` node) need no mesh: they are taken at the origin
and at the eight corners of the object's box. The offline evaluation (`kd-pose-train evaluate`)
has the meshes and reports ADD and ADD-S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kd_pose.geometry import box_corners, rotation_angle_deg, transform_points


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
