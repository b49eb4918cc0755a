"""Signed distance functions of round shapes, their smooth unions, and meshes of their surfaces.

A body is modelled as a union of cones with round ends and ellipsoids that flow into each other;
the surface comes from naive surface nets (Gibson, "Constrained Elastic Surface Nets", MICCAI 1998)
and is then moved onto the zero level, whose gradient gives the normals. Distances are in metres,
negative inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Distance = Callable[[np.ndarray], np.ndarray]  # (n, 3) float32 -> (n,) metres
BLOCK = 4  # fine cells along the side of a coarse one
GRADIENT_STEP = 1e-3


@dataclass(frozen=True)
class Cone:
    """Two balls and what lies between them. a, b: centres (3,); ra, rb: radii. ``bone``: the bone
    that carries it. ``squash``: factor (3,) on the axes, about a: 0.8 flattens to 80 %."""

    a: np.ndarray
    b: np.ndarray
    ra: float
    rb: float
    bone: str
    squash: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Distance (n,) to the surface; exact up to the slope of the radius and the squash."""
        scale = np.asarray(self.squash, np.float32)
        p = (points - np.asarray(self.a, np.float32)) / scale
        axis = (np.asarray(self.b - self.a) / scale).astype(np.float32)
        length2 = float(axis @ axis)
        t = np.clip(p @ axis / length2, 0, 1) if length2 > 1e-12 else np.zeros(len(p), np.float32)
        gap = p - t[:, None] * axis
        distance = np.sqrt(np.einsum("ij,ij->i", gap, gap))
        return (distance - (self.ra + (self.rb - self.ra) * t)) * float(scale.min())


