"""Errors worked out by hand, matching, and whole evaluations of models that know the answer."""

from __future__ import annotations

import json
import types

import cv2
import numpy as np
import pytest

from helpers.tiny_models import example_scene, make_models
from kd_pose.camera import Camera
from kd_pose.geometry import box_corners, make_pose, rotation_angle_deg, rotation_from_vector
from kd_pose.manifest import ObjectSpec, read_manifest
from kd_pose.results import ObjectPose, ObjectPoseFrame
from kd_pose.symmetry import symmetry_transforms
from kd_pose_training import cli
from kd_pose_training.data.amodal import amodal_box
from kd_pose_training.data.bop_detections import read_detections
from kd_pose_training.data.bop_results import read_results
from kd_pose_training.evaluation import calibration, errors, pictures, report
from kd_pose_training.evaluation import object_pose as module

SHIFT = np.array([0.01, 0.0, 0.0])
TURN_Z = rotation_from_vector((0.0, 0.0, np.pi))


def spec_of(discrete=(), continuous=()):
    return ObjectSpec("thing", 0.1, (-0.05,) * 3, (0.05,) * 3, discrete, continuous)


def mesh(model):
    return box_corners(model.spec.box_min, model.spec.box_max)


class SceneSet:
    """A data set of the constant models' scene, the truth moved by a 4x4 in the camera frame."""

    def __init__(self, scene, moved=None, frames=2, visib=1.0):
        moved = np.eye(4) if moved is None else moved
        self.root, self.split = "scene", "test"
        self.models = {n: types.SimpleNamespace(name=spec.name, spec=spec)
                       for n, spec in enumerate(scene.specs, 1)}
        self.frames = [types.SimpleNamespace(
            scene_id=1, im_id=number, K=scene.camera.K, load_image=scene.image, instances=[
                types.SimpleNamespace(obj_id=n, T_cam_obj=moved @ T, visib_fract=visib)
                for n, T in enumerate(scene.poses, 1)]) for number in range(frames)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    scene = example_scene()
    return scene, *make_models(tmp_path_factory.mktemp("models"), scene)


def run(models, dataset, boxes="detected", **settings):
    return module.evaluate(models[1], models[2], dataset, boxes=boxes, load_vertices=mesh,
                           progress=False, threads=1, **settings)


def test_add_of_a_shift_is_its_length_and_of_a_half_turn_the_mean_diameter():
    points = np.array([[0.03, 0, 0], [-0.03, 0, 0], [0, 0, 0.1]])
    assert errors.add(make_pose(np.eye(3), SHIFT), np.eye(4), points) == pytest.approx(0.01)
    # two points 30 mm off the axis go 60 mm each, the one on it stays
    half = make_pose(TURN_Z, np.zeros(3))
    assert errors.add(half, np.eye(4), points) == pytest.approx(0.04)
    assert errors.add_s(half, np.eye(4), points) == pytest.approx(0.0, abs=1e-12)


def test_add_s_goes_from_the_truth_to_the_nearest_estimate():
    points = np.array([[0.0, 0, 0], [0.1, 0, 0]])
    T = make_pose(np.eye(3), (0.08, 0, 0))  # estimates at 0.08 and 0.18
    # truth 0 -> 0.08; truth 0.1 -> 0.02; the other direction would give 0.02 and 0.08, too
    assert errors.add_s(T, np.eye(4), points) == pytest.approx(0.05)
    lopsided = np.array([[0.0, 0, 0], [0.01, 0, 0], [0.1, 0, 0]])
    # truths 0, 0.01, 0.1 to estimates 0.08, 0.09, 0.18: 0.08, 0.07, 0.01
    assert errors.add_s(T, np.eye(4), lopsided) == pytest.approx(0.16 / 3)
    T_any = make_pose(rotation_from_vector((0.3, 1.0, 2.0)), (0.3, 0.1, 0.9))
    assert errors.add_s(T_any @ T, T_any, lopsided) == pytest.approx(0.16 / 3)


def test_reprojection_error_of_a_sideways_shift():
    camera = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), 640, 480)
    T = make_pose(np.eye(3), (0, 0, 0.5))
    moved = make_pose(np.eye(3), (0.01, 0, 0.5))
    flat = np.array([[0.0, 0, 0], [0.02, 0.01, 0]])
    assert errors.reprojection_error(moved, T, flat, camera) == pytest.approx(10.0)
    behind = make_pose(np.eye(3), (0, 0, -0.5))
    assert errors.reprojection_error(behind, T, flat, camera) == np.inf


