"""Hair, hats and glasses around the average head, in the bind pose."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kd_pose_training.synthetic.people.body import torso_shapes
from kd_pose_training.synthetic.people.sdf import (
    Cone,
    Distance,
    Ellipsoid,
    Shape,
    carve,
    smooth_min,
    union,
)
from kd_pose_training.synthetic.people.skeleton import INDEX, turn
from kd_pose_training.synthetic.people.skin import BOUND, Piece, cover

STYLES = ("bald", "short", "crop", "bob", "long", "bun", "tail", "curls")
HATS = ("none", "cap", "beanie")
CELL = (0.0065, 0.012)  # metres, of near and of distant people
_JOINT = BOUND.joints[INDEX["head"]]


def _at(x: float, y: float, z: float) -> np.ndarray:
    return _JOINT + (x, y, z)


def _ellipsoid(centre: tuple, radii: tuple, turned: np.ndarray | None = None) -> Ellipsoid:
    return Ellipsoid(_at(*centre), radii, "head", turned)


def _clumps(points: np.ndarray, size: float, height: float) -> np.ndarray:
    """A wavy height (n,) for hair that is not quite smooth."""
    p = points / size
    wave = (np.sin(p[:, 0] + 2 * np.sin(0.7 * p[:, 2])) * np.sin(p[:, 1] + 1.3)
            + 0.6 * np.sin(1.9 * p[:, 1] - p[:, 2]) * np.sin(1.7 * p[:, 0] + 0.4))
    return height * wave.astype(np.float32)


def _shell(grow: float) -> Ellipsoid:
    return _ellipsoid((-0.014, 0, 0.082), (0.100 + grow, 0.0775 + grow, 0.0905 + grow))


def _above(slope: float, height: float) -> Distance:
    """Everything above a plane that rises to the front."""
    def distance(points: np.ndarray) -> np.ndarray:
        p = points - _JOINT.astype(np.float32)
        return (height + slope * p[:, 0] - p[:, 2]) / np.sqrt(1 + slope**2)
    return distance


def _face_opening(high: float) -> Ellipsoid:
    """What hair leaves free; ``high``: z of the hairline over the forehead."""
    low = -0.11
    return _ellipsoid((0.105, 0, (high + low) / 2), (0.080, 0.073, (high - low) / 2))


def _style(style: str) -> tuple[Distance, list[Shape]]:
    """Distance and the shapes that carry it."""
    head: list[Shape] = [_shell(0.01)]
    grow = {"crop": 0.006, "curls": 0.042}.get(style, 0.012)
    cap = _shell(grow)
    if style == "curls":
        full = carve(lambda p: cap(p) - _clumps(p, 0.008, 0.005), _face_opening(0.128), 0.01)
        return lambda p: np.maximum(full(p), _above(0.75, -0.005)(p)), head
    if style in ("bob", "long"):
        shapes: list[Shape] = [
            *(Cone(_at(-0.015, 0.062 * s, 0.10), _at(-0.012, 0.070 * s, -0.035), 0.034, 0.024,
                   "head") for s in (1, -1)),
            _ellipsoid((-0.052, 0, 0.015), (0.062, 0.078, 0.085))]
        if style == "long":
            shapes += [Cone(_at(-0.065, 0.035 * s, 0.02), _at(-0.072, 0.045 * s, -0.13), 0.042,
                            0.036, "neck") for s in (1, -1)]
            shapes += [Cone(_at(-0.095, 0.03 * s, -0.13), _at(-0.112, 0.03 * s, -0.26), 0.034,
                            0.018, "chest") for s in (1, -1)]
        body = union([cap, *shapes], 0.02)
        opening = union([_face_opening(0.122), _ellipsoid((0.075, 0, -0.02), (0.07, 0.060, 0.09)),
                         _ellipsoid((0.03, 0, -0.11), (0.06, 0.062, 0.08))], 0.01)
        carriers = [*head, *shapes, *torso_shapes(False)] if style == "long" else head
        return carve(lambda p: body(p) - _clumps(p, 0.011, 0.002), opening, 0.008), carriers
    more: list[Distance] = []
    if style == "bun":
        more = [_ellipsoid((-0.105, 0, 0.145), (0.034, 0.036, 0.033))]
    if style == "tail":
        more = [Cone(_at(-0.108, 0, 0.10), _at(-0.155, 0, 0.05), 0.020, 0.027, "head"),
                Cone(_at(-0.155, 0, 0.05), _at(-0.148, 0, -0.10), 0.027, 0.010, "head")]
    opening = _face_opening(0.130 if style == "crop" else 0.122)
    waves = 0.0015 if style == "crop" else 0.003
    trimmed = carve(lambda p: cap(p) - _clumps(p, 0.010, waves), opening, 0.008)
    edge = _above(0.55, 0.03)

    def distance(points: np.ndarray) -> np.ndarray:
        total = np.maximum(trimmed(points), edge(points))
        for item in more:
            total = smooth_min(total, item(points), 0.012)
        return total
    return distance, head


@lru_cache(maxsize=32)
def hair_piece(style: str, level: int) -> Piece:
    """Hair of a style other than bald."""
    distance, shapes = _style(style)
    low = -0.32 if style == "long" else -0.17
    return cover(distance, shapes, _at(-0.23, -0.16, low), _at(0.16, 0.16, 0.26), CELL[level],
                 0.02, "hair")


@lru_cache(maxsize=8)
def hat_piece(kind: str, level: int) -> Piece:
    """A cap with a brim, or a beanie."""
    dome = _shell(0.017)
    edge = _above(0.10, 0.098) if kind == "cap" else _above(0.42, 0.068)
    brim = _ellipsoid((0.118, 0, 0.108), (0.065, 0.066, 0.006), turn("y", 10))
    rim = carve(lambda p: dome(p) - 0.004, lambda p: -_above(0.42, 0.10)(p), 0.004)

    def distance(points: np.ndarray) -> np.ndarray:
        crown = np.maximum(dome(points), edge(points))
        if kind == "cap":
            return smooth_min(crown, brim(points), 0.006)
        return np.minimum(crown, np.maximum(rim(points), edge(points)))
    return cover(distance, [_shell(0.0)], _at(-0.16, -0.13, 0.0), _at(0.22, 0.13, 0.22),
                 CELL[level], 0.02, "hat")


@lru_cache(maxsize=2)
def glasses_piece(round_ones: bool) -> Piece:
    """Frames without lenses."""
    a, b = (0.0205, 0.0195) if round_ones else (0.0235, 0.0155)
    thick, shapes = 0.0019, []
    angles = np.linspace(0, 2 * np.pi, 13)
    power = 1.0 if round_ones else 0.6
    ring = np.stack([a * np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** power,
                     b * np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power], 1)
    for side in (1, -1):
        points = [_at(0.0965 - 4.0 * (u + 0.02) ** 2, side * (0.0335 + u), 0.0545 + v)
                  for u, v in ring]
        shapes += [Cone(p, q, thick, thick, "head") for p, q in zip(points[:-1], points[1:])]
        hinge, ear = _at(0.086, 0.059 * side, 0.060), _at(-0.012, 0.084 * side, 0.066)
        temple = _at(0.030, 0.079 * side, 0.063)
        shapes += [Cone(hinge, temple, thick, thick, "head"), Cone(temple, ear, thick, thick,
                                                                   "head")]
    shapes.append(Cone(_at(0.0965, 0.012, 0.060), _at(0.0965, -0.012, 0.060), thick, thick,
                       "head"))
    return cover(union(shapes, 0.0), shapes[:1], _at(-0.03, -0.10, 0.03), _at(0.115, 0.10, 0.09),
                 0.0021, 0.02, "frame")
