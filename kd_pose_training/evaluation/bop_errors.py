"""Errors of many estimated poses of one object at once, as the BOP benchmark defines them.

ADD and ADD-S (ADI): Hinterstoisser et al., ACCV 2012. VSD: Hodan et al., ECCV 2018. MSSD and MSPD:
Hodan et al., "BOP Challenge 2020", ECCVW 2020. Values equal those of the benchmark's own program,
github.com/thodan/bop_toolkit, whose choices (step of continuous symmetries, visibility at pixels
without depth, single precision of that test) are kept. Poses are ``T_cam_obj`` (n, 4, 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError, cKDTree

from kd_pose.geometry import make_pose, rotation_from_vector
from kd_pose.manifest import ObjectSpec

MAX_SYMMETRY_STEP = 0.01  # of the diameter, that the farthest point moves between two members
CHUNK = 1 << 17  # numbers in a temporary array, which so stays in the processor's cache
COARSE_POINTS = 64  # with which most members of a symmetry are ruled out
LEAF_SIZE = 32  # of the tree for ADD-S: measured the fastest


def symmetry_members(spec: ObjectSpec, max_step: float = MAX_SYMMETRY_STEP) -> np.ndarray:
    """Transforms (S, 4, 4) under which an object looks the same, metres, as BOP discretises them.

    A continuous symmetry gives ceil(pi / max_step) turns. Where there are several axes, BOP takes
    the turns about each of them, not their products.
    """
    discrete = [np.eye(4), *(np.reshape(T, (4, 4)) for T in spec.symmetries_discrete)]
    turns = []
    for axis, offset in spec.symmetries_continuous:
        axis, offset = np.asarray(axis, float), np.asarray(offset, float)
        count = int(np.ceil(np.pi / max_step))
        for step in range(count):
            R = rotation_from_vector(axis / np.linalg.norm(axis) * (2 * np.pi * step / count))
            turns.append(make_pose(R, offset - R @ offset))
    return np.stack([turn @ T for T in discrete for turn in turns or [np.eye(4)]])


class PoseErrors:
    """Errors of estimates of one object.

    Args:
        points: model points (m, 3), metres.
        symmetries: (S, 4, 4) with the identity, see :func:`symmetry_members`; None: no others.
    """

    def __init__(self, points: np.ndarray, symmetries: np.ndarray | None = None) -> None:
        self.symmetries = np.eye(4)[None] if symmetries is None else np.asarray(symmetries, float)
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        self.tree = cKDTree(points, leafsize=LEAF_SIZE)
        # Neighbours in the tree become neighbours in memory: queries run through it in order.
        self.points = points[self.tree.indices]
        self._rows = _homogeneous(self.points)
        self._hull = _homogeneous(hull_points(points))

    def add(self, T_est: np.ndarray, T_true: np.ndarray) -> np.ndarray:
        """Mean distance (n,) of the points under both poses, metres."""
        D = (np.asarray(T_est, float) - np.asarray(T_true, float))[:, :3]
        return _by_chunks(lambda D: _lengths(D, self._rows).mean(axis=-1), (D,),
                          3 * len(self.points))

    def add_s(self, T_est: np.ndarray, T_true: np.ndarray) -> np.ndarray:
        """Mean distance (n,) of each true point to the nearest estimated one, metres."""
        T_est, T_true = np.asarray(T_est, float), np.asarray(T_true, float)

        def mean(T_est: np.ndarray, T_true: np.ndarray) -> np.ndarray:
            # Seen from the estimate the estimated points stand still, so that one tree is enough.
            moved = np.linalg.solve(T_est, T_true)[:, :3] @ self._rows
            nearest = self.tree.query(moved.transpose(0, 2, 1))[1]
            # Rounded rotations stretch a little: enough to be seen in distances, hardly in which
            # point is the nearest. So distances are measured in the camera's frame.
            gap = (T_est[:, :3, :3] @ self.tree.data[nearest].transpose(0, 2, 1)
                   + T_est[:, :3, 3:] - T_true[:, :3] @ self._rows)
            return np.sqrt(np.einsum("nim,nim->nm", gap, gap)).mean(axis=1)

        return _by_chunks(mean, (T_est, T_true), 3 * len(self.points))

    def mssd(self, T_est: np.ndarray, T_true: np.ndarray) -> np.ndarray:
        """Maximum symmetry-aware surface distance (n,), metres.

        A distance between two poses is a convex function of the point, so that its maximum is at
        a corner of the convex hull.
        """
        T_est, T_true = np.asarray(T_est, float), np.asarray(T_true, float)
        squares = _monomials(self._hull)

        def largest(T_est: np.ndarray, T_true: np.ndarray) -> np.ndarray:
            D = (T_est[:, None] - T_true[:, None] @ self.symmetries)[:, :, :3]
            found = (_quadratic(D) @ squares).max(axis=-1)
            best = D[np.arange(len(D)), found.argmin(axis=1)]
            return _lengths(best, self._hull).max(axis=-1)  # without the loss of the squares

        return _by_chunks(largest, (T_est, T_true), len(self.symmetries) * self._hull.shape[1])

    def mspd(self, T_est: np.ndarray, T_true: np.ndarray, K: np.ndarray) -> np.ndarray:
        """Maximum symmetry-aware projection distance (n,), pixels; infinite where undefined.

        K: (3, 3), or (n, 3, 3). A few points give a lower bound for every member of the symmetry;
        only those members that may still be the nearest are tried with all points.
        """
        T_est, T_true = np.asarray(T_est, float), np.asarray(T_true, float)
        K = np.broadcast_to(np.asarray(K, float), (len(T_est), 3, 3))
        return _by_chunks(self._mspd, (K @ T_est[:, :3], K @ T_true[:, :3]),
                          len(self.symmetries))

    def _mspd(self, P_est: np.ndarray, P_true: np.ndarray) -> np.ndarray:
        """Of projections (n, 3, 4)."""
        P_true = P_true[:, None] @ self.symmetries
        if len(self.symmetries) == 1:
            return self._all_points(P_est, P_true[:, 0])
        few = self._hull[:, ::max(1, self._hull.shape[1] // COARSE_POINTS)]
        bound = _by_chunks(lambda a, b: _farthest(a[:, None], b, few), (P_est, P_true),
                           2 * len(self.symmetries) * few.shape[1])
        rows = np.arange(len(P_est))
        first = bound.argmin(axis=1)
        best = self._all_points(P_est, P_true[rows, first])
        bound[rows, first] = np.inf
        rows, members = np.nonzero(bound < best[:, None])
        np.minimum.at(best, rows, self._all_points(P_est[rows], P_true[rows, members]))
        return best

    def _all_points(self, P_est: np.ndarray, P_true: np.ndarray) -> np.ndarray:
        return _by_chunks(lambda a, b: _farthest(a, b, self._rows), (P_est, P_true),
                          3 * len(self.points))


@dataclass(frozen=True)
class DepthPatch:
    """Part of a rendered depth picture. depth: float (h, w) along z, 0 where there is nothing;
    left, top: pixel of its first element."""

    depth: np.ndarray
    left: int = 0
    top: int = 0

    @classmethod
    def around(cls, picture: np.ndarray) -> DepthPatch:
        """What of a whole picture is not 0."""
        rows, columns = (np.flatnonzero(picture.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return cls(picture[:0, :0])
        return cls(picture[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1],
                   int(columns[0]), int(rows[0]))

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        height, width = self.depth.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def vsd(depth: np.ndarray, K: np.ndarray, estimated: Sequence[DepthPatch],
        true: Sequence[DepthPatch], *, delta: float, taus: Sequence[float],
        diameters: Sequence[float]) -> np.ndarray:
    """Visible surface discrepancy (n, len(taus)) with the step cost, of poses in one picture.

    Args:
        depth: measured depth (H, W), 0 where unknown; there everything counts as visible.
        K: (3, 3).
        estimated, true: the model rendered in both poses of each pair. All lengths are of one
            unit; delta: how far behind the measured surface a visible one may lie; taus:
            misalignment that is tolerated, in diameters.
    """
    rays = _ray_lengths(K, depth.shape)
    measured = (depth * rays).astype(np.float32)
    taus = np.sort(np.asarray(taus, dtype=np.float64))
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    result = np.ones((len(estimated), len(taus)))
    for row, (guess, truth) in enumerate(zip(estimated, true)):
        if id(truth) not in seen:  # often the same for many estimates
            seen[id(truth)] = _visible(truth, rays, measured, delta)
        visible_true, distance_true = seen[id(truth)]
        visible, distance = _visible(guess, rays, measured, delta)
        here, there = _common(guess, truth)
        # What of the true surface is seen is seen in the estimate as well, though it be behind.
        visible[here] |= visible_true[there] & (distance[here] > 0)
        both = visible[here] & visible_true[there]
        matched = int(np.count_nonzero(both))
        union = int(np.count_nonzero(visible)) + int(np.count_nonzero(visible_true)) - matched
        if union:
            off = np.abs(distance_true[there][both] - distance[here][both]) / diameters[row]
            # How many are at least as far off as each tau.
            steps = np.bincount(np.searchsorted(taus, off, side="right"),
                                minlength=len(taus) + 1)
            wrong = matched - np.cumsum(steps)[:len(taus)]
            result[row] = (wrong + (union - matched)) / union
    return result


def hull_points(points: np.ndarray) -> np.ndarray:
    """The corners of the points' convex hull; all points where they lie in a plane."""
    try:
        return points[np.sort(ConvexHull(points).vertices)]
    except (QhullError, ValueError):
        return points


