"""Losses of the whole-body networks: values by hand, gradients, what does not count."""

from __future__ import annotations

import math

import pytest
import torch

from kd_pose_training.losses.feature_mimic import feature_mimic_loss
from kd_pose_training.losses.logit_distillation import logit_distillation_loss
from kd_pose_training.losses.simcc import divergence, simcc_loss

DOUBLE = {"dtype": torch.float64}


def random_axes(*leading, seed=0, bins=(6, 4)):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*leading, count, generator=rng, **DOUBLE) for count in bins)


def test_divergence_by_hand():
    """Two bins: softmax(0, ln 3) = (1/4, 3/4) against (1/2, 1/2)."""
    prediction, label = torch.zeros(2, **DOUBLE), torch.tensor([0.0, math.log(3)], **DOUBLE)
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert divergence(prediction, label, 1.0).item() == pytest.approx(kl, abs=1e-12)
    assert divergence(prediction, label, 1.0, entropy=False).item() == pytest.approx(math.log(2))
    # a factor of 2 before the softmax: (1/10, 9/10)
    kl = 0.1 * math.log(0.1 / 0.5) + 0.9 * math.log(0.9 / 0.5)
    assert divergence(prediction, label, 2.0).item() == pytest.approx(kl, abs=1e-12)


def test_divergence_of_sure_answers_is_finite():
    """One-hot distributions in float32: 0 log 0 is 0, a wrong sure answer costs its distance."""
    sure, other = torch.tensor([300.0, 0.0]), torch.tensor([0.0, 300.0])
    assert divergence(sure, sure, 10.0).item() == 0.0
    assert divergence(sure, other, 10.0).item() == pytest.approx(3000.0)
    assert divergence(sure.bfloat16(), sure, 10.0).dtype == torch.float32


class TestSimccLoss:
    def test_by_hand(self):
        """(1, 2) keypoints, 2 and 4 bins, uniform prediction; the second one counts half."""
        logits = torch.zeros(1, 2, 2, **DOUBLE), torch.zeros(1, 2, 4, **DOUBLE)
        x = torch.tensor([0.0, math.log(3)], **DOUBLE).expand(1, 2, 2)
        targets = x, torch.zeros(1, 2, 4, **DOUBLE)
        kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
        weight = torch.tensor([[1.0, 0.5]], **DOUBLE)
        loss = simcc_loss(logits, targets, weight, beta=1.0)
        assert loss.shape == (1,)
        assert loss.item() == pytest.approx((kl / 2) * (1 + 0.5) / 2)  # by bins, by keypoints

    def test_right_answers_cost_nothing(self):
        targets = random_axes(2, 3)
        assert simcc_loss(targets, targets, torch.ones(2, 3, **DOUBLE)).abs().max() < 1e-12

    def test_unlabelled_keypoints_neither_cost_nor_pull(self):
        logits = [axis.requires_grad_() for axis in random_axes(2, 3)]
        weight = torch.ones(2, 3, **DOUBLE)
        weight[:, 1] = 0
        loss = simcc_loss(logits, random_axes(2, 3, seed=1), weight).sum()
        for gradient in torch.autograd.grad(loss, logits):
            assert not gradient[:, 1].any() and gradient[:, [0, 2]].abs().min() > 0
        assert simcc_loss(logits, random_axes(2, 3, seed=1), 0 * weight).tolist() == [0.0, 0.0]

    def test_gradient(self):
        targets, weight = random_axes(1, 2, seed=1), torch.tensor([[1.0, 0.3]], **DOUBLE)
        logits = [axis.requires_grad_() for axis in random_axes(1, 2)]
        assert torch.autograd.gradcheck(
            lambda x, y: simcc_loss((x, y), targets, weight, 2.0), logits)

    def test_images_do_not_see_each_other(self):
        logits, targets, weight = random_axes(3, 2), random_axes(3, 2, seed=1), torch.ones(3, 2)
        whole = simcc_loss(logits, targets, weight)
        for row in range(3):
            one = simcc_loss([a[[row]] for a in logits], [a[[row]] for a in targets],
                             weight[[row]])
            torch.testing.assert_close(whole[[row]], one)

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"weight of x do not fit: \(2, 3, 6\), \(2, 4, 6\)"):
            simcc_loss(random_axes(2, 3), random_axes(2, 4), torch.ones(2, 3))
        with pytest.raises(ValueError, match="do not fit"):
            simcc_loss(random_axes(2, 3), random_axes(2, 3), torch.ones(2, 2))


class TestLogitDistillation:
    def test_by_hand(self):
        student = torch.zeros(1, 2, 2, **DOUBLE), torch.zeros(1, 2, 2, **DOUBLE)
        x = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], **DOUBLE)[None]
        kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
        loss = logit_distillation_loss(student, (x, x), beta=1.0)
        assert loss.tolist() == pytest.approx([2 * kl / 2])  # two axes, mean of two keypoints

    def test_both_forms_pull_alike(self):
        teacher = random_axes(2, 3, seed=1)
        student = [axis.requires_grad_() for axis in random_axes(2, 3)]
        both = [logit_distillation_loss(student, teacher, 3.0, entropy)
                for entropy in (True, False)]
        assert (both[1] > both[0] + 0.01).all()  # by the teacher's entropy
        for a, b in zip(*(torch.autograd.grad(loss.sum(), student) for loss in both)):
            torch.testing.assert_close(a, b)

    def test_gradient_reaches_the_student_only(self):
        student, teacher = ([axis.requires_grad_() for axis in random_axes(1, 2, seed=seed)]
                            for seed in (0, 1))
        assert torch.autograd.gradcheck(
            lambda x, y: logit_distillation_loss((x, y), [t.detach() for t in teacher], 2.0),
            student)
        logit_distillation_loss(student, teacher).sum().backward()
        assert all(axis.grad is None for axis in teacher)

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"differ along y: \(1, 2, 4\) and \(1, 2, 5\)"):
            logit_distillation_loss(random_axes(1, 2), random_axes(1, 2, bins=(6, 5)))


class TestFeatureMimic:
    def test_by_hand(self):
        student, teacher = torch.zeros(2, 2, 1, 3), torch.zeros(2, 2, 1, 3)
        teacher[0, 0, 0, 0], teacher[0, 1, 0, 2] = 3.0, -1.0
        assert feature_mimic_loss(student, teacher).tolist() == [10.0, 0.0]
        assert feature_mimic_loss(student, teacher, mean=True).tolist() == pytest.approx(
            [10.0 / 6, 0.0])

    def test_gradient(self):
        maps = [torch.randn(1, 2, 2, 2, **DOUBLE).requires_grad_() for _ in range(2)]
        assert torch.autograd.gradcheck(lambda s: feature_mimic_loss(s, maps[1].detach()), maps[0])
        feature_mimic_loss(*maps).sum().backward()
        torch.testing.assert_close(maps[0].grad, 2 * (maps[0] - maps[1]))
        assert maps[1].grad is None

    def test_half_precision_is_summed_in_single(self):
        """300^2 does not fit into float16."""
        half = torch.full((1, 1, 1, 2), 300.0, dtype=torch.float16)
        assert feature_mimic_loss(half, -half).item() == 2 * 600.0**2

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"\(1, 2, 3, 3\) and \(1, 4, 3, 3\)"):
            feature_mimic_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))
