"""People for people: body, feet, hands and face of 133 keypoints drawn over an image.

Notable: lines are as thick as the person is large, and one that would be thinner than a pixel
becomes translucent instead, so the face of someone far away is not a blot. A line is as opaque as
its weaker end is sure. Left limbs are warm, right ones cool, every finger has a colour of its own
(after Okabe and Ito 2008, which people with any colour vision tell apart).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from kd_pose.wholebody_keypoints import COCO_WHOLEBODY_133, COUNT, PARTS

# RGB
LEFT, RIGHT, MIDDLE = (240, 150, 30), (70, 165, 240), (225, 225, 225)
FACE = (255, 255, 255)
FINGERS = ((225, 95, 20), (245, 215, 60), (20, 185, 135), (95, 185, 245), (220, 125, 185))
RIM = (15, 15, 20)
SUBPIXEL_BITS = 4
FARTHEST_PX = 20000.0  # beyond, OpenCV's fixed-point coordinates run out
BODY_WIDTH = 0.011  # of the person's size
HEAD_WIDTH, FOOT_WIDTH, FINGER_WIDTH, FACE_WIDTH = 0.5, 0.6, 0.5, 0.35  # of a body line's
# Faces and hands are sometimes small for their person, or far ahead of it: limits of their own,
# of the longer side of the part.
FINGER_LIMIT, FACE_LIMIT = 0.04, 0.016
LEAST_OPAQUE = 0.35


class Stroke(NamedTuple):
    """A line between two keypoints, or a dot where both are the same.

    width: in body lines. part: whose size may limit the width further.
    """

    a: int
    b: int
    rgb: tuple[int, int, int]
    width: float
    rim: bool
    part: str = "body"


def _strokes() -> tuple[Stroke, ...]:
    """All lines and dots in the order in which they are drawn: the fine parts on top."""
    body, foot, face = PARTS["body"], PARTS["foot"], PARTS["face"]
    lines = {"body": [], "head": [], "foot": [], "face": [], "hand": []}
    for a, b in COCO_WHOLEBODY_133.edges:
        last = max(a, b)
        if last < body.stop:
            if min(a, b) in (3, 4) and last >= 5:
                continue  # from ear to shoulder: useful for tracking, odd to look at
            # shoulder to shoulder and hip to hip belong to no side, nor does the nose
            rgb = MIDDLE if (a + b) % 2 or 0 in (a, b) else (LEFT if a % 2 else RIGHT)
            head = min(a, b) < 5
            lines["head" if head else "body"].append(
                # where a face is drawn, these lines must not cover it
                Stroke(a, b, rgb, HEAD_WIDTH, False, "face") if head else
                Stroke(a, b, rgb, 1.0, True))
        elif last < foot.stop:
            rgb = LEFT if last < foot.start + 3 else RIGHT
            lines["foot"].append(Stroke(a, b, rgb, FOOT_WIDTH, True))
        elif last < face.stop:
            lines["face"].append(Stroke(a, b, FACE, FACE_WIDTH, False, "face"))
        else:
            part = "left_hand" if last < PARTS["left_hand"].stop else "right_hand"
            rgb = FINGERS[(last - PARTS[part].start - 1) // 4]
            lines["hand"].append(Stroke(a, b, rgb, FINGER_WIDTH, True, part))
    dots = [Stroke(i, i, LEFT if i % 2 else RIGHT, 1.45, True) for i in range(5, body.stop)]
    tips = [line._replace(a=line.b, width=1.5 * FINGER_WIDTH) for line in lines["hand"]]
    return (*lines["body"], *lines["foot"], *dots, *lines["head"], *lines["face"],
            *lines["hand"], *tips)


STROKES = _strokes()


def draw_people(image: np.ndarray, xy: np.ndarray, scores: np.ndarray,
                channel_order: str = "bgr", threshold: float = 0.3) -> np.ndarray:
    """A copy of `image` uint8 (H, W, 3) with N people on it, the larger ones on top.

    xy: (N, 133, 2) pixels; a point that is not finite is not drawn. scores: (N, 133), drawn above
    `threshold`, fully opaque from twice that on.
    Raises ValueError for another number of keypoints or another kind of image.
    """
    xy, scores = np.asarray(xy, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if xy.ndim != 3 or xy.shape[1:] != (COUNT, 2) or scores.shape != xy.shape[:2]:
        raise ValueError(f"xy must be (N, {COUNT}, 2) and scores (N, {COUNT}), got {xy.shape} and "
                         f"{scores.shape}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if channel_order not in ("bgr", "rgb"):
        raise ValueError(f"channel_order must be bgr or rgb, got {channel_order!r}")
    canvas = np.ascontiguousarray(image).copy()
    shown = (scores > threshold) & np.isfinite(xy).all(axis=2)
    opacity = np.where(shown, np.clip(scores / max(2 * threshold, 1e-6), LEAST_OPAQUE, 1.0), 0.0)
    sizes = [_size(points[seen]) for points, seen in zip(xy, shown)]
    for row in np.argsort(sizes, kind="stable"):
        _draw_person(canvas, xy[row], opacity[row], sizes[row], channel_order == "bgr")
    return canvas


def _size(points: np.ndarray) -> float:
    """How large a person is in the picture: the longer side of the box around its points, px."""
    return float(np.ptp(points, axis=0).max()) if len(points) else 0.0


def _draw_person(canvas: np.ndarray, xy: np.ndarray, opacity: np.ndarray, size: float,
                 reverse: bool) -> None:
    xy = np.clip(xy, -FARTHEST_PX, FARTHEST_PX)
    limits = {part: limit * (_size(xy[PARTS[part]][opacity[PARTS[part]] > 0]) or np.inf)
              for part, limit in (("left_hand", FINGER_LIMIT), ("right_hand", FINGER_LIMIT),
                                  ("face", FACE_LIMIT))}
    for rim in (True, False):  # all rims lie below all lines, so that joints close
        for a, b, rgb, width, has_rim, part in STROKES:
            strength = min(opacity[a], opacity[b])
            if strength <= 0 or (rim and not has_rim):
                continue
            # dots are wider than lines; both shrink alike
            width = min(width * BODY_WIDTH * size,
                        limits.get(part, np.inf) * (1.5 if a == b else 1.0))
            if rim:
                width, rgb = width + max(1.0, 0.5 * width), RIM
                strength = 0.6 * strength if part != "body" else strength
            _draw_stroke(canvas, xy[a], xy[b], rgb[::-1] if reverse else rgb, width, strength)


def _draw_stroke(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, colour: tuple[int, ...],
                 width: float, opacity: float) -> None:
    """One line, or a dot of that diameter where both ends are the same."""
    dot = start is end or bool((start == end).all())
    opacity = opacity * min(1.0, width)
    reach = width / 2 + 2
    low = np.maximum(np.floor(np.minimum(start, end) - reach), 0).astype(int)
    high = np.minimum(np.ceil(np.maximum(start, end) + reach) + 1, canvas.shape[1::-1]).astype(int)
    if (high <= low).any() or opacity < 0.02:
        return
    region = canvas[low[1]:high[1], low[0]:high[0]]
    layer = region if opacity > 0.98 else region.copy()
    a, b = (tuple(np.rint((point - low) * (1 << SUBPIXEL_BITS)).astype(int).tolist())
            for point in (start, end))
    if dot:
        radius = int(round(max(width, 1.0) / 2 * (1 << SUBPIXEL_BITS)))
        cv2.circle(layer, a, radius, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    else:
        cv2.line(layer, a, b, colour, max(1, int(round(width))), cv2.LINE_AA, SUBPIXEL_BITS)
    if layer is not region:
        cv2.addWeighted(layer, opacity, region, 1.0 - opacity, 0.0, dst=region)