def _homogeneous(points: np.ndarray) -> np.ndarray:
    """(m, 3) -> (4, m)."""
    return np.ascontiguousarray(np.concatenate([points, np.ones((len(points), 1))], axis=1).T)


def _lengths(D: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Lengths (..., m) of D (..., 3, 4) times points (4, m)."""
    vectors = D @ rows
    return np.sqrt(np.einsum("...im,...im->...m", vectors, vectors))


def _monomials(rows: np.ndarray) -> np.ndarray:
    """Products (10, m) of two coordinates of homogeneous points (4, m)."""
    i, j = np.triu_indices(4)
    return rows[i] * rows[j]


def _quadratic(D: np.ndarray) -> np.ndarray:
    """Coefficients (..., 10) of |D p|^2 in the monomials of p; D (..., 3, 4)."""
    i, j = np.triu_indices(4)
    return np.einsum("...ki,...ki->...i", D[..., i], D[..., j]) * np.where(i == j, 1.0, 2.0)


def _farthest(P: np.ndarray, Q: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Largest distance (...,) in the image of points (4, m) under two projections (..., 3, 4)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        a, b = P @ rows, Q @ rows
        gap = a[..., :2, :] / a[..., 2:, :] - b[..., :2, :] / b[..., 2:, :]
        square = np.einsum("...im,...im->...m", gap, gap).max(axis=-1)
        return np.where(np.isfinite(square), np.sqrt(square), np.inf)


def _by_chunks(function, arrays: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    """``function`` of the arrays' rows, so many at a time that temporaries stay small."""
    step = max(1, CHUNK // max(size, 1))
    parts = [function(*(array[start:start + step] for array in arrays))
             for start in range(0, len(arrays[0]), step)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _ray_lengths(K: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Distance from the camera over depth (H, W) of every pixel."""
    x = (np.arange(shape[1]) - K[0, 2]) / K[0, 0]
    y = (np.arange(shape[0]) - K[1, 2]) / K[1, 1]
    return np.sqrt(x[None] ** 2 + y[:, None] ** 2 + 1.0)


def _visible(patch: DepthPatch, rays: np.ndarray, measured: np.ndarray,
             delta: float) -> tuple[np.ndarray, np.ndarray]:
    """Where a rendered surface is seen, and its distance, (h, w) both."""
    distance = patch.depth * rays[patch.window]
    surface = measured[patch.window]
    # Single precision decides as the benchmark's own program does.
    near = distance.astype(np.float32) - surface <= np.float32(delta)
    return (near | (surface == 0)) & (distance > 0), distance


def _common(a: DepthPatch, b: DepthPatch) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the picture that both show, in the coordinates of each."""
    parts = []
    for one, other in zip(a.window, b.window):
        low = max(one.start, other.start)
        high = max(low, min(one.stop, other.stop))
        parts.append((slice(low - one.start, high - one.start),
                      slice(low - other.start, high - other.start)))
    return (parts[0][0], parts[1][0]), (parts[0][1], parts[1][1])
