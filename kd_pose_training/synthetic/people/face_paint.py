"""Paints a face: eyes, brows, lips, nostrils and beard where the landmarks say that they are.

The picture is the painted rectangle of ``head.face_uv`` as seen from the front; because it is
drawn from the landmarks' own plan, a point is where the eye or lip is seen, by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kd_pose_training.synthetic.patterns import noise
from kd_pose_training.synthetic.people.head import (
    EYE,
    FACE_HALF_WIDTH,
    FACE_HIGH,
    FACE_LOW,
    MOUTH,
    Features,
    landmark_plan,
)

SCALE = 1650.0  # pixels per metre
SIZE = (round((FACE_HIGH - FACE_LOW) * SCALE), round(2 * FACE_HALF_WIDTH * SCALE))
_FINE = 16  # parts of a pixel that polygons are drawn to


@dataclass(frozen=True)
class Paint:
    """Colours RGB (3,) 0..255 and strengths 0..1 of a face."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    beard: float = 0.0
    brow: float = 0.8
    flush: float = 0.3
    lashes: float = 0.5
    age: float = 0.3


class _Canvas:
    """A float picture that is painted on in metres (y to the person's left, z up), or a part of
    it: small parts are quick to paint."""

    def __init__(self, image: np.ndarray, left: int = 0, top: int = 0) -> None:
        self.image, self.left, self.top = image, left, top
        rows, columns = np.arange(image.shape[0]) + top, np.arange(image.shape[1]) + left
        self.z = (FACE_HIGH - (rows + 0.5) / SCALE)[:, None].astype(np.float32)
        self.y = ((columns + 0.5) / SCALE - FACE_HALF_WIDTH)[None].astype(np.float32)

    def part(self, at: tuple[float, float], half: tuple[float, float]) -> _Canvas:
        """The rectangle of half sizes ``half`` around a point, painting into this picture."""
        x = (at[0] + FACE_HALF_WIDTH) * SCALE - self.left
        y = (FACE_HIGH - at[1]) * SCALE - self.top
        w, h = half[0] * SCALE, half[1] * SCALE
        x0, y0 = max(0, int(x - w)), max(0, int(y - h))
        return _Canvas(self.image[y0:int(y + h) + 1, x0:int(x + w) + 1], self.left + x0,
                       self.top + y0)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Fixed-point pixels of points (n, 2) in metres."""
        points = np.asarray(points, float)
        place = np.column_stack([(points[:, 0] + FACE_HALF_WIDTH) * SCALE - self.left,
                                 (FACE_HIGH - points[:, 1]) * SCALE - self.top]) - 0.5
        return np.rint(place * _FINE).astype(np.int32)

    def mix(self, alpha: np.ndarray, colour: np.ndarray | tuple) -> None:
        """Lay a colour over the picture by alpha (H, W)."""
        self.image += alpha[..., None] * (np.asarray(colour, np.float32) - self.image)

    def spot(self, at: tuple[float, float], size: tuple[float, float], colour: np.ndarray,
             strength: float) -> None:
        """A soft ellipse."""
        part = self.part(at, (2.2 * size[0], 2.2 * size[1]))
        u = (part.y - at[0]) / size[0]
        v = (part.z - at[1]) / size[1]
        part.mix(np.float32(strength) * np.exp(-u * u - v * v), colour)

    def area(self, points: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """Alpha (H, W) of a polygon, its edge blurred by ``soft`` metres."""
        alpha = np.zeros(self.image.shape[:2], np.float32)
        cv2.fillPoly(alpha, [self.pixels(points)], 1.0, cv2.LINE_8, 4)
        return cv2.GaussianBlur(alpha, (0, 0), max(0.5, soft * SCALE))

    def line(self, points: np.ndarray, width: float, soft: float = 0.0) -> np.ndarray:
        """Alpha (H, W) of a stroke ``width`` metres wide."""
        alpha = np.zeros(self.image.shape[:2], np.float32)
        cv2.polylines(alpha, [self.pixels(points)], False, 1.0, max(1, round(width * SCALE)),
                      cv2.LINE_8, 4)
        return cv2.GaussianBlur(alpha, (0, 0), max(0.5, soft * SCALE))


def _curve(points: np.ndarray, closed: bool, per: int = 6) -> np.ndarray:
    """A smooth line through points (n, 2): Catmull-Rom."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, per, endpoint=False)[:, None]
    parts = [0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
                    + (3 * b - a - 3 * c + d) * t**3)
             for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:])]
    return np.concatenate(parts if closed else [*parts, p[-2:-1]])


