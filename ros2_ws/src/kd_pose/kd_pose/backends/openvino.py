"""OpenVINO: the same ONNX files, faster on Intel CPUs, with bf16 where the CPU has AMX."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kd_pose.backends import BackendError, cuda_index
from kd_pose.manifest import ModelFileError

_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


def _import():
    try:
        import openvino
    except ImportError as error:
        raise BackendError(
            f"backend 'openvino' needs the package openvino ({error}); "
            "install it with: pip install openvino"
        ) from error
    return openvino


class OpenVinoSession:
    """See `backends.Session`. Tuned for the latency of one request at a time."""

    def __init__(self, path: Path, device: str, precision: str, threads: int) -> None:
        if cuda_index(device) is not None:
            raise BackendError(
                f"device {device!r}: backend 'openvino' has no CUDA; use backend onnxruntime"
            )
        ov = _import()
        core = ov.Core()
        hint = _precision_hint(core, precision)
        config = {"PERFORMANCE_HINT": "LATENCY"}
        if hint is not None:
            config["INFERENCE_PRECISION_HINT"] = hint
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        if not path.is_file():
            raise ModelFileError(f"{path}: no such model file")
        try:
            self._model = core.compile_model(core.read_model(str(path)), "CPU", config)
        except Exception as error:  # openvino raises plain RuntimeError and its own types
            raise ModelFileError(f"{path}: openvino cannot load it: {error}") from error
        self._request = self._model.create_infer_request()
        self.inputs = {port.get_any_name(): _shape(port) for port in self._model.inputs}
        self.outputs = {port.get_any_name(): _shape(port) for port in self._model.outputs}
        used = str(self._model.get_property("INFERENCE_PRECISION_HINT").to_string())
        self.description = f"openvino {ov.__version__.split('-')[0]}, cpu, {used}"

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._request is None:
            raise BackendError("the session is closed")
        self._request.infer(inputs)
        # Copies: the request's own memory is overwritten by the next call.
        return {name: self._request.get_tensor(name).data.copy() for name in self.outputs}

    def close(self) -> None:
        self._request = None
        self._model = None


def _precision_hint(core, precision: str) -> str | None:
    """OpenVINO's name, None = its own choice. BackendError where the CPU would only emulate it."""
    if precision == "auto":
        return None
    capabilities = list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    wanted = precision.upper()
    if precision != "fp32" and wanted not in capabilities:
        raise BackendError(
            f"precision {precision!r} is not offered by this CPU "
            f"(openvino reports {', '.join(capabilities)}); use auto or fp32"
        )
    return _HINTS[precision]


def _shape(port) -> tuple[int, ...]:
    shape = port.get_partial_shape()
    return tuple(size.get_length() if size.is_static else -1 for size in shape)
