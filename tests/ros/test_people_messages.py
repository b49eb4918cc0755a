"""kd_pose.nodes.people_messages."""

# ruff: noqa: E402
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from helpers.fake_people import true_points
from kd_pose.nodes.people_messages import (
    people_markers_message,
    people_message,
    skeleton_message,
)
from kd_pose.results import PeopleFrame, PersonPose, TrackState
from kd_pose.wholebody_keypoints import COUNT
from kd_pose_msgs.msg import WholebodyPose, WholebodyPoseArray

HEADER = Header(stamp=Time(sec=7, nanosec=9), frame_id="optical")


def person(x=0.0, xyz=True, **fields):
    points = true_points((x, 50, 80, 200))
    space = np.column_stack([(points - (320, 240)) / 250.0, np.full(COUNT, 2.0)])
    values = dict(box_xywh=np.array([x, 50, 80, 200.0]), score=0.5, keypoints_xy=points,
                  keypoint_scores=np.linspace(0, 1, COUNT), keypoints_xyz=space if xyz else None)
    return PersonPose(**{**values, **fields})


def test_a_person_arrives_as_it_was_estimated():
    frame = PeopleFrame([person(id="7", track_state=TrackState.COASTING), person(xyz=False)])
    frame.people[0].keypoints_xyz[3] = np.nan
    sent = people_message(frame, HEADER, (640, 480))
    got = deserialize_message(serialize_message(sent), WholebodyPoseArray)
    first, second = got.people
    assert (first.id, first.track_state, first.score) == ("7", WholebodyPose.COASTING, 0.5)
    np.testing.assert_allclose(first.bbox_xywh, [0, 50, 80, 200])
    np.testing.assert_allclose(np.reshape(first.xy, (-1, 2)), frame.people[0].keypoints_xy,
                               atol=1e-4)
    np.testing.assert_allclose(np.reshape(first.xyz, (-1, 3)), frame.people[0].keypoints_xyz,
                               atol=1e-6)
    assert np.isnan(first.xyz[9:12]).all()
    np.testing.assert_allclose(first.keypoint_scores, np.linspace(0, 1, COUNT), atol=1e-6)
    assert second.id == "" and len(second.xyz) == 0


def test_ten_people_cost_less_than_a_millisecond():
    frame = PeopleFrame([person(10.0 * i) for i in range(10)])
    costs = []
    for _ in range(30):
        start = time.process_time()
        people_message(frame, HEADER, (640, 480))
        costs.append(time.process_time() - start)
    assert min(costs) < 1e-3


def test_skeleton_round_trip():
    sent = skeleton_message(HEADER)
    assert deserialize_message(serialize_message(sent), type(sent)) == sent
    assert len(sent.keypoint_names) == len(sent.group) == COUNT


def test_markers_leave_out_what_is_unknown():
    whole, half, flat = person(id="3"), person(), person(xyz=False)
    half.keypoints_xyz[17:] = np.nan
    nobody = person()
    nobody.keypoints_xyz[:] = np.nan
    message = people_markers_message(PeopleFrame([whole, half, flat, nobody]), HEADER, 0.5)
    assert message.markers[0].action == message.markers[0].DELETEALL
    found = {(marker.ns, marker.id): marker for marker in message.markers[1:]}
    assert set(found) == {("people/body", 3), ("people/hands", 3), ("people/face", 3),
                          ("people/label", 3), ("people/body", 1)}
    for marker in message.markers:
        assert marker.header == HEADER
    for marker in found.values():
        points = np.array([[p.x, p.y, p.z] for p in marker.points])
        assert np.isfinite(points).all()
    assert len(found["people/hands", 3].points) == 2 * 40  # 20 lines a hand
    assert len(found["people/face", 3].points) == 2 * 63
    assert found["people/label", 3].text == "3"
    assert serialize_message(message)


def test_nobody():
    assert people_message(PeopleFrame(), HEADER, (4, 3)).people == []
    assert len(people_markers_message(PeopleFrame(), HEADER, 0.0).markers) == 1
