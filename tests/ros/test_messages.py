"""kd_pose_msgs has what the interface promises, and what is filled in arrives.

The expected fields are written out here a second time on purpose: robot stacks build on them, so a
change has to be made in two places.
"""

from __future__ import annotations

import array
import math

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion, Vector3
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from kd_pose.results import TrackState
from kd_pose_msgs import msg, srv

MESSAGES = {
    "ObjectPoseArray": {
        "header": "std_msgs/Header",
        "objects": "sequence<kd_pose_msgs/ObjectPose>",
    },
    "ObjectPose": {
        "class_id": "string",
        "id": "string",
        "track_state": "uint8",
        "score": "float",
        "pose": "geometry_msgs/PoseWithCovariance",
        "covariance_valid": "boolean",
        "box_center": "geometry_msgs/Pose",
        "box_size": "geometry_msgs/Vector3",
        "keypoints_xy": "sequence<float>",
        "keypoint_scores": "sequence<float>",
        "reprojection_error_px": "float",
        "inliers": "uint16",
        "last_seen": "builtin_interfaces/Time",
    },
    "ObjectInfoArray": {
        "header": "std_msgs/Header",
        "objects": "sequence<kd_pose_msgs/ObjectInfo>",
    },
    "ObjectInfo": {
        "class_id": "string",
        "diameter": "double",
        "box_center": "geometry_msgs/Pose",
        "box_size": "geometry_msgs/Vector3",
        "symmetries_discrete": "sequence<geometry_msgs/Pose>",
        "symmetry_axes": "sequence<geometry_msgs/Vector3>",
        "symmetry_offsets": "sequence<geometry_msgs/Vector3>",
        "mesh_uri": "string",
    },
    "WholebodyPoseArray": {
        "header": "std_msgs/Header",
        "skeleton": "string",
        "image_width": "uint32",
        "image_height": "uint32",
        "people": "sequence<kd_pose_msgs/WholebodyPose>",
    },
    "WholebodyPose": {
        "id": "string",
        "track_state": "uint8",
        "score": "float",
        "bbox_xywh": "float[4]",
        "xy": "sequence<float>",
        "keypoint_scores": "sequence<float>",
        "xyz": "sequence<float>",
    },
    "SkeletonInfo": {
        "header": "std_msgs/Header",
        "name": "string",
        "keypoint_names": "sequence<string>",
        "edges": "sequence<uint16>",
        "group": "sequence<uint8>",
        "flip_pairs": "sequence<uint16>",
    },
    "Timing": {
        "header": "std_msgs/Header",
        "stages": "sequence<string>",
        "ms": "sequence<float>",
        "received": "uint64",
        "processed": "uint64",
        "replaced": "uint64",
        "unsynced": "uint64",
        "rejected": "uint64",
    },
}
SERVICES = {
    "SetTargetObjects": (
        {"class_ids": "sequence<string>"},
        {"success": "boolean", "message": "string", "unknown": "sequence<string>"},
    ),
    "EstimateObjects": (
        {"timeout": "builtin_interfaces/Duration"},
        {"success": "boolean", "message": "string", "result": "kd_pose_msgs/ObjectPoseArray"},
    ),
    "EstimatePeople": (
        {"timeout": "builtin_interfaces/Duration"},
        {"success": "boolean", "message": "string", "result": "kd_pose_msgs/WholebodyPoseArray"},
    ),
}


def fields(kind) -> dict[str, str]:
    return dict(kind.get_fields_and_field_types())


def round_trip(message):
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize("name", MESSAGES)
def test_message_has_the_fields_of_the_interface(name):
    assert fields(getattr(msg, name)) == MESSAGES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_the_fields_of_the_interface(name):
    request, response = SERVICES[name]
    assert fields(getattr(srv, name).Request) == request
    assert fields(getattr(srv, name).Response) == response


def test_nothing_is_untested():
    assert {name for name in vars(msg) if name[0].isupper()} == set(MESSAGES)
    found = {name for name in vars(srv) if name[0].isupper() and "_" not in name}
    assert found == set(SERVICES)


@pytest.mark.parametrize("kind", [msg.ObjectPose, msg.WholebodyPose])
def test_track_states_are_those_of_the_library(kind):
    for state in TrackState:
        assert getattr(kind, state.name) == int(state)


def header(sec=12, nanosec=345, frame_id="camera_optical") -> Header:
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def pose(x=0.1) -> Pose:
    return Pose(position=Point(x=x, y=0.2, z=0.3),
                orientation=Quaternion(x=0.5, y=0.5, z=-0.5, w=0.5))


