"""kd_pose.object_pose on networks whose answers are known."""

import dataclasses

import numpy as np
import pytest

from helpers.tiny_models import (
    Scene,
    example_camera,
    example_scene,
    make_detector_model,
    make_models,
    make_pose_model,
)
from kd_pose.camera import Camera
from kd_pose.geometry import make_pose
from kd_pose.manifest import ModelFileError
from kd_pose.object_pose import ObjectPoseEstimator, ObjectPoseOptions, suppress_duplicates
from kd_pose.results import STAGES, Detection2D, ObjectPose

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", params=["pinhole", "distorted"])
def scene(request):
    return example_scene(example_camera(distorted=request.param == "distorted"))


@pytest.fixture(scope="module")
def estimator(scene, tmp_path_factory):
    pose, detector = make_models(tmp_path_factory.mktemp("models"), scene)
    made = ObjectPoseEstimator(pose, detector, threads=1)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def default_options(estimator):
    estimator.options = ObjectPoseOptions()


def by_name(items):
    return {item.class_id: item for item in items}


class TestEstimate:
    def test_detected_boxes_give_the_true_poses(self, scene, estimator):
        frame = estimator.estimate(scene.image(), scene.camera)
        assert sorted(by_name(frame.objects)) == ["block", "can"]
        for index, spec in enumerate(scene.specs):
            found = by_name(frame.objects)[spec.name]
            assert np.abs(found.T_cam_obj - scene.poses[index]).max() < 1e-5
            assert np.abs(found.keypoints_xy - scene.corners_px(index)).max() < 1e-2
            assert found.spec == spec and found.id == "" and found.track_state == 0
            assert found.inliers == 6 * 8 and found.reprojection_error_px < 1e-3
            assert np.allclose(found.keypoint_scores, 1.0)
            # geometric mean of the detector's 0.8 and the votes' 0.9, all explained
            assert found.score == pytest.approx(np.sqrt(0.8 * 0.9), abs=1e-6)
            assert found.covariance.shape == (6, 6)

    def test_detections_are_the_true_boxes(self, scene, estimator):
        found = by_name(estimator.detect(scene.image()))
        for index, spec in enumerate(scene.specs):
            assert np.abs(found[spec.name].box_xywh - scene.box_xywh(index)).max() < 1e-3
            assert found[spec.name].score == pytest.approx(0.8)

    def test_timing_has_every_stage(self, scene, estimator):
        frame = estimator.estimate(scene.image(), scene.camera)
        assert tuple(frame.timing_ms) == STAGES
        assert all(value > 0 for value in frame.timing_ms.values())

    def test_given_boxes(self, scene, estimator):
        boxes = [
            Detection2D("can", 0.5, scene.box_xywh(1)),
            Detection2D("zebra", 0.9, scene.box_xywh(0)),
            Detection2D("block", 0.9, np.array([5.0, 5, 0, 10])),
        ]
        frame = estimator.estimate(scene.image(), scene.camera, boxes=boxes)
        assert [item.class_id for item in frame.objects] == ["can"]
        assert np.abs(frame.objects[0].T_cam_obj - scene.poses[1]).max() < 1e-5
        assert frame.ignored_boxes == 2 and frame.detections == boxes[:1]
        assert frame.timing_ms["detector"] < 5  # not run

    @pytest.mark.parametrize("box, score", [
        ([-5e299, -5e299, 1e300, 1e300], 0.9), ([-5e154, -5e154, 1e155, 1e155], 0.9),
        ([10, 10, 1e-300, 1e-300], 0.9), ([1e300, 10, 10, 10], 0.9), ([5000, 10, 10, 10], 0.9),
        ([10, 10, 20], 0.9), ([10, 10, np.nan, 20], 0.9), ([10, 10, 20, 20], np.nan)])
    def test_what_cannot_be_looked_at_is_counted(self, scene, estimator, box, score):
        boxes = [Detection2D("block", score, np.array(box)),
                 Detection2D("can", 0.5, scene.box_xywh(1))]
        frame = estimator.estimate(scene.image(), scene.camera, boxes=boxes)
        assert [item.class_id for item in frame.objects] == ["can"]
        assert frame.ignored_boxes == 1 and frame.detections == boxes[1:]

    def test_no_boxes_is_nothing(self, scene, estimator):
        frame = estimator.estimate(scene.image(), scene.camera, boxes=[])
        assert frame.objects == [] and frame.detections == [] and frame.ignored_boxes == 0

    def test_the_same_object_twice_is_reported_once(self, scene, estimator):
        boxes = [Detection2D("can", score, scene.box_xywh(1)) for score in (0.3, 0.9, 0.6)]
        frame = estimator.estimate(scene.image(), scene.camera, boxes=boxes)
        assert len(frame.objects) == 1
        assert frame.objects[0].score == pytest.approx(0.9)

    def test_votes_for_another_place_are_not_taken(self, estimator):
        """The votes lie in the middle of the crop; a box in its corner is about something else."""
        outputs = estimator._network.run(np.zeros((1, 3, 128, 128), np.float32))
        outputs = [value[0] for value in outputs]
        for box, found in (((30, 30, 100, 100), True), ((2, 2, 12, 12), False)):
            pairs = estimator._network.correspondences(outputs, 0, np.array(box, float))
            assert (pairs is not None) == found

    def test_target_objects(self, scene, estimator):
        estimator.options = ObjectPoseOptions(target_objects=("can",))
        frame = estimator.estimate(scene.image(), scene.camera)
        assert [item.class_id for item in frame.objects] == ["can"]
        assert [item.class_id for item in frame.detections] == ["can"]

    def test_max_instances(self, scene, estimator):
        estimator.options = ObjectPoseOptions(max_instances=1)
        assert len(estimator.estimate(scene.image(), scene.camera).objects) == 1

    def test_thresholds(self, scene, estimator):
        estimator.options = ObjectPoseOptions(detector_score_threshold=0.85)
        assert estimator.detect(scene.image()) == []
        estimator.options = ObjectPoseOptions(score_threshold=0.95)
        frame = estimator.estimate(scene.image(), scene.camera)
        assert len(frame.detections) == 2 and frame.objects == []
        estimator.options = ObjectPoseOptions(min_inliers=49)
        assert estimator.estimate(scene.image(), scene.camera).objects == []

    def test_object_score_threshold(self, scene, estimator):
        """Cells are sure by 0.9, so boxes of 0.4 and 0.9 give objects of 0.6 and 0.9."""
        boxes = [Detection2D("block", 0.4, scene.box_xywh(0)),
                 Detection2D("can", 0.9, scene.box_xywh(1))]
        for threshold, kept in ((0.59, ["block", "can"]), (0.61, ["can"]), (0.91, [])):
            estimator.options = ObjectPoseOptions(object_score_threshold=threshold)
            frame = estimator.estimate(scene.image(), scene.camera, boxes=boxes)
            assert sorted(by_name(frame.objects)) == kept and len(frame.detections) == 2

    def test_roi_and_binned_camera(self, tmp_path):
        """The same scene through a camera that delivers a binned part of the image."""
        full = example_camera(1280, 960)
        part = Camera.from_info(full.K.reshape(-1), [], "", [0.0] * 12, 1280, 960,
                                roi=(100, 80, 1000, 800), binning=(2, 2))
        scene = example_scene(part)
        made = ObjectPoseEstimator(*make_models(tmp_path, scene))
        frame = made.estimate(scene.image(), part)
        assert np.abs(by_name(frame.objects)["can"].T_cam_obj - scene.poses[1]).max() < 1e-5


