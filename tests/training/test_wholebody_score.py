"""``kd-pose-train evaluate`` and ``export`` for whole bodies: boxes, tables, files, mistakes."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from helpers.wholebody_folder import (
    BOX,
    SIZE_WH,
    annotation_path,
    change_annotations,
    write_people,
)
from kd_pose.crop import GREY
from kd_pose.results import Detection2D
from kd_pose.simcc import SimccCodec
from kd_pose.wholebody_keypoints import COUNT
from kd_pose_training import cli
from kd_pose_training.data.person_batch import Encoding
from kd_pose_training.evaluation import wholebody_score
from kd_pose_training.evaluation.oks import SCORED
from kd_pose_training.evaluation.people_truth import open_scored_people
from kd_pose_training.evaluation.wholebody import read_truth
from kd_pose_training.evaluation.wholebody_model import ScoredModel, open_scored
from kd_pose_training.evaluation.wholebody_results import PersonEstimates, read_results
from kd_pose_training.models.simcc_net import build_simcc_net

torch.set_num_threads(1)
CODEC = SimccCodec((48, 64))
KEYS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
CENTRE = (44.5, 59.5)  # of BOX, in pixel centres


def all_at_the_centre(item):
    for key in KEYS:
        item[key] = [*CENTRE, 2.0] * (len(item[key]) // 3)


def middle_of_the_crop(crops):
    """A "network" that is sure of the middle of every crop."""
    logits = [np.zeros((len(crops), COUNT, bins), np.float32) for bins in CODEC.bins]
    for axis in logits:
        axis[..., axis.shape[2] // 2 - 1] = 1.0
    return tuple(logits)


@pytest.fixture
def people(tmp_path):
    """Three pictures; all points of a person are in the middle of the box."""
    root = write_people(tmp_path / "people", 1, 3)
    change_annotations(root, all_at_the_centre, "val")
    return root


@pytest.fixture
def perfect(monkeypatch):
    model = ScoredModel(middle_of_the_crop, Encoding(CODEC), 1.25, GREY, "the middle")
    monkeypatch.setattr("kd_pose_training.evaluation.wholebody_model.open_scored",
                        lambda *arguments, **options: model)
    monkeypatch.setattr("kd_pose_training.recipe.task_of", lambda path: "wholebody")


def evaluate(people, out, *more, model="run"):
    return cli.main(["evaluate", str(model), "--data", f"{people}:val", "-o", str(out), *more])


def summary(out, kind="oracle"):
    return json.loads((out / "report.json").read_text())["summary"][kind]


def test_annotated_boxes(people, perfect, tmp_path, capsys):
    assert evaluate(people, tmp_path / "out") == 0
    found = summary(tmp_path / "out")
    assert (found["pictures"], found["people"], found["boxes"]) == (3, 3, 3)
    for part in ("body", "foot", "face", "hand", "wholebody"):
        assert found[part]["AP"] == found[part]["AR"] == 1.0
        assert found[part]["AP_L"] is None  # 3000 square pixels are medium
    assert "wholebody" in capsys.readouterr().out
    estimates = read_results(tmp_path / "out/results_oracle.json")
    assert np.allclose(estimates.xy, CENTRE, atol=0.4)  # half a bin, seen from the picture
    sheet = cv2.imread(str(tmp_path / "out/people_oracle.jpg"))
    assert sheet.shape[1] == 4 * 420


def test_boxes_of_a_file_miss_somebody(people, perfect, tmp_path, capsys):
    boxes = [{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9},
             {"image_id": 2, "category_id": 1, "bbox": BOX, "score": 0.8},
             {"image_id": 2, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.1},
             {"image_id": 3, "category_id": 1, "bbox": [5, 5, 0, 9], "score": 0.9},
             {"image_id": 3, "category_id": 1, "bbox": [1e9, 10, 10, 10], "score": 0.9},
             {"image_id": 77, "category_id": 1, "bbox": BOX, "score": 0.9}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    assert evaluate(people, tmp_path / "out", "--boxes", str(tmp_path / "boxes.json"),
                    "--no-flip-test") == 0
    found = summary(tmp_path / "out", "file")
    assert "file boxes: 3 in 3 pictures (left out: 2 without an area in their picture), 3 " in \
        capsys.readouterr().out
    assert found["estimates"] == 3 and found["boxes_left_out"] == 2
    # two of three found, the wrong box comes last: precision 1 up to recall 2/3 (67 of 101 places)
    assert found["wholebody"]["AR"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["wholebody"]["AP"] == pytest.approx(67 / 101, abs=1e-6)
    assert json.loads((tmp_path / "out/report.json").read_text())["flip_test"] is False


def test_a_detector(people, perfect, tmp_path, monkeypatch):
    class Detector:
        def detect(self, image, score_threshold, max_people):
            assert image.shape == (*SIZE_WH[::-1], 3) and score_threshold == 0.05
            return [Detection2D("person", 0.7, np.array(BOX) - (0.5, 0.5, 0, 0))]

        def close(self):
            pass

    monkeypatch.setattr("kd_pose.person_detector.open_person_detector",
                        lambda path, **engine: Detector())
    assert evaluate(people, tmp_path / "out", "--detector", "person.onnx",
                    "--detector-score-threshold", "0.05", "--limit", "2") == 0
    for kind in ("oracle", "detected"):
        found = summary(tmp_path / "out", kind)
        assert found["pictures"] == 2 and found["wholebody"]["AP"] == 1.0
        assert (tmp_path / f"out/people_{kind}.jpg").is_file()


@pytest.mark.parametrize("boxes", ["oracle", "detected"])
def test_pictures_of_another_size_than_annotated(people, perfect, tmp_path, monkeypatch, capsys,
                                                 boxes):
    monkeypatch.setattr("kd_pose.person_detector.open_person_detector",
                        lambda path, **engine: SimpleNamespace(close=lambda: None))
    cv2.imwrite(str(people / "images/val/000000000001.jpg"), np.zeros((60, 45, 3), np.uint8))
    assert evaluate(people, tmp_path / "out", "--boxes", boxes, "--detector", "d.onnx") == 2
    assert ("000000000001.jpg: is 45x60 pixels, its annotations say 90x120"
            in capsys.readouterr().err)


def test_a_bad_detector_is_refused_before_the_oracle_boxes(people, perfect, tmp_path, capsys):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for more, part in (
            (["--detector", str(tmp_path / "broken.onnx")], "broken.onnx"),
            (["--detector", "d.onnx", "--detector-score-threshold", "1.5"],
             "--detector-score-threshold must be 0 to 1, got 1.5")):
        assert evaluate(people, tmp_path / "out", *more) == 2
        said = capsys.readouterr()
        assert part in said.err and "oracle boxes" not in said.out


def test_what_is_scored_outlives_a_detector_that_fails(people, perfect, tmp_path, monkeypatch):
    class Detector:
        closed = False

        def detect(self, image, **options):
            raise ValueError("the engine stopped")

        def close(self):
            Detector.closed = True

    monkeypatch.setattr("kd_pose.person_detector.open_person_detector",
                        lambda path, **engine: Detector())
    assert evaluate(people, tmp_path / "out", "--detector", "person.onnx") == 2
    assert Detector.closed and summary(tmp_path / "out")["wholebody"]["AP"] == 1.0
    assert len(read_results(tmp_path / "out/results_oracle.json")) == 3
    assert (tmp_path / "out/people_oracle.jpg").is_file()


def test_pictures_are_chosen_evenly(people):
    whole = open_scored_people(f"{people}:val")
    assert whole.some(0) is whole and whole.some(3) is whole
    some = whole.some(2)
    assert some.truth.image_id.tolist() == [1, 2] and some.truth.image.tolist() == [0, 1]
    assert some.boxes.image_id.tolist() == [1, 2]
    assert some.truth.file_name == ("000000000001.jpg", "000000000002.jpg")


@pytest.fixture
def ubody(tmp_path):
    """Two scenes; of each, pictures 10 and 20 count, and 20 is of a video for testing."""
    root = tmp_path / "UBody"
    people = write_people(tmp_path / "twenty", 20, 1)
    change_annotations(people, all_at_the_centre)
    data = json.loads(annotation_path(people).read_text())
    for scene in ("Movie", "Speech"):
        (root / "annotations" / scene).mkdir(parents=True)
        for item in data["images"]:
            video = f"{scene}_{'b' if item['id'] > 15 else 'a'}"
            name = f"{item['id']:012d}.jpg"
            item["file_name"] = f"{video}_Trim1/{name}"
            (root / "images" / scene / f"{video}_Trim1").mkdir(parents=True, exist_ok=True)
            shutil.copy(people / "images/train" / name, root / "images" / scene
                        / item["file_name"])
        (root / f"annotations/{scene}/keypoint_annotation.json").write_text(json.dumps(data))
    (root / "splits").mkdir()
    np.save(root / "splits/intra_scene_test_list.npy", np.array(["Movie_b", "Speech_b"]))
    return root


def test_ubody(ubody, perfect, tmp_path):
    train, test = (open_scored_people(f"{ubody}:{split}") for split in ("train", "test"))
    assert train.truth.image_id.tolist() == [10, 10**8 + 10]
    assert test.truth.image_id.tolist() == test.boxes.image_id.tolist() == [20, 10**8 + 20]
    assert test.truth.file_name[1] == "Speech/Speech_b_Trim1/000000000020.jpg"
    assert test.truth.area == pytest.approx(0.53 * BOX[2] * BOX[3])
    assert cli.main(["evaluate", "run", "--data", f"{ubody}:test", "-o",
                     str(tmp_path / "out")]) == 0
    found = summary(tmp_path / "out")
    assert (found["pictures"], found["wholebody"]["AP"]) == (2, 1.0)


def test_boxes_of_a_file_for_ubody(ubody, perfect, tmp_path, capsys):
    path = tmp_path / "boxes.json"

    def run(*ids):
        path.write_text(json.dumps([{"image_id": number, "category_id": 1, "bbox": BOX,
                                     "score": 0.9} for number in ids]))
        return cli.main(["evaluate", "run", "--data", f"{ubody}:test", "--boxes", str(path),
                         "-o", str(tmp_path / "out")])

    assert run(10, 20) == 2  # as in the annotation files, of either scene
    error = capsys.readouterr().err
    assert "boxes.json: key 'image_id' is below 100000000 in all boxes" in error
    assert "of Movie alone" in error and "Speech being n = 1" in error
    assert run(20, 10**8 + 20) == 0
    assert summary(tmp_path / "out", "file")["wholebody"]["AP"] == 1.0
    shutil.rmtree(ubody / "annotations/Speech")
    assert run(10, 20) == 0  # one scene: ids as in its file
    assert summary(tmp_path / "out", "file")["wholebody"]["AP"] == 1.0


def test_similarity_of_a_picture(people):
    truth = read_truth(annotation_path(people, "val"))
    off = np.array([[CENTRE], [[1e4, 1e4]]]).repeat(COUNT, 1)
    estimates = PersonEstimates(np.array([1, 2]), off, np.ones((2, COUNT)), np.ones(2))
    assert wholebody_score.picture_oks(truth, estimates).tolist() == [1.0, 0.0, 0.0]
    assert list(SCORED)[-1] == "wholebody"


@pytest.mark.parametrize("more, part", [
    (["--calibrate-covariance"], "--calibrate-covariance is for networks of objects"),
    (["--targets", "none"], "--targets is for networks of objects"),
    (["--write-metrics"], "--write-metrics needs an .onnx file"),
    (["--boxes", "detected"], "needs --detector"),
    (["--detector-score-threshold", "0.3"], "is for a detector's boxes, --boxes is oracle"),
    (["--boxes", "absent.json"], "absent.json: no such file"),
])
def test_mistakes(people, perfect, tmp_path, capsys, more, part):
    assert evaluate(people, tmp_path / "out", *more) == 2
    assert part in capsys.readouterr().err


def test_threads_below_zero(people, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kd_pose_training.recipe.task_of", lambda path: "wholebody")
    assert evaluate(people, tmp_path / "out", "--threads", "-3") == 2
    assert "threads must be a whole number of 0 or more, got -3" in capsys.readouterr().err


def test_files_that_are_no_models(people, tmp_path, capsys):
    assert evaluate(people, tmp_path / "out", model=tmp_path / "absent.pt") == 2
    assert "absent.pt: there is no such checkpoint" in capsys.readouterr().err
    network = build_simcc_net("rtmpose_n", 17, (32, 64))
    torch.save(network.state_dict(), tmp_path / "body.pth")
    assert evaluate(people, tmp_path / "out", model=tmp_path / "body.pth") == 2
    assert "(133, 256, 7, 7) in the network" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--part", "student"], ["--raw-weights"]])
def test_an_exported_file_holds_one_network(people, perfect, tmp_path, capsys, monkeypatch, more):
    monkeypatch.setattr("kd_pose.manifest.read_manifest",
                        lambda path: SimpleNamespace(task="wholebody"))
    assert evaluate(people, tmp_path / "out", *more, model="people.onnx") == 2
    assert (f"{more[0]} is for checkpoints, people.onnx is an .onnx file"
            in capsys.readouterr().err)


@pytest.mark.slow
def test_a_file_of_mmpose_scores_as_its_export(people, tmp_path):
    torch.manual_seed(0)
    network = build_simcc_net("rtmpose_n", input_size=(32, 64))
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    onnx = tmp_path / "weights.onnx"
    assert cli.main(["export", str(path), "-o", str(onnx)]) == 0
    assert evaluate(people, tmp_path / "torch", model=path) == 0
    assert evaluate(people, tmp_path / "onnx", "--write-metrics", model=onnx) == 0
    ours, theirs = (read_results(tmp_path / name / "results_oracle.json")
                    for name in ("torch", "onnx"))
    assert np.allclose(ours.keypoint_scores, theirs.keypoint_scores, rtol=1e-3, atol=1e-6)
    assert (np.abs(ours.xy - theirs.xy).max(axis=2) < 1e-3).mean() > 0.98  # ties of two bins
    from kd_pose.manifest import read_manifest
    manifest = read_manifest(onnx)
    assert manifest.metrics["oracle"]["people"] == 3 and manifest.border_value == 0.0
    assert manifest.training["size"] == "rtmpose_n"
    model = open_scored(onnx)
    assert model.border_value == 0.0 and model.encoding.mean == (123.675, 116.28, 103.53)


