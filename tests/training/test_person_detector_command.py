"""A person detector from a COCO folder to a file that the node loads, by the command line."""

import json

import numpy as np
import pytest
import torch

from helpers.people_folder import person, write_people
from kd_pose.manifest import read_manifest
from kd_pose.person_detector import open_person_detector
from kd_pose_training.cli import main
from kd_pose_training.data.coco_people import CocoPeople

torch.set_num_threads(1)
RECIPE = """
task: object_detector
data: {{train: ['{root}:train'], val: ['{root}:val'], input_size: [64, 48], num_workers: 0}}
augment: {{zoom: [0.9, 1.1], shift: 0.05, cutout: 0, hue: 0, blur: 0, noise: 0}}
model: {{strides: [16, 32], head_depth: 1, fpn_channels: 32}}
optim: {{lr: 4.0e-3}}
trainer: {{iterations: 60, batch_size: 8, precision: fp32, device: cpu, validate_every: 30,
          checkpoint_every: 30, ema_decay: 0.8, progress_bar: false, tensorboard: false}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bright people, one or none in a picture."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        write_people(root, [[person((*rng.integers(4, 60, 2), 30, 34))] if i % 4 else []
                            for i in range(count)], split)
    return root


@pytest.fixture(scope="module")
def model(folder):
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=folder))
    assert main(["train", str(recipe), "-o", str(folder / "run")]) == 0
    path = folder / "detector.onnx"
    assert main(["export", str(folder / "run"), "-o", str(path)]) == 0
    return path


def test_it_finds_the_people_that_it_learnt(model, folder):
    manifest = read_manifest(model)
    assert (manifest.task, [spec.name for spec in manifest.objects]) == ("object_detector",
                                                                        ["person"])
    assert manifest.training["parity"]["pictures"] == f"{folder}:val"
    detector = open_person_detector(model)
    frames = CocoPeople(folder, "train").frames
    near = []
    for frame in frames:
        found = detector.detect(frame.load_image(), score_threshold=0.1)
        if len(frame.instances):
            centre = frame.boxes_xywh[0, :2] + frame.boxes_xywh[0, 2:] / 2
            near.append(bool(found) and np.abs(
                found[0].box_xywh[:2] + found[0].box_xywh[2:] / 2 - centre).max() < 12)
    assert np.mean(near) > 0.7
    detector.close()


def test_evaluate_calibrates_and_notes(model, folder, capsys):
    out = folder / "report"
    assert main(["evaluate", str(model), "--data", f"{folder}:val", "-o", str(out),
                 "--calibrate-score", "--write-metrics"]) == 0
    report = json.loads((out / "report.json").read_text())
    summary = report["summary"]["people"]
    assert summary["people"] == 6 and summary["pictures"] == 8
    manifest = read_manifest(model)
    assert manifest.score_threshold == summary["score_threshold"]
    assert manifest.metrics["people"] == summary
    assert report["calibration"][str(manifest.score_threshold)]["recall_50"] == pytest.approx(
        summary["recall_50"], abs=1e-4)
    assert (out / "sheet.jpg").stat().st_size > 1000
    assert "recall" in capsys.readouterr().out


@pytest.mark.parametrize("options, message", [
    (["--boxes", "oracle"], "--boxes is not for person detectors"),
    (["--part", "student"], "--part is not for person detectors"),
    (["--calibrate-score", "--score-threshold", "0.3"], "--calibrate-score finds the threshold"),
    (["--limit", "-1"], "--limit must be 0"),
])
def test_what_evaluate_refuses(model, folder, capsys, options, message):
    assert main(["evaluate", str(model), "--data", f"{folder}:val", "-o", str(folder / "no"),
                 *options]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "no").exists()


def test_poses_are_not_learnt_from_people(folder, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=folder).replace("object_detector", "object_votes"))
    assert main(["train", str(recipe), "-o", str(tmp_path / "run")]) == 2
    assert "hold people; task is 'object_votes'; allowed: 'object_detector'" in \
        capsys.readouterr().err
