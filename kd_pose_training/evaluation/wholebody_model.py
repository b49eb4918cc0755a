"""A whole-body network of any kind, ready to be scored: a run, MMPose's weights, an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kd_pose.crop import GREY
from kd_pose.simcc import SimccCodec
from kd_pose_training.data.person_batch import Encoding
from kd_pose_training.engine.device import choose_numerics
from kd_pose_training.evaluation.wholebody_run import Logits, Predict, simcc_predictor
from kd_pose_training.export_wholebody import MMPOSE_BORDER
from kd_pose_training.models.simcc_weights import build_from, read_weights
from kd_pose_training.training.wholebody import recipe_of


@dataclass(frozen=True)
class ScoredModel:
    """A network and how it wants its crops; see ``wholebody_run.simcc_predictor``."""

    logits: Logits
    encoding: Encoding
    crop_pad: float
    border_value: float
    description: str

    @property
    def aspect(self) -> float:
        """Width over height of the input."""
        width, height = self.encoding.codec.input_size_wh
        return width / height

    def predictor(self, flip_test: bool) -> Predict:
        """Crop, run, decode and map back."""
        encoding = self.encoding
        return simcc_predictor(self.logits, encoding.codec, encoding.mean, encoding.std, flip_test,
                               self.crop_pad, self.border_value)


def open_scored(path: str | Path, *, part: str = "auto", averaged: bool = True,
                backend: str = "auto", device: str = "auto", threads: int = 0) -> ScoredModel:
    """Open an exported ``.onnx`` file, a run (folder or checkpoint), or a file of MMPose.

    Args:
        part: which of the networks in an MMPose file. averaged: the averaged weights.
        backend, device, threads: as the runtime's; torch knows no backend.

    Raises:
        ValueError: the file is missing, damaged, or of another task; its name is in the message.
            Or ``threads`` is below 0, or ``part`` is for other files.
    """
    if threads < 0:
        raise ValueError(f"threads must be a whole number of 0 or more, got {threads}")
    if Path(path).suffix == ".onnx":
        return _open_onnx(Path(path), backend, device, threads)
    return _open_torch(Path(path), part, averaged, device, threads)


def _open_onnx(path: Path, backend: str, device: str, threads: int) -> ScoredModel:
    from kd_pose.simcc_network import SimccNetwork
    network = SimccNetwork(path, "wholebody", backend=backend, device=device, threads=threads)
    manifest = network.manifest
    mean, std = manifest.mean, manifest.std
    reverse = manifest.channel_order == "bgr"  # crops come as RGB

    def logits(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return network.run(np.ascontiguousarray(crops[:, ::-1]) if reverse else crops)

    encoding = Encoding(network.codec, *((mean[::-1], std[::-1]) if reverse else (mean, std)))
    return ScoredModel(logits, encoding, manifest.crop_pad, manifest.border_value,
                       f"{path.name}, {network.session.description}")


def _open_torch(path: Path, part: str, averaged: bool, device: str, threads: int) -> ScoredModel:
    weights = read_weights(path, part, averaged=averaged)
    where = choose_numerics(device, "fp32", channels_last=False).device
    if threads:
        torch.set_num_threads(threads)
    network = build_from(weights).eval().to(where)

    @torch.inference_mode()
    def logits(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = network(torch.from_numpy(crops).to(where))
        return x.cpu().numpy(), y.cpu().numpy()

    codec = SimccCodec(network.codec.input_size_wh)
    description = f"{weights.path}, {weights.size}, torch on {where}"
    if weights.state is None:
        return ScoredModel(logits, Encoding(codec), 1.25, MMPOSE_BORDER, description)
    data = recipe_of(weights).data
    return ScoredModel(logits, Encoding(codec, data.mean, data.std), data.crop_pad, GREY,
                       description)
