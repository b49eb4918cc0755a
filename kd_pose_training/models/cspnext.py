"""CSPNeXt, the backbone of RTMDet and RTMPose (Lyu et al., arXiv 2212.07784), as RTMPose uses it.

Stem of three 3x3 convolutions (stride 2), four stages that each begin with a strided 3x3
convolution; the last has spatial pyramid pooling and no residual additions. Modules are named as
in the published checkpoints, so that those load by key. Norms have torch's default eps 1e-5 and
momentum 0.1, as the published whole-body networks do (RTMDet's own are 1e-3 and 0.03).

All maps are (B, C, H, W); the result is the last stage's, stride 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLS = (5, 9, 13)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, SiLU. `groups` = channels makes it depthwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1,
                 groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups,
                              bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)), inplace=True)


class SeparableConv(nn.Module):
    """Depthwise 5x5 and pointwise 1x1, each with norm and activation."""

    def __init__(self, channels: int, kernel: int = 5) -> None:
        super().__init__()
        self.depthwise_conv = ConvNorm(channels, channels, kernel, groups=channels)
        self.pointwise_conv = ConvNorm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class CSPNeXtBlock(nn.Module):
    """3x3 convolution and a separable 5x5 one; added to the input where `residual`."""

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2 = SeparableConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.residual else y


class ChannelAttention(nn.Module):
    """Every channel times the hard sigmoid of a 1x1 convolution of the map's mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(x.mean(dim=(2, 3), keepdim=True)))


class CSPLayer(nn.Module):
    """Half of the channels through the blocks, half around them; attention; 1x1 convolution."""

    def __init__(self, channels: int, depth: int, residual: bool) -> None:
        super().__init__()
        half = channels // 2
        self.main_conv = ConvNorm(channels, half, 1)
        self.short_conv = ConvNorm(channels, half, 1)
        self.final_conv = ConvNorm(channels, channels, 1)
        self.blocks = nn.Sequential(*(CSPNeXtBlock(half, residual) for _ in range(depth)))
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], dim=1)
        return self.final_conv(self.attention(both))


class PyramidPooling(nn.Module):
    """1x1 to half the channels, max pools of three sizes beside it, 1x1 back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvNorm(channels, half, 1)
        self.conv2 = ConvNorm(half * (1 + len(POOLS)), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        pooled = [F.max_pool2d(x, size, 1, size // 2) for size in POOLS]
        return self.conv2(torch.cat([x, *pooled], dim=1))


class CSPNeXt(nn.Module):
    """Images (B, 3, H, W) -> the map (B, widths[-1], H/32, W/32).

    Args:
        widths: channels of the stem and the four stages.
        depths: blocks of the four stages.

    Raises:
        ValueError: not five widths and four depths.
    """

    stride = 32

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != 5 or len(depths) != 4:
            raise ValueError(f"CSPNeXt has 5 widths and 4 depths, got {widths} and {depths}")
        self.channels = widths[-1]
        stem = widths[0] // 2
        self.stem = nn.Sequential(ConvNorm(3, stem, 3, 2), ConvNorm(stem, stem, 3),
                                  ConvNorm(stem, widths[0], 3))
        for number, (inputs, outputs, depth) in enumerate(zip(widths, widths[1:], depths), 1):
            last = number == 4
            layers: list[nn.Module] = [ConvNorm(inputs, outputs, 3, 2)]
            if last:
                layers.append(PyramidPooling(outputs))
            layers.append(CSPLayer(outputs, depth, residual=not last))
            setattr(self, f"stage{number}", nn.Sequential(*layers))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        return x
