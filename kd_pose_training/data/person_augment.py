"""Random changes to pictures of people: where the crop lies, mirroring, and how the pixels look.

The recipe of RTMPose and DWPose (MMPose's transforms RandomHalfBody, RandomBBoxTransform,
YOLOXHSVRandomAug, and Albumentations' Blur, MedianBlur and CoarseDropout), with two changes that
leave the distribution as it is: mirroring and turning go into the one affine of the crop, and the
picture stays bytes from the file to the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from scipy.special import ndtri

from kd_pose.crop import box_affine
from kd_pose.wholebody_keypoints import LOWER_BODY, UPPER_BODY
from kd_pose_training.data.augment import turn_crop

Stage = Literal["strong", "weak"]
STAGES: tuple[Stage, ...] = ("strong", "weak")

HALF_BODY_PAD = 1.5
MIN_LABELLED, MIN_UPPER, MIN_LOWER = 9, 2, 3  # points that a half body needs to be cut out
PREFER_UPPER = 0.7
BLUR_SIDES = (3, 5, 7)  # pixels
# Phi(-1) and Phi(1) - Phi(-1) of the normal law: a draw between -1 and 1 by its inverse.
_PHI_LOW, _PHI_SPAN = 0.15865525393145707, 0.6826894921370859


@dataclass(frozen=True)
class PersonAugment:
    """Chances (0 to 1) and strengths; a chance of 0 switches an effect off.

    ``half_body``: show the upper or the lower half alone. ``shift``: largest move of the crop, as
    a part of its size, with chance ``shift_chance``. ``scale``: factor on the crop's size.
    ``rotate_deg``: largest turn, with chance ``rotate_chance``. Shift, scale and turn follow a
    normal law cut off at one sigma, whose ends are these limits. ``hue`` (in OpenCV's units of
    2 degrees), ``saturation``, ``value`` (of 255): largest additions, each used in every second
    picture. ``blur``, ``median_blur``: chances. ``dropout``: chance of one black rectangle with
    sides of ``dropout_size`` parts of the picture.
    """

    flip: float = 0.5
    half_body: float = 0.3
    shift: float = 0.16
    shift_chance: float = 0.3
    scale: tuple[float, float] = (0.6, 1.4)
    rotate_deg: float = 80.0
    rotate_chance: float = 0.6
    hue: float = 5.0
    saturation: float = 30.0
    value: float = 30.0
    blur: float = 0.1
    median_blur: float = 0.1
    dropout: float = 1.0
    dropout_size: tuple[float, float] = (0.2, 0.4)

    def __post_init__(self) -> None:
        for name in ("flip", "half_body", "shift_chance", "rotate_chance", "blur", "median_blur",
                     "dropout", "shift"):
            _check(0.0 <= getattr(self, name) <= 1.0, name, getattr(self, name), "0 to 1")
        _check(0.1 <= self.scale[0] <= self.scale[1] <= 10.0, "scale", self.scale,
               "[low, high] with 0.1 <= low <= high <= 10")
        _check(0.0 <= self.rotate_deg <= 180.0, "rotate_deg", self.rotate_deg, "0 to 180")
        _check(0.0 <= self.hue <= 90.0, "hue", self.hue, "0 to 90")
        for name in ("saturation", "value"):
            _check(0.0 <= getattr(self, name) <= 255.0, name, getattr(self, name), "0 to 255")
        _check(0.0 < self.dropout_size[0] <= self.dropout_size[1] < 1.0, "dropout_size",
               self.dropout_size, "[low, high] with 0 < low <= high < 1")


def _check(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True)
class WeakAugment(PersonAugment):
    """The last part of the training: DWPose's last 30 of 270 epochs."""

    shift: float = 0.0
    scale: tuple[float, float] = (0.75, 1.25)
    rotate_deg: float = 60.0
    dropout: float = 0.5


def strong_augment() -> PersonAugment:
    """Most of the training: DWPose's first 240 of 270 epochs for the sizes t, s, m and l."""
    return PersonAugment()


def weak_augment() -> PersonAugment:
    """See :class:`WeakAugment`."""
    return WeakAugment()


