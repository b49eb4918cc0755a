"""What comes out of an estimator: plain data, no behaviour, no ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from kd_pose.manifest import ObjectSpec

# The stages of `timing_ms` of objects and of people, in the order in which they run.
STAGES = ("crop", "detector", "network", "decode", "pose")
PERSON = "person"  # class_id of people's boxes


class TrackState(IntEnum):
    """Numbers as in kd_pose_msgs/ObjectPose."""

    TENTATIVE = 0
    TRACKED = 1
    COASTING = 2
    LOST = 3


@dataclass
class Detection2D:
    """One box in an image: class name, score 0..1, `box_xywh` (4,) continuous edges in pixels."""

    class_id: str
    score: float
    box_xywh: np.ndarray


@dataclass
class ObjectPose:
    """One object seen in one image.

    T_cam_obj: (4, 4), mesh frame into the camera, metres, OpenCV axes.
    covariance: (6, 6) in the order x, y, z, rotation about the fixed camera axes x, y, z taken at
        the object's origin (metres, radians), or None where it is not known.
    keypoints_xy: (8, 2) projections of the box corners into the delivered (distorted) image, px.
    keypoint_scores: (8,) 0..1, the share of the vote weight of that corner that the pose explains.
    reprojection_error_px: rms over the inliers, pixels of the undistorted image.
    inliers: number of votes that the pose explains.
    """

    class_id: str
    score: float
    T_cam_obj: np.ndarray
    covariance: np.ndarray | None
    spec: ObjectSpec
    keypoints_xy: np.ndarray
    keypoint_scores: np.ndarray
    reprojection_error_px: float
    inliers: int
    id: str = ""
    track_state: TrackState = TrackState.TENTATIVE


@dataclass
class ObjectPoseFrame:
    """Everything of one image, best objects first.

    detections: the boxes that were looked at. timing_ms: milliseconds by stage, see `STAGES`.
    ignored_boxes: boxes that could not be looked at: of a class that the model does not know,
        not finite, too small or too large, or wholly outside of the image.
    """

    objects: list[ObjectPose] = field(default_factory=list)
    detections: list[Detection2D] = field(default_factory=list)
    timing_ms: dict[str, float] = field(default_factory=dict)
    ignored_boxes: int = 0


@dataclass
class PersonPose:
    """One person seen in one image; K = 133 keypoints, see `wholebody_keypoints`.

    box_xywh: (4,) the box that was looked at, continuous edges, pixels of the delivered image.
    score: 0..1, the box's times the mean of the keypoints that are seen.
    keypoints_xy: (K, 2) pixels of the delivered image, NaN where not estimated.
    keypoint_scores: (K,) 0..1, 0 where not estimated.
    keypoints_xyz: (K, 3) metres in the camera's frame, NaN where unknown; None without depth.
    """

    box_xywh: np.ndarray
    score: float
    keypoints_xy: np.ndarray
    keypoint_scores: np.ndarray
    keypoints_xyz: np.ndarray | None = None
    id: str = ""
    track_state: TrackState = TrackState.TENTATIVE


@dataclass
class PeopleFrame:
    """The people of one image, best first.

    detections: the boxes that were looked at. timing_ms: milliseconds by stage, see `STAGES`.
    ignored_boxes: boxes that could not be looked at: of another class than `person`, not
        finite, too small or too large, or wholly outside of the image.
    searched: whether the detector looked at the whole image.
    """

    people: list[PersonPose] = field(default_factory=list)
    detections: list[Detection2D] = field(default_factory=list)
    timing_ms: dict[str, float] = field(default_factory=dict)
    ignored_boxes: int = 0
    searched: bool = False
