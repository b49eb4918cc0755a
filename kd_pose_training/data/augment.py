"""Random changes to training pictures: where the crop lies, and how the pixels look.

Everything is drawn from one generator, so a sample is a function of its seed. The picture stays
uint8 and most effects are table look-ups: a 192x192 crop takes about a millisecond. Geometry never
changes a pose: the crop's affine goes into the intrinsics (`kd_pose.crop.crop_intrinsics`).
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from kd_pose.crop import box_affine, letterbox_affine
from kd_pose_training.config import AugmentConfig

_NOISE_SIDE = 512  # a table of noise that samples cut their own piece from


def jittered_crop(box_xywh: np.ndarray, size_wh: tuple[int, int], pad: float,
                  config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Dynamic zoom-in: affine (2, 3) image -> input of a crop somewhere around the box.

    The crop's side is ``pad * U(zoom)`` times the box, its centre moves by ``U(+-shift)`` of the
    box, and it turns about its centre by ``U(+-rotate_deg)``.
    """
    x, y, w, h = (float(value) for value in box_xywh)
    zoom = rng.uniform(*config.zoom)
    dx, dy = rng.uniform(-config.shift, config.shift, 2)
    moved = (x + dx * w, y + dy * h, w, h)
    return _turned(box_affine(moved, size_wh, pad * zoom), size_wh, config, rng)


def jittered_frame(image_wh: tuple[int, int], size_wh: tuple[int, int], config: AugmentConfig,
                   rng: np.random.Generator) -> np.ndarray:
    """Affine (2, 3) image -> input of the whole frame: letterboxed, then scaled and moved.

    ``zoom`` above 1 enlarges the frame; it moves by ``U(+-shift)`` of the input.
    """
    M = letterbox_affine(image_wh, size_wh)
    zoom = rng.uniform(*config.zoom)
    move = rng.uniform(-config.shift, config.shift, 2) * size_wh
    centre = (np.array(size_wh) - 1) / 2.0
    M = np.concatenate([zoom * M[:, :2], (zoom * (M[:, 2] - centre) + centre + move)[:, None]], 1)
    return _turned(M, size_wh, config, rng)


def _turned(M: np.ndarray, size_wh: tuple[int, int], config: AugmentConfig,
            rng: np.random.Generator) -> np.ndarray:
    """``M`` followed by a random turn about the centre of the input."""
    if config.rotate_deg == 0:
        return M
    return turn_crop(M, rng.uniform(-config.rotate_deg, config.rotate_deg), size_wh)


def turn_crop(M: np.ndarray, angle_deg: float, size_wh: tuple[int, int]) -> np.ndarray:
    """``M`` (2, 3) followed by a turn about the centre of the input, clockwise as it is seen."""
    angle = math.radians(angle_deg)
    R = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = (np.array(size_wh) - 1) / 2.0
    return np.concatenate([R @ M[:, :2], (R @ (M[:, 2] - centre) + centre)[:, None]], 1)


def cut_out(image: np.ndarray, instance_map: np.ndarray, config: AugmentConfig,
            rng: np.random.Generator, none: int = -1) -> None:
    """With a chance of ``cutout`` cover one to three rectangles, in place.

    image: (H, W, 3) uint8. instance_map: (H, W); set to ``none`` there, since nothing is visible.
    The patches are plain, noisy, or another piece of the same picture.
    """
    if rng.random() >= config.cutout:
        return
    height, width = image.shape[:2]
    for _ in range(rng.integers(1, 4)):
        w = int(width * rng.uniform(0.06, 0.35))
        h = int(height * rng.uniform(0.06, 0.35))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        patch = image[y:y + h, x:x + w]
        kind = rng.random()
        if kind < 0.4:
            patch[:] = rng.integers(0, 256, 3, dtype=np.uint8)
        elif kind < 0.6:
            patch[:] = rng.integers(0, 256, patch.shape, dtype=np.uint8)
        else:
            u, v = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            patch[:] = image[v:v + h, u:u + w].copy()
        instance_map[y:y + h, x:x + w] = none


def change_colours(image: np.ndarray, config: AugmentConfig,
                   rng: np.random.Generator) -> np.ndarray:
    """BGR uint8 (H, W, 3) -> another one: light, colour, sharpness, noise, compression."""
    chance = config.probability
    if rng.random() < chance and (config.hue or config.saturation):
        image = _change_hue(image, config, rng)
    if rng.random() < chance and (config.brightness or config.contrast):
        image = cv2.LUT(image, _tone_curves(config, rng))
    if rng.random() < chance and config.blur:
        image = _blur(image, rng.uniform(0.0, config.blur), rng)
    if rng.random() < chance and config.noise:
        image = _add_noise(image, rng.uniform(0.0, config.noise), rng)
    if rng.random() < chance and config.jpeg:
        quality = int(rng.integers(config.jpeg, 101))
        _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image


def _change_hue(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Turn the hue and scale the saturation."""
    turn = rng.uniform(-config.hue, config.hue) / 2.0  # OpenCV's hue counts 2 degrees
    gain = 1.0 + rng.uniform(-config.saturation, config.saturation)
    values = np.arange(256)
    tables = np.stack([(values + round(turn)) % 180, np.clip(values * gain, 0, 255), values], 1)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv = cv2.LUT(hsv, tables[None].astype(np.uint8))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _tone_curves(config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Table (1, 256, 3): brightness, contrast and gamma for all, a small gain per channel.

    The gains are a third of the brightness's range: the white balance of another camera.
    """
    light = 1.0 + rng.uniform(-config.brightness, config.brightness)
    gamma = math.exp(rng.uniform(-config.brightness, config.brightness))
    contrast = 1.0 + rng.uniform(-config.contrast, config.contrast)
    gains = 1.0 + rng.uniform(-config.brightness, config.brightness, 3) / 3.0
    value = (np.arange(256) / 255.0) ** gamma
    value = ((value - 0.5) * contrast + 0.5)[:, None] * light * gains
    return np.clip(255.0 * value + 0.5, 0, 255).astype(np.uint8)[None]


def _blur(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, or in one of three cases moved while exposed (along a random direction)."""
    if sigma < 0.2:
        return image
    if rng.random() >= 1 / 3:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    reach = max(1, math.ceil(1.7 * sigma))  # a bar of 3.5 sigma has that standard deviation
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle, bits = rng.uniform(0, math.pi), 4
    end = 1.7 * sigma * np.array([math.cos(angle), math.sin(angle)])
    points = np.rint((np.stack([-end, end]) + reach) * (1 << bits)).astype(int)
    cv2.line(kernel, points[0].tolist(), points[1].tolist(), 1.0, 1, cv2.LINE_8, bits)
    return cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1e-6))


def _add_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, in half of the cases the same in all channels (as of the luminance)."""
    height, width = image.shape[:2]
    table = _noise_table()
    rows = np.arange(height) + int(rng.integers(_NOISE_SIDE))
    columns = np.arange(width) + int(rng.integers(_NOISE_SIDE))
    noise = table.take(rows, axis=0, mode="wrap").take(columns, axis=1, mode="wrap")
    if rng.random() < 0.5:
        noise = cv2.merge([noise[..., 0]] * 3)
    return cv2.add(image, noise * np.float32(sigma), dtype=cv2.CV_8U)


@lru_cache(maxsize=1)
def _noise_table() -> np.ndarray:
    """Standard normal numbers (512, 512, 3) float32: drawing them anew would cost the most."""
    rng = np.random.default_rng(20230521)
    return rng.standard_normal((_NOISE_SIDE, _NOISE_SIDE, 3), dtype=np.float32)