def paint_face(paint: Paint, features: Features, rng: np.random.Generator) -> np.ndarray:
    """RGB uint8 (H, W, 3) of ``SIZE``."""
    grain = 1 + 0.035 * noise(*SIZE, 14, rng)
    canvas = _Canvas(grain[..., None] * paint.skin.astype(np.float32))
    plan = landmark_plan(features)
    _complexion(canvas, paint)
    if paint.beard > 0:
        _beard(canvas, paint, rng)
    _mouth(canvas.part((0, MOUTH), (0.05, 0.035)), paint, features, plan[31:51])
    for side, rows in ((1, slice(25, 31)), (-1, slice(19, 25))):
        corners = plan[rows] if side > 0 else plan[rows][[3, 2, 1, 0, 5, 4]]
        _eye(canvas.part((EYE[0] * side, EYE[1]), (0.026, 0.022)), paint, features, corners, side)
    for brow in (plan[5:10], plan[0:5][::-1]):
        _brow(canvas.part(tuple(brow[2]), (0.032, 0.018)), paint, brow, rng)
    return np.clip(canvas.image, 0, 255).astype(np.uint8)


def _complexion(canvas: _Canvas, paint: Paint) -> None:
    """Red cheeks and nose, dark hollows of the eyes and nostrils, folds."""
    red = paint.skin * (1.0, 0.72, 0.68)
    dark = paint.skin * (0.62, 0.52, 0.48)
    for side in (-1, 1):
        canvas.spot((0.044 * side, 0.008), (0.020, 0.016), red, 0.8 * paint.flush)
        canvas.spot((EYE[0] * side, EYE[1] + 0.009), (0.017, 0.006), dark, 0.35)
        canvas.spot((EYE[0] * side, EYE[1] - 0.012), (0.014, 0.006), dark,
                    0.12 + 0.3 * paint.age)
        canvas.spot((0.0072 * side, 0.0068), (0.0042, 0.0024), dark * 0.45, 0.9)
        canvas.spot((0.0165 * side, 0.012), (0.0025, 0.006), dark, 0.4)
        fold = np.array([(0.018, 0.012), (0.0255, 0.001), (0.031, -0.012), (0.0325, -0.020)])
        cheek = canvas.part((0.026 * side, -0.004), (0.016, 0.024))
        cheek.mix((0.25 + 0.4 * paint.age) * cheek.line(fold * (side, 1), 0.0015, 0.0015), dark)
    canvas.spot((0, 0.02), (0.011, 0.012), red, 0.6 * paint.flush)
    canvas.spot((0, -0.042), (0.018, 0.004), dark, 0.3)
    canvas.spot((0, -0.003), (0.003, 0.007), dark, 0.18)
    for height in (0.105, 0.115, 0.125):
        wrinkle = np.array([(-0.03, height), (0, height + 0.003), (0.03, height)])
        brow = canvas.part((0, height), (0.04, 0.01))
        brow.mix(0.35 * paint.age * brow.line(wrinkle, 0.001, 0.001), dark)


def _beard(canvas: _Canvas, paint: Paint, rng: np.random.Generator) -> None:
    """Hair over jaw, chin and upper lip, fading out at the cheeks."""
    canvas = canvas.part((0, -0.03), (0.12, 0.065))
    edge = 0.004 + 0.55 * np.maximum(np.abs(canvas.y) - 0.028, 0)
    cover = np.clip((edge - canvas.z) / 0.012, 0, 1)
    cover *= np.clip((0.095 - np.abs(canvas.y)) / 0.01, 0, 1)
    cover *= np.clip((canvas.z + 0.085) / 0.015, 0, 1)
    strands = 0.75 + 0.25 * noise(*cover.shape, 4, rng)
    canvas.mix(np.clip(cover * strands * paint.beard, 0, 1), paint.hair)


