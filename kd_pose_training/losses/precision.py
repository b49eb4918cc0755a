"""Half precision on its way into float32, and its gradients on their way back."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Widened(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, dtype):
        ctx.dtype = tensor.dtype
        return tensor.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        most = torch.finfo(ctx.dtype).max
        return grad.clamp(-most, most).to(ctx.dtype), None


def widened(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """In ``dtype``, or in its own where that is wider. A gradient beyond what the tensor's own
    type can hold becomes the largest number that it can, instead of infinity."""
    dtype = torch.promote_types(tensor.dtype, dtype)
    return tensor if tensor.dtype == dtype else _Widened.apply(tensor, dtype)


def set_diameter(x: Tensor, x_valid: Tensor, y: Tensor, y_valid: Tensor) -> Tensor:
    """Diagonal of the common bounding box of two sets, 0 where both are empty.

    Args:
        x, y: (P, n, d) and (P, m, d) points.
        x_valid, y_valid: (P, n) and (P, m) bool: the points that count.

    Returns:
        (P,) without gradient, float32 or float64.
    """
    points = torch.cat([widened(x), widened(y)], 1).detach()
    valid = torch.cat([x_valid, y_valid], 1)[..., None]
    if points.shape[1] == 0:
        return points.new_zeros(len(points))
    low = torch.where(valid, points, math.inf).amin(1)
    high = torch.where(valid, points, -math.inf).amax(1)
    return torch.where(valid.any(1), high - low, 0.0).norm(dim=-1)
