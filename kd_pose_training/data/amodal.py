"""Boxes of whole objects in the image, whether covered or cut off: what a detector learns.

The box is that of the projected mesh. Few points suffice for it: those that are the farthest of
the mesh in some direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kd_pose.boxes import points_box
from kd_pose.geometry import transform_points

MIN_DEPTH_M = 1e-3


def support_points(vertices: np.ndarray, limit: int = 500) -> np.ndarray:
    """At most ``limit`` of the vertices (n, 3) that span nearly their convex hull -> (m, 3).

    The farthest vertex in each of ``limit`` directions, spread evenly over the sphere by a
    Fibonacci spiral. For a sphere and 500 directions boxes come out 0.3 % too small at most.

    Raises:
        ValueError: no vertices, or some are not finite.
    """
    vertices = np.asarray(vertices, dtype=np.float64).reshape(-1, 3)
    if len(vertices) == 0 or not np.isfinite(vertices).all():
        raise ValueError(f"vertices must be finite and at least one, got {len(vertices)}")
    if len(vertices) <= limit:
        return vertices
    height = 1.0 - (2.0 * np.arange(limit) + 1.0) / limit
    angle = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(limit)
    radius = np.sqrt(1.0 - height**2)
    directions = np.stack([radius * np.cos(angle), radius * np.sin(angle), height])
    centred = vertices - vertices.mean(axis=0)
    farthest: set[int] = set()
    for part in np.array_split(directions, max(1, limit * len(vertices) // 10**7), axis=1):
        farthest.update((centred @ part).argmax(axis=0).tolist())
    return vertices[sorted(farthest)]


def project(T_cam_obj: np.ndarray, points: np.ndarray, K: np.ndarray) -> np.ndarray | None:
    """Points (n, 3) of the object -> pixels (n, 2) of a pinhole camera; None if any is behind it.

    K may be any upper 2x2 with a last row of 0, 0, 1, so also that of a rotated crop.
    """
    camera = transform_points(T_cam_obj, points)
    if not camera[:, 2].min() > MIN_DEPTH_M:
        return None
    pixels = camera @ np.asarray(K, dtype=np.float64).T
    return pixels[:, :2] / pixels[:, 2:]


def amodal_box(T_cam_obj: np.ndarray, points: np.ndarray, K: np.ndarray) -> np.ndarray | None:
    """Box xyxy (4,) around the projected points, not clipped to the image; None if behind."""
    pixels = project(T_cam_obj, points, K)
    return None if pixels is None else points_box(pixels)


def outlines(datasets: list[Any], names: tuple[str, ...],
             load_vertices: Callable[[Any], np.ndarray] | None = None) -> list[np.ndarray]:
    """Support points (m, 3), metres, of the named objects, from the first set that has each.

    Args:
        load_vertices: model -> (n, 3) metres; by default the BOP reader's own.
    """
    if load_vertices is None:
        from kd_pose_training.data.bop_models import load_mesh_vertices as load_vertices
    models: dict[str, Any] = {}
    for dataset in datasets:
        for model in dataset.models.values():
            models.setdefault(model.name, model)
    return [support_points(load_vertices(models[name])) for name in names]
