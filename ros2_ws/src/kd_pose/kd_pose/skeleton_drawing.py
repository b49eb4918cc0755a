"""People for people: body, feet, hands and face of 133 keypoints drawn over an image.

Notable: lines are as thick as the person is large, and one that would be thinner than a pixel
becomes translucent instead, so the face of someone far away is not a blot. A line is as opaque as
its weaker end is sure. Left limbs are warm, right ones cool, every finger has a colour of its own
(after Okabe and Ito 2008, which people with any colour vision tell apart).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from kd_pose.results import PeopleFrame, TrackState
from kd_pose.wholebody_keypoints import COCO_WHOLEBODY_133, COUNT, PARTS

# RGB
LEFT, RIGHT, MIDDLE = (240, 150, 30), (70, 165, 240), (225, 225, 225)
FACE = (255, 255, 255)
FINGERS = ((225, 95, 20), (245, 215, 60), (20, 185, 135), (95, 185, 245), (220, 125, 185))
RIM = (15, 15, 20)
SUBPIXEL_BITS = 4
SUBPIXELS = 1 << SUBPIXEL_BITS
FARTHEST_PX = 20000.0  # beyond, OpenCV's fixed-point coordinates run out
BODY_WIDTH = 0.011  # of the person's size
HEAD_WIDTH, FOOT_WIDTH, FINGER_WIDTH, FACE_WIDTH = 0.5, 0.6, 0.5, 0.35  # of a body line's
# Faces and hands are sometimes small for their person, or far ahead of it: limits of their own,
# of the longer side of the part.
FINGER_LIMIT, FACE_LIMIT = 0.04, 0.016
LEAST_OPAQUE = 0.35
# Ids: a person of this many pixels has a text of OpenCV's scale 1; the text is so far above the
# highest point of the face or, where there is none, of the person, in sizes of the person.
LABEL_FONT, LABEL_SIZE, LABEL_SCALES = cv2.FONT_HERSHEY_DUPLEX, 400.0, (0.4, 1.2)
LABEL_ABOVE, HEAD = 0.08, np.r_[0:5, PARTS["face"]]


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


def draw_frame(image: np.ndarray, frame: PeopleFrame, channel_order: str = "bgr",
               threshold: float = 0.3, labels: bool = True) -> np.ndarray:
    """A copy of `image` with everybody who is seen in it, and with their ids where they have one.

    Those who are not confirmed yet have a question mark. Arguments as of `draw_people`.
    """
    people = [person for person in frame.people
              if person.track_state in (TrackState.TENTATIVE, TrackState.TRACKED)]
    xy = np.array([person.keypoints_xy for person in people]).reshape(-1, COUNT, 2)
    scores = np.array([person.keypoint_scores for person in people]).reshape(-1, COUNT)
    canvas = draw_people(image, xy, scores, channel_order, threshold)
    for person in people:
        shown = (person.keypoint_scores > threshold) & np.isfinite(person.keypoints_xy).all(axis=1)
        if labels and person.id and shown.any():
            sure = person.track_state is TrackState.TRACKED
            head = HEAD[shown[HEAD]]
            points = person.keypoints_xy[head if len(head) else shown]
            _draw_label(canvas, person.id if sure else f"{person.id}?", points,
                        _size(person.keypoints_xy[shown]))
    return canvas


def _draw_label(canvas: np.ndarray, text: str, points: np.ndarray, size: float) -> None:
    """Text above the highest of the points, as large as the person and inside of the picture."""
    scale = float(np.clip(size / LABEL_SIZE, *LABEL_SCALES))
    thickness = max(1, int(round(1.6 * scale)))
    (width, height), below = cv2.getTextSize(text, LABEL_FONT, scale, thickness)
    top = points[np.argmin(points[:, 1])]
    room = np.array([canvas.shape[1] - width - 3, canvas.shape[0] - below - 2], dtype=float)
    corner = np.array([top[0] - width / 2, top[1] - LABEL_ABOVE * size - below])
    x, y = np.rint(np.maximum(np.minimum(corner, room), (3, height + 3))).astype(int).tolist()
    for colour, width in ((RIM, thickness + 2), (FACE, thickness)):
        cv2.putText(canvas, text, (x, y), LABEL_FONT, scale, colour, width, cv2.LINE_AA)


def _size(points: np.ndarray) -> float:
    """How large a person is in the picture: the longer side of the box around its points, px."""
    return float(np.ptp(points, axis=0).max()) if len(points) else 0.0


def _draw_person(canvas: np.ndarray, xy: np.ndarray, opacity: np.ndarray, size: float,
                 reverse: bool) -> None:
    xy = np.clip(xy, -FARTHEST_PX, FARTHEST_PX)
    limits = {part: limit * (_size(xy[PARTS[part]][opacity[PARTS[part]] > 0]) or np.inf)
              for part, limit in (("left_hand", FINGER_LIMIT), ("right_hand", FINGER_LIMIT),
                                  ("face", FACE_LIMIT))}
    xy, opacity = xy.tolist(), opacity.tolist()
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


def _draw_stroke(canvas: np.ndarray, start: list[float], end: list[float],
                 colour: tuple[int, ...], width: float, opacity: float) -> None:
    """One line, or a dot of that diameter where both ends are the same.

    Plain numbers, not arrays: a person has hundreds of strokes, and NumPy costs more than drawing.
    """
    opacity = opacity * min(1.0, width)
    if opacity < 0.02:
        return
    reach = width / 2 + 2
    left = max(math.floor(min(start[0], end[0]) - reach), 0)
    top = max(math.floor(min(start[1], end[1]) - reach), 0)
    right = min(math.ceil(max(start[0], end[0]) + reach) + 1, canvas.shape[1])
    bottom = min(math.ceil(max(start[1], end[1]) + reach) + 1, canvas.shape[0])
    if right <= left or bottom <= top:
        return
    region = canvas[top:bottom, left:right]
    layer = region if opacity > 0.98 else region.copy()
    a = (round((start[0] - left) * SUBPIXELS), round((start[1] - top) * SUBPIXELS))
    b = (round((end[0] - left) * SUBPIXELS), round((end[1] - top) * SUBPIXELS))
    if start == end:
        radius = round(max(width, 1.0) / 2 * SUBPIXELS)
        cv2.circle(layer, a, radius, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    else:
        cv2.line(layer, a, b, colour, max(1, round(width)), cv2.LINE_AA, SUBPIXEL_BITS)
    if layer is not region:
        cv2.addWeighted(layer, opacity, region, 1.0 - opacity, 0.0, dst=region)
