"""A student's SimCC distributions towards a teacher's (DWPose, arXiv 2307.15880, eq. 3).

There is deliberately no weight of a keypoint: the teacher speaks about those that are hidden or
not labelled, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kd_pose_training.losses.simcc import BETA, divergence


def logit_distillation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor],
                            beta: float = BETA, entropy: bool = True) -> Tensor:
    """(B,) loss of each image, in float32 or better: sum over bins and axes, mean over keypoints.

    mmpose's ``KDLoss`` is the mean of these over the batch.

    Args:
        student, teacher: (B, K, Wx) and (B, K, Wy) logits; gradients reach the student only.
        beta: factor of both sides' logits before the softmax.
        entropy: divergence; False: cross entropy, as the paper writes it.

    Raises:
        ValueError: shapes that differ.
    """
    total = 0
    for axis, mine, theirs in zip("xy", student, teacher):
        if mine.shape != theirs.shape:
            raise ValueError(f"student and teacher differ along {axis}: {tuple(mine.shape)} and "
                             f"{tuple(theirs.shape)}")
        total = total + divergence(mine, theirs.detach(), beta, entropy).mean(1)
    return total
