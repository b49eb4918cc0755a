"""The alignment loss against a loop of GeomLoss over the images, as the published code has it.

16 images of 8 corners, 10 or 32 votes a side, forward and backward by points and scores, float32.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.timing import Row, interleave, row
from kd_pose_training.losses.alignment import AlignmentLoss, LocalPredictions
from kd_pose_training.losses.alignment_config import released

PEERS = ("geomloss",)
CASES = ((10, 4.0), (32, 1.5))  # votes a side, goal
IMAGES, CORNERS = 16, 8
FRAME = torch.tensor([640.0, 480.0])
TOLERANCE = 1e-3


def problem(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student points (16, count, 8, 2) in pixels and scores (16, count), teacher's the same."""
    rng = torch.Generator().manual_seed(count)
    corners = torch.rand(IMAGES, 1, CORNERS, 2, generator=rng) * 120 + 200
    student, teacher = (corners + noise * torch.randn(IMAGES, count, CORNERS, 2, generator=rng)
                        for noise in (6.0, 2.0))
    scores, sure = (torch.rand(IMAGES, count, generator=rng) * 0.5 + low for low in (0.1, 0.45))
    return student, scores, teacher, sure


def peer_loss():
    """Mean over images of the sum over corners, one call of GeomLoss per image."""
    from geomloss import SamplesLoss
    loss = SamplesLoss("sinkhorn", p=2, blur=0.001, scaling=0.5, reach=0.5)

    def function(student, scores, teacher, sure):
        total = 0.0
        for x, a, y, b in zip(student / FRAME.to(student), scores, teacher / FRAME.to(student),
                              sure):
            a, b = (mass.clamp(1e-3, 1 - 1e-3).expand(CORNERS, -1).contiguous() for mass in (a, b))
            total = total + loss(a, x.transpose(0, 1).contiguous(), b,
                                 y.transpose(0, 1).contiguous()).sum()
        return total / len(student)

    return function


def our_loss():
    """The preset ``released`` on all images at once."""
    loss = AlignmentLoss(released())

    def function(student, scores, teacher, sure):
        valid = torch.ones_like(scores, dtype=torch.bool)
        return loss(LocalPredictions(student, scores, valid),
                    LocalPredictions(teacher, sure, valid), frame=FRAME)

    return function


def _gradients(function, tensors, dtype=torch.float32) -> list[torch.Tensor]:
    """Value and gradients by the student's points and scores."""
    tensors = [tensor.to(dtype) for tensor in tensors]
    wanted = [tensor.requires_grad_() for tensor in (tensors[0].clone(), tensors[1].clone())]
    value = function(*wanted, *tensors[2:])
    return [value.detach(), *torch.autograd.grad(value, wanted)]


def run(pairs: int = 30) -> list[Row]:
    torch.set_num_threads(1)
    return [_case(count, goal, pairs) for count, goal in CASES]


def _case(count: int, goal: float, pairs: int) -> Row:
    tensors, peer, ours = problem(count), peer_loss(), our_loss()
    # Double is the truth: the peer's own float32 is further from it than ours.
    truth = _gradients(peer, tensors, torch.float64)
    errors = [max(float((found.double() - true).norm() / true.norm())
                  for found, true in zip(_gradients(function, tensors), truth))
              for function in (ours, peer)]
    times = interleave(lambda _: _gradients(peer, tensors), lambda _: _gradients(ours, tensors),
                       pairs)
    low, high = np.percentile(times[0] / times[1], (10, 90))
    guard = (f"relative error {errors[0]:.0e} vs {errors[1]:.0e}; ratios of pairs "
             f"{low:.1f} to {high:.1f} (10 to 90 %)")
    return row(f"alignment of {count} votes, {IMAGES} images x {CORNERS} corners, vs GeomLoss",
               times, goal, guard, errors[0] <= TOLERANCE)
