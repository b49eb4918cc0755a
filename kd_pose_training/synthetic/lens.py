"""What a camera does to a clean picture: vignette, blur, noise."""

from __future__ import annotations

import cv2
import numpy as np

from kd_pose_training.synthetic.settings import LookSettings


def through_lens(image: np.ndarray, look: LookSettings, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3) -> another one, as a cheap camera would have seen it."""
    height, width = image.shape[:2]
    result = image.astype(np.float32)
    sigma = rng.uniform(0, look.blur)
    if sigma > 0.25:
        result = cv2.GaussianBlur(result, (0, 0), sigma)
    if rng.random() < 0.2 and look.blur > 0:
        result = _moved(result, rng.uniform(1, 1 + 4 * look.blur), rng.uniform(0, np.pi))
    if look.vignette > 0:
        y, x = np.ogrid[-1:1:height * 1j, -1:1:width * 1j]
        dark = 1 - rng.uniform(0, look.vignette) * (x * x + y * y) / 2
        result *= dark[..., None].astype(np.float32)
    if look.noise > 0:
        level = rng.uniform(0, look.noise)
        # Shot noise grows with the root of the light; half of a camera's noise is shared by the
        # colours after demosaicing.
        grey = rng.standard_normal((height, width, 1), dtype=np.float32)
        own = rng.standard_normal((height, width, 3), dtype=np.float32)
        result += level * (0.6 * grey + 0.5 * own) * (0.5 + np.sqrt(result / 255.0))
    return np.clip(result + 0.5, 0, 255).astype(np.uint8)


def _moved(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Blur along a line of ``length`` pixels."""
    side = int(np.ceil(length)) | 1
    kernel = np.zeros((side + 2, side + 2), np.float32)
    middle = (side + 1) / 2
    end = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    start = tuple(int(round(16 * v)) for v in middle - end)
    stop = tuple(int(round(16 * v)) for v in middle + end)
    cv2.line(kernel, start, stop, 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(image, -1, kernel / max(float(kernel.sum()), 1e-6))
