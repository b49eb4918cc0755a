"""Sigmoid focal loss (Lin et al., ICCV 2017) over cells with background and ignored cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_pose.votes import IGNORE


def focal_loss(logits: Tensor, cell_class: Tensor, gamma: float = 2.0,
               alpha: float = 0.25) -> Tensor:
    """Sum over all cells and classes of the sigmoid focal loss, in float32 or better.

    Args:
        logits: (B, N, C).
        cell_class: (B, N) int64: the class, ``BACKGROUND`` (all classes 0) or ``IGNORE``.
        gamma: exponent of the factor that fades out well-classified cells.
        alpha: weight of the positive side; 1 - alpha is that of the negative.

    Returns:
        Scalar; zero with a gradient graph when every cell is ignored.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    classes = torch.arange(logits.shape[-1], device=logits.device)
    target = (cell_class[..., None] == classes).to(logits.dtype)
    # Signed so that z is large where the prediction is right: p_true = sigmoid(z).
    z = logits * (2 * target - 1)
    weight = alpha * target + (1 - alpha) * (1 - target)
    # (1 - p_true)^gamma through logsigmoid: no 0 * inf at either end.
    modulation = torch.exp(gamma * F.logsigmoid(-z))
    loss = -weight * modulation * F.logsigmoid(z)
    return (loss * (cell_class != IGNORE)[..., None]).sum()


class FocalLoss(nn.Module):
    """Module around :func:`focal_loss`."""

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, cell_class: Tensor) -> Tensor:
        return focal_loss(logits, cell_class, self.gamma, self.alpha)
