"""Losses: values worked out by hand, invariants, gradients in double, empty positives."""

from __future__ import annotations

import math

import pytest
import torch

from kd_pose.votes import BACKGROUND, IGNORE
from kd_pose_training.losses.box_votes import BoxVotesLoss, box_votes_loss
from kd_pose_training.losses.focal import focal_loss
from kd_pose_training.losses.reprojection3d import (
    Reprojection3DLoss,
    ray_offsets,
    reprojection3d_loss,
    smooth_l1,
)

torch.set_num_threads(1)
K = torch.tensor([[500.0, 0.0, 100.0], [0.0, 400.0, 80.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def test_focal_by_hand():
    """Logit 0: p = 1/2, so every entry is weight * 1/4 * ln 2."""
    logits = torch.zeros(1, 3, 2)
    cells = torch.tensor([[1, BACKGROUND, IGNORE]])
    expected = (0.25 + 0.75 + 2 * 0.75) * 0.25 * math.log(2)
    assert float(focal_loss(logits, cells)) == pytest.approx(expected, rel=1e-6)
    assert float(focal_loss(logits, cells, gamma=0.0, alpha=0.5)) == pytest.approx(
        4 * 0.5 * math.log(2), rel=1e-6)


def test_focal_is_finite_at_extreme_logits():
    logits = torch.tensor([[[200.0], [-200.0]]], dtype=torch.bfloat16, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[BACKGROUND, 0]]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(200 * (0.75 + 0.25)) and logits.grad.isfinite().all()


def test_focal_gradient_and_ignore():
    logits = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    cells = torch.tensor([[0, 2, -1, -2, -1], [-1, 1, -2, -2, 0]])
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, cells), logits)
    focal_loss(logits, cells).backward()
    assert (logits.grad[cells == IGNORE] == 0).all()


def test_smooth_l1_by_hand():
    error = torch.tensor([0.0, 0.01, -0.02, 0.1], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.0025, 0.01, 0.09], dtype=torch.float64)
    torch.testing.assert_close(smooth_l1(error, 0.02), expected)


def test_ray_offsets_are_zero_on_the_ray_and_perpendicular_off_it():
    points = torch.tensor([[0.1, -0.05, 0.8], [0.0, 0.1, 1.5]], dtype=torch.float64)
    projected = points @ K.T
    pixels = projected[:, :2] / projected[:, 2:]
    torch.testing.assert_close(ray_offsets(pixels, K, points), torch.zeros(2, 3).double())
    offset = ray_offsets(pixels + 7.0, K, points)
    assert ((points + offset) * offset).sum(-1).abs().max() < 1e-12


def test_reprojection_by_hand():
    """Point on the axis at 1 m, vote 100 px right at f = 500: the ray is (0.2, 0, 1) / 1.04^.5.

    Its foot is (b.X) b / b.b = (0.2, 0, 1) / 1.04; minus X: (0.19231, 0, -0.03846) metres. With
    diameter 0.5: 0.384615, 0, 0.076923; each beyond the knee loses 0.01; mean over 3.
    """
    loss, _ = reprojection3d_loss(
        torch.tensor([[[200.0, 80.0]]]).double(), K[None], torch.tensor([[[[0.0, 0, 1.0]]]]),
        torch.tensor([0.5]), torch.tensor([0]))
    assert float(loss) == pytest.approx((0.384615 - 0.01 + 0.076923 - 0.01) / 3, abs=1e-5)


def test_reprojection_does_not_depend_on_scale():
    points = torch.rand(1, 1, 8, 3).double() + torch.tensor([0, 0, 2.0])
    votes = torch.rand(4, 8, 2).double() * 300
    args = (votes, K.expand(4, 3, 3))
    near, _ = reprojection3d_loss(*args, points, torch.tensor([0.7]), torch.zeros(4).long())
    far, _ = reprojection3d_loss(*args, points * 3, torch.tensor([2.1]), torch.zeros(4).long())
    torch.testing.assert_close(near, far, rtol=1e-5, atol=1e-7)


def _two_members():
    """Two instances, two symmetry members; the votes lie on member 1 of the first."""
    points = torch.rand(2, 2, 8, 3).double() * 0.2 + torch.tensor([0, 0, 1.0])
    projected = points @ K.T
    pixels = projected[..., :2] / projected[..., 2:]
    instance = torch.tensor([0, 0, 0, 1])
    votes = torch.stack([pixels[0, 1], pixels[0, 1], pixels[0, 0], pixels[1, 0]])
    return votes, K.expand(4, 3, 3), points, torch.tensor([0.3, 0.3]), instance


def test_members_are_chosen_per_instance_not_per_cell():
    loss, member = reprojection3d_loss(*_two_members())
    assert member.tolist() == [1, 1, 1, 0]
    assert loss[[0, 1, 3]].abs().max() < 1e-9 and loss[2] > 1e-3


def test_order_of_members_does_not_matter():
    votes, k, points, diameter, instance = _two_members()
    loss, _ = reprojection3d_loss(votes, k, points, diameter, instance)
    flipped, _ = reprojection3d_loss(votes, k, points.flip(1), diameter, instance)
    torch.testing.assert_close(loss, flipped)


def test_regression_gradients_in_double():
    votes, k, points, diameter, instance = _two_members()
    votes = (votes + 3 * torch.rand_like(votes)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: reprojection3d_loss(v, k, points, diameter, instance)[0], votes)
    target = torch.rand(2, 1, 8, 2).double() * 50
    assert torch.autograd.gradcheck(
        lambda v: box_votes_loss(v, target, torch.tensor([30.0, 60.0]), instance)[0], votes)


def test_box_votes_by_hand():
    """Box 100 px: errors 10 and 1 px are 0.1 and 0.01 -> 0.09 and 0.0025, over 4 numbers."""
    loss, _ = box_votes_loss(torch.tensor([[[10.0, 0.0], [1.0, 0.0]]]), torch.zeros(1, 1, 2, 2),
                             torch.tensor([100.0]), torch.tensor([0]))
    assert float(loss) == pytest.approx((0.09 + 0.0025) / 4, rel=1e-5)


@pytest.mark.parametrize("instances", [0, 2])
def test_no_positives_give_zero_with_a_graph(instances):
    votes = torch.zeros(0, 8, 2, requires_grad=True)
    instance = torch.zeros(0, dtype=torch.long)
    pose, _ = Reprojection3DLoss()(votes, torch.zeros(0, 3, 3), torch.zeros(instances, 3, 8, 3),
                                   torch.ones(instances), instance)
    box, _ = BoxVotesLoss()(votes, torch.zeros(instances, 1, 8, 2), torch.ones(instances),
                            instance)
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    cells = focal_loss(logits, torch.full((1, 2), IGNORE))
    (pose + box + cells).backward()
    assert pose.item() == box.item() == cells.item() == 0.0
    assert votes.grad is not None and (logits.grad == 0).all()
