"""People -> messages. No node, no publisher.

Notable: numbers go through `array.array('f')` or a float32 array, which rclpy takes as they are,
so that ten people cost a fraction of a millisecond. What is not known is NaN, never 0.
vision_msgs and tf2_msgs are optional and imported only where they are needed.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, TransformStamped
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from kd_pose.body_frame import body_frame
from kd_pose.geometry import quaternion_from_matrix
from kd_pose.nodes.conversions import delete_all_message, duration_message, float_array
from kd_pose.results import PERSON, PeopleFrame, PersonPose, TrackState
from kd_pose.skeleton_drawing import STROKES
from kd_pose.wholebody_keypoints import COCO_WHOLEBODY_133, FLIP, GROUP, NAME
from kd_pose_msgs.msg import SkeletonInfo, WholebodyPose, WholebodyPoseArray

UNSEEN = (TrackState.COASTING, TrackState.LOST)
# Metres: how thick lines are, and how far above the face the label stands.
LINE_WIDTHS = {"body": 0.02, "hands": 0.006, "face": 0.004}
LABEL_ABOVE, LABEL_HEIGHT = 0.25, 0.1


def people_message(frame: PeopleFrame, header: Header, image_wh: tuple[int, int]
                   ) -> WholebodyPoseArray:
    return WholebodyPoseArray(
        header=header, skeleton=NAME, image_width=image_wh[0], image_height=image_wh[1],
        people=[_person(person) for person in frame.people])


def _person(person: PersonPose) -> WholebodyPose:
    message = WholebodyPose()
    message.id, message.track_state = person.id, int(person.track_state)
    message.score = float(person.score)
    message.bbox_xywh = np.asarray(person.box_xywh, dtype=np.float32)
    message.xy = float_array(person.keypoints_xy)
    message.keypoint_scores = float_array(person.keypoint_scores)
    if person.keypoints_xyz is not None:
        message.xyz = float_array(person.keypoints_xyz)
    return message


def skeleton_message(header: Header) -> SkeletonInfo:
    """What the 133 keypoints mean."""
    pairs = [(i, int(j)) for i, j in enumerate(FLIP) if i < j]
    return SkeletonInfo(
        header=header, name=NAME, keypoint_names=list(COCO_WHOLEBODY_133.names),
        edges=_shorts(COCO_WHOLEBODY_133.edges), group=array.array("B", GROUP.tobytes()),
        flip_pairs=_shorts(pairs))


def _shorts(pairs: Any) -> array.array:
    return array.array("H", (int(value) for pair in pairs for value in pair))


def person_boxes_message(frame: PeopleFrame, header: Header) -> Any:
    """vision_msgs/Detection2DArray: the boxes of those who are seen in this image."""
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    message = Detection2DArray(header=header)
    for person in frame.people:
        if person.track_state in UNSEEN:
            continue
        item = Detection2D(header=header, id=person.id)
        x, y, width, height = (float(value) for value in person.box_xywh)
        item.bbox.center.position.x, item.bbox.center.position.y = x + width / 2, y + height / 2
        item.bbox.size_x, item.bbox.size_y = width, height
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = PERSON, float(person.score)
        item.results.append(result)
        message.detections.append(item)
    return message


def body_frames_message(frame: PeopleFrame, header: Header) -> Any | None:
    """tf2_msgs/TFMessage: `body_<id>` in the image's frame, of who is TRACKED in this image.

    None where there is no such person, or none whose trunk is known in metres. Those who are not
    confirmed are left out, because tf2 remembers every frame that it was once told of.
    """
    from tf2_msgs.msg import TFMessage

    transforms = []
    for person in frame.people:
        if not person.id or person.track_state is not TrackState.TRACKED:
            continue
        T = None if person.keypoints_xyz is None else body_frame(person.keypoints_xyz)
        if T is not None:
            transforms.append(_transform(T, header, f"body_{person.id}"))
    return TFMessage(transforms=transforms) if transforms else None


def _transform(T: np.ndarray, header: Header, child: str) -> TransformStamped:
    """T: (4, 4) metres, maps points of `child` into `header.frame_id`, as tf2 wants it."""
    message = TransformStamped(header=header, child_frame_id=child)
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = T[:3, 3].tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion_from_matrix(T[:3, :3]).tolist()
    return message


# --- markers -----------------------------------------------------------------------------------


def people_markers_message(frame: PeopleFrame, header: Header, lifetime_s: float) -> MarkerArray:
    """Skeletons in metres of everyone who has any, after a leading DELETEALL."""
    message = delete_all_message(header)
    lifetime = duration_message(lifetime_s)
    for index, person in enumerate(frame.people):
        if person.keypoints_xyz is None or not np.isfinite(person.keypoints_xyz).any():
            continue
        for marker in _person_markers(person):
            marker.header, marker.lifetime = header, lifetime
            marker.id = int(person.id) if person.id.isdecimal() else index
            message.markers.append(marker)
    return message


def _person_markers(person: PersonPose) -> list[Marker]:
    known = np.isfinite(person.keypoints_xyz).all(axis=1)
    points = [Point(x=x, y=y, z=z) if good else None
              for (x, y, z), good in zip(person.keypoints_xyz.tolist(), known)]
    markers = {}
    for name, width in LINE_WIDTHS.items():
        markers[name] = Marker(ns=f"people/{name}", type=Marker.LINE_LIST)
        markers[name].scale.x = width
        markers[name].color.a = 1.0
    for stroke, name, colour in LINES:
        if known[stroke.a] and known[stroke.b]:
            markers[name].points += (points[stroke.a], points[stroke.b])
            markers[name].colors += (colour, colour)
    found = [marker for marker in markers.values() if marker.points]
    if person.id:
        found.append(_label(person, known))
    return found


def _label(person: PersonPose, known: np.ndarray) -> Marker:
    """The id over the highest known point, which has the smallest y in an optical frame."""
    marker = Marker(ns="people/label", type=Marker.TEXT_VIEW_FACING, text=person.id)
    xyz = person.keypoints_xyz[known]
    x, y, z = xyz[np.argmin(xyz[:, 1])].tolist()
    marker.pose.position = Point(x=x, y=y - LABEL_ABOVE, z=z)
    marker.scale.z = LABEL_HEIGHT
    marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    return marker


def _lines() -> tuple:
    """Every line of the drawn skeleton, to which marker it belongs, and its colour."""
    lines = []
    for stroke in STROKES:
        if stroke.a == stroke.b:
            continue
        face = stroke.part == "face" and min(stroke.a, stroke.b) >= 23
        name = "face" if face else "hands" if stroke.part.endswith("hand") else "body"
        red, green, blue = (value / 255.0 for value in stroke.rgb)
        lines.append((stroke, name, ColorRGBA(r=red, g=green, b=blue, a=1.0)))
    return tuple(lines)


LINES = _lines()