def test_the_nearest_truth_of_symmetric_objects():
    T = make_pose(rotation_from_vector((0.4, 0.3, 0.2)), (0.1, 0, 0.6))
    half = make_pose(TURN_Z, np.zeros(3))
    plain = errors.TruthFinder(spec_of())
    assert np.allclose(plain.nearest(T, T @ half), T)
    flips = errors.TruthFinder(spec_of(discrete=(tuple(half.ravel()),)))
    assert np.allclose(flips.nearest(T, T @ half), T @ half)
    axis = (((0.0, 0.0, 2.0), (0.01, 0.0, 0.0)),)  # a line beside the origin, not of unit length
    turns = errors.TruthFinder(spec_of(continuous=axis))
    by_7 = rotation_from_vector((0, 0, np.radians(7.3)))  # between the 15 degree steps
    offset = np.array([0.01, 0, 0])
    estimate = T @ make_pose(by_7, offset - by_7 @ offset)
    near = turns.nearest(T, estimate)
    assert np.allclose(near, estimate, atol=1e-9)
    tilted = estimate @ make_pose(rotation_from_vector((np.radians(3.0), 0, 0)), np.zeros(3))
    angle, distance = errors.rotation_translation_error(tilted, turns.nearest(T, tilted))
    assert angle == pytest.approx(3.0, abs=1e-6) and distance < 1e-3
    ball = errors.TruthFinder(spec_of(continuous=(((0, 0, 1), (0, 0, 0)), ((1, 0, 0), (0,) * 3))))
    assert rotation_angle_deg(ball.nearest(T, tilted)[:3, :3], tilted[:3, :3]) < 3.0
    assert len(symmetry_transforms(spec_of(continuous=axis), 15.0)) == 24


def test_pose_difference_is_in_the_order_of_the_covariance():
    T = make_pose(rotation_from_vector((1.0, 0.2, 0.1)), (0.1, 0.2, 0.7))
    w = np.array([0.02, -0.03, 0.01])
    moved = make_pose(rotation_from_vector(w) @ T[:3, :3], T[:3, 3] + (0.001, 0.002, 0.003))
    assert np.allclose(errors.pose_difference(moved, T), [0.001, 0.002, 0.003, *w])
    half = make_pose(rotation_from_vector((0, np.pi, 0)) @ T[:3, :3], T[:3, 3])
    assert np.linalg.norm(errors.pose_difference(half, T)[3:]) == pytest.approx(np.pi)
    assert np.allclose(errors.pose_difference(T, T), 0, atol=1e-12)


def test_vertices_are_sampled_without_replacement_and_always_the_same():
    vertices = np.arange(30000.0).reshape(-1, 3)
    sample = errors.sample_vertices(vertices, 500)
    assert len(np.unique(sample, axis=0)) == 500
    assert np.array_equal(sample, errors.sample_vertices(vertices, 500))
    assert len(errors.sample_vertices(vertices[:7])) == 7


@pytest.mark.parametrize("boxes", module.BOXES)
def test_a_model_that_knows_the_answer_scores_full_marks(models, boxes):
    result = run(models, SceneSet(models[0]), boxes)
    summary = report.summarise(result)
    assert summary["frames"] == 2 and not result.false_positives
    for name, measure in (("block", "ADD"), ("can", "ADD-S")):
        row = summary["objects"][name]
        assert row["measure"] == measure and row["targets"] == 2
        assert row["found"] == row["add_recall"] == 1.0
        assert row["add_mm"] < 0.01 and row["rotation_deg"] < 0.01
        assert row["reprojection_px"] < 0.02 and row["translation_mm"] < 0.05
        assert row["box_recall"] == (1.0 if boxes == "detected" else None)
    assert summary["mean"]["add_recall"] == 1.0 and summary["mean"]["targets"] == 4


