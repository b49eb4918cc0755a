"""A training batch of the SimCC networks: person crops, two rows of bins a keypoint, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_pose_training.data.batch import TensorFields


@dataclass
class SimccBatch(TensorFields):
    """B crops with K keypoints; ``kd_pose.simcc.SimccCodec.encode`` makes the targets.

    images: (B, 3, H, W) float32, normalised. target_x: (B, K, Wx) and target_y: (B, K, Wy)
    float32, Gaussians with peak 1 over the bins of an axis; Wx = split ratio * W, Wy = split
    ratio * H. weight: (B, K) float32, 0 where nothing is known of a keypoint.

    Raises:
        ValueError: shapes that do not belong together.
    """

    images: Tensor
    target_x: Tensor
    target_y: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        shapes = {name: tuple(getattr(self, name).shape)
                  for name in ("images", "target_x", "target_y", "weight")}
        leading = shapes["weight"]
        fits = (len(leading) == 2 and len(shapes["images"]) == 4
                and shapes["images"][0] == leading[0]
                and all(len(shapes[name]) == 3 and shapes[name][:2] == leading
                        for name in ("target_x", "target_y")))
        if not fits:
            raise ValueError("a SimccBatch has images (B, 3, H, W), targets (B, K, bins) and "
                             f"weight (B, K), got {shapes}")


def collate(samples: Sequence[SimccBatch]) -> SimccBatch:
    """Join batches, usually of one crop each."""
    return SimccBatch(*(torch.cat([getattr(sample, name) for sample in samples])
                        for name in ("images", "target_x", "target_y", "weight")))
