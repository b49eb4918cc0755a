"""Errors of one estimated pose: ADD, ADD-S, reprojection, rotation, translation.

ADD and ADD-S as in Hinterstoisser et al. (ACCV 2012) and Hodan et al. (ECCVW 2016, "On Evaluation
of 6D Object Pose Estimation"; ADD-S is its ADI). Poses are `T_cam_obj` (4, 4), lengths metres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from kd_pose.geometry import (
    invert_pose,
    make_pose,
    rotation_angle_deg,
    rotation_from_vector,
    skew,
    transform_points,
)
from kd_pose.symmetry import nearest_member, symmetry_transforms

if TYPE_CHECKING:
    from kd_pose.camera import Camera
    from kd_pose.manifest import ObjectSpec

COARSE_STEP_DEG = 15.0
MAX_VERTICES = 2000


def sample_vertices(vertices: np.ndarray, limit: int = MAX_VERTICES) -> np.ndarray:
    """At most ``limit`` of the vertices (n, 3), without replacement and always the same ones."""
    vertices = np.asarray(vertices, dtype=np.float64).reshape(-1, 3)
    if len(vertices) <= limit:
        return vertices
    rows = np.random.default_rng(0).choice(len(vertices), limit, replace=False)
    return vertices[np.sort(rows)]


def add(T_est: np.ndarray, T_true: np.ndarray, points: np.ndarray) -> float:
    """Mean distance of the model points (n, 3) under both poses, metres."""
    difference = transform_points(T_est, points) - transform_points(T_true, points)
    return float(np.linalg.norm(difference, axis=1).mean())


def add_s(T_est: np.ndarray, T_true: np.ndarray, points: np.ndarray,
          tree: cKDTree | None = None) -> float:
    """Mean distance from each true model point to the nearest estimated one, metres.

    tree: of ``points``, to save building it; distances are the same in the object's frame.
    """
    tree = cKDTree(points) if tree is None else tree
    relative = invert_pose(T_est) @ np.asarray(T_true, dtype=np.float64)
    return float(tree.query(transform_points(relative, points))[0].mean())


def reprojection_error(T_est: np.ndarray, T_true: np.ndarray, points: np.ndarray,
                       camera: Camera) -> float:
    """Mean distance of the projected model points (n, 3) in the image, pixels.

    Infinite where a point of the estimate has no image.
    """
    difference = (camera.project(transform_points(T_est, points))
                  - camera.project(transform_points(T_true, points)))
    error = float(np.linalg.norm(difference, axis=1).mean())
    return error if np.isfinite(error) else float("inf")


def is_symmetric(spec: ObjectSpec) -> bool:
    """Whether the object looks the same from another side, so that ADD-S is its measure."""
    return bool(spec.symmetries_discrete or spec.symmetries_continuous)


class TruthFinder:
    """Of all poses that look like the true one, the nearest to an estimate.

    Discrete symmetries are tried; an angle about a continuous axis is solved for, since 15 degree
    steps alone would count up to 7.5 degrees as an error.
    """

    def __init__(self, spec: ObjectSpec) -> None:
        self._members = symmetry_transforms(spec, COARSE_STEP_DEG)
        self._axes = [(np.asarray(axis, float) / np.linalg.norm(axis), np.asarray(offset, float))
                      for axis, offset in spec.symmetries_continuous]

    def nearest(self, T_true: np.ndarray, T_est: np.ndarray) -> np.ndarray:
        """The member of ``T_true`` whose rotation is nearest to that of ``T_est``, (4, 4)."""
        T = nearest_member(T_true, T_est, self._members)
        for _ in range(1 if len(self._axes) == 1 else 10):  # several axes: one after the other
            for axis, offset in self._axes:
                T = T @ _best_turn(np.asarray(T_est)[:3, :3].T @ T[:3, :3], axis, offset)
        return T


def _best_turn(R: np.ndarray, axis: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The turn G about the line through ``offset`` along ``axis`` that maximises trace(R G).

    trace(R G(a)) = const + cos(a) (trace R - n'Rn) + sin(a) trace(R [n]x).
    """
    angle = np.arctan2(np.trace(R @ skew(axis)), np.trace(R) - axis @ R @ axis)
    G = rotation_from_vector(angle * axis)
    return make_pose(G, offset - G @ offset)


def rotation_translation_error(T_est: np.ndarray, T_near: np.ndarray) -> tuple[float, float]:
    """Angle in degrees and distance of the origins in metres."""
    return (rotation_angle_deg(T_est[:3, :3], T_near[:3, :3]),
            float(np.linalg.norm(T_est[:3, 3] - T_near[:3, 3])))


def pose_difference(T_est: np.ndarray, T_near: np.ndarray) -> np.ndarray:
    """(6,) error of an estimate in the order of its covariance: x, y, z in metres and the
    rotation vector from the truth to the estimate about the camera's axes, radians."""
    R = T_est[:3, :3] @ T_near[:3, :3].T
    angle = np.radians(rotation_angle_deg(np.eye(3), R))
    vector = 0.5 * np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    sine = np.linalg.norm(vector)
    if sine > 1e-6:
        vector = vector * (angle / sine)
    elif angle > 1.0:  # a half turn: the axis is where R + I has its only column space
        column = np.argmax(np.diag(R))
        vector = (R + np.eye(3))[:, column]
        vector = vector * (angle / np.linalg.norm(vector))
    return np.concatenate([T_est[:3, 3] - T_near[:3, 3], vector])
