"""Keypoints in metres: pixels and a registered depth image -> points in the camera's frame.

A keypoint near the edge of an arm has the wall behind it in half of its surroundings, and its one
pixel may be the wall, a hole, or a mixture that is nowhere. So the depth is not read at a pixel:

1. In a small window around the keypoint depths are sorted and split where they jump; the nearest
   group that is large enough counts (a person hides what is behind it, not the reverse).
2. The group's depths are read no further than one jump from its near end, so that mixed pixels
   between person and wall do not pull it back.
3. That is done twice. The first pass says where the person and its parts (face, feet, hands) are:
   at the depth on which most points agree. The second looks only within reach of that, along the
   limbs no further from one joint to the next than a limb is long, so that a table edge in front
   or a wall behind is no candidate.

A point is that of the visible surface, some centimetres before the joint inside the body. Depth is
along the optical axis (z), as ROS defines it, in metres; 0 and what is not finite is a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kd_pose.camera import Camera
from kd_pose.results import PersonPose
from kd_pose.wholebody_keypoints import COUNT, PARTS

# Half a window's side, of the square root of the person's box, and its limits in pixels; how many
# pixels to each side of the middle are read at most.
WINDOW, WINDOW_LEAST, WINDOW_MOST, SAMPLES = 0.012, 2, 8, 4
# Depths further apart are two surfaces: metres, and metres more per metre of distance (the noise
# of depth cameras grows).
JUMP, JUMP_PER_M = 0.04, 0.01
MIN_GROUP, MIN_GROUP_SHARE = 3, 0.12  # pixels, and of those with a depth, that make a surface
# How far points may be in depth from where they belong, metres: torso and limbs from the person,
# a joint from the one before it (no limb is longer), a part's points from its middle, which is
# near its own joint.
TORSO, TORSO_REACH, BODY_REACH = np.array([5, 6, 11, 12]), 0.5, 1.1
LIMBS = (  # joints, those before them, and how far
    (np.array([7, 8, 13, 14]), np.array([5, 6, 11, 12]), np.array([0.45, 0.45, 0.6, 0.6])),
    (np.array([9, 10, 15, 16]), np.array([7, 8, 13, 14]), np.array([0.4, 0.4, 0.6, 0.6])),
)
HEAD, HEAD_REACH = np.arange(5), 0.25
FACE, FACE_REACH = np.arange(PARTS["face"].start, PARTS["face"].stop), 0.18
END_NEAR = 0.3  # a foot's or hand's middle to its joint
ENDS = (  # points, their joint, and how far from their middle
    (np.arange(17, 20), 15, 0.25), (np.arange(20, 23), 16, 0.25),
    (np.arange(91, 112), 9, 0.15), (np.arange(112, 133), 10, 0.15),
)
AGREE_M = 0.3  # points that agree on where a person or a part is


@dataclass(frozen=True)
class LiftingOptions:
    """min_keypoint_score: keypoints below stay unknown. min_depth_m, max_depth_m: what counts."""

    min_keypoint_score: float = 0.3
    min_depth_m: float = 0.15
    max_depth_m: float = 15.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_keypoint_score <= 1.0:
            raise ValueError(f"min_keypoint_score must be 0 to 1, got {self.min_keypoint_score!r}")
        if not 0.0 < self.min_depth_m < self.max_depth_m:
            raise ValueError(f"min_depth_m must be above 0 and below max_depth_m, got "
                             f"{self.min_depth_m!r} and {self.max_depth_m!r}")


def check_depth(depth: np.ndarray, image_wh: Sequence[int]) -> None:
    """Raises ValueError where a depth image cannot belong to a colour image of that size."""
    if depth.ndim != 2:
        raise ValueError(f"the depth image must be (H, W), got the shape {depth.shape}")
    height, width = depth.shape
    if (width, height) != tuple(image_wh):
        raise ValueError(
            f"the depth image is {width}x{height}, the colour image {image_wh[0]}x{image_wh[1]}: "
            "publish depth that is registered to colour")


def lift_people(people: Sequence[PersonPose], depth: np.ndarray, camera: Camera,
                options: LiftingOptions | None = None) -> list[PersonPose]:
    """People with `keypoints_xyz` (133, 3) metres in the camera's frame, NaN where not measured.

    depth: (H, W) metres, registered to the image that `camera` belongs to.
    Raises ValueError for a depth image of another size and a camera that is not calibrated.
    """
    options = options or LiftingOptions()
    check_depth(depth, (camera.width, camera.height))
    return [replace(person, keypoints_xyz=_lift(person, depth, camera, options))
            for person in people]


def _lift(person: PersonPose, depth: np.ndarray, camera: Camera, options: LiftingOptions
          ) -> np.ndarray:
    xyz = np.full((COUNT, 3), np.nan)
    xy = np.asarray(person.keypoints_xy, dtype=np.float64)
    inside = (xy > -0.5).all(axis=1) & (xy < (camera.width - 0.5, camera.height - 0.5)).all(axis=1)
    chosen = np.flatnonzero(inside & (person.keypoint_scores >= options.min_keypoint_score))
    if len(chosen) == 0:
        return xyz
    size = float(np.sqrt(max(np.prod(person.box_xywh[2:]), 1.0)))
    around = _windows(xy[chosen], depth, size, options)
    windows = np.full((COUNT, around.shape[1]), np.nan)
    windows[chosen] = around
    z = keypoint_depths(windows)
    known = np.isfinite(z)
    ideal = camera.undistort(xy[known])
    rays = np.concatenate([ideal, np.ones((len(ideal), 1))], axis=1) @ np.linalg.inv(camera.K).T
    xyz[known] = rays * z[known, None]
    xyz[~np.isfinite(xyz).all(axis=1)] = np.nan
    return xyz


def _windows(xy: np.ndarray, depth: np.ndarray, size: float, options: LiftingOptions
             ) -> np.ndarray:
    """Depths around points (N, 2) px -> (N, pixels of a window) float64, NaN for holes."""
    half = int(np.clip(round(WINDOW * size), WINDOW_LEAST, WINDOW_MOST))
    offsets = np.unique(np.rint(np.linspace(-half, half, 2 * min(half, SAMPLES) + 1)).astype(int))
    column = np.rint(xy[:, 0]).astype(int)[:, None, None] + offsets[None, None, :]
    row = np.rint(xy[:, 1]).astype(int)[:, None, None] + offsets[None, :, None]
    height, width = depth.shape
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    values = depth[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(np.float64)
    good = ~outside & (values >= options.min_depth_m) & (values <= options.max_depth_m)
    return np.where(good, values, np.nan).reshape(len(xy), -1)


def keypoint_depths(windows: np.ndarray) -> np.ndarray:
    """Depths (133,) metres of a person's keypoints, NaN where nothing of the person is.

    windows: (133, W) depths around each, NaN for holes and for keypoints that are not sure.
    """
    first = near_surface(windows)
    body = first[PARTS["body"]]
    person = _agreed(body if np.isfinite(body).any() else first)
    z = np.full(COUNT, np.nan)

    def read(*wanted: tuple) -> None:
        """(points, where they should be, how far off they may be), all in one go."""
        points = np.concatenate([item[0] for item in wanted])
        middle, reach = (np.concatenate([np.broadcast_to(item[i], len(item[0]))
                                         for item in wanted])[:, None] for i in (1, 2))
        off = np.abs(windows[points] - middle) > reach
        z[points] = near_surface(np.where(off, np.nan, windows[points]))

    def middle_of(points: np.ndarray, about: float, reach: float) -> float:
        return _agreed(first[points][np.abs(first[points] - about) <= reach])

    face = middle_of(FACE, person, TORSO_REACH)
    head = (face, HEAD_REACH) if np.isfinite(face) else (person, TORSO_REACH)
    read((FACE, face, FACE_REACH), (HEAD, *head), (TORSO, person, TORSO_REACH))
    for joints, before, length in LIMBS:
        known = np.isfinite(z[before])
        read((joints, np.where(known, z[before], person), np.where(known, length, BODY_REACH)))
    abouts = [(z[joint], END_NEAR) if np.isfinite(z[joint]) else (person, BODY_REACH)
              for _, joint, _ in ENDS]
    read(*((points, middle_of(points, *about), reach)
           for (points, _, reach), about in zip(ENDS, abouts)))
    return z


def near_surface(windows: np.ndarray) -> np.ndarray:
    """Depth of the nearest surface in each window (N, W), NaN for holes -> (N,), NaN for none."""
    if len(windows) == 0:
        return np.zeros(0)
    z = np.sort(windows, axis=1)  # NaN last
    count = np.isfinite(z).sum(axis=1)
    need = np.maximum(MIN_GROUP, np.ceil(MIN_GROUP_SHARE * count)).astype(int)
    with np.errstate(invalid="ignore"):
        jumps = np.diff(z, axis=1) > JUMP + JUMP_PER_M * z[:, :-1]
    group = np.concatenate([np.zeros((len(z), 1), int), np.cumsum(jumps, axis=1)], axis=1)
    # A group is large enough where the value `need` - 1 places further still belongs to it.
    column = np.arange(z.shape[1])
    last = column[None, :] + need[:, None] - 1
    same = np.take_along_axis(group, np.minimum(last, z.shape[1] - 1), axis=1) == group
    large = same & (last < count[:, None])
    begin = np.argmax(large, axis=1)
    near = np.take_along_axis(z, begin[:, None], axis=1)
    with np.errstate(invalid="ignore"):
        member = (group == np.take_along_axis(group, begin[:, None], axis=1)) & (
            z <= near + JUMP + JUMP_PER_M * near)
    # Sorted and contiguous: the median is the middle one.
    middle = begin + (np.sum(member & (column >= begin[:, None]), axis=1) - 1) // 2
    result = np.take_along_axis(z, np.maximum(middle, 0)[:, None], axis=1)[:, 0]
    return np.where(large.any(axis=1), result, np.nan)


def _agreed(values: np.ndarray) -> float:
    """The middle of the range of width `AGREE_M` that holds most of the values; NaN of none.

    Of two that hold as many the farther one: what is nearer stands in front.
    """
    values = np.sort(values[np.isfinite(values)])
    if len(values) == 0:
        return float("nan")
    end = np.searchsorted(values, values + AGREE_M, side="right")
    begin = len(values) - 1 - int(np.argmax((end - np.arange(len(values)))[::-1]))
    return float(np.median(values[begin:end[begin]]))
