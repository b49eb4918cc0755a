"""A student's backbone map towards a teacher's, squared (DWPose, arXiv 2307.15880, eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def feature_mimic_loss(student: Tensor, teacher: Tensor, mean: bool = False) -> Tensor:
    """(B,) squared distance of the maps of each image, in float32 or better.

    Args:
        student: (B, C, H, W), brought to the teacher's channels by a 1x1 convolution.
        teacher: (B, C, H, W); gets no gradient.
        mean: over C, H and W, as the paper writes it; False: their sum, as the published code
            computes it (mmpose's ``FeaLoss`` is the mean of these over the batch times its alpha).

    Raises:
        ValueError: shapes that differ.
    """
    if student.shape != teacher.shape or student.ndim != 4:
        raise ValueError(f"student and teacher must be (B, C, H, W) alike, got "
                         f"{tuple(student.shape)} and {tuple(teacher.shape)}")
    if student.dtype != torch.float64:
        student = student.float()
    distance = (student - teacher.detach().to(student.dtype)).square().flatten(1)
    return distance.mean(1) if mean else distance.sum(1)
