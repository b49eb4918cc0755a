"""ONNX Runtime: CPU, and CUDA where its GPU build is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kd_pose.backends import BackendError, cuda_index
from kd_pose.backends.wide_convolutions import transposed
from kd_pose.manifest import ModelFileError


def _import():
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            f"backend 'onnxruntime' needs the package onnxruntime ({error}); "
            "install it with: pip install onnxruntime (or onnxruntime-gpu for CUDA)"
        ) from error
    return onnxruntime


class OnnxRuntimeSession:
    """See `backends.Session`. The precision is that of the file; only fp32 files are made.

    On the CPU some convolutions are computed another way: `wide_convolutions`.
    """

    def __init__(self, path: Path, device: str, precision: str, threads: int) -> None:
        if precision not in ("auto", "fp32"):
            raise BackendError(
                f"backend 'onnxruntime' runs the file as it is, in fp32; for {precision} use "
                "backend openvino"
            )
        ort = _import()
        providers, where = _providers(ort, device)
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings of graph passes help nobody
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # A spinning pool starves the rest of a robot's computer, and itself where another process
        # keeps a core busy: four times slower there, a tenth faster on an idle machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if not path.is_file():
            raise ModelFileError(f"{path}: no such model file")
        rewritten = transposed(path) if where == "cpu" else None
        model = str(path) if rewritten is None else rewritten[0]
        try:
            self._session = ort.InferenceSession(model, options, providers=providers)
        except Exception as error:  # the package's exceptions share no base but Exception
            raise ModelFileError(f"{path}: onnxruntime cannot load it: {error}") from error
        active = self._session.get_providers()
        if where != "cpu" and "CUDAExecutionProvider" not in active:
            # onnxruntime only logs it when CUDA's libraries are missing, and goes on on the CPU.
            if device != "auto":
                raise BackendError(
                    f"device {device!r} cannot be used: onnxruntime could not start its CUDA "
                    "provider; check that the CUDA and cuDNN versions it needs are installed"
                )
            where = "cpu"
        self.inputs = {item.name: _shape(item.shape) for item in self._session.get_inputs()}
        self.outputs = {item.name: _shape(item.shape) for item in self._session.get_outputs()}
        self._output_names = list(self.outputs)
        self.description = f"onnxruntime {ort.__version__}, {where}, fp32"
        if rewritten is not None:
            self.description += f", {rewritten[1]} wide convolution(s) transposed"

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._session is None:
            raise BackendError("the session is closed")
        values = self._session.run(self._output_names, inputs)
        return dict(zip(self._output_names, values))

    def close(self) -> None:
        self._session = None


def _providers(ort, device: str) -> tuple[list, str]:
    """Execution providers to ask for, and where the network will run."""
    index = cuda_index(device)
    available = ort.get_available_providers()
    if index is None and (device == "cpu" or "CUDAExecutionProvider" not in available):
        return ["CPUExecutionProvider"], "cpu"
    if "CUDAExecutionProvider" not in available:
        raise BackendError(
            f"device {device!r} was asked for, but this onnxruntime has no CUDA; install it with: "
            "pip uninstall onnxruntime && pip install onnxruntime-gpu"
        )
    index = index or 0
    cuda = ("CUDAExecutionProvider", {"device_id": str(index)})
    return [cuda, "CPUExecutionProvider"], f"cuda:{index}"


def _shape(shape) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in shape)
