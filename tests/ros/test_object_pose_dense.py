"""object_pose over DDS with a dense network: nothing in the node knows the difference."""

# ruff: noqa: E402
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")
pytest.importorskip("onnx")

from rclpy.lifecycle import TransitionCallbackReturn

from helpers.dense_models import make_dense_model
from helpers.ros_rig import Rig, info_message, matrix
from helpers.tiny_models import example_camera, example_scene, make_detector_model
from kd_pose.geometry import rotation_angle_deg


@pytest.mark.parametrize("distorted", [False, True], ids=["pinhole", "distorted"])
def test_poses_arrive_as_with_votes(tmp_path, distorted):
    scene = example_scene(example_camera(distorted=distorted))
    paths = {
        "model_path": str(make_dense_model(tmp_path / "dense.onnx", scene)),
        "detector_path": str(make_detector_model(tmp_path / "detector.onnx", scene)),
        "primary_target": "can",
        "threads": 1,
    }
    outputs = ("objects", "timing", "target_pose", "object_info", "markers")
    with Rig(paths, outputs=outputs) as rig:
        rig.start().publish(scene.image(), info_message(scene.camera))
        message = rig.wait_message("objects")
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (100, 5)
        found = {item.class_id: item for item in message.objects}
        assert set(found) == {"block", "can"}
        for index, spec in enumerate(scene.specs):
            item = found[spec.name]
            T = matrix(item.pose.pose)
            assert np.linalg.norm(T[:3, 3] - scene.poses[index][:3, 3]) < 1e-3
            assert rotation_angle_deg(T[:3, :3], scene.poses[index][:3, :3]) < 0.4
            assert item.inliers >= 200 and item.covariance_valid
            assert len(item.keypoint_scores) == 8
        target = matrix(rig.wait_message("target_pose").pose.pose)
        np.testing.assert_allclose(target[:3, 3], scene.poses[1][:3, 3], atol=1e-3)
        assert len(rig.wait_message("markers").markers) == 1 + 3 * 2
        info = rig.wait_message("object_info")
        assert [item.class_id for item in info.objects] == ["block", "can"]
        timing = rig.wait_message("timing")
        assert dict(zip(timing.stages, timing.ms))["decode"] > 0


def test_a_damaged_code_table_is_a_failed_configuration(tmp_path):
    scene = example_scene()
    path = make_dense_model(tmp_path / "dense.onnx", scene)
    data = path.read_bytes()
    assert data.count(b"codes-1") == 2
    path.write_bytes(data.replace(b"codes-1", b"codes-7"))
    detector = make_detector_model(tmp_path / "detector.onnx", scene)
    with Rig({"model_path": str(path), "detector_path": str(detector)}) as rig:
        assert rig.node.trigger_configure() != TransitionCallbackReturn.SUCCESS
        rig.wait_status("model", b"\x02", "codes-7")
