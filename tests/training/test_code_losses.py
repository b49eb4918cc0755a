"""Mask and code losses: hand-worked values, gradients, weights of the bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kd_pose.codes import codes_to_bits
from kd_pose_training.losses.codes import (
    bit_weights,
    code_bits,
    code_loss,
    mask_loss,
    update_running_error,
    wrong_bits,
)

torch.set_num_threads(1)


def test_mask_by_hand():
    """Probabilities ½, ¾, ¼, 0 against 1, 1, 0, 0: (½ + ¼ + ¼ + 0) / 4."""
    logits = torch.tensor([[[0.0, math.log(3)], [-math.log(3), -1e4]]])
    mask = torch.tensor([[[True, True], [False, False]]])
    assert float(mask_loss(logits, mask)) == pytest.approx(0.25)


def test_code_by_hand():
    """Two bits, three pixels, one of which does not count.

    Bit 0: logits 0 and log 3 against 1 and 1: (ln 2 + ln 4/3) / 2. Bit 1: log 3 against 0 and 0
    against 1: (ln 4 + ln 2) / 2. Weights 1 and 3.
    """
    third = math.log(3)
    logits = torch.tensor([[[[0.0, third, 50.0]], [[third, 0.0, 50.0]]]])
    bits = torch.tensor([[[[1, 1, 0]], [[0, 1, 0]]]]).bool()
    counted = torch.tensor([[[True, True, False]]])
    first, second = math.log(8 / 3) / 2, math.log(8) / 2
    loss = code_loss(logits, bits, counted, torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx((first + 3 * second) / 4, rel=1e-6)
    over_three = code_loss(logits, bits, counted, torch.tensor([1.0, 3.0]), 3.0)
    assert float(over_three) == pytest.approx(float(loss) * 2 / 3, rel=1e-6)
    assert wrong_bits(logits, bits, counted).tolist() == [1, 2]  # a logit of 0 reads as 0


def test_nothing_counts():
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    bits, counted = torch.ones(2, 4, 3, 3).bool(), torch.zeros(2, 3, 3).bool()
    loss = code_loss(logits, bits, counted, torch.ones(4))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max().item() == 0
    running = torch.tensor([0.5, 0.2, 0.1, 0.4])
    before = running.clone()
    update_running_error(running, wrong_bits(logits, bits, counted), counted.sum())
    assert torch.equal(running, before)


def test_gradients():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 2, dtype=torch.double, requires_grad=True)
    bits, counted = torch.rand(2, 3, 4, 2) > 0.5, torch.rand(2, 4, 2) > 0.3
    weights = torch.tensor([0.5, 1.0, 2.0])
    assert torch.autograd.gradcheck(lambda x: code_loss(x, bits, counted, weights), logits)
    masks = torch.randn(2, 4, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: mask_loss(x, counted), masks)
    grad = torch.autograd.grad(code_loss(logits, bits, counted, weights), logits)[0]
    assert (grad.abs().amax(1)[~counted] == 0).all() and (grad.abs().amin(1)[counted] > 0).all()


def test_half_precision_is_summed_in_float32():
    logits = torch.full((4, 16, 64, 64), 0.25, dtype=torch.bfloat16)
    loss = code_loss(logits, torch.ones(4, 16, 64, 64), torch.ones(4, 64, 64).bool(),
                     torch.ones(16))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log1p(math.exp(-0.25)), rel=1e-5)


def test_weights_of_the_bits():
    """1 when never wrong, largest where the error is 0.255, nearly 1 again at chance."""
    error = torch.tensor([0.0, 0.1, 0.255, 0.5, 0.6])
    expected = [1.0, math.exp(0.3), math.exp(0.765), math.exp(0.03), math.exp(-0.27)]
    assert bit_weights(error).tolist() == pytest.approx(expected, rel=1e-6)


def test_running_error_by_hand():
    running = torch.tensor([0.5, 0.0])
    update_running_error(running, torch.tensor([1.0, 4.0]), torch.tensor(4))
    assert running.tolist() == pytest.approx([0.95 * 0.5 + 0.05 * 0.25, 0.05])


def test_bits_are_those_of_the_runtime():
    codes = torch.tensor([[[0, 1, 40000], [65535, 512, -1]]], dtype=torch.int32)
    expected = codes_to_bits(codes.clamp(min=0).numpy(), 16)
    assert np.array_equal(code_bits(codes, 16).permute(0, 2, 3, 1).numpy(), expected)
    assert code_bits(codes, 16)[0, :, 0, 2].nonzero()[0].item() == 0  # 40000 >= 2**15
