"""Rigid transforms, quaternions and boxes in plain NumPy.

Poses are 4x4 float64 matrices `T_a_b` that map points of frame b into frame a, in metres.
Quaternions are (x, y, z, w), the order of ROS messages.
"""

from __future__ import annotations

import numpy as np


def make_pose(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) and translation (3,) in metres -> pose (4, 4) float64."""
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = np.asarray(t, dtype=np.float64).reshape(3)
    return T


def invert_pose(T: np.ndarray) -> np.ndarray:
    """Inverse of a rigid transform (4, 4): the transposed rotation, no matrix inversion."""
    T = np.asarray(T, dtype=np.float64)
    R_t = T[:3, :3].T
    return make_pose(R_t, -R_t @ T[:3, 3])


def transform_points(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) of frame b through `T_a_b` (4, 4) -> points (..., 3) of frame a."""
    T = np.asarray(T, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ T[:3, :3].T + T[:3, 3]


def quaternion_from_matrix(R: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) -> unit quaternion (x, y, z, w) with w >= 0.

    Uses the largest of the four components as pivot (Shepperd 1978), which stays accurate near
    half turns.
    """
    R = np.asarray(R, dtype=np.float64)
    trace = float(np.trace(R))
    squares = np.array([R[0, 0], R[1, 1], R[2, 2], trace])
    pivot = int(np.argmax(squares))
    q = np.empty(4)
    if pivot == 3:
        q[3] = 1.0 + trace
        q[0] = R[2, 1] - R[1, 2]
        q[1] = R[0, 2] - R[2, 0]
        q[2] = R[1, 0] - R[0, 1]
    else:
        i, j, k = pivot, (pivot + 1) % 3, (pivot + 2) % 3
        q[i] = 1.0 + 2.0 * R[i, i] - trace
        q[j] = R[j, i] + R[i, j]
        q[k] = R[k, i] + R[i, k]
        q[3] = R[k, j] - R[j, k]
    q /= np.linalg.norm(q)
    return -q if q[3] < 0 else q


def matrix_from_quaternion(xyzw: np.ndarray) -> np.ndarray:
    """Quaternion (x, y, z, w), any length but zero -> rotation matrix (3, 3)."""
    q = np.asarray(xyzw, dtype=np.float64).reshape(4)
    norm = np.linalg.norm(q)
    if not norm > 0:
        raise ValueError(f"quaternion must not be zero or NaN, got {q}")
    x, y, z, w = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_from_vector(vector: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) = axis times angle in radians -> matrix (3, 3) (Rodrigues)."""
    vector = np.asarray(vector, dtype=np.float64).reshape(3)
    angle = float(np.linalg.norm(vector))
    if angle == 0.0:
        return np.eye(3)
    W = skew(vector / angle)
    return np.eye(3) + np.sin(angle) * W + (1.0 - np.cos(angle)) * (W @ W)


def skew(vector: np.ndarray) -> np.ndarray:
    """(3,) -> the matrix (3, 3) with skew(a) @ b = a x b."""
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def rotation_angle_deg(R_a: np.ndarray, R_b: np.ndarray) -> float:
    """Angle in degrees of the rotation from `R_a` to `R_b`, both (3, 3); 0..180.

    Taken from atan2 of both sine and cosine: arccos of the trace alone loses half the digits at
    small angles.
    """
    R = np.asarray(R_a, dtype=np.float64).T @ np.asarray(R_b, dtype=np.float64)
    sine = 0.5 * np.linalg.norm([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    cosine = 0.5 * (np.trace(R) - 1.0)
    return float(np.degrees(np.arctan2(sine, cosine)))


def box_corners(box_min: np.ndarray, box_max: np.ndarray) -> np.ndarray:
    """Corners (8, 3) of an axis-aligned box, numbered as `keypoints.BOX_CORNERS_8`."""
    ends = np.stack([np.asarray(box_min, np.float64), np.asarray(box_max, np.float64)])
    if ends.shape != (2, 3):
        raise ValueError(f"box_min and box_max must have 3 numbers each, got {ends.shape[1:]}")
    index = np.arange(8)
    bits = np.stack([index & 1, (index >> 1) & 1, (index >> 2) & 1], axis=1)
    return ends[bits, np.arange(3)]