def _mouth(canvas: _Canvas, paint: Paint, features: Features, points: np.ndarray) -> None:
    outer, inner = points[:12], points[12:]
    canvas.mix(0.85 * canvas.area(_curve(outer, True), 0.0006), paint.lips)
    low = outer[6:12].mean(axis=0)
    canvas.spot((low[0], low[1] + 0.002), (0.010, 0.0028), np.minimum(paint.lips * 1.25, 255), 0.4)
    if features.mouth_open + features.jaw_drop > 0.002:
        hole = canvas.area(_curve(inner, True), 0.0003)
        canvas.mix(hole, (45, 18, 18))
        # Teeth hang from the upper lip.
        top = _curve(inner[1:4], False) * (1.25, 1)
        teeth = np.concatenate([top + (0, 0.004),
                                top[::-1] - (0, min(0.006, 0.6 * features.mouth_open))])
        canvas.mix(0.9 * canvas.area(teeth, 0.0004) * hole, (226, 220, 205))
    line = np.concatenate([outer[:1], inner[[0, 1, 2, 3, 4]], outer[6:7]])
    canvas.mix(0.75 * canvas.line(_curve(line, False), 0.0011, 0.0004), paint.lips * 0.35)
    for corner in (outer[0], outer[6]):
        canvas.spot(tuple(corner), (0.0025, 0.002), paint.skin * 0.45, 0.5)


def _eye(canvas: _Canvas, paint: Paint, features: Features, points: np.ndarray,
         side: int) -> None:
    """points (6, 2): inner corner, upper lid, outer corner, lower lid."""
    outline = _curve(points, True)
    opening = canvas.area(outline, 0.0003)
    middle = points.mean(axis=0)
    canvas.mix(opening, (232, 228, 222))
    # The lid's shadow on the ball.
    canvas.mix(0.35 * opening * np.clip((canvas.z - middle[1]) / 0.006, 0, 1), (70, 60, 60))
    iris = np.array([EYE[0] * side, EYE[1] + 0.0008]) + 0.0042 * np.array(features.gaze) * (1, 0.5)
    radius = 0.0060 * features.eye
    distance = np.hypot(canvas.y - iris[0], canvas.z - iris[1])

    def disc(r: float) -> np.ndarray:
        return np.clip((r - distance) * SCALE + 0.5, 0, 1) * opening

    canvas.mix(disc(radius), paint.iris * 0.55)
    canvas.mix(disc(radius * 0.84), paint.iris)
    canvas.mix(disc(radius * 0.45), (12, 10, 10))
    light = np.hypot(canvas.y - iris[0] - 0.0018, canvas.z - iris[1] - 0.0020)
    canvas.mix(np.clip((0.0012 - light) * SCALE + 0.5, 0, 1) * opening, (255, 255, 255))
    canvas.spot(tuple(points[0]), (0.0022, 0.0018), (190, 110, 100), 0.5)
    upper, lower = _curve(points[:4], False), _curve(points[[3, 4, 5, 0]], False)
    canvas.mix((0.6 + 0.4 * paint.lashes) * canvas.line(upper, 0.0012 + 0.001 * paint.lashes,
                                                        0.0004), (28, 20, 18))
    canvas.mix(0.45 * canvas.line(lower, 0.0008, 0.0004), paint.skin * 0.4)
    canvas.mix(0.4 * canvas.line(upper + (0, 0.0042), 0.001, 0.0007), paint.skin * 0.5)


def _brow(canvas: _Canvas, paint: Paint, points: np.ndarray, rng: np.random.Generator) -> None:
    """points (5, 2) from the inner end outwards."""
    middle = _curve(points, False)
    half = np.interp(np.linspace(0, 1, len(middle)), [0, 0.35, 1], [0.0030, 0.0036, 0.0010])
    half = half[:, None]
    shape = np.concatenate([middle + half * (0, 1), (middle - half * (0, 1))[::-1]])
    alpha = canvas.area(shape, 0.0009)
    alpha = alpha * (0.85 + 0.15 * noise(*alpha.shape, 4, rng))
    canvas.mix(np.clip(paint.brow * alpha, 0, 1), paint.hair * 0.8)


