"""Loss of SimCC networks against the encoded keypoints: a divergence over the bins of each axis.

As RTMPose trains (Jiang et al., arXiv 2303.07399, and mmpose's ``KLDiscretLoss`` with
``label_softmax``): logits and Gaussian labels both become distributions by softmax(beta * value),
beta = 10 being RTMPose's temperature 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BETA = 10.0


def simcc_loss(logits: Sequence[Tensor], targets: Sequence[Tensor], weight: Tensor,
               beta: float = BETA) -> Tensor:
    """(B,) loss of each image, in float32 or better.

    For every keypoint and axis the Kullback-Leibler divergence of the prediction from the label,
    divided by the number of bins, times its weight; summed over axes, mean over all K keypoints
    (those with weight 0 count as 0). mmpose's value is the sum of these over the batch.

    Args:
        logits: (B, K, Wx) and (B, K, Wy). targets: the same shapes, peak 1. weight: (B, K).
        beta: factor of logits and labels before the softmax.

    Raises:
        ValueError: shapes that differ.
    """
    total = weight.new_zeros(weight.shape)
    for axis, mine, target in zip("xy", logits, targets):
        if mine.shape != target.shape or mine.shape[:2] != weight.shape:
            raise ValueError(f"logits, targets and weight of {axis} do not fit: "
                             f"{tuple(mine.shape)}, {tuple(target.shape)}, {tuple(weight.shape)}")
        total = total + divergence(mine, target, beta) / mine.shape[-1]
    return (total * weight).mean(1)


def divergence(logits: Tensor, targets: Tensor, beta: float, entropy: bool = True) -> Tensor:
    """KL(softmax(beta targets) || softmax(beta logits)) over the last axis, float32 or better.

    entropy: False leaves out the targets' own entropy, which is the cross entropy: another value
    with the same gradient.
    """
    logits, targets = _precise(logits), _precise(targets)
    log_prediction = F.log_softmax(logits * beta, dim=-1)
    truth = torch.softmax(targets * beta, dim=-1)
    if entropy:
        return F.kl_div(log_prediction, truth, reduction="none").sum(-1)
    return -(truth * log_prediction).sum(-1)


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
