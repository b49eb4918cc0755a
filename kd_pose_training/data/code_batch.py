"""A training batch of the dense networks: crops, visible masks and surface codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_pose_training.data.batch import TensorFields


@dataclass
class CodeBatch(TensorFields):
    """B crops, each around one object.

    images: (B, 3, H, W) float32, normalised. label: (B,) int64 class of the crop's object.
    mask: (B, h, w) bool, output pixels where that object is visible. codes: (B, h, w) int32,
    surface code there, -1 where there is none (off the mask, or off the mesh at its edge).
    sample: (B,) int64, which of a fixed set of samples each crop is; -1 outside of one.
    """

    images: Tensor
    label: Tensor
    mask: Tensor
    codes: Tensor
    sample: Tensor


def collate(samples: Sequence[CodeBatch]) -> CodeBatch:
    """Join batches, usually of one crop each."""
    return CodeBatch(*(torch.cat([getattr(sample, field.name) for sample in samples])
                       for field in dataclasses.fields(CodeBatch)))