class TestBadInput:
    @pytest.mark.parametrize(
        "image", [np.zeros((480, 640), np.uint8), np.zeros((480, 640, 3), np.float32),
                  np.zeros((480, 640, 4), np.uint8), np.zeros((0, 0, 3), np.uint8)]
    )
    def test_image(self, scene, estimator, image):
        with pytest.raises(ValueError, match="image"):
            estimator.estimate(image, scene.camera)

    def test_camera(self, scene, estimator):
        with pytest.raises(ValueError, match="not calibrated"):
            estimator.estimate(scene.image(), Camera(np.zeros((3, 3)), 640, 480))
        with pytest.raises(ValueError, match="640x480.*320x240"):
            estimator.estimate(scene.image(), Camera(scene.camera.K, 320, 240))

    def test_channel_order(self, scene, estimator):
        with pytest.raises(ValueError, match="channel_order"):
            estimator.estimate(scene.image(), scene.camera, channel_order="gbr")

    def test_options(self, estimator):
        with pytest.raises(ValueError, match="unknown zebra; the model knows block, can"):
            estimator.options = ObjectPoseOptions(target_objects=("can", "zebra"))
        assert estimator.options.target_objects == ()
        for changes in ({"score_threshold": 2}, {"detector_score_threshold": -1},
                        {"object_score_threshold": 1.1},
                        {"max_instances": 0}, {"min_inliers": 3},
                        {"max_reprojection_error_px": 0}):
            with pytest.raises(ValueError, match=next(iter(changes))):
                ObjectPoseOptions(**changes)

    def test_models(self, tmp_path):
        scene = example_scene()
        pose, detector = make_models(tmp_path, scene)
        with pytest.raises(ModelFileError, match="detector.onnx.*object_detector"):
            ObjectPoseEstimator(detector)
        with pytest.raises(ModelFileError, match="pose.onnx.*object_votes"):
            ObjectPoseEstimator(pose, pose)
        with pytest.raises(ModelFileError, match="nowhere.onnx"):
            ObjectPoseEstimator(tmp_path / "nowhere.onnx")
        others = dataclasses.replace(scene.specs[0], name="cup")
        foreign = make_detector_model(
            tmp_path / "foreign.onnx", Scene(scene.camera, (others,), scene.poses[:1])
        )
        with pytest.raises(ModelFileError, match="cup.*none of which"):
            ObjectPoseEstimator(pose, foreign)

    def test_a_manifest_that_contradicts_the_network(self, tmp_path):
        from helpers.tiny_models import write_onnx
        from kd_pose.manifest import METADATA_KEY, read_manifest

        text = read_manifest(make_pose_model(tmp_path / "a.onnx", example_scene())).to_json()
        path = tmp_path / "wrong.onnx"
        write_onnx(path, (128, 128), np.ones((300, 2)), np.ones((300, 2, 8, 2)),
                   {METADATA_KEY: text})
        with pytest.raises(ModelFileError, match="wrong.onnx: 'scores' has the shape"):
            ObjectPoseEstimator(path)

    def test_without_a_detector_boxes_are_needed(self, tmp_path):
        scene = example_scene()
        made = ObjectPoseEstimator(make_pose_model(tmp_path / "pose.onnx", scene))
        assert not made.has_detector
        with pytest.raises(ValueError, match="detector"):
            made.estimate(scene.image(), scene.camera)


