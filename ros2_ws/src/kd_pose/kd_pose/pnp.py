"""From 2D-3D votes to a pose: robust PnP and its covariance.

The solver is PoseLib (Larsson, BSD-3): LO-RANSAC over P3P with a truncated least-squares
refinement. On votes it is several times faster than cv2.solvePnPRansac with EPNP and holds where
that one breaks down, beyond half outliers (benchmarks/pnp.py). PoseLib has no wheels for ARM;
where it is not installed, OpenCV's RANSAC over AP3P with a Levenberg-Marquardt refinement takes
its place: as robust, several times slower. Never EPNP or SQPNP, which fail with many outliers.
Both samplers have fixed seeds, so the same votes always give the same pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kd_pose.geometry import make_pose

try:
    import poselib
except ImportError:
    poselib = None

MIN_POINTS = 4  # three give up to four poses
# A rank test on the 3x3 scatter: points nearer than this to one line, relative to their length.
MIN_FLATNESS = 1e-3
# Beyond this many votes the heaviest ones find the pose and all of them refine it.
MAX_SEARCH_POINTS = 192
MIN_ITERATIONS = 30
SUCCESS_PROBABILITY = 0.999
REFINE_ITERATIONS = 25
# JtJ with unit columns: below this smallest eigenvalue a direction of the pose is not observed.
MIN_EIGENVALUE = 1e-10


@dataclass
class PnPResult:
    """T_cam_obj: (4, 4). inliers: (N,) bool over the points given. reprojection_error_px: rms
    distance of the inliers in pixels."""

    T_cam_obj: np.ndarray
    inliers: np.ndarray
    reprojection_error_px: float


def solve_pnp(
    points3d: np.ndarray,
    points2d: np.ndarray,
    K: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    max_error_px: float = 4.0,
    max_iterations: int = 1000,
    min_inliers: int = 6,
) -> PnPResult | None:
    """Pose that explains most votes.

    points3d: (N, 3) metres, object frame; a point may occur many times, once per vote.
    points2d: (N, 2) undistorted pixels. K: (3, 3).
    weights: (N,) how much to trust each vote; votes of weight 0 or less are left out, and where
        there are more than `MAX_SEARCH_POINTS` the heaviest are searched. None = all alike.
    max_error_px: a vote within this distance is an inlier.
    Returns None where there is no reliable pose: fewer than 4 usable points (NaN is not usable),
    fewer than `min_inliers` inliers, inliers on fewer than 4 different points or all on one line,
    an image of the object smaller than the tolerance, or an inlier behind the camera.
    """
    points3d = np.ascontiguousarray(points3d, dtype=np.float64).reshape(-1, 3)
    points2d = np.ascontiguousarray(points2d, dtype=np.float64).reshape(-1, 2)
    if len(points3d) != len(points2d):
        raise ValueError(f"{len(points3d)} points3d do not match {len(points2d)} points2d")
    K = np.asarray(K, dtype=np.float64)
    # The sum is finite if and only if every entry is: one cheap test for the usual case.
    clean = np.isfinite(points3d.sum() + points2d.sum())
    rows = None
    if weights is not None or not clean:
        rows = _usable_rows(points3d, points2d, weights)
    xyz, uv = (points3d, points2d) if rows is None else (points3d[rows], points2d[rows])
    if len(xyz) < MIN_POINTS:
        return None
    T = _search(xyz, uv, K, max_error_px, max_iterations)
    if T is None:
        return None
    errors = _squared_errors(T, xyz, uv, K)
    good = errors <= max_error_px * max_error_px
    count = int(np.count_nonzero(good))
    if count < max(min_inliers, MIN_POINTS):
        return None
    if not _is_spread(xyz[good], uv[good], max_error_px):
        return None
    rms = float(np.sqrt(errors[good].mean()))
    if rows is None:
        inliers = good
    else:
        inliers = np.zeros(len(points3d), dtype=bool)
        inliers[rows[good]] = True
    return PnPResult(T, inliers, rms)


def _usable_rows(points3d: np.ndarray, points2d: np.ndarray, weights) -> np.ndarray:
    """Rows with finite points and positive finite weight, heaviest first."""
    usable = np.isfinite(points3d).all(axis=1) & np.isfinite(points2d).all(axis=1)
    if weights is None:
        return np.flatnonzero(usable)
    weights = np.asarray(weights, dtype=np.float64).reshape(-1)
    if len(weights) != len(points3d):
        raise ValueError(f"{len(weights)} weights do not match {len(points3d)} points")
    usable &= np.isfinite(weights) & (weights > 0)
    rows = np.flatnonzero(usable)
    return rows[np.argsort(-weights[rows], kind="stable")]


def _search(
    xyz: np.ndarray, uv: np.ndarray, K: np.ndarray, max_error_px: float, max_iterations: int
) -> np.ndarray | None:
    """Pose (4, 4) from RANSAC over the first points and a refinement over all, or None."""
    if poselib is None:
        return _search_opencv(xyz, uv, K, max_error_px, max_iterations)
    fx, skew, cx, fy, cy = K[0, 0], K[0, 1], K[0, 2], K[1, 1], K[1, 2]
    if skew:
        uv = uv - np.outer((uv[:, 1] - cy) * (skew / fy), (1.0, 0.0))
    camera = {"model": "PINHOLE", "width": 0, "height": 0, "params": (fx, fy, cx, cy)}
    search = {
        "max_iterations": int(max_iterations),
        "min_iterations": min(MIN_ITERATIONS, int(max_iterations)),
        "max_reproj_error": float(max_error_px),
        "success_prob": SUCCESS_PROBABILITY,
    }
    refine = {
        "max_iterations": REFINE_ITERATIONS,
        "loss_type": "TRUNCATED",
        "loss_scale": float(max_error_px),
    }
    n = MAX_SEARCH_POINTS
    try:
        pose, info = poselib.estimate_absolute_pose(uv[:n], xyz[:n], camera, search, refine)
        if info["num_inliers"] < MIN_POINTS:
            return None
        if len(xyz) > n:
            pose, _ = poselib.refine_absolute_pose(uv, xyz, pose, camera, refine)
    except (RuntimeError, ValueError):
        return None
    T = make_pose(pose.R, pose.t)
    return T if np.isfinite(T.sum()) else None


def _search_opencv(
    xyz: np.ndarray, uv: np.ndarray, K: np.ndarray, max_error_px: float, max_iterations: int
) -> np.ndarray | None:
    """`_search` without PoseLib."""
    # OpenCV ignores skew: take it out of the pixels.
    uv = uv - np.outer((uv[:, 1] - K[1, 2]) * (K[0, 1] / K[1, 1]), (1.0, 0.0))
    straight = np.array([[K[0, 0], 0, K[0, 2]], [0, K[1, 1], K[1, 2]], [0, 0, 1]])
    n = MAX_SEARCH_POINTS
    try:
        found, turn, shift, inliers = cv2.solvePnPRansac(
            xyz[:n], uv[:n], straight, None,
            iterationsCount=int(max_iterations), reprojectionError=float(max_error_px),
            confidence=SUCCESS_PROBABILITY, flags=cv2.SOLVEPNP_AP3P,
        )
        if not found or inliers is None or len(inliers) < MIN_POINTS:
            return None
        T = make_pose(cv2.Rodrigues(turn)[0], shift)
        for _ in range(2):  # the second time with the inliers of the refined pose
            near = _squared_errors(T, xyz, uv, straight) <= max_error_px * max_error_px
            if np.count_nonzero(near) < MIN_POINTS:
                return None
            turn, shift = cv2.solvePnPRefineLM(xyz[near], uv[near], straight, None, turn, shift)
            T = make_pose(cv2.Rodrigues(turn)[0], shift)
    except cv2.error:
        return None
    return T if np.isfinite(T.sum()) else None


def _squared_errors(T: np.ndarray, xyz: np.ndarray, uv: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Squared pixel distances (N,), infinite for points that are not in front of the camera."""
    projected = xyz @ (K @ T[:3, :3]).T + K @ T[:3, 3]
    depth = projected[:, 2]
    if depth.min() <= 1e-9:
        depth = np.where(depth > 1e-9, depth, np.nan)
    delta = projected[:, :2] / depth[:, None] - uv
    errors = np.einsum("ij,ij->i", delta, delta)
    return np.nan_to_num(errors, nan=np.inf, copy=False)


