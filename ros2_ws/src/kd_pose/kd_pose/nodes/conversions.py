"""Results -> messages, and messages -> cameras and boxes. No node, no publisher.

Notable: float arrays go through `array.array('f')`, which rclpy takes as it is (10 people of 133
points: 0.015 ms instead of 4.3 ms with a message per point). `pose` is the mesh frame in the
image's optical frame; a box's centre is the mesh frame moved by the middle of the object's box.
vision_msgs is optional and imported only inside the functions that need it.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Vector3,
)
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from kd_pose.camera import Camera
from kd_pose.drawing import class_colour
from kd_pose.geometry import box_corners, make_pose, quaternion_from_matrix
from kd_pose.keypoints import BOX_EDGES
from kd_pose.manifest import ObjectSpec
from kd_pose.results import Detection2D, ObjectPoseFrame
from kd_pose.results import ObjectPose as Result
from kd_pose_msgs.msg import ObjectInfo, ObjectInfoArray, ObjectPose, ObjectPoseArray

NANOSECONDS = 1_000_000_000


def vision_msgs_available() -> bool:
    """Whether vision_msgs can be imported; it is not a requirement."""
    try:
        import vision_msgs.msg  # noqa: F401
    except ImportError:
        return False
    return True


def tf2_msgs_available() -> bool:
    """Whether tf2_msgs can be imported; only `publish_tf` requires it."""
    try:
        import tf2_msgs.msg  # noqa: F401
    except ImportError:
        return False
    return True


def stamp_nanoseconds(header: Header) -> int:
    return header.stamp.sec * NANOSECONDS + header.stamp.nanosec


def duration_message(seconds: float) -> Duration:
    whole, rest = divmod(round(seconds * NANOSECONDS), NANOSECONDS)
    return Duration(sec=int(whole), nanosec=int(rest))


def float_array(values: np.ndarray) -> array.array:
    """Numbers of any shape as a flat float32[] field."""
    result = array.array("f")
    result.frombytes(np.ascontiguousarray(values, dtype=np.float32).tobytes())
    return result


# --- inputs ------------------------------------------------------------------------------------


class CameraReader:
    """CameraInfo -> Camera, worked out again only when its contents change."""

    def __init__(self, rectified: bool) -> None:
        self._rectified = rectified
        self._key: tuple | None = None
        self._camera: Camera | None = None

    def read(self, info: CameraInfo) -> Camera:
        """The camera of the delivered image; ValueError that names the field."""
        roi = (info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height)
        binning = (info.binning_x, info.binning_y)
        key = (info.k.tobytes(), tuple(info.d), info.p.tobytes(), info.distortion_model,
               info.width, info.height, roi, binning)
        if key != self._key or self._camera is None:
            self._camera = Camera.from_info(
                info.k, info.d, info.distortion_model, info.p, info.width, info.height,
                rectified=self._rectified, roi=roi, binning=binning,
            )
            self._key = key
        return self._camera


def detections_from_message(message: Any) -> list[Detection2D]:
    """vision_msgs/Detection2DArray -> boxes; each with the best of its hypotheses.

    One without any is of the class "" with score 0, so that it is counted where boxes are ignored.
    """
    boxes = []
    for item in message.detections:
        name, score = max(((result.hypothesis.class_id, float(result.hypothesis.score))
                           for result in item.results), key=lambda pair: pair[1],
                          default=("", 0.0))
        center, size = item.bbox.center.position, (item.bbox.size_x, item.bbox.size_y)
        xywh = (center.x - size[0] / 2, center.y - size[1] / 2, *size)
        boxes.append(Detection2D(name, score, np.array(xywh)))
    return boxes


# --- outputs -----------------------------------------------------------------------------------


def set_pose(message: Pose, xyz: Sequence[float], xyzw: Sequence[float]) -> None:
    """Fill in place: a constructor with arguments builds its defaults first and drops them."""
    position, orientation = message.position, message.orientation
    position.x, position.y, position.z = xyz
    orientation.x, orientation.y, orientation.z, orientation.w = xyzw


def pose_message(T: np.ndarray) -> Pose:
    """Transform (4, 4) in metres -> geometry_msgs/Pose."""
    message = Pose()
    set_pose(message, T[:3, 3].tolist(), quaternion_from_matrix(T[:3, :3]).tolist())
    return message


def set_covariance(message: PoseWithCovariance, item: Result) -> None:
    """Pose with its covariance; zeros where that is not known."""
    T = item.T_cam_obj
    set_pose(message.pose, T[:3, 3].tolist(), quaternion_from_matrix(T[:3, :3]).tolist())
    if item.covariance is not None:
        message.covariance = np.ascontiguousarray(item.covariance, np.float64).reshape(36)


def set_box(center: Pose, size: Vector3, item: Result) -> None:
    """Centre of the object's bounding box in the camera frame, axes as the mesh's; full size."""
    R, t = item.T_cam_obj[:3, :3], item.T_cam_obj[:3, 3]
    xyz = (R @ np.array(item.spec.box_center) + t).tolist()
    set_pose(center, xyz, quaternion_from_matrix(R).tolist())
    size.x, size.y, size.z = item.spec.box_size


def vector(values: Sequence[float]) -> Vector3:
    return Vector3(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def object_message(item: Result, header: Header) -> ObjectPose:
    message = ObjectPose()
    message.class_id, message.id = item.class_id, item.id
    message.track_state = int(item.track_state)
    message.score = float(item.score)
    set_covariance(message.pose, item)
    message.covariance_valid = item.covariance is not None
    set_box(message.box_center, message.box_size, item)
    message.keypoints_xy = float_array(item.keypoints_xy)
    message.keypoint_scores = float_array(item.keypoint_scores)
    message.reprojection_error_px = float(item.reprojection_error_px)
    message.inliers = min(int(item.inliers), 65535)
    message.last_seen = header.stamp
    return message


def objects_message(frame: ObjectPoseFrame, header: Header) -> ObjectPoseArray:
    return ObjectPoseArray(
        header=header, objects=[object_message(item, header) for item in frame.objects]
    )


def target_message(
    frame: ObjectPoseFrame, header: Header, class_id: str
) -> PoseWithCovarianceStamped | None:
    """The best instance of a class; None where there is none: never an invented pose."""
    found = [item for item in frame.objects if item.class_id == class_id]
    if not found:
        return None
    best = max(found, key=lambda item: item.score)
    message = PoseWithCovarianceStamped(header=header)
    set_covariance(message.pose, best)
    return message


def detections_message(frame: ObjectPoseFrame, header: Header) -> Any:
    """vision_msgs/Detection3DArray with the same contents."""
    from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

    message = Detection3DArray(header=header)
    for item in frame.objects:
        hypothesis = ObjectHypothesisWithPose()
        set_covariance(hypothesis.pose, item)
        hypothesis.hypothesis.class_id = item.class_id
        hypothesis.hypothesis.score = float(item.score)
        detection = Detection3D(header=header, results=[hypothesis], id=item.id)
        set_box(detection.bbox.center, detection.bbox.size, item)
        message.detections.append(detection)
    return message


def vision_info_message(header: Header, method: str, location: str) -> Any:
    """vision_msgs/VisionInfo: how class names are explained."""
    from vision_msgs.msg import VisionInfo

    return VisionInfo(header=header, method=method, database_location=location)


def object_info_message(specs: Sequence[ObjectSpec], header: Header) -> ObjectInfoArray:
    return ObjectInfoArray(header=header, objects=[_object_info(spec) for spec in specs])


def _object_info(spec: ObjectSpec) -> ObjectInfo:
    center = make_pose(np.eye(3), np.array(spec.box_center))
    return ObjectInfo(
        class_id=spec.name,
        diameter=float(spec.diameter),
        box_center=pose_message(center),
        box_size=vector(spec.box_size),
        symmetries_discrete=[
            pose_message(np.array(values).reshape(4, 4)) for values in spec.symmetries_discrete
        ],
        symmetry_axes=[vector(axis) for axis, _ in spec.symmetries_continuous],
        symmetry_offsets=[vector(offset) for _, offset in spec.symmetries_continuous],
        mesh_uri=spec.mesh_uri,
    )


# --- markers -----------------------------------------------------------------------------------


def delete_all_message(header: Header) -> MarkerArray:
    return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])


def markers_message(
    frame: ObjectPoseFrame, header: Header, lifetime_s: float, class_names: Sequence[str]
) -> MarkerArray:
    """Box edges, axes and a label for every object, after a leading DELETEALL."""
    message = delete_all_message(header)
    lifetime = duration_message(lifetime_s)
    for index, item in enumerate(frame.objects):
        for marker in _object_markers(item, class_names):
            marker.header, marker.lifetime = header, lifetime
            marker.id = index
            message.markers.append(marker)
    return message


def _object_markers(item: Result, class_names: Sequence[str]) -> tuple[Marker, Marker, Marker]:
    red, green, blue = (value / 255.0 for value in class_colour(item.class_id, class_names))
    colour = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    spec, pose = item.spec, pose_message(item.T_cam_obj)
    width = 0.015 * spec.diameter
    corners = box_corners(spec.box_min, spec.box_max)
    box = Marker(ns=f"{item.class_id}/box", type=Marker.LINE_LIST, pose=pose, color=colour)
    box.scale.x = width
    box.points = [_point(corners[corner]) for edge in BOX_EDGES for corner in edge]
    axes = Marker(ns=f"{item.class_id}/axes", type=Marker.LINE_LIST, pose=pose)
    axes.scale.x = 2.0 * width
    axes.color.a = 1.0
    for axis in range(3):
        direction = np.eye(3)[axis]
        axes.points += [_point(np.zeros(3)), _point(0.5 * spec.diameter * direction)]
        axes.colors += [ColorRGBA(r=direction[0], g=direction[1], b=direction[2], a=1.0)] * 2
    label = Marker(ns=f"{item.class_id}/label", type=Marker.TEXT_VIEW_FACING, color=colour)
    label.pose.position = _point(item.T_cam_obj[:3, 3] - [0.0, 0.6 * spec.diameter, 0.0])
    label.scale.z = 0.15 * spec.diameter
    name = f"{item.class_id} {item.id}" if item.id else item.class_id
    label.text = f"{name} {item.score:.2f}"
    return box, axes, label


def _point(xyz: np.ndarray) -> Point:
    return Point(x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))
