"""object_pose over DDS: what goes in comes out, with its header."""

# ruff: noqa: E402
import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

from helpers.ros_rig import (
    BEST_EFFORT,
    LATCHED,
    OUTPUTS,
    RELIABLE,
    FakeEstimator,
    Rig,
    fake_node,
    image_message,
    info_message,
    matrix,
    wait_for,
)
from helpers.tiny_models import example_scene
from kd_pose.nodes.conversions import vision_msgs_available
from kd_pose_msgs.msg import ObjectInfoArray

STAMP = (100, 5)  # long ago: nothing may depend on now


def assert_header(header, stamp=STAMP):
    assert (header.stamp.sec, header.stamp.nanosec) == stamp
    assert header.frame_id == "camera_optical"


def test_every_output_has_the_pose_and_the_header_of_the_image(models, scene):
    outputs = tuple(OUTPUTS)
    with Rig({**models, "primary_target": "can"}, outputs=outputs) as rig:
        rig.start().publish(scene.image(), info_message(scene.camera), STAMP)
        objects = rig.wait_message("objects")
        timing = rig.wait_message("timing")
        assert_header(objects.header)
        assert_header(timing.header)
        found = {item.class_id: item for item in objects.objects}
        assert set(found) == {"block", "can"}
        for index, spec in enumerate(scene.specs):
            item = found[spec.name]
            np.testing.assert_allclose(matrix(item.pose.pose), scene.poses[index], atol=1e-3)
            center = scene.poses[index] @ [*spec.box_center, 1.0]
            position = item.box_center.position
            np.testing.assert_allclose([position.x, position.y, position.z], center[:3], atol=1e-3)
            assert item.box_size.z == pytest.approx(spec.box_size[2])
            corners = np.array(item.keypoints_xy).reshape(8, 2)
            np.testing.assert_allclose(corners, scene.corners_px(index), atol=0.5)
            assert item.covariance_valid and item.pose.covariance[0] > 0
            assert item.track_state == 0 and item.id == ""
            assert (item.last_seen.sec, item.last_seen.nanosec) == STAMP
        target = rig.wait_message("target_pose")
        assert_header(target.header)
        np.testing.assert_allclose(matrix(target.pose.pose), scene.poses[1], atol=1e-3)
        check_pictures(rig, scene)
        check_timing(timing)


def check_pictures(rig, scene):
    markers = rig.wait_message("markers").markers
    assert markers[0].action == markers[0].DELETEALL
    assert len(markers) == 1 + 3 * 2
    for marker in markers:
        assert_header(marker.header)
    assert len(markers[1].points) == 24
    picture = rig.wait_message("image_annotated")
    assert_header(picture.header)
    assert (picture.width, picture.height) == (scene.camera.width, scene.camera.height)
    jpeg = rig.wait_message("image_annotated/compressed")
    assert_header(jpeg.header)
    assert cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), 1).shape == (480, 640, 3)


def check_timing(timing):
    ms = dict(zip(timing.stages, timing.ms))
    assert {"wait", "convert", "crop", "detector", "network", "decode", "pose", "publish",
            "capture_to_publish"} <= set(ms)
    assert np.isnan(ms["capture_to_publish"])  # a stamp of 1970 is no time of this clock
    assert all(value >= 0 for name, value in ms.items() if name != "capture_to_publish")
    assert (timing.received, timing.processed, timing.rejected) == (1, 1, 0)


def test_age_is_measured_where_clocks_agree(scene):
    with Rig(kind=fake_node(FakeEstimator())) as rig:
        rig.start()
        now = rig.client.get_clock().now().to_msg()
        rig.publish(scene.image(), info_message(scene.camera), (now.sec, now.nanosec))
        timing = rig.wait_message("timing")
        assert 0 <= dict(zip(timing.stages, timing.ms))["capture_to_publish"] < 5000


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best_effort"])
def test_both_kinds_of_publisher_arrive_and_empty_frames_are_answered(scene, qos):
    with Rig(kind=fake_node(FakeEstimator()), publisher_qos=qos) as rig:
        rig.start()
        message = rig.publish_until("objects", scene.image(), info_message(scene.camera))
        assert message.objects == []
        assert_header(message.header)
        assert not rig.node.count_publishers(f"{rig.namespace}/object_pose/detections") or (
            vision_msgs_available())


def test_late_subscriber_gets_object_info(models, scene):
    with Rig(models) as rig:
        rig.start()
        received = []
        rig.client.create_subscription(ObjectInfoArray, "object_pose/object_info",
                                       received.append, LATCHED)
        wait_for(lambda: received)
        block, can = received[0].objects
        assert (block.class_id, can.class_id) == ("block", "can")
        assert block.diameter == pytest.approx(0.15)
        assert block.mesh_uri == "package://demo/block.ply"
        assert block.box_center.position.z == pytest.approx(0.05)
        assert len(can.symmetry_axes) == 1 and can.symmetry_axes[0].z == 1.0
        assert len(can.symmetry_offsets) == 1


