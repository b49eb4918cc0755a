"""Dense networks from the command line: train, resume, distil, export, estimate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("embreex", reason="embreex has wheels for x86-64 only")

from helpers.fake_objects import SPECS, FakeBop, K, load_vertices, vertices
from kd_pose.camera import Camera
from kd_pose.codes import code_table_from_text
from kd_pose.manifest import DenseManifest, read_manifest
from kd_pose.object_pose import ObjectPoseEstimator
from kd_pose.results import Detection2D
from kd_pose_training import cli
from kd_pose_training.config import load_config
from kd_pose_training.data import bop, bop_models
from kd_pose_training.engine.checkpoint import load_checkpoint
from kd_pose_training.engine.distributed import World
from kd_pose_training.engine.log import read_log
from kd_pose_training.export import set_manifest_metrics
from kd_pose_training.models.codenet import resnet34_dense
from kd_pose_training.training import objects as command
from kd_pose_training.training.run import check_same_run

torch.set_num_threads(1)
CONFIG = """
task: object_codes
data: {train: ['fake:train'], val: ['fake:val'], input_size: [48, 32], num_workers: 0,
       max_val_samples: 2}
model: {size: dense_tiny, code_bits: 6}
codes: {surface_samples: 512}
trainer: {iterations: 3, batch_size: 2, precision: fp32, device: cpu, validate_every: 2,
          checkpoint_every: 2, log_every: 1, progress_bar: false, tensorboard: false}
