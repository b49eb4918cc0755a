"""kd_pose.dense_network, and kd_pose.object_pose with it, on answers that are known."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

# ruff: noqa: E402
from helpers.dense_models import (
    BITS,
    box_tree,
    dense_answers,
    dense_manifest,
    make_dense_model,
    seen_points,
)
from helpers.tiny_models import (
    Scene,
    example_camera,
    example_scene,
    make_detector_model,
    make_pose_model,
    write_constants,
)
from kd_pose.crop import apply_affine, box_affine, invert_affine
from kd_pose.dense_network import DenseNetwork
from kd_pose.geometry import rotation_angle_deg
from kd_pose.manifest import METADATA_KEY, ModelFileError
from kd_pose.object_pose import ObjectPoseEstimator, ObjectPoseOptions
from kd_pose.results import STAGES, Detection2D


@pytest.fixture(scope="module", params=["pinhole", "distorted"])
def scene(request):
    return example_scene(example_camera(distorted=request.param == "distorted"))


@pytest.fixture(scope="module")
def model(scene, tmp_path_factory):
    return make_dense_model(tmp_path_factory.mktemp("dense") / "dense.onnx", scene)


@pytest.fixture(scope="module")
def estimator(scene, model, tmp_path_factory):
    detector = make_detector_model(tmp_path_factory.mktemp("models") / "detector.onnx", scene)
    made = ObjectPoseEstimator(model, detector, threads=1)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def default_options(estimator):
    estimator.options = ObjectPoseOptions()


def assert_pose(found, true, translation=1e-3, degrees=0.4):
    assert np.linalg.norm(found[:3, 3] - true[:3, 3]) < translation
    assert rotation_angle_deg(found[:3, :3], true[:3, :3]) < degrees


class TestNetwork:
    def test_pairs_are_what_the_pixels_see(self, scene, model):
        network = DenseNetwork(model, "object_codes", threads=1)
        batch = np.zeros((2, 3, 128, 128), np.float32)
        outputs = network.run(batch)
        assert [output.shape for output in outputs] == [(2, 2, 64, 64), (2, 2, BITS, 64, 64)]
        for index in range(2):
            row = [output[1] for output in outputs]
            pairs = network.correspondences(row, index, np.zeros(4))
            assert 200 <= len(pairs.pixels) <= 400 and not pairs.of_corners
            assert pairs.class_index == index and pairs.score == pytest.approx(0.9)
            M = box_affine(scene.box_xywh(index), (128, 128), 1.5)
            hit, points = seen_points(scene, index, apply_affine(invert_affine(M), pairs.pixels))
            assert hit.all()
            # the patches lie together: far fewer than pairs, each small beside the object
            patches = np.unique(pairs.groups)
            assert 10 < len(patches) < 64
            for patch in patches:
                extent = np.ptp(pairs.points[pairs.groups == patch], axis=0)
                assert np.linalg.norm(extent) < 0.5 * scene.specs[index].diameter
            distance = np.linalg.norm(points - pairs.points, axis=1)
            # half the side of a patch: 4096 of them share the box's surface
            assert distance.max() < 6e-3 and distance.mean() < 2e-3

    def test_nothing_above_the_threshold(self, model):
        network = DenseNetwork(model, "object_codes")
        row = [output[0] for output in network.run(np.zeros((1, 3, 128, 128), np.float32))]
        assert network.correspondences(row, 0, np.zeros(4), score_threshold=0.95) is None
        assert network.correspondences(row, 0, np.zeros(4), score_threshold=0.85) is not None

    def test_max_pairs_is_the_manifests(self, tmp_path, scene):
        network = DenseNetwork(
            make_dense_model(tmp_path / "few.onnx", scene, max_pairs=50), "object_codes")
        row = [output[0] for output in network.run(np.zeros((1, 3, 128, 128), np.float32))]
        assert 25 <= len(network.correspondences(row, 0, np.zeros(4)).points) <= 50

    @pytest.mark.parametrize("edit, message", [
        (lambda a: a.update(masks=a["masks"][:, :32]), "'masks' has the shape .*32, 64.*64, 64"),
        (lambda a: a.update(masks=a["masks"][:1]), "'masks' has the shape"),
        (lambda a: a.update(codes=a["codes"][:, :8]), "'codes' has the shape .*8.*says .*12"),
        (lambda a: a.update(codes=a["codes"].reshape(-1, 64, 64)), "'codes' has the shape"),
        (lambda a: a.pop("codes"), "no 'codes' among masks"),
    ])
    def test_a_manifest_that_contradicts_the_network(self, tmp_path, scene, edit, message):
        manifest = dense_manifest(scene)
        answers = dict(zip(("masks", "codes"), dense_answers(scene, manifest)))
        edit(answers)
        path = tmp_path / "wrong.onnx"
        write_constants(path, (128, 128), answers, {METADATA_KEY: manifest.to_json()})
        with pytest.raises(ModelFileError, match=f"wrong.onnx: {message}"):
            DenseNetwork(path, "object_codes")

    def test_another_input_size(self, tmp_path, scene):
        manifest = dense_manifest(scene)
        answers = dict(zip(("masks", "codes"), dense_answers(scene, manifest)))
        path = tmp_path / "wrong.onnx"
        write_constants(path, (128, 96), answers, {METADATA_KEY: manifest.to_json()})
        with pytest.raises(ModelFileError, match="'image' has the shape"):
            DenseNetwork(path, "object_codes")


class TestEstimator:
    def test_detected_boxes_give_the_true_poses(self, scene, estimator):
        frame = estimator.estimate(scene.image(), scene.camera)
        assert tuple(frame.timing_ms) == STAGES
        found = {item.class_id: item for item in frame.objects}
        assert sorted(found) == ["block", "can"]
        for index, spec in enumerate(scene.specs):
            item = found[spec.name]
            assert_pose(item.T_cam_obj, scene.poses[index])
            assert np.abs(item.keypoints_xy - scene.corners_px(index)).max() < 1.5
            assert item.inliers >= 200 and item.reprojection_error_px < 2
            assert item.score == pytest.approx(np.sqrt(0.8 * 0.9), abs=1e-3)
            assert np.allclose(item.keypoint_scores, 1.0) and item.keypoint_scores.shape == (8,)
            assert item.covariance.shape == (6, 6)
            error = item.T_cam_obj[:3, 3] - scene.poses[index][:3, 3]
            sigma = np.sqrt(np.diag(item.covariance)[:3])
            assert (sigma > 0).all() and (np.abs(error) < 5 * sigma).all()

    def test_the_class_of_the_box_decides(self, scene, estimator):
        """The same crop is another object when its box says so."""
        for index, name in enumerate(("block", "can")):
            boxes = [Detection2D(name, 1.0, scene.box_xywh(index))]
            frame = estimator.estimate(scene.image(), scene.camera, boxes=boxes)
            assert [item.class_id for item in frame.objects] == [name]
            assert_pose(frame.objects[0].T_cam_obj, scene.poses[index])

    def test_wrong_codes_are_outliers(self, scene, tmp_path):
        made = ObjectPoseEstimator(make_dense_model(tmp_path / "a.onnx", scene, outliers=0.4))
        boxes = [Detection2D("block", 1.0, scene.box_xywh(0))]
        item = made.estimate(scene.image(), scene.camera, boxes=boxes).objects[0]
        assert_pose(item.T_cam_obj, scene.poses[0], 2e-3, 1.0)
        assert 0.5 < item.keypoint_scores[0] < 0.75
        assert item.score == pytest.approx(np.sqrt(0.9) * item.keypoint_scores[0], abs=1e-3)

    def test_thresholds(self, scene, estimator):
        estimator.options = ObjectPoseOptions(score_threshold=0.95)
        assert estimator.estimate(scene.image(), scene.camera).objects == []
        estimator.options = ObjectPoseOptions(min_inliers=401)
        assert estimator.estimate(scene.image(), scene.camera).objects == []

    def test_covariance_is_none_where_it_was_not_calibrated(self, scene, tmp_path):
        made = ObjectPoseEstimator(
            make_dense_model(tmp_path / "a.onnx", scene, covariance_scale=0.0))
        boxes = [Detection2D("can", 1.0, scene.box_xywh(1))]
        frame = made.estimate(scene.image(), scene.camera, boxes=boxes)
        assert frame.objects[0].covariance is None

    def test_warm_up_and_manifest(self, estimator):
        estimator.warm_up(2)
        assert estimator.manifest.task == "object_codes"
        assert [spec.name for spec in estimator.objects] == ["block", "can"]

    def test_the_detector_must_be_a_detector(self, scene, model, tmp_path):
        with pytest.raises(ModelFileError, match="dense.onnx.*'object_codes'.*'object_detector'"):
            ObjectPoseEstimator(make_pose_model(tmp_path / "votes.onnx", scene), model)
        detector = make_detector_model(tmp_path / "detector.onnx", scene)
        with pytest.raises(ModelFileError, match="needed is 'object_votes' or 'object_codes'"):
            ObjectPoseEstimator(detector)


def test_one_object_alone(tmp_path):
    """A network of one class, as each of the paper's."""
    both = example_scene()
    scene = Scene(both.camera, both.specs[:1], both.poses[:1])
    made = ObjectPoseEstimator(make_dense_model(tmp_path / "one.onnx", scene))
    boxes = [Detection2D("block", 1.0, scene.box_xywh(0))]
    found = made.estimate(scene.image(), scene.camera, boxes=boxes).objects
    assert_pose(found[0].T_cam_obj, scene.poses[0])


def test_the_patches_of_a_tree_are_small_and_inside_the_box():
    spec = example_scene().specs[0]
    points = box_tree(spec).points
    assert (points >= np.array(spec.box_min) - 1e-6).all()
    assert (points <= np.array(spec.box_max) + 1e-6).all()