def object_pose() -> msg.ObjectPose:
    return msg.ObjectPose(
        class_id="can", id="3", track_state=msg.ObjectPose.COASTING, score=0.75,
        pose=PoseWithCovariance(pose=pose(), covariance=[float(i) for i in range(36)]),
        covariance_valid=True, box_center=pose(0.4), box_size=Vector3(x=0.1, y=0.2, z=0.3),
        keypoints_xy=array.array("f", range(16)), keypoint_scores=array.array("f", [0.5] * 8),
        reprojection_error_px=1.25, inliers=65535, last_seen=Time(sec=11, nanosec=9))


def test_objects_arrive_as_they_were_sent():
    sent = msg.ObjectPoseArray(header=header(), objects=[object_pose(), msg.ObjectPose()])
    got = round_trip(sent)
    assert got == sent
    assert list(got.objects[0].keypoints_xy) == list(range(16))
    assert got.objects[0].pose.covariance[35] == 35.0
    # What nobody filled in claims nothing.
    assert not got.objects[1].covariance_valid and not got.objects[1].pose.covariance.any()
    assert got.objects[1].track_state == msg.ObjectPose.TENTATIVE


def test_object_info_arrives_as_it_was_sent():
    sent = msg.ObjectInfoArray(header=header(), objects=[msg.ObjectInfo(
        class_id="can", diameter=0.123456789, box_center=pose(),
        box_size=Vector3(x=0.1, y=0.2, z=0.3), symmetries_discrete=[pose(0.0), pose(1.0)],
        symmetry_axes=[Vector3(z=1.0)], symmetry_offsets=[Vector3(x=0.5)],
        mesh_uri="package://kd_pose/meshes/can.ply")])
    assert round_trip(sent) == sent


def test_people_arrive_as_they_were_sent_with_unknown_points_as_nan():
    person = msg.WholebodyPose(
        id="7", track_state=msg.WholebodyPose.TRACKED, score=0.5, bbox_xywh=[1.5, 2.5, 30.0, 40.0],
        xy=array.array("f", [1.0, 2.0, math.nan, math.nan]),
        keypoint_scores=array.array("f", [0.9, 0.0]), xyz=array.array("f"))
    sent = msg.WholebodyPoseArray(header=header(), skeleton="coco_wholebody_133",
                                  image_width=640, image_height=480, people=[person])
    got = round_trip(sent)
    assert (got.header, got.skeleton, got.image_width, got.image_height) == (
        sent.header, sent.skeleton, 640, 480)
    assert list(got.people[0].bbox_xywh) == [1.5, 2.5, 30.0, 40.0]
    assert list(got.people[0].xy[:2]) == [1.0, 2.0] and math.isnan(got.people[0].xy[3])
    assert len(got.people[0].xyz) == 0


def test_skeleton_and_timing_arrive_as_they_were_sent():
    skeleton = msg.SkeletonInfo(
        header=header(), name="two", keypoint_names=["left", "right"], edges=[0, 1],
        group=[msg.SkeletonInfo.LEFT_HAND, msg.SkeletonInfo.RIGHT_HAND], flip_pairs=[0, 1])
    timing = msg.Timing(header=header(), stages=["crop", "network"], ms=[0.25, 40.0],
                        received=2**63, processed=3, replaced=2, unsynced=1, rejected=0)
    for sent in (skeleton, timing):
        assert round_trip(sent) == sent
    assert [msg.SkeletonInfo.BODY, msg.SkeletonInfo.FEET, msg.SkeletonInfo.FACE,
            msg.SkeletonInfo.LEFT_HAND, msg.SkeletonInfo.RIGHT_HAND] == [0, 1, 2, 3, 4]


def test_services_arrive_as_they_were_sent():
    result = msg.ObjectPoseArray(header=header(), objects=[object_pose()])
    people = msg.WholebodyPoseArray(header=header(), people=[msg.WholebodyPose(id="1")])
    for sent in (
        srv.SetTargetObjects.Request(class_ids=["can", "carton"]),
        srv.SetTargetObjects.Response(success=False, message="unknown: x", unknown=["x"]),
        srv.EstimateObjects.Request(timeout=Duration(sec=1)),
        srv.EstimateObjects.Response(success=True, result=result),
        srv.EstimatePeople.Request(timeout=Duration(nanosec=5)),
        srv.EstimatePeople.Response(success=True, result=people),
    ):
        assert round_trip(sent) == sent


def test_wrong_types_are_refused():
    for field, value in (("inliers", 65536), ("track_state", -1), ("class_id", 3),
                         ("keypoints_xy", ["a"])):
        with pytest.raises((AssertionError, TypeError, ValueError, OverflowError)):
            serialize_message(msg.ObjectPose(check_fields=True, **{field: value}))
