"""Prediction-to-prediction distillation of surface codes: each pixel copies the teacher's.

The baseline "Naive-KD" of arXiv 2205.14971, which does not say what it is for dense networks. Here
the divergence of the bits, as in Hinton et al., arXiv 1503.02531, and the squared difference of
the mask's probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_pose_training.losses.codes import code_loss

_SURE = 1e-6  # probabilities nearer to 0 or 1 count as this near


def code_divergence(logits: Tensor, probabilities: Tensor, counted: Tensor,
                    weights: Tensor) -> Tensor:
    """Divergence KL(teacher || student) of the bits at the pixels that count, a scalar in nats.

    Mean over pixels of each bit, then weighted mean over bits; 0 with a graph where no pixel
    counts. Gradients reach the student.

    Args:
        logits: (N, bits, h, w) of the student. probabilities: of the teacher, alike.
        counted: (N, h, w) bool. weights: (bits,) at least 0, not all 0.
    """
    theirs = probabilities.detach().to(torch.promote_types(probabilities.dtype, torch.float32))
    entropy = code_loss(torch.logit(theirs, _SURE), theirs, counted, weights)
    return code_loss(logits, theirs, counted, weights) - entropy


def mask_difference(logits: Tensor, probabilities: Tensor, counted: Tensor) -> Tensor:
    """Mean squared difference of the mask's probabilities over the crops that count, a scalar.

    Args:
        logits: (N, h, w) of the student. probabilities: of the teacher, alike. counted: (N,) bool.
    """
    difference = logits.float().sigmoid() - probabilities.detach().float()
    each = difference.square().mean((1, 2))
    return torch.where(counted, each, 0.0).sum() / counted.sum().clamp(min=1)
