"""From an exported vote network back to one that learns on."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import torch
from onnx import numpy_helper

from helpers.dense_models import make_dense_model
from helpers.fake_objects import SPECS
from helpers.tiny_models import example_scene
from kd_pose.manifest import read_manifest
from kd_pose_training.config import DataConfig, ModelConfig, TrainConfig, to_dict
from kd_pose_training.distill.teacher import load_teacher
from kd_pose_training.engine.checkpoint import save_checkpoint
from kd_pose_training.export import embed_manifest, export
from kd_pose_training.models import build_model
from kd_pose_training.models.exported_weights import (
    exported_state,
    read_exported,
    restore_batch_norms,
)
from kd_pose_training.strict import to_dict as plain
from kd_pose_training.training.objects import load_network, load_start_weights

torch.set_num_threads(1)
MODEL = ModelConfig(strides=(8, 16, 32), fpn_channels=32, head_depth=2, num_classes=2,
                    num_keypoints=8)
CONFIG = TrainConfig(DataConfig(("absent:train",), objects=("block", "can"), input_size=(96, 64)),
                     model=MODEL)


def _network(learnt: bool = True):
    """With the numbers that only a training changes changed, unless it is a fresh one."""
    torch.manual_seed(5)
    network = build_model(MODEL)
    with torch.no_grad():
        for value in network.state_dict().values():
            if learnt and value.ndim < 2 and value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return network


def _file(network, folder):
    save_checkpoint({"config": to_dict(CONFIG), "iteration": 1, "iterations": 1,
                     "objects": [plain(spec) for spec in SPECS.values()],
                     "network": network.state_dict(), "average": None}, folder / "last.pt")
    return export(folder, folder / "student.onnx")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return _file(_network(), tmp_path_factory.mktemp("learnt"))


@pytest.fixture(scope="module")
def pictures():
    return torch.randn(8, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _answers(network, pictures):
    return torch.cat([part.flatten() for part in network(pictures)])


@pytest.mark.parametrize("learnt", [True, False])
def test_computes_what_was_exported(learnt, tmp_path, pictures):
    # Of a fresh network the exporter drops factors of one and terms of zero.
    original = _network(learnt).eval()
    again = build_model(MODEL).eval()
    again.load_state_dict(read_exported(_file(original, tmp_path)))
    assert torch.allclose(_answers(again, pictures), _answers(original, pictures),
                          rtol=1e-4, atol=1e-4)
    for name in ("head.scales", "head.vote_tower.4.weight", "head.class_tower.1.bias",
                 "pyramid.extra.0.bias"):
        assert torch.allclose(again.state_dict()[name], original.state_dict()[name]), name


def test_norms_get_the_statistics_of_pictures(path, pictures):
    network = build_model(MODEL)
    network.load_state_dict(read_exported(path))
    before = _answers(network.eval(), pictures)
    spread = (before - before.mean()).norm()
    lost = (_answers(network.train(), pictures) - before).norm() / spread
    # A training forward moves running averages: read the file again.
    network.load_state_dict(read_exported(path))
    restore_batch_norms(network, network.backbone, pictures.split(4))
    assert network.training
    kept = _answers(network.eval(), pictures)
    assert torch.allclose(kept, before, rtol=1e-3, atol=1e-3)
    assert lost > 0.2  # without them a training starts somewhere else
    norm = network.backbone.stages[0][0][1]
    assert norm.running_var.min() > 0 and (norm.running_var != 1).all()
    assert (_answers(network.train(), pictures) - before).norm() / spread < 0.01


def test_other_objects_and_heads_keep_the_backbone(path):
    torch.manual_seed(1)
    network = build_model(ModelConfig(strides=(16, 32), fpn_channels=64, head_depth=1,
                                      num_classes=3, num_keypoints=8))
    head = network.head.votes.weight.clone()
    load_start_weights(network, str(path))
    assert torch.equal(network.head.votes.weight, head)
    weights = read_exported(path)
    assert torch.equal(network.backbone.stages[2][1][0].weight,
                       weights["backbone.stages.2.1.0.weight"])
    wide = build_model(ModelConfig("darknet_tiny", num_classes=2, num_keypoints=8))
    with pytest.raises(ValueError, match="no backbone that fits"):
        load_start_weights(wide, str(path))


def test_an_exported_file_teaches_as_its_checkpoint_does(path, pictures):
    student = replace(CONFIG, model=replace(MODEL, head_depth=0))
    objects = [plain(spec) for spec in SPECS.values()]
    file, checkpoint = (load_teacher(source, student, objects)
                        for source in (path, path.with_name("last.pt")))
    for found, expected in zip(file(pictures), checkpoint(pictures)):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    other = replace(student, data=replace(student.data, objects=("block", "mug")))
    with pytest.raises(ValueError, match="student.onnx.*mug"):
        load_teacher(path, other)


def test_a_file_that_does_not_say_how_it_was_trained_teaches_nobody(path, tmp_path):
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(path.read_bytes())
    manifest = replace(read_manifest(path), training={})
    embed_manifest(bare, manifest)
    assert read_exported(bare)
    with pytest.raises(ValueError, match="bare.onnx: its manifest has no training.config"):
        exported_state(bare)


def test_refuses_what_it_cannot_give_back(path, tmp_path):
    changed = onnx.load(str(path))
    for node in changed.graph.node:
        if node.op_type == "InstanceNormalization":
            node.attribute[0].f = 10.0
    onnx.save(changed, str(tmp_path / "norm.onnx"))
    with pytest.raises(ValueError, match=r"norm.onnx: its weights do not give its own [so]"):
        read_exported(tmp_path / "norm.onnx")
    changed = onnx.load(str(path))
    for item in changed.graph.initializer:
        if item.name.endswith("laterals.0.weight"):
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item)[:16], item.name))
    onnx.save(changed, str(tmp_path / "narrow.onnx"))
    with pytest.raises(ValueError, match=r"narrow.onnx: holds none of the networks darknet53"):
        read_exported(tmp_path / "narrow.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match="text.onnx"):
        read_exported(tmp_path / "text.onnx")
    with pytest.raises((ValueError, OSError), match="absent.onnx"):
        read_exported(tmp_path / "absent.onnx")


def test_weights_that_are_not_finite_are_refused(path, tmp_path):
    model = onnx.load(str(path))
    name = "head.votes.weight"
    item, = (item for item in model.graph.initializer if item.name == f"network.{name}")
    values = numpy_helper.to_array(item).copy()
    values[0] = float("nan")
    item.CopyFrom(numpy_helper.from_array(values, item.name))
    onnx.save(model, str(tmp_path / "nan.onnx"))
    with pytest.raises(ValueError, match=f"nan.onnx: {name} has values that are not finite"):
        read_exported(tmp_path / "nan.onnx")


def test_a_checkpoint_that_is_not_finite_neither_starts_teaches_nor_is_exported(tmp_path):
    network = _network()
    network.backbone.stages[2][1][0].weight.data[0] = torch.nan
    message = "last.pt: backbone.stages.2.1.0.weight has values that are not finite"
    with pytest.raises(ValueError, match=message):
        _file(network, tmp_path)
    path = tmp_path / "last.pt"
    with pytest.raises(ValueError, match=message):
        load_start_weights(build_model(MODEL), str(path))
    with pytest.raises(ValueError, match=message):
        load_network(path)
    with pytest.raises(ValueError, match=message):
        load_teacher(path, CONFIG, [plain(spec) for spec in SPECS.values()])


def test_a_dense_network_is_told_from_one_of_votes(tmp_path):
    path = make_dense_model(tmp_path / "dense.onnx", example_scene())
    reason = "dense.onnx: only vote networks .* this one is for object_codes"
    with pytest.raises(ValueError, match=reason):
        load_start_weights(_network(), str(path))
    with pytest.raises(ValueError, match=reason):
        load_teacher(path, CONFIG)