def _is_spread(xyz: np.ndarray, uv: np.ndarray, max_error_px: float) -> bool:
    """Whether these inliers can fix six degrees of freedom."""
    if len(set(map(tuple, xyz.tolist()))) < MIN_POINTS:
        return False
    if float(np.ptp(uv, axis=0).max()) <= max_error_px:
        return False
    centred = xyz - xyz.mean(axis=0)
    spread = np.linalg.eigvalsh(centred.T @ centred)
    return bool(spread[1] > MIN_FLATNESS**2 * spread[2])


def pose_covariance(
    points3d: np.ndarray,
    points2d: np.ndarray,
    K: np.ndarray,
    T_cam_obj: np.ndarray,
    inliers: np.ndarray | None = None,
    *,
    effective_points: float | None = None,
) -> np.ndarray | None:
    """First-order covariance (6, 6) of a pose from its residuals, sigma^2 (J^T J)^-1.

    Order x, y, z, rotation about the fixed camera axes x, y, z at the object's origin (metres and
    radians): the order of ROS's PoseWithCovariance. sigma^2 is the residuals' own variance with
    2n - 6 degrees of freedom, over the `inliers` (N,) bool.
    effective_points: how many independent points the inliers are worth. Votes of neighbouring
        cells for one corner err alike, so n votes teach less than n measurements; the covariance
        is multiplied by n / effective_points. None = all independent.
    Returns None with too few points, a point behind the camera or an unobserved direction.
    """
    xyz = np.asarray(points3d, dtype=np.float64).reshape(-1, 3)
    uv = np.asarray(points2d, dtype=np.float64).reshape(-1, 2)
    if inliers is not None:
        xyz, uv = xyz[inliers], uv[inliers]
    n = len(xyz)
    if n < MIN_POINTS:
        return None
    T = np.asarray(T_cam_obj, dtype=np.float64)
    residuals, J = _residuals_and_jacobian(xyz, uv, np.asarray(K, dtype=np.float64), T)
    if not (np.isfinite(J).all() and np.isfinite(residuals).all()):
        return None
    variance = float(residuals @ residuals) / (2 * n - 6)
    # Unit columns: metres and radians have nothing to compare otherwise.
    lengths = np.linalg.norm(J, axis=0)
    if not lengths.min() > 0:
        return None
    J = J / lengths
    values, vectors = np.linalg.eigh(J.T @ J)
    if values[0] < MIN_EIGENVALUE:
        return None
    covariance = (vectors / values) @ vectors.T / np.outer(lengths, lengths) * variance
    if effective_points is not None:
        if not effective_points > 0:
            raise ValueError(f"effective_points must be positive, got {effective_points}")
        covariance *= n / effective_points
    return 0.5 * (covariance + covariance.T)


def _residuals_and_jacobian(
    xyz: np.ndarray, uv: np.ndarray, K: np.ndarray, T: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel residuals (2n,) and their derivative (2n, 6); NaN for points behind the camera."""
    lever = xyz @ T[:3, :3].T
    points = lever + T[:3, 3]
    x, y = points[:, 0], points[:, 1]
    z = np.where(points[:, 2] > 1e-9, points[:, 2], np.nan)
    zero = np.zeros_like(z)
    # Derivative of (x/z, y/z) by the point, then pixels by the upper left of K.
    by_point = np.stack([[1 / z, zero, -x / z**2], [zero, 1 / z, -y / z**2]]).transpose(2, 0, 1)
    by_point = K[:2, :2] @ by_point
    # A turn w about the object's origin moves the point by w x lever = -[lever]x w.
    by_turn = np.cross(lever[:, None], by_point)
    J = np.concatenate([by_point, by_turn], axis=2).reshape(-1, 6)
    projected = np.stack([x / z, y / z], axis=1) @ K[:2, :2].T + K[:2, 2]
    return (projected - uv).reshape(-1), J