def test_covariance_is_none_where_it_was_not_calibrated(tmp_path):
    scene = example_scene()
    made = ObjectPoseEstimator(*make_models(tmp_path, scene, covariance_scale=0.0))
    assert all(
        item.covariance is None for item in made.estimate(scene.image(), scene.camera).objects
    )


def test_warm_up_and_description(estimator):
    estimator.warm_up(2)
    assert "cpu" in estimator.description
    assert [spec.name for spec in estimator.objects] == ["block", "can"]
    assert estimator.manifest.task == "object_votes"


def pose_of(spec, score, t, keypoints):
    return ObjectPose(spec.name, score, make_pose(np.eye(3), t), None, spec, keypoints,
                      np.ones(8), 0.1, 10)


def test_duplicates_are_near_or_overlap_and_of_one_class():
    spec, other = example_scene().specs
    square = np.array([[0.0, 0], [10, 10]] * 4)
    best = pose_of(spec, 0.9, (0, 0, 1), square)
    near = pose_of(spec, 0.5, (0, 0, 1 + 0.09 * spec.diameter), square + 100)
    overlapping = pose_of(spec, 0.6, (0, 0, 2), square + 0.5)
    beside = pose_of(spec, 0.4, (0.2, 0, 1), square + 8)
    foreign = pose_of(other, 0.3, (0, 0, 1), square)
    kept = suppress_duplicates([near, beside, foreign, best, overlapping])
    assert kept == [best, beside, foreign]
