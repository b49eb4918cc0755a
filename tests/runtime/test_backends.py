"""kd_pose.backends: engines answer alike, and what is not there is an error."""

import sys

import numpy as np
import pytest

from helpers.tiny_models import example_scene, make_pose_model
from kd_pose.backends import BackendError, cuda_index, open_session
from kd_pose.manifest import ModelFileError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_pose_model(tmp_path_factory.mktemp("model") / "pose.onnx", example_scene())


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request):
    pytest.importorskip(request.param)
    return request.param


def image(batch):
    return {"image": np.zeros((batch, 3, 128, 128), np.float32)}


def test_shapes_names_and_batches(model, backend):
    session = open_session(model, backend, device="cpu", threads=1)
    assert session.inputs == {"image": (-1, 3, 128, 128)}
    assert session.outputs == {"scores": (-1, 336, 2), "offsets": (-1, 336, 2, 8, 2)}
    assert session.description.startswith(backend) and "cpu" in session.description
    for batch in (1, 3):
        outputs = session.run(image(batch))
        assert outputs["scores"].shape == (batch, 336, 2)
        assert outputs["offsets"].shape == (batch, 336, 2, 8, 2)


def test_results_outlive_the_next_run(model, backend):
    session = open_session(model, backend)
    first = session.run(image(1))["scores"]
    copy = first.copy()
    session.run(image(2))
    assert np.array_equal(first, copy)


def test_engines_agree(model):
    pytest.importorskip("openvino")
    a = open_session(model, "onnxruntime").run(image(1))
    b = open_session(model, "openvino").run(image(1))
    for name in a:
        assert np.allclose(a[name], b[name], atol=1e-6)


def test_auto_is_onnxruntime(model):
    assert "onnxruntime" in open_session(model).description


def test_a_closed_session_says_so(model, backend):
    session = open_session(model, backend)
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(image(1))


@pytest.mark.parametrize("name", ["tensorrt", "torch"])
def test_engines_of_later_versions(model, name):
    with pytest.raises(BackendError, match="not yet available"):
        open_session(model, name)


@pytest.mark.parametrize(
    "arguments, field",
    [
        ({"backend": "tflite"}, "backend"),
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:x"}, "device"),
        ({"precision": "int4"}, "precision"),
        ({"threads": -1}, "threads"),
        ({"threads": 1.5}, "threads"),
    ],
)
def test_arguments_without_meaning(model, arguments, field):
    with pytest.raises(ValueError, match=field):
        open_session(model, **arguments)


def test_device_names():
    assert cuda_index("cpu") is None and cuda_index("auto") is None
    assert cuda_index("cuda") == 0 and cuda_index("cuda:3") == 3


def test_a_missing_gpu_is_an_error(model, backend):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(BackendError, match="cuda:0"):
        open_session(model, backend, device="cuda:0")


def test_onnxruntime_has_no_other_precision(model):
    open_session(model, "onnxruntime", precision="auto")
    with pytest.raises(BackendError, match="fp16.*openvino"):
        open_session(model, "onnxruntime", precision="fp16")


def test_openvino_precisions(model):
    openvino = pytest.importorskip("openvino")
    offered = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in ("bf16", "fp16"):
        if precision.upper() in offered:
            open_session(model, "openvino", precision=precision).run(image(1))
        else:
            with pytest.raises(BackendError, match=precision):
                open_session(model, "openvino", precision=precision)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_package_is_named(model, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=f"pip install {name}"):
        open_session(model, name)


def test_bad_files(tmp_path, backend):
    with pytest.raises(ModelFileError, match="nowhere.onnx: no such"):
        open_session(tmp_path / "nowhere.onnx", backend)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model" * 20)
    with pytest.raises(ModelFileError, match="broken.onnx: .* cannot load"):
        open_session(broken, backend)
