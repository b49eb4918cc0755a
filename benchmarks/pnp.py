"""Pose from votes: kd_pose.pnp against cv2.solvePnPRansac with EPNP.

N votes for the corners of a box of 12 x 8 x 10 cm at 0.5 to 1 m, 1 px of noise, 30 % outliers
(25 % at N = 8) spread over the object's surroundings. The peer has 100 iterations and 3 px.
Success is a rotation error below 5 degrees; failing to answer is an error of 180.
"""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.timing import Row, interleave, row
from kd_pose.geometry import (
    box_corners,
    make_pose,
    rotation_angle_deg,
    rotation_from_vector,
    transform_points,
)
from kd_pose.pnp import solve_pnp

PEERS = ()
K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
CORNERS = box_corners((-0.06, -0.04, -0.05), (0.06, 0.04, 0.05))
CASES = ((8, 0.25), (16, 0.3), (32, 0.3), (64, 0.3))
GOAL = 4.0
SUCCESS_DEG = 5.0


def problem(rng: np.random.Generator, count: int, outliers: float):
    """Points3d (N, 3), points2d (N, 2), R (3, 3)."""
    t = rng.uniform((-0.1, -0.1, 0.5), (0.1, 0.1, 1.0))
    T = make_pose(rotation_from_vector(rng.normal(size=3)), t)
    xyz = CORNERS[np.arange(count) % 8]
    projected = transform_points(T, xyz) @ K.T
    uv = projected[:, :2] / projected[:, 2:] + rng.normal(size=(count, 2))
    bad = rng.choice(count, int(round(outliers * count)), replace=False)
    uv[bad] = rng.uniform(uv.min(axis=0) - 20, uv.max(axis=0) + 20, (len(bad), 2))
    return xyz, uv, T[:3, :3]


def solve_opencv(xyz: np.ndarray, uv: np.ndarray) -> np.ndarray | None:
    """The peer: R (3, 3) or None."""
    ok, turn, _, _ = cv2.solvePnPRansac(
        xyz, uv, K, None, iterationsCount=100, reprojectionError=3.0, flags=cv2.SOLVEPNP_EPNP
    )
    return cv2.Rodrigues(turn)[0] if ok else None


def solve_ours(xyz: np.ndarray, uv: np.ndarray) -> np.ndarray | None:
    """R (3, 3) or None. The peer demands no number of inliers, so neither do we."""
    result = solve_pnp(xyz, uv, K, min_inliers=4)
    return None if result is None else result.T_cam_obj[:3, :3]


def run(pairs: int = 300) -> list[Row]:
    return [_case(count, outliers, pairs) for count, outliers in CASES]


def _case(count: int, outliers: float, pairs: int) -> Row:
    rng = np.random.default_rng(count)
    problems = [problem(rng, count, outliers) for _ in range(pairs)]
    times = interleave(
        lambda index: solve_opencv(*problems[index][:2]),
        lambda index: solve_ours(*problems[index][:2]),
        pairs,
    )
    peer, ours = (_errors(solve, problems) for solve in (solve_opencv, solve_ours))
    success = [100 * float((errors < SUCCESS_DEG).mean()) for errors in (peer, ours)]
    median = [float(np.median(errors)) for errors in (peer, ours)]
    guard = (
        f"rotation {median[1]:.2f} vs {median[0]:.2f} deg, "
        f"success {success[1]:.1f} vs {success[0]:.1f} %"
    )
    name = f"PnP {count} votes, {100 * outliers:.0f} % outliers, vs cv2 RANSAC EPNP"
    holds = median[1] <= median[0] and success[1] >= success[0]
    return row(name, times, GOAL, guard, holds)


def _errors(solve, problems) -> np.ndarray:
    """Rotation errors in degrees, 180 where there is no answer."""
    errors = np.full(len(problems), 180.0)
    for index, (xyz, uv, R) in enumerate(problems):
        found = solve(xyz, uv)
        if found is not None and np.isfinite(found).all():
            errors[index] = rotation_angle_deg(found, R)
    return errors
