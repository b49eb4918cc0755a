"""Weights of whole-body networks from this project's runs and exported files, and MMPose's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_pose_training.engine.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
)
from kd_pose_training.models.exported_simcc import read_exported_simcc
from kd_pose_training.models.exported_weights import EXPORTED
from kd_pose_training.models.mmpose_checkpoint import fill, read_mmpose_weights
from kd_pose_training.models.simcc_net import KEYPOINTS, SIZES, SimccNet, build_simcc_net

SPLIT_RATIO = 2  # bins a pixel of all networks here


@dataclass(frozen=True)
class SimccWeights:
    """What a file holds: weights by the network's keys, and this project's checkpoint around
    them, or what an exported file says of it; None for weights of MMPose."""

    path: Path
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any] | None

    def fill(self, network: SimccNet, backbone_only: bool = False) -> None:
        """Load them by key; nothing changes where they do not fit.

        Raises:
            CheckpointError: another size, input size or number of keypoints; names the first key
                that differs and both shapes. Or values that are not finite.
        """
        found = {key: value for key, value in self.tensors.items()
                 if key.startswith("backbone.") or not backbone_only}
        fill(network, found, self.path, backbone_only=backbone_only)

    @cached_property
    def size(self) -> str:
        """Name of the size.

        Raises:
            CheckpointError: none of the sizes has such a backbone.
        """
        if self.state is not None:
            return self.state["config"]["model"]["size"]
        mine = {key: value.shape for key, value in self.tensors.items() if _of_backbone(key)}
        for name in SIZES:
            with torch.device("meta"):
                own = build_simcc_net(name).state_dict()
            if mine == {key: value.shape for key, value in own.items() if _of_backbone(key)}:
                return name
        raise CheckpointError(f"{self.path}: its backbone is none of {', '.join(SIZES)}")

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) in pixels, from the bins of its two classifications.

        Raises:
            CheckpointError: it has no head.
        """
        size = []
        for key in ("head.cls_x.weight", "head.cls_y.weight"):
            if key not in self.tensors:
                raise CheckpointError(f"{self.path}: has no {key}: it is a backbone alone, not a "
                                      "trained network")
            size.append(round(len(self.tensors[key]) / SPLIT_RATIO))
        return tuple(size)


def _of_backbone(key: str) -> bool:
    return key.startswith("backbone.") and not key.endswith("num_batches_tracked")


def read_weights(path: str | Path, part: str = "auto", *, averaged: bool = True,
                 backbone_only: bool = False) -> SimccWeights:
    """Weights of a run's checkpoint, a run's folder (its best.pt, else last.pt), a file that was
    exported of one, or MMPose's file.

    Args:
        part: of an MMPose file, see :mod:`kd_pose_training.models.mmpose_checkpoint`.
        averaged: the averaged weights, where there are any.

    Raises:
        CheckpointError: missing, damaged, no checkpoint, or one of another task; or ``part`` is
            given for a file of this project.
    """
    path = find_checkpoint(path)
    if path.suffix == EXPORTED:
        _refuse_part(path, part)
        return SimccWeights(path, *read_exported_simcc(path))
    try:
        state = load_checkpoint(path)
    except CheckpointError:
        if not path.is_file():
            raise
        return SimccWeights(path, read_mmpose_weights(
            path, part=None if part == "auto" else part,
            weights="averaged" if averaged else "last", backbone_only=backbone_only), None)
    task = state["config"].get("task")
    if task != "wholebody":
        raise CheckpointError(f"{path}: is of the task {task}; allowed here: wholebody")
    _refuse_part(path, part)
    average = averaged and state["average"]
    return SimccWeights(path, state["average"]["network"] if average else state["network"], state)


def _refuse_part(path: Path, part: str) -> None:
    if part != "auto":
        raise CheckpointError(f"{path}: is of a run, which has one network; part is {part!r}, "
                              "allowed here: auto (others are for files of MMPose)")


def build_from(weights: SimccWeights) -> SimccNet:
    """The network for 133 keypoints that the weights are of, with them.

    Raises:
        CheckpointError: they are of no such network; names the first key that differs.
    """
    network = build_simcc_net(weights.size, KEYPOINTS, weights.input_size)
    weights.fill(network)
    return network