@pytest.mark.parametrize("metres, recall", [(0.01, 1.0), (0.02, 0.0)])
def test_a_shifted_truth_gives_known_errors(models, metres, recall):
    moved = make_pose(np.eye(3), (metres, 0, 0))
    summary = report.summarise(run(models, SceneSet(models[0], moved)))
    block = summary["objects"]["block"]  # its diameter is 150 mm
    assert block["add_mm"] == pytest.approx(1e3 * metres, abs=0.02)
    assert block["translation_mm"] == pytest.approx(1e3 * metres, abs=0.02)
    assert block["rotation_deg"] < 0.01 and block["add_recall"] == recall
    assert block["reprojection_px"] == pytest.approx(metres * 0.9 * 640 / 0.6, rel=0.15)
    assert summary["objects"]["can"]["add_mm"] <= 1e3 * metres + 0.02


def test_missed_targets_are_failures_and_estimates_without_target_are_false(models):
    far = make_pose(np.eye(3), (0.0, 0.25, 0.0))
    result = run(models, SceneSet(models[0], far))
    summary = report.summarise(result)
    assert summary["objects"]["block"]["found"] == 0.0
    assert summary["objects"]["block"]["add_recall"] == 0.0
    assert summary["objects"]["block"]["add_mm"] is None
    assert summary["objects"]["block"]["box_recall"] == 0.0
    assert result.false_positives == {"block": 2, "can": 2}


def test_hidden_instances_count_neither_way(models):
    result = run(models, SceneSet(models[0], visib=0.05))
    assert not result.instances and not result.false_positives
    assert report.summarise(result)["objects"] == {}
    assert run(models, SceneSet(models[0], visib=0.05), min_visib=0.0).instances


def test_pairs_are_one_to_one_and_the_best_score_chooses_first():
    spec = spec_of()
    known = {"thing": module.EvaluatedObject.build(spec, box_corners(spec.box_min, spec.box_max))}
    camera = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), 640, 480)

    def pose(x):
        return make_pose(np.eye(3), (x, 0, 1.0))

    def estimate(x, score):
        return ObjectPose("thing", score, pose(x), None, spec, np.zeros((8, 2)), np.ones(8), 0., 8)

    targets = [module.InstanceResult(1, 1, row, "thing", 1.0, 0.1, pose(x))
               for row, x in enumerate((0.0, 0.03))]
    result = module.EvaluationResult("oracle", "", "", "", (spec,))
    found = ObjectPoseFrame([estimate(0.02, 0.5), estimate(0.025, 0.9), estimate(0.024, 0.4)])
    module.score_frame(found, targets, [], known, camera, result)
    assert targets[1].add == pytest.approx(0.005) and targets[1].score == 0.9
    assert targets[0].add == pytest.approx(0.02) and targets[0].score == 0.5
    assert result.false_positives == {"thing": 1}


def test_covariance_factor_brings_the_median_to_its_expectation():
    rng = np.random.default_rng(0)
    distances = 4.0 * rng.chisquare(6, 4000)
    distances[:200] = 1e9  # a few wrong poses do not matter
    assert calibration.covariance_factor(distances) == pytest.approx(4.0, rel=0.15)
    with pytest.raises(ValueError, match="too few"):
        calibration.covariance_factor(distances[:5])


def test_calibration_of_a_model(models):
    """Votes that agree to rounding, a truth 4 mm away: the covariance must become far larger."""
    scene, model, detector = models
    dataset = SceneSet(scene, make_pose(np.eye(3), (0.004, 0, 0)), frames=20)
    settings = {"boxes": "detected", "load_vertices": mesh, "progress": False, "threads": 1}
    scale = calibration.calibrate(model, detector, dataset, **settings)
    assert 1e3 < scale < np.inf
    assert read_manifest(model).covariance_scale == 1.0  # the model itself is not touched
    result = module.evaluate(model, detector, dataset, **settings)  # has a scale of 1, too
    assert calibration.calibrated_scale(result, 1.0) == pytest.approx(scale, rel=1e-6)


