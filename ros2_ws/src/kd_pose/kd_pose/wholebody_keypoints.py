"""The 133 keypoints of COCO-WholeBody: names, parts, mirror images, tolerances, lines to draw.

Order, sigmas and links are those of the data set (Jin et al., ECCV 2020, and its evaluation code,
github.com/jin-s13/COCO-WholeBody). Left and right are the person's own. Hands begin at their root
(the wrist), then go from thumb to little finger, four joints each from the palm outwards; the face
has the 68 points of iBUG 300-W, which begin at the right end of the jaw.
"""

from __future__ import annotations

import numpy as np

from kd_pose.keypoints import KeypointSet

NAME = "coco_wholebody_133"
PARTS = {
    "body": slice(0, 17),
    "foot": slice(17, 23),
    "face": slice(23, 91),
    "left_hand": slice(91, 112),
    "right_hand": slice(112, 133),
}
COUNT = 133
# What a half-body crop chooses from: down to the wrists, or from the hips on with the feet.
UPPER_BODY = np.arange(0, 11)
LOWER_BODY = np.arange(11, 23)
FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")

_SIDES = ("left", "right")
_PAIRS_OF_BODY = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_FOOT = ("big_toe", "small_toe", "heel")
# Runs of neighbouring face points (0..67): jaw, brows, nose, eyes, lips; closed where it says so.
FACE_LINES = (
    (range(0, 17), False),
    (range(17, 22), False),
    (range(22, 27), False),
    (range(27, 31), False),
    (range(31, 36), False),
    (range(36, 42), True),
    (range(42, 48), True),
    (range(48, 60), True),
    (range(60, 68), True),
)


def _names() -> tuple[str, ...]:
    names = ["nose"] + [f"{side}_{joint}" for joint in _PAIRS_OF_BODY for side in _SIDES]
    names += [f"{side}_{point}" for side in _SIDES for point in _FOOT]
    names += [f"face_{point}" for point in range(68)]
    for side in _SIDES:
        names.append(f"{side}_hand_root")
        names += [f"{side}_{finger}{joint}" for finger in FINGERS for joint in range(1, 5)]
    return tuple(names)


def _edges() -> tuple[tuple[int, int], ...]:
    edges = [(15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7),
             (6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)]
    edges += [(ankle, foot) for ankle, feet in ((15, range(17, 20)), (16, range(20, 23)))
              for foot in feet]
    first = PARTS["face"].start
    for points, closed in FACE_LINES:
        run = [first + point for point in points]
        edges += list(zip(run, run[1:])) + ([(run[-1], run[0])] if closed else [])
    for hand in ("left_hand", "right_hand"):
        root = PARTS[hand].start
        for finger in range(5):
            chain = [root, *range(root + 1 + 4 * finger, root + 5 + 4 * finger)]
            edges += list(zip(chain, chain[1:]))
    return tuple(edges)


def _mirror() -> np.ndarray:
    """Index of the keypoint that each one becomes when the picture is mirrored."""
    face = PARTS["face"].start
    pairs = [(left, left + 1) for left in range(1, 17, 2)]
    pairs += [(left, left + 3) for left in range(17, 20)]
    pairs += [(left, left + 21) for left in range(91, 112)]
    halves = [(point, 16 - point) for point in range(8)]  # jaw
    halves += [(point, 43 - point) for point in range(17, 22)]  # brows
    halves += [(31, 35), (32, 34)]  # nostrils
    halves += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]  # eyes
    halves += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
    pairs += [(face + a, face + b) for a, b in halves]
    mirror = np.arange(COUNT)
    for a, b in pairs:
        mirror[a], mirror[b] = b, a
    return mirror


# Standard deviation of a labelled point over the square root of the person's area.
SIGMAS = np.array(
    [0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
     0.087, 0.087, 0.089, 0.089,
     0.068, 0.066, 0.066, 0.092, 0.094, 0.094,
     0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037,
     0.038, 0.043, 0.041, 0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013,
     0.015, 0.009, 0.007, 0.007, 0.007, 0.012, 0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009,
     0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034, 0.008, 0.008, 0.009, 0.008,
     0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008, 0.008,
     0.008, 0.010, 0.008]
    + 2 * [0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022,
           0.026, 0.017, 0.021, 0.021, 0.032, 0.020, 0.019, 0.022, 0.031])
COCO_WHOLEBODY_133 = KeypointSet(_names(), _edges())
FLIP = _mirror()
GROUP = np.repeat(np.arange(len(PARTS), dtype=np.uint8),
                  [part.stop - part.start for part in PARTS.values()])
for _table in (UPPER_BODY, LOWER_BODY, SIGMAS, FLIP, GROUP):
    _table.setflags(write=False)
