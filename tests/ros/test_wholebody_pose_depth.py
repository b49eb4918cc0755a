"""wholebody_pose with depth over DDS: metres, markers, and depth that does not fit."""

# ruff: noqa: E402
import itertools

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

from helpers.fake_people import FakePeople
from helpers.ros_rig import Rig, fake_node, image_message, info_message, wait_for
from kd_pose.camera import Camera
from kd_pose.nodes.wholebody_pose_node import WholebodyPoseNode
from kd_pose.wholebody_keypoints import COUNT

WARN, ERROR = b"\x01", b"\x02"
CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), 640, 480, "plumb_bob",
                (-0.2, 0.05, 0.0, 0.0, 0.0))
IMAGE = np.zeros((480, 640, 3), np.uint8)
BOX = (200.0, 100.0, 200.0, 300.0)
VALUES = {"use_depth": True, "depth_tolerance_s": 0.02, "sync_timeout_s": 0.3}
_seconds = itertools.count(1000, 100)


@pytest.fixture(scope="module")
def shared():
    fake = FakePeople([BOX])
    with Rig(VALUES, kind=fake_node(fake, WholebodyPoseNode),
             outputs=("people", "markers", "timing")) as rig:
        yield rig.start(), fake


@pytest.fixture
def live(shared):
    rig, fake = shared
    fake.people = [np.array(BOX)]
    rig.node.forget_before_next_image()
    for messages in rig.received.values():
        messages.clear()
    return rig, fake, next(_seconds)


def depth_message(encoding="16UC1", metres=2.0, size=(480, 640)):
    depth = np.full(size, metres)
    if encoding == "16UC1":
        return image_message((1000 * depth).astype(np.uint16), encoding)
    return image_message(depth.astype(np.float32), encoding)


def send(live, depth, **info):
    rig, _, second = live
    rig.publish(IMAGE, info_message(CAMERA, **info), (second, 0), depth=depth)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_keypoints_in_metres_and_skeletons_in_space(live, encoding):
    rig = live[0]
    send(live, depth_message(encoding))
    person, = rig.wait_message("people").people
    xy, xyz = np.reshape(person.xy, (COUNT, 2)), np.reshape(person.xyz, (COUNT, 3))
    assert np.isfinite(xyz).all()
    np.testing.assert_allclose(xyz[:, 2], 2.0, atol=1e-6)
    np.testing.assert_allclose(CAMERA.project(xyz), xy, atol=0.01)  # the lens is undone
    markers = rig.wait_message("markers").markers
    assert markers[0].action == markers[0].DELETEALL
    assert {marker.ns for marker in markers[1:]} == {
        "people/body", "people/hands", "people/face", "people/label"}
    for marker in markers:
        assert marker.header.frame_id == "camera_optical"
        assert marker.header.stamp.sec == live[2]
    body = next(marker for marker in markers if marker.ns == "people/body")
    assert len(body.points) == len(body.colors) and body.lifetime.nanosec == 500_000_000
    assert {point.z for point in body.points} == {2.0}
    timing = rig.wait_message("timing")
    assert dict(zip(timing.stages, timing.ms))["lift"] > 0


def test_holes_are_nan_and_nobody_is_no_marker(live):
    rig, fake, second = live
    send(live, depth_message("32FC1", np.nan))
    person, = rig.wait_message("people").people
    assert len(person.xyz) == 3 * COUNT and np.isnan(person.xyz).all()
    assert np.isfinite(person.xy).all()
    assert len(rig.wait_message("markers").markers) == 1
    fake.people = []
    rig.publish(IMAGE, info_message(CAMERA), (second + 50, 0), depth=depth_message())
    assert rig.wait_message("people", 2).people == []


def test_depth_may_come_a_little_beside(live):
    rig, _, second = live
    depth = depth_message()
    depth.header.stamp.sec, depth.header.stamp.nanosec = second, 15_000_000
    depth.header.frame_id = "camera_optical"
    rig.depth.publish(depth)
    rig.publish(IMAGE, info_message(CAMERA), (second, 0))
    assert np.isfinite(rig.wait_message("people").people[0].xyz).all()


def test_missing_depth_is_named(live):
    rig, _, second = live
    before = rig.node._sync.counters.unsynced
    rig.publish(IMAGE, info_message(CAMERA), (second, 0))
    wait_for(lambda: rig.node._sync.counters.unsynced > before)  # a status looks for old ones
    assert not rig.received["people"]
    assert rig.node._sync.missing == {"depth": rig.node._sync.counters.unsynced}


def cut_short(message):
    message.data = message.data[:100]
    return message


@pytest.mark.parametrize("depth, text", [
    (depth_message(size=(240, 320)), "the depth image is 320x240, the colour image 640x480"),
    (image_message(IMAGE, "bgr8"), "depth encoding 'bgr8' is not supported; use 16UC1"),
    (cut_short(depth_message()), "its depth: the image has 100 bytes"),
], ids=["size", "encoding", "damaged"])
def test_depth_that_does_not_fit_is_refused_by_name(live, depth, text):
    rig = live[0]
    send(live, depth)
    rig.wait_status("input", ERROR, text)
    assert not rig.received["people"]


def test_depth_of_another_frame_is_refused(live):
    rig, _, second = live
    depth = depth_message()
    depth.header.stamp.sec, depth.header.frame_id = second, "depth_optical"
    rig.depth.publish(depth)
    rig.publish(IMAGE, info_message(CAMERA), (second, 0))
    rig.wait_status("input", ERROR, "of the frame 'depth_optical', the image of 'camera_optical'")


def test_an_uncalibrated_camera_is_refused(live):
    rig = live[0]
    send(live, depth_message(), k=np.zeros(9), p=np.zeros(12))
    rig.wait_status("calibration", ERROR, "K[0] of camera_info is 0")
    assert not rig.received["people"]


def test_markers_are_taken_down_with_the_node(live):
    rig = live[0]
    rig.node.trigger_deactivate()
    markers = rig.wait_message("markers").markers
    assert [marker.action for marker in markers] == [markers[0].DELETEALL]
    rig.start_again()
