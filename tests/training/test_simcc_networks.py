"""RTMPose networks: published sizes, shapes, single bricks by hand, a backbone stays frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers.tiny_simcc import random_batch, tiny_net
from kd_pose_training.models.cspnext import ChannelAttention, CSPNeXt, CSPNeXtBlock, PyramidPooling
from kd_pose_training.models.rtmcc_head import GatedAttentionUnit, RTMCCHead, ScaleNorm
from kd_pose_training.models.simcc_net import LARGE, SIZES, SMALL, SimccNet, build_simcc_net

torch.set_num_threads(1)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def millions(module: nn.Module) -> float:
    return round(count(module) / 1e6, 2)


# Published for 17 body keypoints (RTMPose, tables of the model zoo: 3.34, 5.47, 13.59, 27.66) and
# counted for 133: whole network, backbone, head at 256x192, whole network at 384x288.
@pytest.mark.parametrize("size, body, whole, backbone, head, large", [
    ("rtmpose_t", 3.34, 5.52, 2.35, 3.17, 5.65), ("rtmpose_s", 5.47, 8.38, 4.38, 4.01, 8.51),
    ("rtmpose_m", 13.59, 17.95, 12.28, 5.67, 18.08),
    ("rtmpose_l", 27.66, 33.48, 26.14, 7.34, 33.61),
    ("rtmpose_x", None, 56.58, 47.57, 9.01, 56.71)])
def test_parameters(size, body, whole, backbone, head, large):
    network = build_simcc_net(size)
    assert (millions(network), millions(network.backbone), millions(network.head)) == (
        whole, backbone, head)
    channels, rest = network.backbone.channels, count(network.backbone)
    assert round((rest + count(RTMCCHead(channels, 133, (12, 9), (576, 768)))) / 1e6, 2) == large
    if body is not None:
        of_body = rest + count(RTMCCHead(channels, 17, (8, 6), (384, 512)))
        assert round(of_body / 1e6, 2) == body


def test_head_parameters_by_hand():
    """t at 256x192: 7x7 convolution, two norms, 48 -> 256, gated attention unit, classifiers."""
    want = (384 * 49 + 1) * 133 + 2 + 48 * 256 + 256 * (1024 + 128) + 512 * 256 + 256 + 4 * 128
    want += 256 * (384 + 512)
    assert count(build_simcc_net("rtmpose_t").head) == want == 3171079


@pytest.mark.parametrize("input_size, bins", [(SMALL, (384, 512)), (LARGE, (576, 768))])
def test_shapes(input_size, bins):
    network = build_simcc_net("rtmpose_t", input_size=input_size).eval()
    images = torch.zeros(2, 3, input_size[1], input_size[0])
    with torch.no_grad():
        assert network.backbone(images).shape == (2, 384, input_size[1] // 32, input_size[0] // 32)
        x, y = network(images)
    assert x.shape == (2, 133, bins[0]) and y.shape == (2, 133, bins[1])


@pytest.mark.parametrize("call, message", [
    (lambda: build_simcc_net("rtmpose_xxl"), "rtmpose_t, rtmpose_s"),
    (lambda: build_simcc_net("rtmpose_t", input_size=(192, 250)), "multiples of 32"),
    (lambda: build_simcc_net("rtmpose_t", input_size=(0, 32)), "multiples of 32"),
    (lambda: CSPNeXt((8, 8), (1, 1)), "5 widths and 4 depths")])
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_norms_are_those_of_the_published_networks():
    norms = [m for m in tiny_net().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all((m.eps, m.momentum) == (1e-5, 0.1) for m in norms)


def test_only_the_last_stage_adds_nothing():
    network = build_simcc_net("rtmpose_s")
    residual = {name.split(".")[1]: block.residual for name, block in network.named_modules()
                if isinstance(block, CSPNeXtBlock)}
    assert residual == {"stage1": True, "stage2": True, "stage3": True, "stage4": False}
    block = CSPNeXtBlock(4, residual=True).eval()
    x = torch.randn(1, 4, 5, 5)
    plain = CSPNeXtBlock(4, residual=False).eval()
    plain.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(x), x + plain(x))


def test_channel_attention_by_hand():
    """hardsigmoid(z) = clamp(z / 6 + 1/2, 0, 1) of the mean, here of an identity convolution."""
    attention = ChannelAttention(2)
    attention.fc.weight.data = torch.eye(2)[:, :, None, None]
    nn.init.zeros_(attention.fc.bias)
    x = torch.tensor([[1.0, 5.0], [-6.0, -6.0]]).view(1, 2, 1, 2)
    torch.testing.assert_close(attention(x).flatten(), torch.tensor([1.0, 5.0, -0.0, -0.0]))
    x = torch.tensor([[0.0, 3.0], [0.0, 0.0]]).view(1, 2, 1, 2)  # mean 1.5: 0.75
    torch.testing.assert_close(attention(x).flatten(), torch.tensor([0.0, 2.25, 0.0, 0.0]))


def test_pyramid_pooling_sees_five_nine_and_thirteen():
    pooling = PyramidPooling(2).eval()
    seen = []
    pooling.conv2.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.full((1, 2, 27, 27), -9.0)
    x[..., 13, 13] = 9.0
    pooling.conv1 = nn.Identity()  # both channels go through as they are
    with pytest.raises(RuntimeError, match="channels"):
        pooling(x)
    widths = (seen[0] == 9.0).sum(dim=(2, 3))[0].sqrt()
    assert widths.tolist() == [1, 1, 5, 5, 9, 9, 13, 13]


def test_scale_norm_by_hand():
    norm = ScaleNorm(2)
    norm.g.data[:] = 2.0
    # |(3, 4)| = 5, root mean square 5 / sqrt(2)
    want = 2 * torch.tensor([3.0, 4.0]) * 2**0.5 / 5
    torch.testing.assert_close(norm(torch.tensor([[3.0, 4.0]])), want[None])
    zero = torch.zeros(1, 2, requires_grad=True)
    norm(zero).sum().backward()
    assert zero.grad.isfinite().all() and not norm(zero).any()


def test_attention_is_squared_relu_without_a_mean():
    """Against the formula token by token; twice the same tokens sum to twice the attention."""
    torch.manual_seed(0)
    unit = GatedAttentionUnit().double()
    x = torch.randn(1, 3, 256, dtype=torch.float64)
    normed = x / (x.square().mean(-1, keepdim=True).sqrt())
    z = normed @ unit.uv.weight.T
    z = z * torch.sigmoid(z)
    u, v, base = z[..., :512], z[..., 512:1024], z[..., 1024:]
    want = x.clone()
    for i in range(3):
        mixed = 0
        for j in range(3):
            query, key = (base[0, row] * unit.gamma[k] + unit.beta[k]
                          for k, row in enumerate((i, j)))
            mixed = mixed + (query @ key / 128**0.5).clamp(min=0) ** 2 * v[0, j]
        want[0, i] = x[0, i] + (u[0, i] * mixed) @ unit.o.weight.T
    torch.testing.assert_close(unit(x), want)
    torch.testing.assert_close(unit(torch.cat([x, x], 1))[:, :3] - x, 2 * (unit(x) - x))


def test_fresh_heads_differ_and_start_small():
    network = tiny_net()
    other = network.new_head()
    assert isinstance(other, RTMCCHead) and other is not network.head
    assert not torch.equal(other.cls_x.weight, network.head.cls_x.weight)
    assert 0.0009 < network.head.final_layer.weight.std() < 0.0011
    assert 0.009 < network.head.gau.uv.weight.std() < 0.011
    assert not network.head.final_layer.bias.any() and not network.head.gau.o.weight.any()


def test_a_frozen_backbone_stays_frozen():
    network = tiny_net().freeze_backbone()
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    nn.ModuleList([network]).train()
    assert network.head.training and not any(m.training for m in network.backbone.modules())
    x, y = network(random_batch(network).images)
    (x.sum() + y.sum()).backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert all(p.grad is not None for p in network.head.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.backbone.state_dict().items())


def test_sizes_are_named_after_their_functions():
    assert all(function.__name__ == name for name, function in SIZES.items())
    assert isinstance(tiny_net(), SimccNet)