@dataclass(frozen=True)
class Ellipsoid:
    """centre (3,), radii (3,), turned by ``turn`` (3, 3), None for none."""

    centre: np.ndarray
    radii: tuple[float, float, float]
    bone: str
    turn: np.ndarray | None = None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Distance (n,), first order near the surface."""
        p = points - np.asarray(self.centre, np.float32)
        if self.turn is not None:
            p = p @ np.asarray(self.turn, np.float32)
        radii = np.asarray(self.radii, np.float32)
        q = p / radii
        k0 = np.sqrt(np.einsum("ij,ij->i", q, q))
        q /= radii
        k1 = np.sqrt(np.einsum("ij,ij->i", q, q))
        return np.where(k1 > 1e-6, k0 * (k0 - 1) / np.maximum(k1, 1e-6), -radii.min())


Shape = Cone | Ellipsoid


def smooth_min(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Minimum whose crease is filled within ``width`` metres (polynomial)."""
    if width <= 0:
        return np.minimum(a, b)
    h = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - h * h * (width / 4)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Maximum whose edge is rounded within ``width`` metres."""
    return -smooth_min(-a, -b, width)


def union(shapes: list[Distance], width: float) -> Distance:
    """Smooth union of shapes; ``width`` of the fillets in metres."""
    def distance(points: np.ndarray) -> np.ndarray:
        total = shapes[0](points)
        for shape in shapes[1:]:
            total = smooth_min(total, shape(points), width)
        return total
    return distance


def carve(solid: Distance, tool: Distance, width: float) -> Distance:
    """``solid`` without ``tool``, with a rounded edge."""
    return lambda points: smooth_max(solid(points), -tool(points), width)


def gradient(distance: Distance, points: np.ndarray) -> np.ndarray:
    """Central differences (n, 3), not normalised."""
    result = np.empty((len(points), 3), np.float32)
    for axis in range(3):
        step = np.zeros(3, np.float32)
        step[axis] = GRADIENT_STEP
        result[:, axis] = (distance(points + step) - distance(points - step)) / (2 * GRADIENT_STEP)
    return result


def onto_surface(distance: Distance, points: np.ndarray, steps: int = 6) -> np.ndarray:
    """Points (n, 3) moved along the gradient onto the zero level."""
    points = np.asarray(points, np.float32).copy()
    for _ in range(steps):
        slope = gradient(distance, points)
        size = np.maximum(np.einsum("ij,ij->i", slope, slope), 1e-3)
        points -= slope * (distance(points) / size)[:, None]
    return points


def first_hit(distance: Distance, starts: np.ndarray, direction: np.ndarray,
              reach: float = 0.4) -> np.ndarray:
    """Where rays (n, 3) along one unit direction first meet the surface within ``reach`` metres,
    by sphere tracing; nan for those that miss."""
    starts = np.asarray(starts, np.float32)
    direction = np.asarray(direction, np.float32)
    travelled = np.zeros(len(starts), np.float32)
    gap = np.full(len(starts), np.inf, np.float32)
    active = np.arange(len(starts))
    for _ in range(100):
        gap[active] = distance(starts[active] + travelled[active, None] * direction)
        travelled[active] += 0.7 * gap[active]
        active = active[(np.abs(gap[active]) > 1e-5) & (travelled[active] < reach)]
        if not len(active):
            break
    travelled[(np.abs(gap) > 1e-3) | (travelled >= reach)] = np.nan
    return starts + travelled[:, None] * direction


def _sample(distance: Distance, low: np.ndarray, high: np.ndarray, cell: float) -> np.ndarray:
    """Values (X, Y, Z) on a grid; where the surface is far away they only have the right sign."""
    counts = np.ceil((high - low) / (cell * BLOCK)).astype(int)
    axes = [low[i] + cell * BLOCK * (np.arange(counts[i]) + 0.5) for i in range(3)]
    coarse = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    far = distance(coarse)
    near = np.flatnonzero(np.abs(far) < cell * BLOCK * 1.6)
    values = np.repeat(far[:, None], BLOCK**3, axis=1)
    inner = cell * (np.arange(BLOCK) + 0.5 - BLOCK / 2)
    inner = np.stack(np.meshgrid(inner, inner, inner, indexing="ij"), -1).reshape(1, -1, 3)
    fine = (coarse[near, None] + inner.astype(np.float32)).reshape(-1, 3)
    if len(near):
        values[near] = distance(fine).reshape(len(near), -1)
    values = values.reshape(*counts, BLOCK, BLOCK, BLOCK)
    return values.transpose(0, 3, 1, 4, 2, 5).reshape(*(counts * BLOCK))


def mesh_of(distance: Distance, low: np.ndarray, high: np.ndarray,
            cell: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surface inside a box, by cells of ``cell`` metres: vertices (V, 3), faces (F, 3) seen
    counter-clockwise from outside, unit normals (V, 3).

    Raises:
        ValueError: there is no surface in the box, or it leaves it.
    """
    low, high = np.asarray(low, float) - 2 * cell, np.asarray(high, float) + 2 * cell
    values = _sample(distance, low, high, cell)
    inside = values < 0
    if not inside.any():
        raise ValueError("no surface in the box")
    for axis in range(3):
        if inside.take([0, -1], axis).any():
            raise ValueError(f"the surface leaves the box along axis {axis}")
    corners = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(8, 3)
    shape = np.array(values.shape) - 1
    counted = sum(inside[tuple(slice(c, c + n) for c, n in zip(corner, shape))].astype(np.int8)
                  for corner in corners)
    cells = np.argwhere((counted > 0) & (counted < 8))
    vertices = low + cell * (_crossings(values, cells, corners) + 0.5)
    number = np.full(shape, -1, np.int32)
    number[tuple(cells.T)] = np.arange(len(cells))
    faces = _faces(inside, number)
    vertices = onto_surface(distance, vertices.astype(np.float32), 2)
    normals = gradient(distance, vertices)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return vertices, faces, normals.astype(np.float32)


def _crossings(values: np.ndarray, cells: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Mean (n, 3) of the places where the surface cuts the edges of each cell, in cells."""
    at = np.stack([values[tuple((cells + corner).T)] for corner in corners], 1)
    total, count = np.zeros((len(cells), 3)), np.zeros(len(cells))
    for i in range(8):
        for bit in (4, 2, 1):
            j = i | bit
            if j == i:
                continue
            cut = (at[:, i] < 0) != (at[:, j] < 0)
            t = at[cut, i] / (at[cut, i] - at[cut, j])
            total[cut] += corners[i] + t[:, None] * (corners[j] - corners[i])
            count[cut] += 1
    return cells + total / count[:, None]


def _faces(inside: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Two triangles for every grid edge that the surface cuts."""
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        first = [slice(1, -1)] * 3
        second = [slice(1, -1)] * 3
        first[axis], second[axis] = slice(0, -1), slice(1, None)
        a, b = inside[tuple(first)], inside[tuple(second)]
        for start, flip in ((a & ~b, False), (b & ~a, True)):
            edge = np.argwhere(start) + 1
            edge[:, axis] -= 1
            ring = []
            for du, dv in ((-1, -1), (0, -1), (0, 0), (-1, 0)):
                cell = edge.copy()
                cell[:, u] += du
                cell[:, v] += dv
                ring.append(number[tuple(cell.T)])
            p, q, r, s = ring[::-1] if flip else ring
            faces += [np.stack([p, q, r], 1), np.stack([p, r, s], 1)]
    return np.concatenate(faces).astype(np.int32)
