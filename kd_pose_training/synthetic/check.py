"""Are poses, masks and depth of a drawn frame about the same thing? Asked of every frame.

Points of an object's surface are moved by its pose and projected: none of them may lie in front of
what the depth says is nearest there, and those that lie on it must be in the object's mask. A
renderer with another projection, a swapped id or a stale pose cannot pass.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from kd_pose.geometry import transform_points
from kd_pose_training.synthetic.render import Buffers
from kd_pose_training.synthetic.scene import Scene

POINTS = 400
MIN_SHARE = 0.9
MIN_POINTS = 20
TOUCHING = 0.015  # metres; behind a thin wall of its neighbour a surface seems to be on the depth
MIN_SEEN = 0.02  # of a surface faces the camera: a plate seen edge-on shows next to nothing


class FrameMismatch(RuntimeError):
    """Poses, masks and depth of a frame contradict each other."""


def surface_points(vertices: np.ndarray, faces: np.ndarray, count: int = POINTS) -> np.ndarray:
    """The middles of triangles and points between, spread by area: (count, 3)."""
    corners = vertices[faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]),
                          axis=1)
    rng = np.random.default_rng(0)
    rows = rng.choice(len(faces), count, p=area / area.sum())
    a, b = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - a, a * (1 - b), a * b], axis=1)
    return np.einsum("nk,nki->ni", weights, corners[rows])


def check_frame(scene: Scene, buffers: Buffers, points: list[np.ndarray]) -> None:
    """Raise if an instance of the frame is not where its pose says.

    points: surface points (n, 3) of every object, metres.

    Raises:
        FrameMismatch: names instance and what is wrong.
    """
    for row, thing in enumerate(scene.objects):
        T = scene.pose(thing)
        camera = points[thing.item] @ T[:3, :3].T + T[:3, 3]
        pixel = camera @ scene.K.T
        with np.errstate(divide="ignore", invalid="ignore"):
            at = np.rint(pixel[:, :2] / pixel[:, 2:])
        inside = ((camera[:, 2] > 0.03) & (at >= 1).all(axis=1)
                  & (at[:, 0] < scene.width - 1) & (at[:, 1] < scene.height - 1))
        u, v = at[inside].astype(int).T
        z = camera[inside, 2]
        if len(z) < MIN_POINTS:
            continue
        # The depth's range around the pixel: a point falls up to half a pixel beside its centre.
        around = np.stack([buffers.depth[v + j, u + i] for j in (-1, 0, 1) for i in (-1, 0, 1)])
        around = np.where(around > 0, around, np.inf)
        tolerance = 0.001 + 0.004 * z
        if (np.mean(z > around.min(axis=0) - tolerance) < MIN_SHARE):
            raise FrameMismatch(f"instance {row}: its surface lies in front of the depth")
        on = (z > around.min(axis=0) - tolerance) & (z < around.max(axis=0) + tolerance)
        ids = np.stack([buffers.ids[v + j, u + i] for j in (-1, 0, 1) for i in (-1, 0, 1)])
        flat = on & (around.max(axis=0) - around.min(axis=0) < 0.03 * z)
        mine = (ids == row).any(axis=0)
        if flat.sum() >= MIN_POINTS and np.mean(mine[flat]) < MIN_SHARE:
            flat &= ~_touching(scene, row, camera[inside], points)
        if flat.sum() >= MIN_POINTS and np.mean(mine[flat]) < MIN_SHARE:
            raise FrameMismatch(f"instance {row}: its visible surface is not in its mask")
        within = (ids == row).all(axis=0)  # seen there, or hidden by the object's own front
        if within.sum() >= MIN_POINTS and np.mean(on[within]) < MIN_SEEN:
            raise FrameMismatch(f"instance {row}: its mask is not where its surface is")


def _touching(scene: Scene, row: int, camera: np.ndarray, points: list[np.ndarray]) -> np.ndarray:
    """Which points (n, 3), camera frame, lie next to another instance's surface: (n,) bool."""
    others = [transform_points(scene.pose(thing), points[thing.item])
              for other, thing in enumerate(scene.objects) if other != row]
    if not others:
        return np.zeros(len(camera), dtype=bool)
    return cKDTree(np.concatenate(others)).query(camera)[0] < TOUCHING
