"""Loss of the detector's corner votes: smooth L1 relative to the size of the box."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_pose_training.losses.reprojection3d import min_over_members, smooth_l1


def box_votes_loss(points_px: Tensor, target_px: Tensor, size_px: Tensor, instance: Tensor,
                   knee: float = 0.02) -> tuple[Tensor, Tensor]:
    """Loss of the positive cells' votes, in float32 or better.

    Args:
        points_px: (P, k, 2) predicted points of each positive cell, input pixels.
        target_px: (M, S, k, 2) true points; the best member S of each instance counts.
        size_px: (M,) longer side of the box, pixels; values below 1 count as 1.
        instance: (P,) int64 row into M of each cell.
        knee: where the loss turns from quadratic to linear, in box sizes.

    Returns:
        (P,) mean over the 2k numbers of each cell and (P,) the chosen member.
    """
    if points_px.dtype != torch.float64:
        points_px = points_px.float()
    target_px, size_px = target_px.to(points_px.dtype), size_px.to(points_px.dtype)
    size = size_px.clamp(min=1.0)[instance][:, None, None, None]
    relative = (points_px[:, None] - target_px[instance]) / size
    per_member = smooth_l1(relative, knee).flatten(2).mean(2)
    return min_over_members(per_member, instance, target_px.shape[0])


class BoxVotesLoss(nn.Module):
    """Sum over positive cells of :func:`box_votes_loss`; also returns the members.
    ``counted``: (P,) bool, cells that the sum is over; all by default."""

    def __init__(self, knee: float = 0.02) -> None:
        super().__init__()
        self.knee = knee

    def forward(self, points_px: Tensor, target_px: Tensor, size_px: Tensor,
                instance: Tensor, counted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loss, member = box_votes_loss(points_px, target_px, size_px, instance, self.knee)
        return (loss if counted is None else loss[counted]).sum(), member