"""


def load_surface(model):
    from scipy.spatial import ConvexHull
    points = vertices(model.spec)
    return points, ConvexHull(points).simplices


@pytest.fixture(scope="module")
def patched():
    patch = pytest.MonkeyPatch()
    patch.setattr(bop, "BopDataset", lambda root, split, objects=None: FakeBop(2))
    patch.setattr(bop_models, "load_mesh_vertices", load_vertices)
    patch.setattr(bop_models, "load_mesh_surface", load_surface)
    yield patch
    patch.undo()


@pytest.fixture(scope="module")
def run(patched, tmp_path_factory):
    """A finished run of three iterations."""
    folder = tmp_path_factory.mktemp("codes")
    (folder / "codes.yaml").write_text(CONFIG)
    assert cli.main(["train", str(folder / "codes.yaml"), "-o", str(folder / "run")]) == 0
    return folder


def test_a_run_holds_what_its_codes_mean(run):
    lines = read_log(run / "run")
    assert [line["kind"] for line in lines].count("train") == 3
    assert all(0 < line["code"] < 2 and 0 <= line["mask_iou"] <= 1 for line in lines)
    state = load_checkpoint(run / "run/best.pt")
    tables = [code_table_from_text(text) for text in state["code_tables"]]
    assert [table.bits for table in tables] == [6, 6]
    for table, spec in zip(tables, SPECS.values()):
        assert np.allclose(table.points.min(0), spec.box_min, atol=0.02)
    network, config, objects = command.load_network(run / "run/last.pt")
    assert config.model.code_bits == 6 and [o["name"] for o in objects] == ["block", "can"]
    assert network.bits == 6 and (network.bit_error != 0.5).all()  # resumes with its weights


def test_resume_checks_codes(run, capsys):
    arguments = ["train", str(run / "codes.yaml"), "-o", str(run / "run"), "--resume"]
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, "--set", "codes.surface_samples=600"]) == 2
    assert "codes.surface_samples was 512, now 600" in capsys.readouterr().err
    header = {key: load_checkpoint(run / "run/last.pt")[key] for key in ("config", "objects")}
    with pytest.raises(ValueError, match="models have changed"):
        check_same_run({**header, "code_tables": ["other"]},
                       load_checkpoint(run / "run/last.pt"), run / "run/last.pt", command.FIXED)


def test_a_student_learns_from_it(run):
    assert cli.main(["train", str(run / "codes.yaml"), "-o", str(run / "student"), "--set",
                     f"distill={{teacher: {run}/run/last.pt, max_error: 0, score_threshold: 0}}"
                     ]) == 0
    for line in read_log(run / "student"):
        assert ("align" in line) == (line["kind"] == "train")


def test_a_narrow_student_copies_answers_kept_on_disk(run):
    teaching = (f"distill={{teacher: {run}/run/last.pt, cache: {run}/cache, max_error: 0, "
                "align: null, naive: {}, features: {}}")
    arguments = ["train", str(run / "codes.yaml"), "-o", str(run / "copying"), "--set", teaching,
                 "--set", "model.size=dense_tiny_h", "--set"]
    assert cli.main([*arguments, "data.variants=1"]) == 0
    assert np.load(run / "cache/codes.npy").shape == (4, 6, 8, 12)  # the student's pixels
    lines = [line for line in read_log(run / "copying") if line["kind"] == "train"]
    assert all(line["naive_votes"] > 0 and line["fkd_relation"] > 0 for line in lines)


def test_too_few_samples_and_wrong_sizes_end_in_one_line(run, tmp_path, capsys):
    for setting, part in (("codes.surface_samples=63", "at least 64 for 6 bits"),
                          ("model.size=darknet_tiny_h", "resnet34_dense, dense_tiny"),
                          ("data.objects=[spoon]", "spoon")):
        assert cli.main(["train", str(run / "codes.yaml"), "-o", str(tmp_path / "x"), "--set",
                         setting]) == 2
        error = capsys.readouterr().err.strip()
        assert part in error and "\n" not in error


@pytest.mark.parametrize("size, fits", [(3, False), (4, True)])
def test_every_process_needs_two_crops(run, size, fits):
    config = load_config(run / "codes.yaml", [f"trainer.batch_size={size}"])
    if fits:
        assert command.bring(config, World(size=2)).config.trainer.batch_size == size
        return
    with pytest.raises(ValueError, match="batch_size is 3, shared by 2 .* allowed: 4 or more"):
        command.bring(config, World(size=2))
    assert command.bring(config, World()).task  # alone it does


def test_export_and_estimate(run, patched, capsys):
    """The file runs in the estimator of the node; three iterations do not find much."""
    path = run / "student.onnx"
    assert cli.main(["export", str(run / "run"), "--out", str(path), "--score-threshold",
                     "0.01"]) == 0
    assert "(masks)" in capsys.readouterr().out
    manifest = read_manifest(path)
    assert isinstance(manifest, DenseManifest) and manifest.stride == 2
    assert manifest.score_threshold == 0.01 and manifest.input_size == (48, 32)
    assert manifest.training["parity"]["codes"] < 1e-5
    assert [table.bits for table in manifest.tables()] == [6, 6]
    estimator = ObjectPoseEstimator(path, None, backend="onnxruntime")
    frame = FakeBop(2).frames[0]
    boxes = [Detection2D("block", 1.0, np.array([40.0, 60, 80, 90]))]
    result = estimator.estimate(frame.load_image(), Camera(K, 320, 240), boxes=boxes)
    assert result.detections == boxes and result.timing_ms["network"] > 0
    estimator.close()
    assert set_manifest_metrics(path, {"a": 1.0}).metrics == {"a": 1.0}


def test_teacher_starts_from_a_plain_resnet(tmp_path):
    torch.manual_seed(0)
    source, network = resnet34_dense(1, 4).backbone, resnet34_dense(1, 4)
    path = tmp_path / "resnet34.pth"
    torch.save({**source.state_dict(), "fc.weight": torch.zeros(1000, 512)}, path)
    command.load_start_weights(network, str(path))
    for name, value in source.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], value)
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="resnet34.pth.*not a"):
        command.load_start_weights(network, str(path))


@pytest.mark.parametrize("name", ["object_codes_teacher", "object_codes_student"])
def test_recipes_are_read(name):
    root = Path(__file__).resolve().parents[2]
    config = load_config(root / f"config/training/{name}.yaml")
    assert config.task == "object_codes" and config.model.code_bits == 16
