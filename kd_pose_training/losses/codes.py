"""Losses of the dense networks: L1 of the mask, weighted binary cross entropy of the code bits.

Su et al., CVPR 2022, "ZebraPose". Fine bits of a surface code are nearly chance for long, coarse
ones are soon nearly always right: neither teaches much. Each bit is weighed by
exp(3 min(h, 0.51 - h)), where h is the running share of pixels at which it is wrong, so that the
bits being learnt just now count most: at most 2.15 times as much as one that is always right.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 3.0
TURNING = 0.51  # weights grow with the error up to half of this and shrink beyond
MOMENTUM = 0.95


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of the mask's probability from the truth, in float32 or better.

    Args:
        logits: (N, h, w). mask: (N, h, w) bool or 0 and 1.
    """
    logits = _precise(logits)
    return (logits.sigmoid() - mask.to(logits.dtype)).abs().mean()


def code_loss(logits: Tensor, bits: Tensor, counted: Tensor, weights: Tensor,
              pixels: Tensor | float | None = None) -> Tensor:
    """Binary cross entropy of the bits at the pixels that count, in float32 or better.

    Args:
        logits: (N, bits, h, w). bits: (N, bits, h, w) bool or 0 and 1.
        counted: (N, h, w) bool. weights: (bits,) at least 0, not all 0.
        pixels: what the sum over pixels is divided by; None: the number that count.

    Returns:
        Scalar: mean over pixels of each bit, then the weighted mean over bits; 0 with a graph
        where no pixel counts.
    """
    logits = _precise(logits)
    loss = F.binary_cross_entropy_with_logits(logits, bits.to(logits.dtype), reduction="none")
    counted = counted[:, None].to(logits.dtype)
    if pixels is None:
        pixels = counted.sum().clamp(min=1.0)
    per_bit = (loss * counted).sum((0, 2, 3)) / pixels
    weights = weights.to(logits.dtype)
    return (per_bit * weights).sum() / weights.sum()


def wrong_bits(logits: Tensor, bits: Tensor, counted: Tensor) -> Tensor:
    """Number (bits,) of counted pixels at which each bit is wrong, float32, without gradient.

    Arguments as of :func:`code_loss`.
    """
    wrong = ((logits.detach() > 0) != bits.bool()) & counted[:, None]
    return wrong.sum((0, 2, 3)).float()


def bit_weights(error: Tensor) -> Tensor:
    """Weights (bits,) by the running error (bits,) of each bit, 0..1."""
    return torch.exp(SHARPNESS * torch.minimum(error, TURNING - error))


@torch.no_grad()
def update_running_error(running: Tensor, wrong: Tensor, pixels: Tensor) -> None:
    """Move the running error (bits,) towards ``wrong / pixels``, in place.

    Args:
        wrong: (bits,) numbers of wrong pixels. pixels: scalar, how many counted; 0 = no move.
    """
    error = wrong / pixels.clamp(min=1.0)
    step = (1.0 - MOMENTUM) * (pixels > 0).to(running.dtype)
    running.lerp_(error.to(running.dtype), step)


def code_bits(codes: Tensor, bits: int) -> Tensor:
    """Codes (N, h, w) -> their bits (N, bits, h, w) bool, the coarsest first.

    As :func:`kd_pose.codes.codes_to_bits`, on the batch's device; negative codes (none) give 0.
    """
    places = torch.arange(bits - 1, -1, -1, device=codes.device, dtype=codes.dtype)
    return ((codes.clamp(min=0)[:, None] >> places[:, None, None]) & 1).bool()


def _precise(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