def test_report_and_table(models, tmp_path):
    results = {kind: run(models, SceneSet(models[0]), kind) for kind in module.BOXES}
    written = report.write_report(results, tmp_path / "report.json", {"note": 1})
    assert json.loads((tmp_path / "report.json").read_text()) == written
    assert len(written["targets"]["oracle"]) == 4 and written["note"] == 1
    assert written["targets"]["oracle"][0]["correct"] is True
    text = report.table(written["summary"]["detected"])
    assert "can (S)" in text and "100.0%" in text and "box recall" in text
    assert "box recall" not in report.table(written["summary"]["oracle"])
    empty = module.EvaluationResult("oracle", "m", "", "d:t", models[0].specs)
    assert "mean" in report.table(report.summarise(empty))


def test_sheet_shows_worst_and_best(models):
    dataset = SceneSet(models[0], make_pose(np.eye(3), (0.02, 0, 0)))
    result = run(models, dataset)
    picture = pictures.sheet(result, dataset, worst=3, best=2, columns=3)
    tile = pictures.TILE + pictures.CAPTION
    assert picture.shape == (2 * (tile + pictures.HEADING), 3 * pictures.TILE, 3)
    missed = module.InstanceResult(1, 0, 0, "block", 0.9, 0.15, models[0].poses[0])
    order = pictures.ranked([*result.instances, missed])
    assert order[0] is missed
    result.instances.append(missed)
    assert pictures.sheet(result, dataset) is not None
    assert pictures.sheet(module.EvaluationResult("oracle", "", "", "", ()), dataset) is None


def detection_file(path, scene, frames=2, shift=0.0):
    """The true boxes of the scene in BOP's format, with a second, worse one for each."""
    camera, entries = scene.camera, []
    for im_id in range(frames):
        for number, (spec, T) in enumerate(zip(scene.specs, scene.poses), 1):
            low, high = np.array_split(amodal_box(T, mesh(types.SimpleNamespace(spec=spec)),
                                                  camera.K), 2)
            for score, extra in ((0.4, 300.0), (0.9, shift)):
                entries.append({"scene_id": 1, "image_id": im_id, "category_id": number,
                                "bbox": [*(low + 0.5 + extra), *(high - low)], "score": score,
                                "time": 0.25})
    entries.append(entries[0] | {"category_id": 77})  # an object of another model
    path.write_text(json.dumps(entries))
    return read_detections(path)


def test_boxes_of_a_file(models, tmp_path):
    scene = models[0]
    found = detection_file(tmp_path / "boxes.json", scene)
    dataset = SceneSet(scene)
    boxes, seconds = module.file_boxes(found, dataset.frames[0], dataset)
    assert [(item.class_id, item.score) for item in boxes] == [
        ("block", 0.9), ("can", 0.9), ("block", 0.4), ("can", 0.4)] and seconds == 0.25
    true = module.evaluate(models[1], None, dataset, boxes="oracle", load_vertices=mesh,
                           progress=False, threads=1).instances[0].T_est
    # As many of the best boxes as there are instances to be found.
    dataset.targets = {(1, 0): {1: 1, 2: 1}, (1, 1): {2: 1}}
    boxes, _ = module.file_boxes(found, dataset.frames[1], dataset)
    assert [(item.class_id, item.score) for item in boxes] == [("can", 0.9)]
    result = run(models, dataset, "file", detections=found)
    assert [item.name for item in result.instances] == ["block", "can", "can"]
    assert all(item.correct and item.box_iou > 0.99 for item in result.instances)
    assert np.allclose(result.instances[0].T_est, true, atol=1e-6)  # the same box, to the pixel
    assert sorted((item.im_id, item.obj_id) for item in result.estimates) == [
        (0, 1), (0, 2), (1, 2)]
    first, second = (item.time for item in result.estimates[:2])
    assert first == second > 0.25  # boxes and poses of one picture
    with pytest.raises(ValueError, match="belong together"):
        run(models, dataset, "file")
    for frame in dataset.frames:
        frame.scene_id = 2
    with pytest.raises(ValueError, match="boxes.json: has no box for any of the 2 images"):
        run(models, dataset, "file", detections=found)


