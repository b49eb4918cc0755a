"""Checkpoint to ONNX file: parity, refusal, manifest, provenance."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from helpers.fake_objects import SPECS
from kd_pose.backends import open_session
from kd_pose.manifest import ModelFileError, read_manifest
from kd_pose.vote_network import VoteNetwork
from kd_pose_training import cli
from kd_pose_training import export as module
from kd_pose_training.config import DataConfig, ModelConfig, TrainConfig, to_dict
from kd_pose_training.engine.checkpoint import CheckpointError, save_checkpoint
from kd_pose_training.engine.schedule import AveragedWeights
from kd_pose_training.export import ExportError, export, set_manifest_metrics
from kd_pose_training.models import build_model
from kd_pose_training.strict import to_dict as plain

torch.set_num_threads(1)
CONFIG = TrainConfig(
    DataConfig(("absent:train",), objects=("block", "can"), input_size=(96, 64)),
    model=ModelConfig(strides=(16, 32), head_depth=1, num_classes=2))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run whose averaged weights differ from its last ones."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(3)
    network = build_model(CONFIG.model)
    for name, value in network.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            value.normal_(0.0, 0.3)
    average = AveragedWeights(network, 0.999)
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(1.02)
    save_checkpoint({
        "config": to_dict(CONFIG), "objects": [plain(spec) for spec in SPECS.values()],
        "iteration": 7, "iterations": 9, "network": network.state_dict(),
        "average": average.state_dict()}, folder / "last.pt")
    return folder


@pytest.fixture(scope="module")
def model_path(run_folder, tmp_path_factory):
    return export(run_folder, tmp_path_factory.mktemp("models") / "new/student.onnx")


def test_file_computes_what_torch_computes(run_folder, model_path):
    state = module.load_checkpoint(run_folder / "last.pt")
    network = build_model(CONFIG.model).eval()
    network.load_state_dict(state["average"]["network"])
    session = open_session(model_path, "onnxruntime", "cpu")
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 64, 96, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            logits, offsets = network(images)
        found = session.run({"image": images.numpy()})
        assert np.abs(found["scores"] - logits.sigmoid().numpy()).max() < 1e-5
        assert np.allclose(found["offsets"], offsets.numpy(), atol=1e-4)


def test_runtime_takes_the_file(model_path):
    network = VoteNetwork(model_path, "object_votes", backend="onnxruntime")
    assert network.names == ("block", "can") and network.manifest.input_size == (96, 64)
    assert network.session.inputs["image"][0] == -1
    assert list(model_path.parent.iterdir()) == [model_path]  # nothing beside, no data file


def test_manifest_says_where_the_file_is_from(model_path):
    manifest = read_manifest(model_path)
    assert manifest.objects == tuple(SPECS.values())
    notes = manifest.training
    assert notes["iteration"] == 7 and notes["averaged_weights"] and notes["seed"] == 0
    assert notes["config"]["model"]["size"] == "darknet_tiny_h"
    assert notes["parity"]["scores"] <= 1e-4 and "not here" in notes["parity"]["pictures"]
    assert notes["versions"]["torch"] == torch.__version__
    model = onnx.load(str(model_path))
    assert model.opset_import[0].version == 18 and model.ir_version <= 10
    assert b"/site-packages/" not in model.SerializeToString()


def test_raw_weights_differ_from_averaged_ones(run_folder, model_path, tmp_path):
    raw = export(run_folder / "last.pt", tmp_path / "raw.onnx", use_ema=False,
                 score_threshold=0.15, metrics={"mean": {"add": 0.5}})
    assert not read_manifest(raw).training["averaged_weights"]
    assert read_manifest(raw).score_threshold == 0.15
    assert read_manifest(raw).metrics == {"mean": {"add": 0.5}}
    images = np.ones((1, 3, 64, 96), np.float32)
    a, b = (open_session(path, "onnxruntime").run({"image": images})["offsets"]
            for path in (raw, model_path))
    assert np.abs(a - b).max() > 1e-6


def _writes(model_path, change=lambda model: None):
    """A quick stand-in for `write_graph`: the file exported before, with a change."""
    def write(network, input_size, path, opset):
        model = onnx.load(str(model_path))
        change(model)
        onnx.save(model, str(path))
    return write


def _change_largest_weight(model, function):
    tensor = max(model.graph.initializer, key=lambda item: len(item.raw_data))
    values = np.ascontiguousarray(function(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@pytest.mark.parametrize("function", [lambda w: w[::-1], lambda w: w * np.float32("nan")])
def test_another_graph_is_refused_and_nothing_is_written(run_folder, model_path, tmp_path,
                                                         monkeypatch, function):
    earlier = tmp_path / "model.onnx"
    earlier.write_bytes(b"earlier")
    monkeypatch.setattr(module, "write_graph", _writes(
        model_path, lambda model: _change_largest_weight(model, function)))
    with pytest.raises(ExportError, match="model.onnx.*not written.*torch"):
        export(run_folder, earlier)
    assert earlier.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [earlier]


def test_a_small_difference_passes_and_a_larger_one_does_not():
    def holds(scores, offsets):
        return module.Parity(scores=scores, offsets=offsets).holds

    assert holds(1e-4, 1e-3) and not holds(2e-4, 0.0) and not holds(0.0, 2e-3)
    assert not holds(module._larger(0.0, float("nan")), 0.0)


def test_real_pictures_are_compared_too(run_folder, model_path, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "write_graph", _writes(model_path))
    monkeypatch.setattr(module, "real_inputs", lambda config: (
        np.ones((2, 3, 64, 96), np.float32), "data/x:val"))
    original = module.measure_parity
    monkeypatch.setattr(module, "measure_parity", lambda network, path, batches: (
        seen.extend(batch.shape[0] for batch in batches), original(network, path, batches))[1])
    path = export(run_folder, tmp_path / "m.onnx")
    assert seen == [1, 3, 1, 3]
    assert read_manifest(path).training["parity"]["pictures"] == "data/x:val"


def test_metrics_are_added_later(model_path, tmp_path):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(model_path.read_bytes())
    before = read_manifest(copy)
    set_manifest_metrics(copy, {"oracle": {"add": 0.9}}, covariance_scale=2.5)
    set_manifest_metrics(copy, {"detected": {"add": 0.8}})
    after = read_manifest(copy)
    assert after.metrics == {"oracle": {"add": 0.9}, "detected": {"add": 0.8}}
    assert after.covariance_scale == 2.5
    assert dataclasses.replace(after, metrics={}, covariance_scale=0.0) == before
    images = np.ones((1, 3, 64, 96), np.float32)
    a, b = (open_session(p, "onnxruntime").run({"image": images}) for p in (copy, model_path))
    assert np.array_equal(a["scores"], b["scores"])
    with pytest.raises(ValueError):
        set_manifest_metrics(copy, {"add": float("nan")})
    with pytest.raises(ModelFileError):
        set_manifest_metrics(tmp_path / "absent.onnx", {})
    assert read_manifest(copy) == after


def test_mistakes_are_named(run_folder, tmp_path):
    with pytest.raises(ExportError, match="end in .onnx"):
        export(run_folder, tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="neither best.pt nor last.pt"):
        export(tmp_path, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="absent.pt"):
        export(tmp_path / "absent.pt", tmp_path / "model.onnx")


def test_command(run_folder, model_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "write_graph", _writes(model_path))
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"summary": {"oracle": {"mean": 1}}}))
    out = tmp_path / "m.onnx"
    arguments = ["export", str(run_folder), "--out", str(out), "--metrics", str(report)]
    assert cli.main(arguments) == 0
    assert "iteration 7" in capsys.readouterr().out
    assert read_manifest(out).metrics == {"oracle": {"mean": 1}}
    report.write_text("{}")
    assert cli.main(arguments) == 2
    assert "report.json" in capsys.readouterr().err
