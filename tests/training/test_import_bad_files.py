"""Files that kd-pose-train import refuses, and what it says of each."""

from __future__ import annotations

import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from helpers import published_models as published
from kd_pose_training.import_model import import_model
from kd_pose_training.onnx_graph import OnnxFileError

SIZE = (128, 96)
ROWS = published.yolox_rows(np.array([[10.0, 12, 40, 90]]), np.array([0.9]), SIZE, classes=80)


def refused(path):
    with pytest.raises(OnnxFileError) as caught:
        import_model(path, path.with_name("out.onnx"))
    assert str(caught.value).startswith(str(path))
    assert not path.with_name("out.onnx").exists()
    return str(caught.value)


@pytest.mark.parametrize("content, message", [
    (b"", "the file is empty"),
    (b"<!DOCTYPE html><html>", "is a web page, not a model"),
    (b"\n<html><body>Quota exceeded", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
    (b"\x93NUMPY\x01\x00", "not an ONNX file"),
])
def test_what_is_no_model(tmp_path, content, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert message in refused(path)


def test_absent(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.onnx")
    assert "no such file" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_truncated(tmp_path, share):
    source = published.yolox(tmp_path / "a.onnx", ROWS, SIZE)
    data = source.read_bytes()
    source.write_bytes(data[:int(share * len(data))])
    message = refused(source)
    assert "truncated" in message and f"{int(share * len(data))} bytes" in message


def test_archives(tmp_path):
    path = tmp_path / "download.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("20230831/rtmpose_onnx/end2end.onnx", b"x")
    assert "unpack it and import 20230831/rtmpose_onnx/end2end.onnx" in refused(path)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "dw-ll_ucoco_384.pth")
    assert "is a PyTorch checkpoint" in refused(tmp_path / "dw-ll_ucoco_384.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"x")
    assert "is an archive without an ONNX file" in refused(path)


def save(path, inputs, outputs, nodes=(), domains=()):
    graph = published.Graph()
    zero = graph.constant(np.float32(0))
    for name, shape in outputs.items():
        shape = shape[0] if isinstance(shape[0], tuple) else shape
        value = graph.constant(np.zeros(shape, np.float32))
        graph.node("Add", [value, zero], name)
    return graph.save(path, inputs, outputs)


@pytest.mark.parametrize("outputs", [
    {"output0": (1, 84, 8400)},  # YOLOv8
    {"heatmap": (1, 133, 64, 48)},  # ViTPose
    {"dets": (1, 10, 5), "keypoints": (1, 10, 17, 3)},  # RTMO
    {"a": (1, 10, 5), "b": (1, 20, 7)},
    {"a": (1, 10)},
    {f"m{n}": (1, 4, 10, 10) for n in range(6)},
])
def test_unexpected_outputs_are_named(tmp_path, outputs):
    path = save(tmp_path / "a.onnx", {"images": (1, 3, 640, 640)}, outputs)
    message = refused(path)
    if list(outputs) == ["output0"]:  # the form of YOLOX, but not its number of rows
        assert "output0 has 84 rows of 8400, but YOLOX has 8400" in message
        return
    for name, shape in outputs.items():
        assert f"{name} {shape}" in message
    assert "known are simcc_x" in message and "dets (1, M, 5)" in message


@pytest.mark.parametrize("inputs, message", [
    ({"a": (1, 640, 640, 3)}, "channels last is not known"),
    ({"a": (1, 1, 640, 640)}, r"a (1, 1, 640, 640) is not (batch, 3, height, width)"),
    ({"a": (1, 3, 640)}, "is not (batch, 3, height, width)"),
    ({"a": (4, 3, 640, 640)}, "wants 4 pictures at once"),
    ({"a": ((1, 3, 640, 640), TensorProto.UINT8)}, "is uint8; needed is float32"),
    ({"a": (1, 3, 640, 640), "b": (1, 2)}, "has 2 inputs, a (1, 3, 640, 640), b (1, 2)"),
])
def test_unexpected_inputs_are_named(tmp_path, inputs, message):
    path = save(tmp_path / "a.onnx", inputs, {"output": (1, 8400, 85)})
    assert message in refused(path)


def test_operators_of_another_engine(tmp_path):
    path = tmp_path / "a.onnx"
    node = helper.make_node("TRTBatchedNMS", ["input"], ["dets", "labels"], domain="mmdeploy")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (
        ("input", (1, 3, 64, 64)), ("dets", (1, 5, 5)), ("labels", (1, 5)))]
    model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]),
                              opset_imports=[helper.make_opsetid("", 11),
                                             helper.make_opsetid("mmdeploy", 1)])
    onnx.save(model, path)
    assert "operators outside of ONNX (mmdeploy:TRTBatchedNMS)" in refused(path)


def test_a_graph_that_does_not_run(tmp_path):
    graph = published.Graph()
    value = graph.node("Reshape", ["input", graph.constant(np.array([1, 7], np.int64))])
    graph.node("Identity", [value], "output")
    path = graph.save(tmp_path / "a.onnx", {"input": (1, 3, 64, 64)}, {"output": (1, 7)})
    message = refused(path)
    assert "cannot load it" in message or "does not run" in message
