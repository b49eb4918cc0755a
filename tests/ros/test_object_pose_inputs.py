"""object_pose: topics that are missing, mismatched, out of step or latched, told and outlived."""

# ruff: noqa: E402
import time

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

import rclpy
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from helpers.ros_rig import (
    BEST_EFFORT,
    LATCHED,
    RELIABLE,
    FakeEstimator,
    Rig,
    fake_node,
    info_message,
    wait_for,
)

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"


def test_missing_camera_info_is_named(scene):
    with Rig({"diagnostics.input_timeout_s": 0.3, "sync_timeout_s": 0.1},
             kind=fake_node(FakeEstimator())) as rig:
        rig.start()
        for index in range(5):
            rig.publish(scene.image(), None, (index, 0))
            time.sleep(0.1)
        status = rig.wait_status("input", WARN, f"nothing on {rig.namespace}/camera_info")
        assert "1 publisher" in status.message
        rig.publish(scene.image(), info_message(scene.camera), (99, 0))
        assert rig.wait_message("timing").unsynced >= 3


def test_stamps_that_never_match_are_named(scene):
    with Rig({"sync_timeout_s": 0.1}, kind=fake_node(FakeEstimator())) as rig:
        rig.start()
        for index in range(4):
            rig.publish(None, info_message(scene.camera), (index, 7))
            rig.publish(scene.image(), None, (index, 0))
            time.sleep(0.1)
        rig.wait_status("input", WARN, "camera_info with the same stamp")


def test_latest_takes_a_camera_info_that_was_latched_before(scene):
    """One message, published before the node was there, is enough for all images."""
    with Rig({"camera_info_sync": "latest"}, kind=fake_node(FakeEstimator())) as rig:
        latched = rig.client.create_publisher(type(info_message(scene.camera)), "camera_info",
                                              LATCHED)
        latched.publish(info_message(scene.camera))
        rig.start()
        for index in range(1, 4):
            rig.publish(scene.image(), None, (index, 0))
            rig.wait_message("objects", index)


@pytest.mark.parametrize("event", ["pause", "jump"])
def test_a_camera_info_that_was_latched_outlives(scene, event):
    """Who latches it does not publish it again after a pause, or because a bag starts anew."""
    with Rig({"camera_info_sync": "latest"}, kind=fake_node(FakeEstimator())) as rig:
        latched = rig.client.create_publisher(type(info_message(scene.camera)), "camera_info",
                                              LATCHED)
        latched.publish(info_message(scene.camera))
        rig.start()
        rig.publish(scene.image(), None, (1, 0))
        rig.wait_message("objects", 1)
        if event == "pause":
            for value in (False, True):
                rig.node._on_enable(SetBool.Request(data=value), SetBool.Response())
        else:
            rig.node._on_time_jump(None)
        rig.publish(scene.image(), None, (2, 0))
        rig.wait_message("objects", 2)


def test_a_latched_camera_info_is_taken_while_paused(scene):
    with Rig({"camera_info_sync": "latest"}, kind=fake_node(FakeEstimator())) as rig:
        rig.node._on_enable(SetBool.Request(data=False), SetBool.Response())
        latched = rig.client.create_publisher(type(info_message(scene.camera)), "camera_info",
                                              LATCHED)
        latched.publish(info_message(scene.camera))
        rig.start()
        wait_for(lambda: rig.node._inputs.topics[1].received)
        rig.node._on_enable(SetBool.Request(data=True), SetBool.Response())
        rig.publish(scene.image(), None, (1, 0))
        rig.wait_message("objects", 1)


def test_stamps_that_match_no_more_are_named(scene):
    settings = {"sync_timeout_s": 0.1, "diagnostics.input_timeout_s": 0.5}
    with Rig(settings, kind=fake_node(FakeEstimator())) as rig:
        rig.start()

        def said(level, text, off):
            """Whether a status says so while images and their camera_info come."""
            rig.received["diagnostics"].clear()
            for index in range(80):
                rig.publish(None, info_message(scene.camera), (index, off))
                rig.publish(scene.image(), None, (index, 0))
                time.sleep(0.1)
                if any(status.level == level and text in status.message
                       for status in rig.statuses("input")):
                    return True
            return False

        assert said(OK, "images arrive", 0)
        assert rig.wait_message("timing").processed > 0
        assert said(WARN, "camera_info with the same stamp", 7)
        assert said(OK, "images arrive", 0)  # and that it is over


