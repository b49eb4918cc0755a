"""object_pose: transitions, failures that say why, newest frame only, and staying alive."""

# ruff: noqa: E402
import gc
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.clock import ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from std_srvs.srv import SetBool

from helpers.ros_rig import (
    FakeEstimator,
    Rig,
    fake_node,
    info_message,
    wait_for,
)
from kd_pose.nodes.conversions import vision_msgs_available
from kd_pose_msgs.srv import EstimateObjects

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"


def cut(path, folder, share):
    """A copy of the file that ends early."""
    data = open(path, "rb").read()
    cut_path = folder / "cut.onnx"
    cut_path.write_bytes(data[: int(len(data) * share)])
    return str(cut_path)


def without_manifest(folder):
    from helpers.tiny_models import write_onnx

    path = folder / "foreign.onnx"
    write_onnx(path, (8, 8), np.zeros((4, 1)), np.zeros((4, 1, 8, 2)), {})
    return str(path)


@pytest.mark.parametrize("change, reason", [
    (lambda m, d: {"model_path": ""}, "model_path is empty"),
    (lambda m, d: {"detector_path": ""}, "detector_path is empty"),
    (lambda m, d: {"model_path": str(d / "absent.onnx")}, "absent.onnx: no such model file"),
    (lambda m, d: {"model_path": m["detector_path"]}, "task is 'object_detector'"),
    (lambda m, d: {"model_path": cut(m["model_path"], d, 0.5)}, "cut.onnx"),
    (lambda m, d: {"model_path": without_manifest(d)}, "not exported by kd_pose"),
    (lambda m, d: {"backend": "tensorrt"}, "tensorrt"),
    (lambda m, d: {"backend": "guess"}, "backend must be one of auto"),
    (lambda m, d: {"target_objects": ["cup"]}, "unknown cup"),
    (lambda m, d: {"primary_target": "cup"}, "primary_target 'cup'"),
    (lambda m, d: {"publish_tf": True}, "not yet in this version"),
    (lambda m, d: {"use_depth": True}, "not yet in this version"),
    (lambda m, d: {"tracking.enable": True}, "not yet in this version"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_failed_configure_says_why_and_can_be_mended(models, tmp_path, change, reason):
    with Rig({**models, **change(models, tmp_path)}) as rig:
        assert rig.node.trigger_configure() == FAILURE
        status = rig.wait_status("model", ERROR, reason)
        assert status.message.startswith("could not configure")
        assert rig.state() == "unconfigured"
        changed = change(models, tmp_path)
        defaults = {"backend": "auto", "target_objects": [], "primary_target": "",
                    "publish_tf": False, "use_depth": False, "tracking.enable": False}
        results = rig.node.set_parameters([
            Parameter(name, value={**defaults, **models}[name]) for name in changed])
        assert all(result.successful for result in results)
        assert rig.node.trigger_configure() == SUCCESS
        rig.wait_status("model", OK)


@pytest.mark.skipif(vision_msgs_available(), reason="vision_msgs is installed")
def test_boxes_from_a_topic_need_vision_msgs(models):
    with Rig({**models, "roi_source": "topic"}) as rig:
        assert rig.node.trigger_configure() == FAILURE
        rig.wait_status("model", ERROR, "vision_msgs")


def test_lifecycle_cycles(models, scene):
    with Rig(models, outputs=("objects", "markers")) as rig:
        threads = threading.active_count()
        for cycle in range(5):
            rig.start()
            seen = len(rig.received["objects"])
            rig.publish(scene.image(), info_message(scene.camera), (cycle + 1, 0))
            assert len(rig.wait_message("objects", seen + 1).objects) == 2
            wait_for(lambda: [m for m in rig.received["markers"] if len(m.markers) == 7])
            rig.received["markers"].clear()
            assert rig.node.trigger_deactivate() == SUCCESS
            cleared = rig.wait_message("markers").markers
            assert [marker.action for marker in cleared] == [cleared[0].DELETEALL]
            rig.received["markers"].clear()
            wait_for(lambda: not rig.image.get_subscription_count())
            assert rig.node.trigger_cleanup() == SUCCESS
            assert rig.node.estimator is None
            assert rig.state() == "unconfigured"
        wait_for(lambda: threading.active_count() == threads)  # the last one may still be ending


def test_shutdown_from_active_frees_the_model():
    fake = FakeEstimator()
    with Rig(kind=fake_node(fake)) as rig:
        rig.start()
        assert rig.node.trigger_shutdown() == SUCCESS
        assert fake.closed and rig.state() == "finalized"


def test_autostart_and_its_failure(models):
    with Rig({**models, "autostart": True}) as rig:
        rig.wait_connected()
        assert rig.state() == "active"
    with Rig({"autostart": True}) as rig:
        rig.wait_status("model", ERROR, "model_path is empty")
        assert rig.state() == "unconfigured" and not rig.node.done.done()
    with Rig({"autostart": True, "exit_on_failure": True}) as rig:
        wait_for(rig.node.done.done)
        assert rig.node.done.result() == 1


@pytest.mark.parametrize("wanted, named", [
    (Transition(id=Transition.TRANSITION_CLEANUP), "with the id 2"),
    (Transition(id=Transition.TRANSITION_ACTIVATE), "with the id 3"),
    (Transition(id=99), "with the id 99"),
    (Transition(label="activate"), "'activate'"),
], ids=str)
def test_a_transition_that_does_not_fit_is_refused(wanted, named):
    """rclpy's own service raises, which ends the process, or refuses without a word."""
    with Rig(kind=fake_node(FakeEstimator())) as rig:
        said = []
        rig.node.get_logger().warning = said.append
        request = ChangeState.Request(transition=wanted)
        assert not rig.call(ChangeState, "change_state", request).success
        assert rig.state() == "unconfigured"
        assert named in said[0] and "the node is unconfigured" in said[0]
        assert "configure (1), shutdown (5)" in said[0]


def test_transitions_that_fit_are_made_by_service():
    """What a lifecycle manager sends to a node that has started by itself is refused, too."""
    with Rig({"autostart": True}, kind=fake_node(FakeEstimator())) as rig:
        rig.wait_connected()

        def change(**wanted):
            request = ChangeState.Request(transition=Transition(**wanted))
            return rig.call(ChangeState, "change_state", request).success

        wait_for(lambda: rig.state() == "active")
        assert not change(id=Transition.TRANSITION_CONFIGURE)
        assert rig.state() == "active"
        assert change(id=Transition.TRANSITION_DEACTIVATE) and change(label="activate")
        assert rig.state() == "active"


@pytest.mark.parametrize("done, state", [
    (("configure",), "active"), (("configure", "activate"), "active"),
    (("shutdown",), "finalized")])
def test_autostart_does_not_repeat_what_a_client_did(done, state):
    with Rig({"exit_on_failure": True}, kind=fake_node(FakeEstimator())) as rig:
        for name in done:
            assert getattr(rig.node, f"trigger_{name}")() == SUCCESS
        rig.node._autostart_timer = rig.node.create_timer(0.0, rig.node._autostart)
        wait_for(lambda: rig.state() == state)
        time.sleep(0.1)
        assert rig.state() == state and not rig.node.done.done()


def test_two_instances_in_one_process(models, scene):
    with Rig(models) as one, Rig(models) as two:
        one.start()
        two.start()
        one.publish(scene.image(), info_message(scene.camera), (1, 0))
        two.publish(scene.image(), info_message(scene.camera), (2, 0))
        assert one.wait_message("objects").header.stamp.sec == 1
        assert two.wait_message("objects").header.stamp.sec == 2
        time.sleep(0.1)
        assert len(one.received["objects"]) == len(two.received["objects"]) == 1


def test_a_slow_network_gets_the_newest_frame_only(scene):
    """30 Hz in, 0.1 s a frame: about every third is processed and none is older than needed."""
    fake = FakeEstimator(delay_s=0.1)
    image, info = scene.image(), info_message(scene.camera)
    with Rig(kind=fake_node(fake)) as rig:
        rig.start()
        ages, sent = [], {}
        for index in range(1, 41):
            sent[index] = time.monotonic()
            rig.publish(image, info, (index, 0))
            for message in rig.received["objects"][len(ages):]:
                ages.append(time.monotonic() - sent[message.header.stamp.sec])
            time.sleep(1 / 30)
        wait_for(lambda: rig.received["timing"][-1].header.stamp.sec == 40)
        last = rig.received["timing"][-1]
        stamps = [message.header.stamp.sec for message in rig.received["objects"]]
        assert stamps == sorted(stamps)
        assert 8 <= len(stamps) <= 20
        # Best effort: where the machine is busy the middleware may drop an image unseen.
        assert 30 <= last.received <= 40
        assert last.processed == len(stamps)
        assert last.replaced == last.received - len(stamps)
        assert np.median(ages) < 0.3  # 0.1 s of network, 0.1 s for the one before, and some


def test_a_worker_exception_is_counted_and_survived(scene):
    fake = FakeEstimator(result=RuntimeError("network fell over"))
    with Rig(kind=fake_node(fake)) as rig:
        rig.start()
        rig.publish(scene.image(), info_message(scene.camera), (1, 0))
        status = rig.wait_status("inference", ERROR, "network fell over")
        assert {item.key: item.value for item in status.values}["exceptions"] == "1"
        fake.result = None
        rig.publish(scene.image(), info_message(scene.camera), (2, 0))
        assert rig.wait_message("objects").header.stamp.sec == 2


def test_enable_pauses_and_resumes(scene):
    fake = FakeEstimator()
    with Rig(kind=fake_node(fake), outputs=("objects", "markers")) as rig:
        rig.start()
        answer = rig.call(SetBool, "enable", SetBool.Request(data=False))
        assert answer.success and answer.message == "paused"
        assert rig.wait_message("markers").markers[0].action == 3
        rig.wait_status("input", OK, "paused")
        rig.publish(scene.image(), info_message(scene.camera), (1, 0))
        time.sleep(0.2)
        assert fake.calls == 0 and rig.state() == "active"
        assert rig.call(SetBool, "enable", SetBool.Request(data=True)).message == "enabled"
        rig.publish(scene.image(), info_message(scene.camera), (2, 0))
        assert rig.wait_message("objects").header.stamp.sec == 2


def test_parameters_are_checked_while_active(models):
    with Rig(models) as rig:
        rig.start()

        def refuse(name, value):
            result = rig.node.set_parameters([Parameter(name, value=value)])[0]
            assert not result.successful
            return result.reason

        assert "clean up" in refuse("model_path", "other.onnx")
        assert "clean up" in refuse("image_transport", "compressed")
        assert "unknown cup" in refuse("target_objects", ["cup"])
        assert "primary_target" in refuse("primary_target", "cup")
        assert "range" in refuse("score_threshold", 1.5)
        assert "range" in refuse("max_instances", 0)
        assert "list of texts" in refuse("target_objects", "block")
        good = [Parameter("target_objects", value=["can"]),
                Parameter("primary_target", value="can"),
                Parameter("score_threshold", value=0.4), Parameter("min_inliers", value=9),
                Parameter("object_score_threshold", value=0.3),
                Parameter("max_reprojection_error_px", value=3.0)]
        assert rig.node.set_parameters_atomically(good).successful
        options = rig.node.estimator.options
        assert options.target_objects == ("can",) and options.score_threshold == 0.4
        assert options.object_score_threshold == 0.3
        assert (options.min_inliers, options.max_reprojection_error_px) == (9, 3.0)
        assert rig.node.set_parameters([
            Parameter("primary_target", value=""),
            Parameter("target_objects", value=[])])[1].successful
        assert rig.node.estimator.options.target_objects == ()


def test_two_nodes_of_one_name_say_so():
    """Both publish on the same topics; the one that was first learns it, too."""
    overrides, kind = {"autostart": True}, fake_node(FakeEstimator())
    with Rig(overrides, kind=kind, namespace="/twins") as first:
        first.wait_status("model", OK, "fake")
        with Rig(overrides, kind=kind, namespace="/twins") as second:
            for rig in (first, second):
                status = rig.wait_status("model", WARN, "2 nodes are named /twins/object_pose")
                assert "-r __node:=" in status.message
        # A lifecycle node is in the graph until its state machine goes.
        rig = second = status = None
        gc.collect()
        first.received["diagnostics"].clear()
        first.wait_status("model", OK, "fake")


def test_time_that_jumps_back_starts_afresh(scene):
    with Rig(kind=fake_node(FakeEstimator())) as rig:
        rig.start()
        rig.publish(scene.image(), info_message(scene.camera), (1, 0))
        assert rig.wait_message("timing").received == 1
        clock = rig.node.get_clock()
        rig.node.set_parameters([Parameter("use_sim_time", value=True)])
        clock.set_ros_time_override(Time(seconds=50, clock_type=ClockType.ROS_TIME))
        clock.set_ros_time_override(Time(seconds=10, clock_type=ClockType.ROS_TIME))
        assert rig.node._sync.counters.received == 0
        rig.publish(scene.image(), info_message(scene.camera), (9, 0))
        timing = rig.wait_message("timing", 2)
        ages = dict(zip(timing.stages, timing.ms))
        assert timing.received == 1
        assert ages["capture_to_publish"] == pytest.approx(1000.0)  # by the node's own clock


def test_estimate_once_answers_with_the_next_image(scene):
    with Rig(kind=fake_node(FakeEstimator())) as rig:
        rig.start()
        client = rig.client.create_client(EstimateObjects, "object_pose/estimate_once")
        assert client.wait_for_service(10)
        future = client.call_async(EstimateObjects.Request())
        wait_for(lambda: rig.node._once._waiting)
        rig.publish(scene.image(), info_message(scene.camera), (7, 0))
        wait_for(future.done)
        assert future.result().success
        assert future.result().result == rig.wait_message("objects")
