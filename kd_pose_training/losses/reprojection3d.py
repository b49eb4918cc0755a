"""3D-space reprojection loss (Hu et al., CVPR 2021, "Wide-Depth-Range 6D Object Pose Estimation").

A predicted image point defines a viewing ray; the loss is the vector from the true corner to its
foot on that ray, relative to the object's diameter. Unlike an error in pixels it does not depend
on how far the object is away. Symmetric objects: the member of the symmetry group with the
smallest mean over the instance's cells counts, so that all cells of an object agree on one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def ray_offsets(points_px: Tensor, K: Tensor, points_cam: Tensor) -> Tensor:
    """Vector from each camera-frame point to its foot on the ray through an image point.

    Args:
        points_px: (..., 2) pixels. K: (..., 3, 3) pinhole matrix, also of a rotated crop (any
            upper left 2x2). points_cam: (..., 3) metres.

    Returns:
        (..., 3) metres; leading shapes broadcast.
    """
    # Solved by hand (Cramer's rule): cheaper than an inverse.
    u, v = points_px[..., 0] - K[..., 0, 2], points_px[..., 1] - K[..., 1, 2]
    determinant = K[..., 0, 0] * K[..., 1, 1] - K[..., 0, 1] * K[..., 1, 0]
    x = (K[..., 1, 1] * u - K[..., 0, 1] * v) / determinant
    y = (K[..., 0, 0] * v - K[..., 1, 0] * u) / determinant
    ray = torch.stack([x, y, torch.ones_like(x)], -1)
    ray = ray / ray.norm(dim=-1, keepdim=True)
    return (ray * points_cam).sum(-1, keepdim=True) * ray - points_cam


def smooth_l1(error: Tensor, knee: float) -> Tensor:
    """|e| - knee/2 beyond the knee, e^2 / (2 knee) inside: slope 1 far out."""
    size = error.abs()
    return torch.where(size < knee, 0.5 * size * size / knee, size - 0.5 * knee)


def min_over_members(loss: Tensor, instance: Tensor, num_instances: int) -> tuple[Tensor, Tensor]:
    """Per cell, the loss of the member that is best for its whole instance.

    Args:
        loss: (P, S) of every cell and symmetry member.
        instance: (P,) int64 row of each cell's instance, below ``num_instances``.

    Returns:
        (P,) chosen losses and (P,) int64 chosen members.
    """
    # Sums order like means: every member of an instance has the same number of cells.
    sums = loss.new_zeros(num_instances, loss.shape[1]).index_add(0, instance, loss.detach())
    member = sums.argmin(1)[instance]
    return loss.gather(1, member[:, None])[:, 0], member


def reprojection3d_loss(points_px: Tensor, K: Tensor, points_cam: Tensor, diameter: Tensor,
                        instance: Tensor, knee: float = 0.02) -> tuple[Tensor, Tensor]:
    """Loss of the positive cells' votes, in float32 or better.

    Args:
        points_px: (P, k, 2) predicted points of each positive cell, input pixels.
        K: (P, 3, 3) pinhole matrix of each cell's input.
        points_cam: (M, S, k, 3) true points for every symmetry member, metres, camera frame.
        diameter: (M,) metres.
        instance: (P,) int64 row into M of each cell.
        knee: where the loss turns from quadratic to linear, in diameters.

    Returns:
        (P,) mean over the 3k numbers of each cell (empty, with a graph, when P = 0) and (P,) the
        chosen symmetry member.
    """
    if points_px.dtype != torch.float64:
        points_px = points_px.float()
    K, points_cam = K.to(points_px.dtype), points_cam.to(points_px.dtype)
    diameter = diameter.to(points_px.dtype)
    offsets = ray_offsets(points_px[:, None], K[:, None, None], points_cam[instance])
    relative = offsets / diameter[instance][:, None, None, None]
    per_member = smooth_l1(relative, knee).flatten(2).mean(2)
    return min_over_members(per_member, instance, points_cam.shape[0])


class Reprojection3DLoss(nn.Module):
    """Sum over positive cells of :func:`reprojection3d_loss`; also returns the members.
    ``counted``: (P,) bool, cells that the sum is over; all by default."""

    def __init__(self, knee: float = 0.02) -> None:
        super().__init__()
        self.knee = knee

    def forward(self, points_px: Tensor, K: Tensor, points_cam: Tensor, diameter: Tensor,
                instance: Tensor, counted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loss, member = reprojection3d_loss(points_px, K, points_cam, diameter, instance,
                                           self.knee)
        return (loss if counted is None else loss[counted]).sum(), member