def test_targets_say_what_counts(models):
    dataset = SceneSet(models[0], visib=0.05)  # hidden, but named
    dataset.targets = {(1, 0): {1: 1}}
    result = run(models, dataset)
    assert [(item.im_id, item.name) for item in result.instances] == [(0, "block")]
    assert not result.false_positives  # the others are there, so finding them is no mistake


def test_command_writes_a_results_file(models, tmp_path, monkeypatch, capsys):
    import sys
    scene, model, _ = models
    detection_file(tmp_path / "boxes.json", scene)
    bop = types.ModuleType("kd_pose_training.data.bop")
    bop.BopDataset = lambda root, split, targets=None: SceneSet(scene)
    monkeypatch.setattr("kd_pose_training.data.bop_models.load_mesh_vertices", mesh)
    monkeypatch.setitem(sys.modules, bop.__name__, bop)
    path = tmp_path / "ours_set-test.csv"
    arguments = ["evaluate", str(model), "--data", "x:test", "-o", str(tmp_path / "out"),
                 "--threads", "1", "--boxes", str(tmp_path / "boxes.json")]
    assert cli.main([*arguments, "--bop-csv", str(path)]) == 0
    assert "file boxes" in (printed := capsys.readouterr().out) and str(path) in printed
    rows = read_results(path)
    assert {(item.im_id, item.obj_id) for item in rows} == {(0, 1), (0, 2), (1, 1), (1, 2)}
    block = [item.T_cam_obj[:3, 3] for item in rows if (item.im_id, item.obj_id) == (1, 1)]
    assert min(np.linalg.norm(np.subtract(block, scene.poses[0][:3, 3]), axis=1)) < 1e-3
    deep = tmp_path / "new" / "folder" / path.name
    assert cli.main([*arguments, "--bop-csv", str(deep)]) == 0 and deep.is_file()
    capsys.readouterr()
    assert cli.main([*arguments, "--bop-csv", str(path / path.name)]) == 2
    printed = capsys.readouterr()
    assert f"{path / path.name}: cannot be written" in printed.err and not printed.out  # no frame
    assert cli.main([*arguments, "--bop-csv", str(tmp_path / "mine.csv")]) == 2
    assert cli.main([*arguments, "--bop-csv", str(path), "--limit", "1"]) == 2
    assert "no --limit" in capsys.readouterr().err
    assert cli.main([*arguments[:-1], "guessed"]) == 2
    assert "--boxes is 'guessed'" in capsys.readouterr().err


def test_detection_files_that_are_wrong(tmp_path):
    path = tmp_path / "boxes.json"
    good = {"scene_id": 1, "image_id": 2, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}
    path.write_text(json.dumps([good]))
    item, = read_detections(path).boxes[1, 2]
    assert item.box_xywh.tolist() == [0.5, 1.5, 3, 4] and item.time == -1 and item.obj_id == 3
    for wrong, message in (({"bbox": [1, 2, 3]}, "key 'bbox' must be 4"),
                           ({"bbox": [1, 2, -3, 4]}, "key 'bbox' must be x, y, width"),
                           ({"score": None}, "key 'score' must be 1 finite"),
                           ({"image_id": "x"}, "key 'image_id'")):
        path.write_text(json.dumps([good, good | wrong]))
        with pytest.raises(ValueError, match=f"boxes.json: entry 1: {message}"):
            read_detections(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="boxes.json: truncated"):
        read_detections(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="boxes.json: has no box at all"):
        read_detections(path).check_images([(1, 2)])


