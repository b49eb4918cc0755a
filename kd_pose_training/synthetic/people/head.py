"""The head: its shape, where the 68 face landmarks lie on it, and how heads differ.

Points are by the head's own axes (x forwards, y left, z up, from the joint of skull and neck),
metres, of the average head. The landmarks follow iBUG's 300-W order, as COCO-WholeBody does:
"right" and "left" are the person's own. They are given as seen from the front; where they lie in
depth is where the surface is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from kd_pose_training.synthetic.people.sdf import (
    Cone,
    Distance,
    Ellipsoid,
    carve,
    first_hit,
    onto_surface,
    smooth_min,
    union,
)
from kd_pose_training.synthetic.people.skeleton import INDEX, turn
from kd_pose_training.synthetic.people.skin import BOUND, Piece, cover

CELL = (0.0047, 0.009)  # metres, of near and of distant heads
EYE = (0.0315, 0.058)  # y, z of the left eye's middle
MOUTH = -0.0225  # z of the line between the lips
CROWN, CHIN = 0.170, -0.064  # z of the ends
FACE_HALF_WIDTH, FACE_LOW, FACE_HIGH = 0.115, -0.09, 0.17  # the painted rectangle
# From here backwards a face's paint is drawn out sideways instead of through the head.
PAINT_X = 0.012
_JAW = ((0.017, 0.074, 0.048), (0.016, 0.0725, 0.024), (0.014, 0.070, 0.0),
        (0.017, 0.0645, -0.022), (0.026, 0.055, -0.0405), (0.040, 0.043, -0.053),
        (0.055, 0.030, -0.0605), (0.067, 0.0155, -0.0645), (0.071, 0.0, -0.066))


@dataclass(frozen=True)
class Features:
    """What moves on a face, metres as seen from the front. mouth_open, jaw_drop: gap between the
    lips as painted, and how far the jaw goes down; smile: how far the corners go up and out;
    brow: how far the brows go up; lid: 1 open to 0 closed eyes; wide: factor on the mouth's width;
    full: factor on the lips' height; eye: factor on the eyes' size; gaze: (left, up) of -1..1."""

    mouth_open: float = 0.0
    jaw_drop: float = 0.0
    smile: float = 0.0
    brow: float = 0.0
    lid: float = 1.0
    wide: float = 1.0
    full: float = 1.0
    eye: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class HeadForm:
    """How a head differs from the average one: factors on depth, width and height, on the jaw's
    width, and metres by which the nose is longer and the chin lower."""

    depth: float = 1.0
    width: float = 1.0
    height: float = 1.0
    jaw: float = 1.0
    nose: float = 0.0
    chin: float = 0.0

    def apply(self, points: np.ndarray, jaw_drop: float) -> np.ndarray:
        """Points (n, 3) of the average head, at rest -> of this one, with the jaw moved."""
        p = np.array(points, dtype=np.float64)
        x, y, z = p.T.copy()
        front = _step((x - 0.005) / 0.05)
        # Nothing but the nose protrudes beyond this.
        tip = _step((x - 0.088) / 0.024) * np.exp(-((z - 0.018) / 0.03) ** 2)
        low = _step((0.03 - z) / 0.07)
        p[:, 0] += self.nose * tip
        p[:, 1] *= 1 + (self.jaw - 1) * low * _step((0.03 - z) / 0.03)
        drop = _step((MOUTH + 0.001 - z) / 0.012) * front
        p[:, 2] -= jaw_drop * drop + self.chin * low * front * _step((MOUTH - z) / 0.05)
        return p * (self.depth, self.width, self.height)


def _step(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _both(make) -> list:
    return [make(1.0), make(-1.0)]


@lru_cache(maxsize=1)
def head_distance() -> Distance:
    """The average head with closed mouth, by its own axes."""
    def at(x: float, y: float, z: float) -> np.ndarray:
        return np.array([x, y, z])

    def ball(x: float, y: float, z: float, r: float) -> Ellipsoid:
        return Ellipsoid(at(x, y, z), (r, r, r), "head")

    skull = union([
        Ellipsoid(at(-0.012, 0, 0.080), (0.098, 0.0755, 0.0885), "head"),
        Ellipsoid(at(0.026, 0, 0.022), (0.057, 0.056, 0.080), "head"),
        Ellipsoid(at(0.050, 0, -0.012), (0.034, 0.033, 0.036), "head"),
        Cone(at(-0.020, 0, 0.0), at(-0.022, 0, -0.075), 0.051, 0.052, "head"),
        *_both(lambda s: Cone(at(0.005, 0.048 * s, -0.010), at(0.054, 0.013 * s, -0.045), 0.018,
                              0.016, "head")),
        *_both(lambda s: Cone(at(0.053, 0.044 * s, 0.024), at(0.004, 0.0585 * s, 0.030), 0.0165,
                              0.0125, "head")),
        ball(0.066, 0, -0.047, 0.016)], 0.026)
    brow = union(_both(lambda s: Cone(at(0.0765, 0.010 * s, 0.077), at(0.061, 0.045 * s, 0.078),
                                      0.0085, 0.0070, "head")), 0.008)
    sockets = union(_both(lambda s: Ellipsoid(at(0.094, EYE[0] * s, EYE[1]),
                                              (0.014, 0.019, 0.0115), "head")), 0.001)
    eyes = union(_both(lambda s: ball(0.0660, EYE[0] * s, EYE[1], 0.0146)), 0.0)
    nose = union([
        Cone(at(0.080, 0, 0.066), at(0.102, 0, 0.021), 0.0085, 0.0098, "head"),
        *_both(lambda s: Ellipsoid(at(0.093, 0.0115 * s, 0.0135), (0.010, 0.0072, 0.0075),
                                   "head"))], 0.007)
    lips = union([
        Ellipsoid(at(0.0815, 0, MOUTH + 0.005), (0.010, 0.025, 0.0062), "head"),
        Ellipsoid(at(0.0805, 0, MOUTH - 0.0065), (0.010, 0.021, 0.0068), "head")], 0.001)
    ears = union(_both(lambda s: Ellipsoid(at(-0.010, 0.079 * s, 0.045), (0.018, 0.0065, 0.032),
                                           "head", turn("z", 24 * s) @ turn("y", 12))), 0.0)
    hollows = union(_both(lambda s: ball(-0.002, 0.089 * s, 0.046, 0.0085)), 0.0)
    face = carve(lambda p: smooth_min(skull(p), brow(p), 0.014), sockets, 0.012)
    ear = carve(ears, hollows, 0.006)

    def distance(points: np.ndarray) -> np.ndarray:
        # Smooth unions depend a little on their order; both sides shall be alike.
        points = np.column_stack([points[:, 0], np.abs(points[:, 1]), points[:, 2]])
        total = smooth_min(face(points), eyes(points), 0.0015)
        total = smooth_min(total, nose(points), 0.010)
        total = smooth_min(total, lips(points), 0.005)
        return smooth_min(total, ear(points), 0.005)
    return distance


def landmark_plan(features: Features = Features()) -> np.ndarray:
    """The 51 inner landmarks as seen from the front, (51, 2): y to the person's left, z up."""
    points = np.zeros((51, 2))
    brow = np.array([(0.0555, 0.073), (0.0470, 0.0800), (0.0375, 0.0820), (0.0270, 0.0808),
                     (0.0165, 0.0765)]) + (0, features.brow)
    points[5:10] = brow[::-1]
    points[0:5] = brow * (-1, 1)
    points[10:14] = [(0, z) for z in (0.060, 0.047, 0.034, 0.021)]
    points[14:19] = [(-0.0135, 0.0095), (-0.0070, 0.0070), (0, 0.0055), (0.0070, 0.0070),
                     (0.0135, 0.0095)]
    points[25:31] = _eye(features)
    # Outer corner first on the right, inner corner first on the left.
    points[19:25] = points[[28, 27, 26, 25, 30, 29]] * (-1, 1)
    points[31:51] = _mouth(features)
    return points


