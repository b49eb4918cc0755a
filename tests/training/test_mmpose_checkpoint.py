"""Checkpoints as MMPose writes them: every wrapping, and every way not to fit."""

from __future__ import annotations

import os
import sys
import types

import pytest
import torch

from helpers.tiny_simcc import tiny_net
from kd_pose_training.engine.checkpoint import CheckpointError
from kd_pose_training.models.mmpose_checkpoint import load_mmpose_checkpoint

torch.set_num_threads(1)
KEY = "backbone.stage4.0.conv.weight"


def random_state(seed=1, prefix="", **settings):
    state = tiny_net(seed=seed, **settings).state_dict()
    torch.manual_seed(seed)
    return {prefix + key: torch.randn_like(value) if value.is_floating_point() else value + seed
            for key, value in state.items()}


def save(path, content):
    torch.save(content, path)
    return path


def assert_loaded(network, state):
    own = network.state_dict()
    assert own.keys() == state.keys() and len(own) > 50
    assert all(torch.equal(own[key], value) for key, value in state.items())


def test_a_bare_state_dict_and_a_whole_checkpoint(tmp_path):
    state = random_state()
    for content in (state, {"state_dict": state, "meta": {"epoch": 3}, "optimizer": {}},
                    {"state_dict": {"module." + key: value for key, value in state.items()}}):
        network = tiny_net()
        load_mmpose_checkpoint(network, save(tmp_path / "a.pth", content))
        assert_loaded(network, state)


@pytest.mark.parametrize("zipped", [True, False])
def test_foreign_objects_are_neither_needed_nor_run(tmp_path, monkeypatch, zipped):
    """What a training leaves in its checkpoint, and what an attacker would."""
    module = types.ModuleType("foreign")

    class Buffer(dict):
        def __init__(self, values):
            super().__init__(values=values)
            self.window = [1.0]

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    Buffer.__module__, Buffer.__qualname__ = "foreign", "Buffer"
    module.Buffer = Buffer
    monkeypatch.setitem(sys.modules, "foreign", module)
    state = random_state()
    content = {"state_dict": state, "meta": {"trap": Trap(), "set": {1, 2}},
               "message_hub": {"loss": Buffer([1, 2])}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, "foreign")
    network = tiny_net()
    load_mmpose_checkpoint(network, tmp_path / "a.pth")
    assert_loaded(network, state)
    assert not (tmp_path / "trapped").exists()


def test_student_and_teacher_of_a_distiller(tmp_path):
    student, teacher = random_state(1), random_state(2)
    both = {"student." + k: v for k, v in student.items()}
    alone = save(tmp_path / "student.pth", {"state_dict": both})
    both = {**both, **{"teacher." + k: v for k, v in teacher.items()},
            "distill_losses.loss_fea.align.weight": torch.zeros(3, 3, 1, 1)}
    path = save(tmp_path / "both.pth", {"state_dict": both})
    for file, part, want in ((alone, None, student), (path, "student", student),
                             (path, "teacher", teacher)):
        network = tiny_net()
        load_mmpose_checkpoint(network, file, part=part)
        assert_loaded(network, want)
    network = tiny_net()
    load_mmpose_checkpoint(network, path, part="second_stage")
    assert_loaded(network, {k: (teacher if k.startswith("backbone") else student)[k]
                            for k in student})
    with pytest.raises(CheckpointError, match=r"both.pth: .*student and teacher; say which"):
        load_mmpose_checkpoint(network, path)
    with pytest.raises(CheckpointError, match="allowed: plain, student"):
        load_mmpose_checkpoint(network, path, part="pupil")
    with pytest.raises(CheckpointError, match="has no backbone.stem.0.conv.weight"):
        load_mmpose_checkpoint(network, alone, part="teacher")


def test_averaged_and_last_weights(tmp_path):
    """MMEngine saves the average under state_dict and the last weights under ema_state_dict."""
    average, last = random_state(1), random_state(2)
    held = {"module." + key: value for key, value in last.items()}
    path = save(tmp_path / "a.pth", {"state_dict": average,
                                     "ema_state_dict": {"steps": torch.tensor(7), **held}})
    for weights, want in (("averaged", average), ("last", last)):
        network = tiny_net()
        load_mmpose_checkpoint(network, path, weights=weights)
        assert_loaded(network, want)
    with pytest.raises(CheckpointError, match="allowed: averaged, last"):
        load_mmpose_checkpoint(network, path, weights="best")


def test_averaged_weights_of_a_distiller(tmp_path):
    average, last = (random_state(seed, "student.") for seed in (1, 2))
    path = save(tmp_path / "a.pth", {
        "state_dict": average, "ema_state_dict": {"module." + k: v for k, v in last.items()}})
    network = tiny_net()
    load_mmpose_checkpoint(network, path, weights="last")
    assert_loaded(network, random_state(2))


