"""kd_pose.backends.wide_convolutions: the same sums another way, and only where it pays."""

import platform
import sys

import numpy as np
import pytest

from kd_pose.backends import open_session
from kd_pose.backends.wide_convolutions import transposed
from kd_pose.manifest import ModelFileError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

MAP_HW = (8, 6)

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"),
                                reason="other processors keep their convolutions")


def make_model(path, weights, bias=None, map_hw=MAP_HW, readers=1, constant=True,
               kind=TensorProto.FLOAT, **attributes):
    """A file with `readers` convolutions of the same weights, added up; sizes of batches are open.

    constant: the weights are in the file, not an input.
    """
    kernel = weights.shape[2:]
    attributes = {"kernel_shape": kernel, "pads": [size // 2 for size in kernel] * 2, **attributes}
    inputs = ["x", "w"] + ([] if bias is None else ["b"])
    nodes = [helper.make_node("Conv", inputs, [f"y{i}"], **attributes) for i in range(readers)]
    nodes.append(helper.make_node("Sum", [f"y{i}" for i in range(readers)], ["y"]))
    channels = weights.shape[1] * attributes.get("group", 1)
    values = {"w": weights} if bias is None else {"w": weights, "b": bias}
    graph_inputs = [helper.make_tensor_value_info("x", kind,
                                                  ["batch", channels, *map_hw])]
    if not constant:
        graph_inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weights.shape))
        del values["w"]
    graph = helper.make_graph(
        nodes, "g", graph_inputs, [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(value, name) for name, value in values.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))
    return path


def random_weights(outputs=20, inputs=128, kernel=(7, 7)):
    return np.random.default_rng(0).normal(size=(outputs, inputs, *kernel)).astype(np.float32)


def random_maps(batch=3, channels=128, map_hw=MAP_HW):
    return np.random.default_rng(1).normal(size=(batch, channels, *map_hw)).astype(np.float32)


@pytest.mark.parametrize("kernel", [(7, 7), (5, 5), (5, 7)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_same_numbers(tmp_path, kernel, with_bias):
    bias = np.linspace(-5, 5, 20, dtype=np.float32) if with_bias else None
    path = make_model(tmp_path / "m.onnx", random_weights(kernel=kernel), bias)
    session = open_session(path, "onnxruntime", device="cpu", threads=1)
    assert session.description.endswith("1 wide convolution(s) transposed")
    plain = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        maps = random_maps(batch)
        expected = plain.run(None, {"x": maps})[0]
        ours = session.run({"x": maps})["y"]
        assert ours.shape == expected.shape == (batch, 20, *MAP_HW)
        assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()


def test_one_tap_shifts_the_map(tmp_path):
    weights = np.zeros((1, 128, 7, 7), np.float32)
    weights[0, 5, 2, 6] = 2.0  # row y sees row y + 2 - 3, column x sees column x + 6 - 3
    session = open_session(make_model(tmp_path / "m.onnx", weights), "onnxruntime", device="cpu")
    maps = random_maps(1)
    expected = np.zeros(MAP_HW, np.float32)
    expected[1:, :-3] = 2.0 * maps[0, 5, :-1, 3:]
    assert np.allclose(session.run({"x": maps})["y"][0, 0], expected)


def test_the_rewritten_model_has_no_such_convolution_left(tmp_path):
    model, count = transposed(make_model(tmp_path / "m.onnx", random_weights()))
    graph = onnx.load_from_string(model).graph
    assert count == 1
    assert [node.op_type for node in graph.node] == ["ConvTranspose", "Sum"]
    assert list(graph.initializer[0].dims) == [128, 20, 7, 7]


@pytest.mark.parametrize("changes", [
    {"kernel": (3, 3)},
    {"inputs": 3},  # the first layer of many networks
    {"kernel": (6, 6), "pads": [3, 3, 2, 2]},
    {"map_hw": (4, 3)},
    {"map_hw": (16, 12)},
    {"map_hw": ("rows", "columns")},
    {"strides": [2, 2]},
    {"dilations": [2, 2], "pads": [6] * 4},
    {"pads": [0] * 4, "map_hw": (14, 12)},
    {"group": 2},
    {"readers": 2},
    {"constant": False},
], ids=str)
def test_others_stay_as_they_are(tmp_path, changes):
    of_weights = {name: changes[name] for name in ("kernel", "inputs") if name in changes}
    others = {name: value for name, value in changes.items() if name not in of_weights}
    path = make_model(tmp_path / "m.onnx", random_weights(**of_weights), **others)
    assert transposed(path) is None
    assert open_session(path, "onnxruntime", device="cpu").description.endswith("fp32")


def test_weights_that_others_see_or_replace(tmp_path):
    path = make_model(tmp_path / "m.onnx", random_weights())
    model = onnx.load(str(path))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT,
                                                           (20, 128, 7, 7)))
    onnx.save(model, str(tmp_path / "input.onnx"))
    assert transposed(tmp_path / "input.onnx") is None

    model = onnx.load(str(path))
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["out"])], "branch", [],
                               [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["weights"], then_branch=branch,
                                             else_branch=branch))
    model.graph.output.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, None))
    onnx.save(model, str(tmp_path / "branch.onnx"))
    assert transposed(tmp_path / "branch.onnx") is None
    session = open_session(tmp_path / "branch.onnx", "onnxruntime", device="cpu")
    assert np.array_equal(session.run({"x": random_maps()})["weights"], random_weights())