def _eye(features: Features) -> np.ndarray:
    """Left eye: inner corner, two of the upper lid, outer corner, two of the lower lid."""
    upper, lower = 0.0062 * features.lid - 0.0022 * (1 - features.lid), -0.0046
    eye = np.array([(-0.0135, -0.0015), (-0.0045, upper), (0.0050, upper), (0.0140, 0.0012),
                    (0.0050, lower), (-0.0045, lower)])
    return np.array(EYE) + eye * features.eye


def _mouth(features: Features) -> np.ndarray:
    """12 outer and 8 inner points from the right corner over the upper lip, on around."""
    half, up, full = 0.0250 * features.wide + 0.6 * features.smile, features.smile, features.full
    gap = features.mouth_open / 2

    def arc(y: tuple, z: tuple, lift: float) -> list:
        return [(half * a, MOUTH + lift + full * b + up * abs(a) ** 2) for a, b in zip(y, z)]

    corner = 1.0
    outer = arc((-corner,), (0.0,), 0) + arc(
        (-0.62, -0.26, 0, 0.26, 0.62), (0.0065, 0.0098, 0.0085, 0.0098, 0.0065), gap) + arc(
        (corner,), (0.0,), 0) + arc(
        (0.62, 0.30, 0, -0.30, -0.62), (-0.0085, -0.0122, -0.0130, -0.0122, -0.0085), -gap)
    inner = arc((-0.86,), (0.0,), 0) + arc((-0.36, 0, 0.36), (0.0010, 0.0006, 0.0010), gap) + arc(
        (0.86,), (0.0,), 0) + arc((0.36, 0, -0.36), (-0.0010, -0.0010, -0.0010), -gap)
    return np.array(outer + inner)


