"""Convolutions on maps of a few cells: right weight gradients in bf16 on a CPU, too.

On processors without AVX512-BF16 torch's kernels are right anyway.
"""

from __future__ import annotations

import copy

import pytest
import torch

from kd_pose_training.models.bricks import FeaturePyramid, TinyMapConv2d
from kd_pose_training.models.rtmcc_head import RTMCCHead

torch.set_num_threads(1)
BF16 = 0.03  # of the largest gradient; rounding gives some 0.005, unwritten memory 0.8 to infinity


def gradient_error(module, inputs, parameter, repeats=3):
    """Largest error of a weight's gradient under bf16 autocast, in parts of the largest."""
    outputs = module(*inputs)
    factors = [torch.randn_like(item) for item in outputs]
    gradients = []
    for autocast in [False] + [True] * repeats:
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = module(*inputs)
        sum((item.float() * factor).sum() for item, factor in zip(outputs, factors)).backward()
        gradients.append(module.get_parameter(parameter).grad.clone())
    errors = torch.stack([(item - gradients[0]).abs().max() for item in gradients[1:]])
    return float((errors / gradients[0].abs().max()).nan_to_num(nan=torch.inf).max())


class Alone(torch.nn.Module):
    """One convolution, with a list for an answer."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.only = TinyMapConv2d(*args, **kwargs)

    def forward(self, x):
        return [self.only(x)]


@pytest.mark.parametrize("kernel, stride", [(7, 1), (5, 1), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weight_gradients_in_bf16(kernel, stride, layout):
    torch.manual_seed(0)
    module = Alone(128, 133, kernel, stride, kernel // 2).to(memory_format=layout)
    for rows in (1, 2, 3, 4):
        for columns in (1, 2, 3):
            x = torch.randn(2, 128, rows, columns).to(memory_format=layout)
            assert gradient_error(module, [x], "only.weight") < BF16, (rows, columns)


@pytest.mark.parametrize("map_size", [(1, 1), (1, 2), (2, 1), (2, 2), (2, 4), (3, 2)])
def test_the_heads_first_layer_learns_in_bf16(map_size):
    torch.manual_seed(0)
    head = RTMCCHead(256, 133, map_size, (64 * map_size[1], 64 * map_size[0]))
    features = torch.randn(4, 256, *map_size)
    head.mlp = torch.nn.Identity()  # what follows is as inexact as bf16 is
    head.gau, head.cls_x, head.cls_y = (torch.nn.Identity() for _ in range(3))
    assert gradient_error(head, [features], "final_layer.weight") < BF16


@pytest.mark.parametrize("map_size", [(1, 1), (2, 1)])
def test_a_pyramids_extra_levels_learn_in_bf16(map_size):
    torch.manual_seed(0)
    pyramid = FeaturePyramid((128,), 128, 128, extra=2)
    last = torch.randn(2, 128, *map_size)
    for level in (0, 1):
        assert gradient_error(pyramid, [[last], last], f"extra.{level}.weight") < BF16


def test_larger_maps_stay_in_bf16_and_float32_stays_itself():
    torch.manual_seed(0)
    ours = TinyMapConv2d(8, 4, 7, padding=3)
    plain = torch.nn.Conv2d(8, 4, 7, padding=3)
    plain.load_state_dict(copy.deepcopy(ours.state_dict()))
    for rows, kind in ((2, torch.float32), (3, torch.bfloat16)):
        x = torch.randn(1, 8, rows, 4)
        assert torch.equal(ours(x), plain(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(x).dtype == kind