def test_half_precision_stays(tmp_path):
    path = make_model(tmp_path / "m.onnx", random_weights().astype(np.float16),
                      kind=TensorProto.FLOAT16)
    assert transposed(path) is None


def test_other_processors(tmp_path, monkeypatch):
    path = make_model(tmp_path / "m.onnx", random_weights())
    assert transposed(path) is not None
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert transposed(path) is None


def test_without_onnx_the_file_runs_as_it_is(tmp_path, monkeypatch):
    path = make_model(tmp_path / "m.onnx", random_weights())
    maps = random_maps()
    expected = open_session(path, "onnxruntime", device="cpu").run({"x": maps})["y"]
    monkeypatch.setitem(sys.modules, "onnx", None)
    session = open_session(path, "onnxruntime", device="cpu")
    assert session.description.endswith("fp32")
    assert np.allclose(session.run({"x": maps})["y"], expected, rtol=1e-4, atol=1e-3)


def test_weights_beside_the_file(tmp_path):
    path = make_model(tmp_path / "m.onnx", random_weights())
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="m.data",
              size_threshold=0)
    assert transposed(path) is None
    assert open_session(path, "onnxruntime", device="cpu").run({"x": random_maps()})["y"].size


def test_a_damaged_file_is_the_engines_to_name(tmp_path):
    path = make_model(tmp_path / "m.onnx", random_weights())
    path.write_bytes(path.read_bytes()[:5000])
    assert transposed(path) is None
    with pytest.raises(ModelFileError, match="m.onnx: onnxruntime cannot load it"):
        open_session(path, "onnxruntime", device="cpu")


def test_the_head_of_rtmpose(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from kd_pose_training.export_wholebody import export_wholebody
    from kd_pose_training.models.simcc_net import build_simcc_net

    torch.manual_seed(0)
    network = build_simcc_net("rtmpose_t").eval()
    export_wholebody(network, tmp_path / "t.onnx", border_value=0.0)
    session = open_session(tmp_path / "t.onnx", "onnxruntime", device="cpu")
    assert "1 wide convolution(s) transposed" in session.description
    images = torch.rand(2, 3, 256, 192)
    (name,) = session.inputs
    ours = session.run({name: images.numpy()})
    with torch.no_grad():
        expected = network(images)
    for value, answer in zip(ours.values(), expected):
        assert np.abs(value - answer.numpy()).max() < 1e-4 * max(answer.abs().max().item(), 1.0)
