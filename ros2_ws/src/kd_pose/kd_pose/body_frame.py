"""The frame of a person's body, from hips and shoulders in metres.

Origin in the middle of the hips; x forward out of the chest, y to the person's own left, z up
along the trunk: the axes of REP 103 for a body, and the origin of the draft REP 155 for humans.
Where the trunk does not say how it stands there is no frame, never a guess.
"""

from __future__ import annotations

import numpy as np

from kd_pose.geometry import make_pose
from kd_pose.wholebody_keypoints import COCO_WHOLEBODY_133, COUNT

LEFT, RIGHT = ([COCO_WHOLEBODY_133.names.index(f"{side}_{joint}") for joint in ("hip", "shoulder")]
               for side in ("left", "right"))
# A trunk is longer and wider than this even of a small child. What is shorter, such as the two
# sides of someone seen from the side, is made of the error of the depth, and turns at random.
MIN_LENGTH_M = 0.05
# Of the angle between up and left, 90 degrees on a straight person: below 17 degrees a small error
# of a point turns the chest right round.
MIN_SINE = 0.3


def body_frame(keypoints_xyz: np.ndarray) -> np.ndarray | None:
    """`T_cam_body` (4, 4) of one person: maps points of the body's frame into that of the points.

    keypoints_xyz: (133, 3) metres in a right-handed frame, such as the camera's optical one; NaN
        where unknown. Only hips and shoulders count.

    z points from mid-hip to mid-shoulder. y is what of the way from the right side to the left
    one, the mean of hips and shoulders, is square to z (a trunk that leans sideways keeps its z);
    x = y cross z.

    Returns None where one of the four is not finite, trunk or width is shorter than
    `MIN_LENGTH_M`, or the sine of the angle between them is below `MIN_SINE`.
    Raises ValueError for another shape.
    """
    points = np.asarray(keypoints_xyz, dtype=np.float64)
    if points.shape != (COUNT, 3):
        raise ValueError(f"keypoints_xyz must be ({COUNT}, 3), got {points.shape}")
    left, right = points[LEFT], points[RIGHT]
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return None
    hips, shoulders = (left + right) / 2.0
    trunk, across = shoulders - hips, (left - right).mean(axis=0)
    lengths = np.linalg.norm(trunk), np.linalg.norm(across)
    if min(lengths) < MIN_LENGTH_M:
        return None
    up = trunk / lengths[0]
    forward = np.cross(across / lengths[1], up)
    sine = np.linalg.norm(forward)
    if sine < MIN_SINE:
        return None
    forward /= sine
    return make_pose(np.column_stack([forward, np.cross(up, forward), up]), hips)
