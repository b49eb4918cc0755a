"""The one door to the engines that run a network: `open_session`.

Engines are imported only when they are asked for, so the runtime library needs none of them to be
imported. Asking for something that is not there is an error: a node that silently ran on the CPU
would be late for ever.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt", "torch")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
_LATER = ("tensorrt", "torch")


class BackendError(RuntimeError):
    """The engine or device asked for cannot be had; the message says what to do."""


class Session(Protocol):
    """A loaded network.

    inputs, outputs: name -> shape, -1 where the size is free. description: engine, device and
    precision in words.
    """

    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    description: str

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def close(self) -> None: ...


def open_session(
    model_path: str | os.PathLike,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
    threads: int = 0,
) -> Session:
    """Load an ONNX file.

    backend: "auto" = onnxruntime, or openvino where only that is installed.
    device: "cpu", "cuda:<n>" (or "cuda"), or "auto" = the first GPU the engine can use, else CPU.
    precision: "fp32", "fp16", "bf16" or "auto" = the fastest the engine and device offer.
    threads: CPU threads, 0 = the engine's own choice.
    Raises BackendError for an engine, device or precision that is not available, ValueError for an
    argument that has no meaning, and ModelFileError where the file cannot be loaded.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if isinstance(threads, bool) or int(threads) != threads or threads < 0:
        raise ValueError(f"threads must be a whole number of 0 or more, got {threads!r}")
    cuda_index(device)  # checks the text
    if backend in _LATER:
        raise BackendError(
            f"backend {backend!r} is not yet available in this version of kd_pose; "
            "use onnxruntime or openvino"
        )
    path = Path(model_path)
    if backend == "openvino" or (backend == "auto" and not _installed("onnxruntime")
                                 and _installed("openvino")):
        from kd_pose.backends.openvino import OpenVinoSession

        return OpenVinoSession(path, device, precision, int(threads))
    from kd_pose.backends.onnxruntime import OnnxRuntimeSession

    return OnnxRuntimeSession(path, device, precision, int(threads))


def cuda_index(device: str) -> int | None:
    """"cuda" -> 0, "cuda:2" -> 2, "cpu" and "auto" -> None; ValueError for anything else."""
    if device in ("cpu", "auto"):
        return None
    name, _, index = str(device).partition(":")
    if name == "cuda" and (index.isdigit() or device == "cuda"):
        return int(index or 0)
    raise ValueError(f"device must be auto, cpu, cuda or cuda:<number>, got {device!r}")


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
