"""wholebody_pose with real files: from picture to keypoints, and failures that say why."""

# ruff: noqa: E402
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")
pytest.importorskip("onnx")

from rclpy.clock import ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from std_srvs.srv import Trigger

from helpers.fake_people import FakePeople
from helpers.people_models import BOX, make_people_models, picture, true_keypoints
from helpers.ros_rig import Rig, fake_node
from helpers.tiny_models import example_scene, make_detector_model
from kd_pose.nodes.conversions import vision_msgs_available
from kd_pose.nodes.wholebody_pose_node import WholebodyPoseNode
from kd_pose.wholebody_keypoints import COUNT

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
OK, ERROR = b"\x00", b"\x02"


@pytest.fixture(scope="module")
def people_models(tmp_path_factory):
    return make_people_models(tmp_path_factory.mktemp("people"))


def test_a_picture_becomes_keypoints(people_models):
    values = {**people_models, "roi_source": "detector"}
    with Rig(values, kind=WholebodyPoseNode, outputs=("people", "timing")) as rig:
        rig.start()
        for second in (1, 2):
            rig.publish(picture(), stamp=(second, 0))
            message = rig.wait_message("people", second)
        person, = message.people
        xy, scores = true_keypoints()
        np.testing.assert_allclose(person.bbox_xywh, BOX, atol=1e-3)
        np.testing.assert_allclose(np.reshape(person.xy, (COUNT, 2)), xy, atol=1e-3)
        np.testing.assert_allclose(person.keypoint_scores, scores, atol=1e-5)
        assert person.id == "1"
        ms = dict(zip(*[(m.stages, m.ms) for m in [rig.wait_message("timing")]][0]))
        assert min(ms[stage] for stage in ("detector", "crop", "network", "decode", "track")) > 0
        rgb = picture()[..., ::-1]
        rig.publish(rgb, stamp=(3, 0), encoding="rgb8")
        person, = rig.wait_message("people", 3).people
        np.testing.assert_allclose(np.reshape(person.xy, (COUNT, 2)), xy, atol=1e-3)


def test_failed_configurations_say_why_and_can_be_mended(people_models, models, tmp_path):
    """One node, mended each time."""
    other = make_detector_model(tmp_path / "objects.onnx", example_scene())
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(open(people_models["model_path"], "rb").read()[:300])
    defaults = {"roi_source": "tracks", "tracking.enable": True, "smoothing.enable": False,
                "publish_tf": False, "use_depth": False, **people_models}
    cases = [
        ({"model_path": ""}, "model_path is empty: give the .onnx file of a whole-body model"),
        ({"detector_path": ""}, "detector_path is empty"),
        ({"model_path": "/no/such.onnx"}, "/no/such.onnx: no such model file"),
        ({"model_path": str(broken)}, "broken.onnx"),
        ({"model_path": models["model_path"]}, "task is 'object_votes'"),
        ({"detector_path": str(other)}, "not person"),
        ({"detector_path": people_models["model_path"]}, "task is 'wholebody'"),
        ({"tracking.enable": False}, "roi_source is tracks, which needs tracking.enable"),
        ({"tracking.enable": False, "roi_source": "detector", "smoothing.enable": True},
         "smoothing.enable needs tracking.enable"),
        ({"publish_tf": True}, "publish_tf is true, which needs use_depth"),
        ({"publish_tf": True, "use_depth": True, "tracking.enable": False,
          "roi_source": "detector"}, "publish_tf is true, which needs tracking.enable"),
    ]
    if not vision_msgs_available():
        cases.append(({"roi_source": "topic"}, "needs the package vision_msgs"))
    with Rig(people_models, kind=WholebodyPoseNode, outputs=()) as rig:
        assert "not configured" in rig.call(Trigger, "reset_tracking", Trigger.Request()).message
        for change, reason in cases:
            set_all(rig, {**defaults, **change})
            assert rig.node.trigger_configure() == FAILURE, change
            status = rig.wait_status("model", ERROR, reason)
            assert status.message.startswith("could not configure")
            assert rig.node.estimator is None
        set_all(rig, defaults)
        assert rig.node.trigger_configure() == SUCCESS
        rig.wait_status("model", OK)
        assert rig.state() == "inactive"


@pytest.mark.parametrize("missing", ["tf2_msgs", "tf2_msgs.msg"])
def test_tf_without_its_package_is_refused_with_its_name(monkeypatch, missing):
    """Also where it is installed: None among the loaded modules makes Python not find it."""
    monkeypatch.setitem(sys.modules, missing, None)
    values = {"publish_tf": True, "use_depth": True}
    with Rig(values, kind=fake_node(FakePeople(), WholebodyPoseNode), outputs=()) as rig:
        assert rig.node.trigger_configure() == FAILURE
        rig.wait_status("model", ERROR, "needs the package tf2_msgs, and that is not installed "
                                        "(apt install ros-<distro>-tf2-msgs)")
        set_all(rig, {"publish_tf": False})
        assert rig.node.trigger_configure() == SUCCESS
        assert "/tf" not in [publisher.topic_name for publisher in rig.node.publishers]


def set_all(rig, values):
    results = rig.node.set_parameters([Parameter(k, value=v) for k, v in values.items()])
    assert all(result.successful for result in results)


def test_deactivation_clears_tracks_and_clean_up_frees_the_model():
    fake = FakePeople([(20, 20, 50, 50)])
    with Rig(kind=fake_node(fake, WholebodyPoseNode), outputs=("people",)) as rig:
        rig.start().publish(picture(), stamp=(1, 0))
        assert rig.wait_message("people").people[0].id == "1"
        assert rig.node.trigger_deactivate() == SUCCESS
        rig.start_again()
        rig.publish(picture(), stamp=(1, 100))
        assert rig.wait_message("people", 2).people[0].id == "2"
        assert rig.node.trigger_deactivate() == SUCCESS
        assert rig.node.trigger_cleanup() == SUCCESS
        assert fake.closed and rig.node.estimator is None


def test_time_that_jumps_back_starts_afresh():
    with Rig(kind=fake_node(FakePeople([(20, 20, 50, 50)]), WholebodyPoseNode),
             outputs=("people", "timing")) as rig:
        rig.start().publish(picture(), stamp=(49, 0))
        assert rig.wait_message("people").people[0].id == "1"
        clock = rig.node.get_clock()
        rig.node.set_parameters([Parameter("use_sim_time", value=True)])
        clock.set_ros_time_override(Time(seconds=50, clock_type=ClockType.ROS_TIME))
        clock.set_ros_time_override(Time(seconds=10, clock_type=ClockType.ROS_TIME))
        rig.publish(picture(), stamp=(49, 100))
        assert rig.wait_message("people", 2).people[0].id == "2"
        assert rig.wait_message("timing", 2).received == 1


def test_the_executable_ends_with_an_error_if_asked_to():
    command = [sys.executable, "-c", "import sys; from kd_pose.nodes.wholebody_pose_node import "
               "main; sys.exit(main())", "--ros-args", "-p", "exit_on_failure:=true",
               "-p", "model_path:=/no/such.onnx", "-p", "detector_path:=/no/d.onnx"]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "/no/such.onnx: no such model file" in result.stderr
