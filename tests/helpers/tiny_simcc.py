"""A SimCC network of a few thousand parameters and batches for it."""

from __future__ import annotations

import numpy as np
import torch

from kd_pose_training.data.simcc_batch import SimccBatch
from kd_pose_training.models.cspnext import CSPNeXt
from kd_pose_training.models.simcc_net import SimccNet

SIZE = (64, 96)  # width, height
KEYPOINTS = 5


def tiny_net(width: int = 16, keypoints: int = KEYPOINTS, size=SIZE, seed: int = 0) -> SimccNet:
    """`width`: channels of the backbone's map."""
    torch.manual_seed(seed)
    return SimccNet(CSPNeXt((8, 8, 8, 8, width), (1, 1, 1, 1)), keypoints, size)


def random_batch(network: SimccNet, count: int = 4, seed: int = 0) -> SimccBatch:
    """Noise with keypoints anywhere in it; the last keypoint of every crop is not labelled."""
    rng = np.random.default_rng(seed)
    width, height = network.codec.input_size_wh
    points = rng.uniform(0, 1, (count, network.num_keypoints, 2)) * (width, height)
    labelled = np.ones(points.shape[:2])
    labelled[:, -1] = 0
    images = torch.tensor(rng.normal(size=(count, 3, height, width)), dtype=torch.float32)
    return SimccBatch(images, *map(torch.from_numpy, network.codec.encode(points, labelled)))