def test_flat_boxes_are_left_out_and_said(models, tmp_path):
    path = tmp_path / "boxes.json"
    detection_file(path, models[0])
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([entries[0] | {"bbox": [1, 2, 0, 5], "score": 1.0}, *entries,
                                entries[0] | {"bbox": [1, 2, 5, 0]}]))
    found = read_detections(path)
    assert found.flat == (0, len(entries) + 1)
    text, = found.warnings()
    assert f"{path}: 2 boxes have a width or height of 0 and are left out (the first: entry 0)" \
        in text
    dataset = SceneSet(models[0])
    dataset.targets = {(1, 0): {1: 1}}  # it took the place of the only box that counts
    assert run(models, dataset, "file", detections=found).instances[0].correct


def test_mistakes_are_named(models):
    with pytest.raises(ValueError, match="detector"):
        module.evaluate(models[1], None, SceneSet(models[0]), boxes="detected")
    with pytest.raises(ValueError, match="guessed"):
        run(models, SceneSet(models[0]), "guessed")
    other = SceneSet(models[0])
    for model in other.models.values():
        model.name = f"other {model.name}"
    with pytest.raises(ValueError, match="no object in common"):
        run(models, other)


def test_frames_are_spread():
    assert module.spread(range(10), 3) == [0, 3, 6]
    assert module.spread(range(3), 0) == module.spread(range(3), 9) == [0, 1, 2]


def test_command(models, tmp_path, monkeypatch, capsys):
    import sys
    scene, model, detector = models
    bop = types.ModuleType("kd_pose_training.data.bop")
    bop.BopDataset = lambda root, split, targets=None: SceneSet(scene)
    monkeypatch.setattr("kd_pose_training.data.bop_models.load_mesh_vertices", mesh)
    monkeypatch.setitem(sys.modules, bop.__name__, bop)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    out = tmp_path / "out"
    arguments = ["evaluate", str(copy), "--data", "x:test", "--out", str(out), "--threads", "1"]
    assert cli.main([*arguments, "--detector", str(detector), "--write-metrics"]) == 0
    printed = capsys.readouterr().out
    assert "oracle boxes" in printed and "detected boxes" in printed
    assert read_manifest(copy).metrics["oracle"]["mean"]["add_recall"] == 1.0
    assert cv2.imread(str(out / "sheet_detected.jpg")).shape[1] == 6 * pictures.TILE
    assert cli.main([*arguments, "--boxes", "both"]) == 2
    assert "--detector" in capsys.readouterr().err
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert cli.main([*arguments, "--detector", str(tmp_path / "broken.onnx")]) == 2
    said = capsys.readouterr()
    assert "broken.onnx" in said.err and "oracle boxes" not in said.out
    assert cli.main(["evaluate", str(copy), "--data", "x", "--out", str(out)]) == 2
    assert "ROOT:SPLIT" in capsys.readouterr().err


def test_what_is_scored_outlives_a_detector_that_fails(models, tmp_path, monkeypatch):
    import sys
    scene, model, detector = models
    bop = types.ModuleType("kd_pose_training.data.bop")
    bop.BopDataset = lambda root, split, targets=None: SceneSet(scene)
    monkeypatch.setattr("kd_pose_training.data.bop_models.load_mesh_vertices", mesh)
    monkeypatch.setitem(sys.modules, bop.__name__, bop)
    evaluate = module.evaluate

    def failing(*paths, boxes, **settings):
        if boxes == "detected":
            raise ValueError("the engine stopped")
        return evaluate(*paths, boxes=boxes, **settings)

    monkeypatch.setattr(module, "evaluate", failing)
    out = tmp_path / "out"
    assert cli.main(["evaluate", str(model), "--data", "x:test", "--out", str(out), "--threads",
                     "1", "--detector", str(detector)]) == 2
    found = json.loads((out / "report.json").read_text())["summary"]
    assert list(found) == ["oracle"] and (out / "sheet_oracle.jpg").is_file()