def test_a_pretrained_backbone(tmp_path):
    """Its head belongs to another method; the network's own stays."""
    network = tiny_net()
    head = {key: value.clone() for key, value in network.head.state_dict().items()}
    state = {key: value for key, value in random_state().items() if key.startswith("backbone.")}
    path = save(tmp_path / "a.pth", {"state_dict": {**state, "head.deconv.weight": torch.ones(3)}})
    load_mmpose_checkpoint(network, path, backbone_only=True)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    assert all(torch.equal(head[key], value) for key, value in network.head.state_dict().items())


def test_what_may_be_missing_and_what_may_be_too_much(tmp_path):
    state = random_state()
    reduced = {key: value for key, value in state.items() if "num_batches" not in key}
    reduced["head.loss_module.scale"] = reduced["data_preprocessor.mean"] = torch.ones(3)
    network = tiny_net()
    load_mmpose_checkpoint(network, save(tmp_path / "a.pth", {"state_dict": reduced}))
    found = network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in reduced.items() if key in found)


@pytest.mark.parametrize("settings, message", [
    ({"width": 24}, r"backbone\.stage4\.0\.conv\.weight has the shape \(24, 8, 3, 3\) in the file "
     r"and \(16, 8, 3, 3\) in the network"),
    ({"size": (64, 64)}, r"head\.mlp\.1\.weight has the shape \(256, 4\) in the file and "
     r"\(256, 6\) in the network"),
    ({"keypoints": 17}, r"head\.final_layer\.weight has the shape \(17, 16, 7, 7\) in the file "
     r"and \(5, 16, 7, 7\) in the network: another size, input size or number of keypoints")])
def test_another_size(tmp_path, settings, message):
    network = tiny_net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path = save(tmp_path / "other.pth", random_state(**settings))
    with pytest.raises(CheckpointError, match=r"other\.pth: " + message):
        load_mmpose_checkpoint(network, path)
    assert_loaded(network, before)  # nothing has changed


def test_a_missing_and_an_unknown_key(tmp_path):
    state = random_state()
    less = {key: value for key, value in state.items() if key != KEY}
    with pytest.raises(CheckpointError, match=r"has no backbone\.stage4\.0\.conv\.weight; the "
                                              r"network wants \(16, 8, 3, 3\)"):
        load_mmpose_checkpoint(tiny_net(), save(tmp_path / "a.pth", less))
    more = {**state, "backbone.stage1.1.blocks.1.conv1.conv.weight": torch.ones(4, 4, 3, 3)}
    with pytest.raises(CheckpointError, match=r"has backbone\.stage1\.1\.blocks\.1.* \(4, 4, 3, "
                                              r"3\), which the network does not have"):
        load_mmpose_checkpoint(tiny_net(), save(tmp_path / "a.pth", more))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    state = random_state()
    state[KEY][0, 0, 0, 0] = value
    path, network = save(tmp_path / "a.pth", state), tiny_net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"a\.pth: backbone\.stage4\.0\.conv\.weight has "
                                              "values that are not finite"):
        load_mmpose_checkpoint(network, path)
    assert_loaded(network, before)  # nothing has changed


@pytest.mark.parametrize("content, message", [
    ([1, 2], "holds a list"), ({"state_dict": {}}, "holds no tensors"),
    ({"epoch": 3}, "holds no tensors"),
    ({"keypoint_head.weight": torch.ones(1)}, "no key that begins with backbone")])
def test_something_else(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        load_mmpose_checkpoint(tiny_net(), save(tmp_path / "a.pth", content))


@pytest.mark.parametrize("held", [None, 5, [1]])
@pytest.mark.parametrize("key, weights", [("state_dict", "averaged"), ("ema_state_dict", "last")])
def test_weights_that_are_none(tmp_path, held, key, weights):
    path = save(tmp_path / "a.pth", {"state_dict": random_state(), key: held})
    with pytest.raises(CheckpointError, match=rf"a\.pth: key '{key}' must hold weights by name, "
                                              f"holds a {type(held).__name__}"):
        load_mmpose_checkpoint(tiny_net(), path, weights=weights)


def test_damaged_and_missing_files(tmp_path):
    path = save(tmp_path / "a.pth", random_state())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"a\.pth: is damaged"):
        load_mmpose_checkpoint(tiny_net(), path)
    with pytest.raises(CheckpointError, match=r"b\.pth: there is no such"):
        load_mmpose_checkpoint(tiny_net(), tmp_path / "b.pth")
