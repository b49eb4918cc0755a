"""From a SimCC network in memory to the file of the runtime, wherever its weights came from.

Notable: how the network saw its pictures in training goes into the file. Weights of MMPose know
black outside of the picture, this project's own the grey of every other crop here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_pose.crop import GREY
from kd_pose.manifest import NetworkManifest, WholebodyManifest
from kd_pose.wholebody_keypoints import COUNT
from kd_pose_training.data.person_batch import Encoding
from kd_pose_training.data.person_dataset import CROP_PAD
from kd_pose_training.export import (
    OPSET,
    ExportedNetwork,
    ExportError,
    Parity,
    package_version,
    plain,
    write_verified,
)
from kd_pose_training.models.simcc_net import SimccNet

MMPOSE_BORDER = 0.0


class ExportedSimccNetwork(ExportedNetwork):
    """What the file of a SimCC network computes: the raw logits."""

    outputs = ("simcc_x", "simcc_y")

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> simcc_x (B, K, 2 W), simcc_y (B, K, 2 H)."""
        return self.network(image)


def export_wholebody(network: SimccNet, output: str | Path, *, encoding: Encoding | None = None,
                     crop_pad: float = CROP_PAD, border_value: float = GREY,
                     score_scale: float = 1.0, training: Mapping[str, Any] | None = None,
                     metrics: Mapping[str, Any] | None = None,
                     inputs: np.ndarray | None = None, opset: int = OPSET) -> Path:
    """Write a network as an ONNX file with a free batch size and its manifest.

    The network itself is left as it is. The file appears only after its outputs, computed by the
    runtime's engine, were found to agree with torch.

    Args:
        output: file to write, ending in ``.onnx``; an earlier one is replaced on success only.
        encoding: normalisation that it was trained with; ImageNet's by default.
        crop_pad: how much larger than the person's box its crops were.
        border_value: what filled a crop outside of its picture, 0..255; ``MMPOSE_BORDER`` for
            weights of MMPose.
        score_scale: see ``kd_pose.manifest.WholebodyManifest``.
        training, metrics: where it comes from and what it scored, plain data for the manifest.
        inputs: (n, 3, H, W) normalised pictures to compare on, beside random ones.

    Returns:
        The output's path.

    Raises:
        ExportError: wrong ending, another number of keypoints, or the file does not compute what
            torch computes. ValueError: a number that the manifest refuses, notes that are not
            plain data.
    """
    codec = network.codec
    if network.num_keypoints != COUNT:
        raise ExportError(f"{output}: the network has {network.num_keypoints} keypoints, whole "
                          f"bodies have {COUNT}")
    encoding = encoding or Encoding(codec)
    notes = {"parameters": int(sum(value.numel() for value in network.parameters())),
             "opset": opset, "versions": {"kd_pose": package_version(),
                                          "torch": torch.__version__}, **(training or {})}

    def manifest(parity: Parity) -> NetworkManifest:
        return WholebodyManifest(
            task="wholebody", input_size=codec.input_size_wh, mean=encoding.mean,
            std=encoding.std, channel_order="rgb", crop_pad=crop_pad, border_value=border_value,
            split_ratio=codec.split_ratio, score_scale=score_scale,
            output_names=ExportedSimccNetwork.outputs,
            training=plain({**notes, "parity": dict(parity)}), metrics=plain(metrics or {}),
            producer=f"kd_pose {package_version()}")

    manifest(Parity())  # a number or note that is refused, is so before the work
    exported = ExportedSimccNetwork(copy.deepcopy(network).cpu().float()).eval()
    return write_verified(exported, codec.input_size_wh, Path(output), manifest, inputs, opset)
