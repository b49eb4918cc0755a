"""SimCC networks to files of the runtime: parity, manifest, refusal."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

from helpers.tiny_simcc import SIZE, tiny_net
from kd_pose.crop import apply_affine, box_affine, crop_batch, invert_affine
from kd_pose.manifest import WholebodyManifest, read_manifest
from kd_pose.results import Detection2D
from kd_pose.wholebody_keypoints import COUNT
from kd_pose.wholebody_pose import WholebodyPoseEstimator
from kd_pose_training import export as engine
from kd_pose_training.export import ExportError
from kd_pose_training.export_wholebody import MMPOSE_BORDER, export_wholebody
from kd_pose_training.models.mmpose_checkpoint import load_mmpose_checkpoint

torch.set_num_threads(1)
BOXES = [(20, 30, 40, 60), (80, 10, 50, 50), (-20, 40, 60, 120)]


def network(seed=0):
    """133 keypoints, with norms that are not the identity and a head that says something."""
    net = tiny_net(keypoints=COUNT, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_buffers():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=generator)
            elif name.endswith("running_mean"):
                value.normal_(0.0, 0.3, generator=generator)
        for value in net.head.parameters():
            value.mul_(20)
    return net


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The network that MMPose's checkpoint gives, in training mode, as after a training."""
    path = tmp_path_factory.mktemp("weights") / "rtmpose.pth"
    torch.save({"meta": {"epoch": 3}, "state_dict": network(7).state_dict()}, path)
    net = tiny_net(keypoints=COUNT)
    load_mmpose_checkpoint(net, path)
    return net.train()


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory):
    return export_wholebody(trained, tmp_path_factory.mktemp("models") / "new/student.onnx",
                            border_value=MMPOSE_BORDER, metrics={"AP": 0.58},
                            training={"weights": "rtmpose.pth"})


def test_manifest(model, trained):
    manifest = read_manifest(model)
    assert isinstance(manifest, WholebodyManifest)
    assert manifest.input_size == SIZE and manifest.channel_order == "rgb"
    assert manifest.mean == (123.675, 116.28, 103.53) and manifest.crop_pad == 1.25
    assert manifest.border_value == 0 and manifest.metrics == {"AP": 0.58}
    assert manifest.training["weights"] == "rtmpose.pth"
    assert manifest.training["parameters"] == sum(p.numel() for p in trained.parameters())
    assert 0 <= manifest.training["parity"]["simcc_x"] < 1e-4
    assert list(model.parent.iterdir()) == [model]
    assert trained.training  # left as it was


def test_the_runtime_finds_what_torch_finds(model, trained):
    """Picture to keypoints by the runtime, against torch and the codec by hand."""
    image = np.random.default_rng(0).integers(0, 256, (200, 240, 3), dtype=np.uint8)
    estimator = WholebodyPoseEstimator(model, backend="onnxruntime", device="cpu", threads=1)
    boxes = [Detection2D("person", 1 - 0.1 * row, np.array(box, float))
             for row, box in enumerate(BOXES)]
    frame = estimator.estimate(image, boxes=boxes)
    found = {tuple(person.box_xywh): person for person in frame.people}
    assert len(found) == 3
    state, trained = trained.training, trained.eval()
    for box in BOXES:
        M = box_affine(box, SIZE, 1.25)
        crop = crop_batch(image, [M], SIZE, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375),
                          swap_channels=True, border_value=0)
        with torch.no_grad():
            logits = [value.numpy() for value in trained(torch.from_numpy(crop))]
        xy, raw = trained.codec.decode(*logits)
        scores = np.clip(raw[0], 0, 1)
        expected = np.where(scores[:, None] > 0, apply_affine(invert_affine(M), xy[0]), np.nan)
        assert 20 < np.isfinite(expected[:, 0]).sum()
        assert np.allclose(found[box].keypoints_xy, expected, atol=1e-3, equal_nan=True)
        assert np.allclose(found[box].keypoint_scores, scores, atol=1e-4)
    trained.train(state)


def test_a_file_that_computes_something_else_is_not_written(trained, model, tmp_path, monkeypatch):
    path = tmp_path / "student.onnx"
    path.write_bytes(b"the one before")
    monkeypatch.setattr(engine, "write_graph",
                        lambda network, size, beside, opset: shutil.copyfile(model, beside))
    other = copy.deepcopy(trained)
    with torch.no_grad():
        other.head.cls_x.weight.mul_(1.01)
    with pytest.raises(ExportError, match=r"student.onnx: not written.*simcc_x by 0.0099 \("):
        export_wholebody(other, path)
    assert path.read_bytes() == b"the one before" and list(tmp_path.iterdir()) == [path]
    export_wholebody(trained, path)
    assert read_manifest(path).border_value == 114


@pytest.mark.parametrize("make, name, more, message", [
    (tiny_net, "a.onnx", {}, "a.onnx: the network has 5 keypoints, whole bodies have 133"),
    (network, "a.pt", {}, "a.pt: the file's name must end in .onnx"),
])
def test_refusals(tmp_path, make, name, more, message):
    with pytest.raises(ExportError, match=message):
        export_wholebody(make(), tmp_path / name, **more)
    assert not list(tmp_path.iterdir())


def test_numbers_are_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "write_graph", lambda *_: pytest.fail("too late"))
    for more, message in ((dict(border_value=300), "border_value"), (dict(crop_pad=0), "crop_pad"),
                          (dict(metrics={"AP": float("nan")}), "not JSON compliant")):
        with pytest.raises(ValueError, match=message):
            export_wholebody(network(), tmp_path / "a.onnx", **more)