def test_encodings_reach_the_estimator_as_three_channels(scene):
    fake = FakeEstimator()
    bgr = scene.image()
    gray = bgr[..., 0].copy()
    rgba = np.dstack([bgr[..., ::-1], np.full_like(gray, 9)])
    cases = [
        (image_message(bgr, "bgr8"), bgr, "bgr"),
        (image_message(bgr, "bgr8", step=640 * 3 + 12), bgr, "bgr"),
        (image_message(bgr, "rgb8"), bgr, "rgb"),
        (image_message(rgba, "rgba8"), bgr[..., ::-1], "rgb"),
        (image_message(gray, "mono8", step=700), np.dstack([gray] * 3), "bgr"),
    ]
    with Rig(kind=fake_node(fake)) as rig:
        rig.start()
        for index, (message, expected, order) in enumerate(cases):
            rig.publish(message, info_message(scene.camera), (index + 1, 0))
            rig.wait_message("objects", index + 1)
            image, seen_order = fake.seen[:2]
            assert seen_order == order
            np.testing.assert_array_equal(image, expected)


def test_compressed_images_and_damaged_ones(scene):
    fake = FakeEstimator()
    smooth = cv2.GaussianBlur(scene.image(), (0, 0), 8)
    png = cv2.imencode(".png", smooth)[1].tobytes()
    with Rig({"image_transport": "compressed"}, kind=fake_node(fake), compressed=True) as rig:
        rig.start()
        rig.publish(rig.image_type(format="png", data=png[: len(png) // 3]), info_message(
            scene.camera), (1, 0))
        rig.publish(rig.image_type(format="jpeg", data=b"no picture"), info_message(scene.camera),
                    (1, 1))
        status = rig.wait_status("input", b"\x02", "cannot be decoded")
        assert "image rejected" in status.message
        rig.publish(rig.image_type(format="png", data=png), info_message(scene.camera), (2, 0))
        rig.wait_message("objects")
        np.testing.assert_array_equal(fake.seen[0], smooth)
        assert rig.wait_message("timing").rejected >= 1


@pytest.mark.parametrize("fields, text", [
    (dict(k=np.zeros(9), p=np.zeros(12)), "K[0] of camera_info is 0"),
    (dict(width=320, height=240), "320x240"),
    (dict(distortion_model="mystery", d=[0.1] * 5), "distortion_model"),
    (dict(d=[0.1] * 3), "plumb_bob needs"),
], ids=["uncalibrated", "other_size", "unknown_model", "wrong_count"])
def test_unusable_camera_info_gives_an_error_and_no_pose(scene, fields, text):
    with Rig(kind=fake_node(FakeEstimator())) as rig:
        rig.start()
        rig.publish(scene.image(), info_message(scene.camera, **fields), (1, 0))
        rig.wait_status("calibration", b"\x02", text)
        assert not rig.received["objects"]
        rig.publish(scene.image(), info_message(scene.camera), (2, 0))  # and it recovers
        timing = rig.wait_message("timing")
        assert (timing.processed, timing.rejected) == (1, 1)
        rig.wait_status("calibration", b"\x00", "calibrated")


def test_unsupported_encoding_names_itself_and_cv_bridge(scene):
    try:
        import cv_bridge  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("cv_bridge is installed")
    with Rig(kind=fake_node(FakeEstimator())) as rig:
        rig.start()
        rig.publish(scene.image(), info_message(scene.camera), encoding="bayer_rggb16")
        status = rig.wait_status("input", b"\x02", "bayer_rggb16")
        assert "cv_bridge" in status.message


def test_roi_and_binning_give_the_same_pose(tmp_path, scene):
    """The sensor is twice as large and binned by two; the delivered image is the scene's."""
    from helpers.tiny_models import make_models

    camera = scene.camera
    K = camera.K.copy()
    K[:2] *= 2.0
    K[:2, 2] += 0.5 + np.array([100, 40])
    info = info_message(camera, k=K.reshape(9), width=2 * camera.width + 300,
                        height=2 * camera.height + 90, binning_x=2, binning_y=2)
    info.roi.x_offset, info.roi.y_offset = 100, 40
    info.roi.width, info.roi.height = 2 * camera.width, 2 * camera.height
    pose, detector = make_models(tmp_path, scene)
    paths = {"model_path": str(pose), "detector_path": str(detector)}
    with Rig(paths) as rig:
        rig.start().publish(scene.image(), info)
        found = {item.class_id: item for item in rig.wait_message("objects").objects}
        np.testing.assert_allclose(matrix(found["block"].pose.pose), scene.poses[0], atol=1e-3)


def test_distorted_images_give_the_true_pose(tmp_path):
    from helpers.tiny_models import example_camera, make_models

    scene = example_scene(example_camera(distorted=True))
    pose, detector = make_models(tmp_path, scene)
    with Rig({"model_path": str(pose), "detector_path": str(detector)}) as rig:
        rig.start().publish(scene.image(), info_message(scene.camera))
        found = {item.class_id: item for item in rig.wait_message("objects").objects}
        np.testing.assert_allclose(matrix(found["block"].pose.pose), scene.poses[0], atol=2e-3)