@lru_cache(maxsize=1)
def jaw_points() -> np.ndarray:
    """The 17 points of the jaw's outline from the right ear to the left, (17, 3)."""
    left = onto_surface(head_distance(), np.array(_JAW)).astype(np.float64)
    left[-1, 1] = 0
    return np.concatenate([left[:-1] * (1, -1, 1), left[::-1]])


def landmarks(form: HeadForm, features: Features) -> np.ndarray:
    """All 68 (68, 3) of a head with its features, by the head's axes."""
    plan = landmark_plan(features)
    inner = np.column_stack([_relief(plan), plan])
    return form.apply(np.concatenate([jaw_points(), inner]), features.jaw_drop)


_RELIEF_CELL = 0.001
_RELIEF_LOW, _RELIEF_HIGH = np.array([0.0, -0.050]), np.array([0.062, 0.095])  # y, z


@lru_cache(maxsize=1)
def _relief_map() -> np.ndarray:
    """x (Z, Y) of the face's left half seen from the front, on a grid of y and z."""
    y = np.arange(_RELIEF_LOW[0], _RELIEF_HIGH[0] + 1e-9, _RELIEF_CELL)
    z = np.arange(_RELIEF_LOW[1], _RELIEF_HIGH[1] + 1e-9, _RELIEF_CELL)
    grid = np.stack(np.meshgrid(y, z), -1).reshape(-1, 2)
    starts = np.column_stack([np.full(len(grid), 0.125), grid])
    return first_hit(head_distance(), starts, np.array([-1.0, 0, 0]))[:, 0].reshape(len(z), len(y))


def _relief(plan: np.ndarray) -> np.ndarray:
    """x (n,) of the surface at (y, z) (n, 2) of the face, between the grid's values."""
    plan = np.column_stack([np.abs(plan[:, 0]), plan[:, 1]])
    place = (np.clip(plan, _RELIEF_LOW, _RELIEF_HIGH - 1e-6) - _RELIEF_LOW) / _RELIEF_CELL
    return cv2.remap(_relief_map(), place[:, :1].astype(np.float32),
                     place[:, 1:].astype(np.float32), cv2.INTER_LINEAR)[:, 0].astype(np.float64)


@lru_cache(maxsize=1)
def _rest_points() -> dict[str, np.ndarray]:
    starts = np.array([[0.2, 0, 0.019], [0.2, *EYE]])
    nose, eye = first_hit(head_distance(), starts, np.array([-1.0, 0, 0]))
    ear, = onto_surface(head_distance(), np.array([[0.002, 0.083, 0.045]]))
    return {"nose": nose, "left_eye": eye, "right_eye": eye * (1, -1, 1), "left_ear": ear,
            "right_ear": ear * (1, -1, 1)}


def head_points(form: HeadForm) -> dict[str, np.ndarray]:
    """Nose tip, middles of the eyes and ears on the surface: name -> (3,), by the head's axes."""
    rest = _rest_points()
    return dict(zip(rest, form.apply(np.stack(list(rest.values())), 0.0)))


@lru_cache(maxsize=2)
def head_piece(level: int) -> Piece:
    """Skin of the average head in the bind pose; uv (metres) is the place in the paint."""
    joint = BOUND.joints[INDEX["head"]].astype(np.float32)
    local = head_distance()
    # Open at the neck: the body's neck goes on inside.
    piece = cover(lambda p: np.maximum(local(p - joint), joint[2] - 0.085 - p[:, 2]),
                  [Ellipsoid(joint, (0.1, 0.1, 0.1), "head")],
                  joint + (-0.13, -0.11, -0.09), joint + (0.13, 0.11, 0.19), CELL[level], 0.01,
                  "face")
    return Piece(piece.vertices, piece.faces, piece.normals, piece.rows, piece.shares,
                 face_uv(piece.vertices - joint), "face", piece.tint)


def face_uv(points: np.ndarray) -> np.ndarray:
    """Where (n, 2) in the painted rectangle points (n, 3) of the head are, metres."""
    x, y, z = points.T
    behind = np.maximum(PAINT_X - x, 0) * np.where(y < 0, -1.0, 1.0)
    y = np.clip(y + behind, -FACE_HALF_WIDTH, FACE_HALF_WIDTH)
    return np.stack([y, np.clip(z, FACE_LOW, FACE_HIGH)], axis=1)