def test_a_publisher_of_another_type_is_named(scene):
    with Rig({"diagnostics.input_timeout_s": 0.2}, kind=fake_node(FakeEstimator())) as rig:
        rig.client.destroy_publisher(rig.image)
        other = Context()  # of another process, as one participant has one type a topic
        rclpy.init(context=other, domain_id=rig.context.get_domain_id())
        camera = Node("camera", context=other, namespace=rig.namespace)
        try:
            camera.create_publisher(CompressedImage, "image", 5)
            assert rig.node.trigger_configure() == rig.node.trigger_activate() == SUCCESS
            status = rig.wait_status("input", WARN, "as sensor_msgs/msg/CompressedImage, not "
                                     "sensor_msgs/msg/Image")
            assert "set image_transport to compressed" in status.message
        finally:
            camera.destroy_node()
            other.try_shutdown()


def test_a_qos_mismatch_names_topic_and_parameter(scene):
    """A subscription made reliable by parameter does not match a best-effort camera."""
    rigs = Rig({"diagnostics.input_timeout_s": 0.2}, kind=fake_node(FakeEstimator()),
               publisher_qos=BEST_EFFORT, namespace="/mismatch")
    with rigs as rig:
        rig.node._parameter_overrides[
            "qos_overrides./mismatch/image.subscription.reliability"
        ] = Parameter("x", value="reliable")
        assert rig.node.trigger_configure() == SUCCESS
        assert rig.node.trigger_activate() == SUCCESS
        status = rig.wait_status("input", ERROR, "/mismatch/image offers another reliability")
        assert "qos_overrides./mismatch/image.subscription.reliability" in status.message
        rig.client.destroy_publisher(rig.image)  # with it goes what was wrong
        rig.image = rig.client.create_publisher(Image, "image", RELIABLE)
        rig.wait_status("input", WARN, "nothing on /mismatch/image")
        rig.wait_connected()
        rig.received["diagnostics"].clear()
        for index in range(40):
            rig.publish(scene.image(), info_message(scene.camera), (index, 0))
            if wait_for(lambda: [status for status in rig.statuses("input")
                                 if status.level == OK], 0.1, check=False):
                return
        raise AssertionError(rig.statuses("input")[-1].message)


@pytest.mark.parametrize("topic, policy, value, allowed", [
    ("camera_info", "depth", -3, "a whole number from 0 to 1000000"),
    ("image", "depth", "many", "a whole number from 0 to 1000000"),
    ("image", "reliability", "foo", "one of system_default, reliable, best_effort"),
    ("camera_info", "history", "unknown", "one of system_default, keep_last, keep_all"),
])
def test_wrong_qos_overrides_are_named(topic, policy, value, allowed):
    name = f"qos_overrides./wrong_qos/{topic}.subscription.{policy}"
    rigs = Rig({name: value}, kind=fake_node(FakeEstimator()), namespace="/wrong_qos")
    with rigs as rig:
        assert rig.node.trigger_configure() == SUCCESS
        assert rig.node.trigger_activate() == FAILURE
        status = rig.wait_status("model", ERROR, f"could not activate: {name} must be {allowed}")
        assert f"got {value!r}" in status.message
        assert rig.state() == "inactive"
        wait_for(lambda: not rig.image.get_subscription_count())  # nothing is left half made


def test_qos_overrides_of_topics_that_are_not_there_are_reported():
    good = {f"qos_overrides./lost_qos/{name}.subscription.depth": 3
            for name in ("image", "image/compressed", "camera_info")}
    lost = "qos_overrides.image.subscription.depth"  # the slash was forgotten
    rigs = Rig({**good, lost: 3, "qos_overrides./clock.subscription.depth": 2},
               kind=fake_node(FakeEstimator()), namespace="/lost_qos")
    with rigs as rig:
        assert rig.node.trigger_configure() == SUCCESS
        rig.wait_status("model", WARN, "unknown parameter(s) given: qos_overrides.image.")
        assert rig.node.health.unknown == [lost]