def stage_schedule(iterations: int, weak_share: float = 30 / 270) -> Callable[[int], Stage]:
    """Which stage an iteration belongs to: the last ``weak_share`` of them is weak.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    _check(0.0 <= weak_share <= 1.0, "weak_share", weak_share, "0 to 1")
    first_weak = iterations - round(weak_share * iterations)

    def stage(iteration: int) -> Stage:
        return "weak" if iteration >= first_weak else "strong"

    return stage


def augmented_affine(box_xywh: np.ndarray, xy: np.ndarray, labelled: np.ndarray,
                     size_wh: tuple[int, int], pad: float, config: PersonAugment,
                     rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Affine (2, 3) image -> input of a crop somewhere around a person, and whether it mirrors.

    A mirroring affine asks for ``FLIP``-ed keypoints.

    Args:
        box_xywh: (4,) continuous edges. xy: (133, 2) image px. labelled: (133,) bool.
        pad: how much larger than the box the crop is, when it is not a half body.
    """
    draws = rng.random(9)
    x, y, w, h = (float(value) for value in box_xywh)
    centre, size = np.array([x + w / 2.0, y + h / 2.0]), pad * np.array([w, h])
    half = _half_body(xy, labelled, draws[0] < config.half_body, draws[1] < PREFER_UPPER)
    if half is not None:
        centre, size = half
    normal = ndtri(_PHI_LOW + _PHI_SPAN * draws[2:6])  # in -1 .. 1
    if draws[6] < config.shift_chance:
        centre = centre + config.shift * normal[:2] * size
    low, high = config.scale
    size = size * (0.5 * (low + high) + 0.5 * (high - low) * normal[2])
    M = box_affine((*(centre - size / 2.0), *size), size_wh, 1.0)
    if draws[7] < config.rotate_chance:
        M = turn_crop(M, config.rotate_deg * normal[3], size_wh)
    mirrored = bool(draws[8] < config.flip)
    return (mirror_affine(M, size_wh[0]) if mirrored else M), mirrored


def mirror_affine(M: np.ndarray, width: int) -> np.ndarray:
    """``M`` (2, 3) followed by swapping left and right of an input ``width`` pixels wide."""
    return np.stack([np.array([0.0, 0.0, width - 1.0]) - M[0], M[1]])


def _half_body(xy: np.ndarray, labelled: np.ndarray, wanted: bool,
               prefer_upper: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Centre and padded size (2,) of one half's points; None where it is not to be, or cannot.

    The centre is the mean of the points, as in HRNet's training, not the middle of their box.
    """
    if not wanted or labelled.sum() < MIN_LABELLED:
        return None
    upper, lower = UPPER_BODY[labelled[UPPER_BODY]], LOWER_BODY[labelled[LOWER_BODY]]
    if len(upper) < MIN_UPPER and len(lower) < MIN_LOWER:
        return None
    if len(lower) < MIN_LOWER:
        chosen = upper
    elif len(upper) < MIN_UPPER:
        chosen = lower
    else:
        chosen = upper if prefer_upper else lower
    points = xy[chosen].astype(np.float64)
    size = HALF_BODY_PAD * (points.max(axis=0) - points.min(axis=0))
    if not size.max() > 0:
        return None  # all points on one spot
    # A crop takes the aspect of the input; a side of zero only has to become a number.
    return points.mean(axis=0), np.maximum(size, 1e-3)


def change_pixels(image: np.ndarray, config: PersonAugment,
                  rng: np.random.Generator) -> np.ndarray:
    """BGR uint8 (H, W, 3) -> another one: colours, blur, one black rectangle.

    May write into ``image``.
    """
    draws = rng.random(15)
    image = _shift_colours(image, config, draws[:6])
    if draws[6] < config.blur:
        side = BLUR_SIDES[int(draws[7] * len(BLUR_SIDES))]
        image = cv2.blur(image, (side, side))
    if draws[8] < config.median_blur:
        image = cv2.medianBlur(image, BLUR_SIDES[int(draws[9] * len(BLUR_SIDES))])
    if draws[10] < config.dropout:
        _drop_rectangle(image, config, draws[11:])
    return image


def _shift_colours(image: np.ndarray, config: PersonAugment, draws: np.ndarray) -> np.ndarray:
    limits = np.array([config.hue, config.saturation, config.value])
    # Whole numbers, each in every second picture only, as YOLOX has it.
    hue, saturation, value = (limits * (2.0 * draws[:3] - 1.0)
                              * (draws[3:] < 0.5)).astype(int).tolist()
    if not (hue or saturation or value):
        return image
    # With 256 steps to the circle bytes turn over by themselves, and no table is needed.
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL)
    if saturation or value:
        hsv = cv2.add(hsv, (0, saturation, value, 0), dst=hsv)  # saturates
    if hue:
        hsv[..., 0] += np.uint8(round(hue * 256 / 180) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)


def _drop_rectangle(image: np.ndarray, config: PersonAugment, draws: np.ndarray) -> None:
    height, width = image.shape[:2]
    low, high = config.dropout_size
    h = int(height * low + draws[0] * (height * (high - low) + 1.0))
    w = int(width * low + draws[1] * (width * (high - low) + 1.0))
    y, x = int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1))
    image[y:y + h, x:x + w] = 0
