"""One texture a person: face, cloth, hair and plain colours side by side, and where each is."""

from __future__ import annotations

import cv2
import numpy as np

from kd_pose_training.synthetic import patterns
from kd_pose_training.synthetic.people.face_paint import SIZE as FACE_SIZE
from kd_pose_training.synthetic.people.head import FACE_HALF_WIDTH, FACE_HIGH, FACE_LOW

WIDTH, HEIGHT = 1024, 768
# zone: left, top, width, height in pixels
_PATCHES = {"face": (0, 0, FACE_SIZE[1], FACE_SIZE[0]), "top": (392, 4, 628, 300),
            "bottom": (392, 312, 400, 452), "hair": (800, 312, 220, 220)}
# What of a piece's uv (metres) a patch shows: u from, to; v from, to.
_SPANS = {"face": (-FACE_HALF_WIDTH, FACE_HALF_WIDTH, FACE_LOW, FACE_HIGH),
          "top": (-0.80, 0.80, 0.82, 1.58), "bottom": (-0.50, 0.50, 0.02, 1.10),
          "hair": (-0.24, 0.24, 1.25, 1.86)}
_PLAIN = ("skin", "shoe", "sock", "hat", "frame")
_PLAIN_SIDE = 64


def _plain_corner(zone: str) -> tuple[int, int]:
    return 4 + _PLAIN.index(zone) * (_PLAIN_SIDE + 8), 480


def atlas_uv(zone: str, uv: np.ndarray) -> np.ndarray:
    """uv (V, 2) of a piece in metres -> place in the texture, 0..1, v upwards."""
    if zone in _PLAIN:
        x, y = _plain_corner(zone)
        place = np.tile([x + _PLAIN_SIDE / 2, y + _PLAIN_SIDE / 2], (len(uv), 1))
    else:
        left, top, width, height = _PATCHES[zone]
        u0, u1, v0, v1 = _SPANS[zone]
        share = np.clip((uv - (u0, v0)) / (u1 - u0, v1 - v0), 0.004, 0.996)
        place = np.stack([left + share[:, 0] * width, top + (1 - share[:, 1]) * height], 1)
    return np.stack([place[:, 0] / WIDTH, 1 - place[:, 1] / HEIGHT], 1).astype(np.float32)


def atlas(pictures: dict[str, np.ndarray], plain: dict[str, np.ndarray],
          level: int) -> np.ndarray:
    """RGB uint8 texture. pictures: per patterned zone (H, W, 3); plain: RGB per plain zone.
    level 1 has half the size."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for zone, picture in pictures.items():
        left, top, width, height = _PATCHES[zone]
        # A rim, so that smaller versions of the texture do not take in the neighbour's colour.
        rim = 4 if left else 0
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        image[top:top + height, left:left + width] = picture
        if rim:
            image[top - rim:top, left:left + width] = picture[:1]
            image[top:top + height, left - rim:left] = picture[:, :1]
    for zone in _PLAIN:
        x, y = _plain_corner(zone)
        image[y:y + _PLAIN_SIDE, x:x + _PLAIN_SIDE] = plain.get(zone, np.full(3, 128))
    if level:
        return cv2.resize(image, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    return image


def zone_size(zone: str) -> tuple[int, int]:
    """(height, width) of a patterned zone, pixels."""
    return _PATCHES[zone][3], _PATCHES[zone][2]


def cloth(zone: str, rng: np.random.Generator) -> np.ndarray:
    """RGB uint8 picture of a cloth for the zone ``top`` or ``bottom``."""
    height, width = zone_size(zone)
    base, second = patterns.colour(rng, 1.25), patterns.colour(rng, 1.25)
    if zone == "bottom" and rng.random() < 0.35:  # denim
        base = np.array([58, 82, 122]) * rng.uniform(0.45, 1.35)
    image = np.empty((height, width, 3), np.float32)
    image[:] = base
    x = np.arange(width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)[:, None]
    per_metre = width / (_SPANS[zone][1] - _SPANS[zone][0])
    kind = rng.random()
    if zone == "bottom":
        kind *= 0.6 / 0.35  # more often plain
    if 0.35 < kind < 0.50:
        image += _wave(y, rng.uniform(0.03, 0.14) * per_metre, rng) * (second - base)
    elif 0.50 <= kind < 0.57:
        image += _wave(x, rng.uniform(0.02, 0.07) * per_metre, rng) * (second - base)
    elif 0.57 <= kind < 0.70:  # plaid
        period = rng.uniform(0.04, 0.12) * per_metre
        image += 0.5 * (_wave(x, period, rng) + _wave(y, period, rng)) * (second - base)
    elif 0.70 <= kind < 0.78:  # dots
        period = rng.uniform(0.03, 0.07) * per_metre
        dots = np.hypot((x % period) - period / 2, (y % period) - period / 2) < 0.27 * period
        image += dots[..., None] * (second - base)
    elif 0.78 <= kind < 0.86:  # patches
        image += (patterns.noise(height, width, 50, rng) > 0.1)[..., None] * (second - base)
    elif 0.86 <= kind < 0.93:  # two halves
        image[int(height * rng.uniform(0.25, 0.6)):] = second
    elif kind >= 0.93 and kind <= 1:
        image = patterns.picture(height, width, rng).astype(np.float32)
    if zone == "top" and rng.random() < 0.3:
        image = _print(image, second, rng)
    image *= 1 + 0.05 * patterns.noise(height, width, rng.uniform(4, 40), rng)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _wave(along: np.ndarray, period: float, rng: np.random.Generator) -> np.ndarray:
    """Stripes of 0 and 1 with soft edges along (H, 1) or (1, W) places: (..., 1)."""
    wave = np.sin(along * (2 * np.pi / max(period, 4)) + rng.uniform(0, 6))
    return np.clip(0.5 + rng.uniform(1, 5) * wave, 0, 1)[..., None]


def _print(image: np.ndarray, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A word or a disc on chest and back."""
    image = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    paint = tuple(int(v) for v in colour)
    middle = image.shape[1] // 2, int(image.shape[0] * 0.40)
    if rng.random() < 0.5:
        text = "".join(chr(v) for v in rng.integers(65, 91, int(rng.integers(1, 6))))
        size = rng.uniform(0.8, 1.6)
        w, h = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, size, 3)[0]
        cv2.putText(image, text, (middle[0] - w // 2, middle[1] + h // 2),
                    cv2.FONT_HERSHEY_DUPLEX, size, paint, 3, cv2.LINE_AA)
    else:
        cv2.circle(image, middle, int(rng.integers(14, 36)), paint, -1, cv2.LINE_AA)
    return image.astype(np.float32)


def hair_picture(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """RGB uint8 picture of strands."""
    height, width = zone_size("hair")
    strands = cv2.resize(rng.normal(size=(height // 24, width)).astype(np.float32),
                         (width, height), interpolation=cv2.INTER_CUBIC)
    strands = cv2.GaussianBlur(strands, (0, 0), 0.7)
    image = colour * (1 + 0.28 * strands)[..., None] + 6 * strands[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)
