"""Building bricks of the networks: convolution blocks, feature pyramid, shared head.

All maps are (B, C, H, W). A map of stride s has ceil(H/s) x ceil(W/s) cells, whatever the input
size, so that the cells match ``kd_pose.votes.VoteGrid``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TinyMapConv2d(nn.Conv2d):
    """A convolution that may meet maps of a few cells, there in float32 on a CPU.

    Under bf16 autocast torch's CPU kernels (oneDNN with AVX512-BF16, torch 2.13) return weight
    gradients that are partly unwritten memory, another each time, for undilated kernels where
    two outer rows see nothing but padding, and for strided ones on maps one cell wide. Outputs and
    other gradients are right, and so is float32, which costs nothing at such sizes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and self._is_tiny(x):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)

    def _is_tiny(self, x: Tensor) -> bool:
        return x.shape[2] < self.padding[0] or max(self.stride) > 1 and x.shape[3] == 1


class ConvBNAct(nn.Sequential):
    """Convolution without bias, batch norm, leaky ReLU with slope 0.1 (DarkNet's block)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.1, inplace=True),
        )
        nn.init.kaiming_normal_(self[0].weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self[0](x)
        if self.training and x.device.type == "cpu" and x.shape[1] < 16:
            # The CPU's channels-last batch norm is not vectorised below 16 channels: ten times
            # slower backwards than in the other layout, more than all the rest of a small net.
            layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
            return _Relayout.apply(self[2](self[1](x.contiguous())), layout)
        return self[2](self[1](x))


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


class _Relayout(torch.autograd.Function):
    """Change the memory layout forwards; hand back a contiguous gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, layout: torch.memory_format) -> Tensor:
        return x.contiguous(memory_format=layout)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.contiguous(), None


class Residual(nn.Module):
    """1x1 convolution to half the channels, 3x3 back, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvBNAct(channels, channels // 2, 1)
        self.expand = ConvBNAct(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(self.reduce(x))


class FeaturePyramid(nn.Module):
    """Feature pyramid with extra strided levels.

    Backbone maps get 1x1 laterals, a nearest-neighbour top-down path and 3x3 outputs. Levels
    coarser than the backbone are made by 3x3 convolutions of stride 2; the first of them reads
    the last *backbone* map (not the pyramid's).

    Args:
        inputs: channels of the backbone maps in use, fine to coarse.
        last: channels of the backbone's last map, which feeds the first extra level.
        channels: width of all levels.
        extra: number of levels coarser than the backbone.
    """

    def __init__(self, inputs: Sequence[int], last: int, channels: int, extra: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in inputs)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        widths = [last] + [channels] * extra
        self.extra = nn.ModuleList(
            TinyMapConv2d(widths[i], channels, 3, 2, padding=1) for i in range(extra))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor], last: Tensor) -> list[Tensor]:
        """Backbone maps (fine to coarse) and its last map -> pyramid maps, fine to coarse."""
        merged = [lateral(x) for lateral, x in zip(self.laterals, maps)]
        for level in range(len(merged) - 2, -1, -1):
            size = merged[level].shape[-2:]
            merged[level] = merged[level] + F.interpolate(merged[level + 1], size=size)
        levels = [output(x) for output, x in zip(self.outputs, merged)]
        x = last
        for index, convolution in enumerate(self.extra):
            x = convolution(x if index == 0 else F.relu(x))
            levels.append(x)
        return levels


class SharedHead(nn.Module):
    """Class scores and keypoint votes, with the same weights at every level.

    Two towers of ``depth`` blocks (3x3 convolution, GroupNorm with 32 groups, ReLU); a 3x3
    convolution to class logits and one to votes, times one learnt scale per level.
    """

    def __init__(self, channels: int, classes: int, keypoints: int, levels: int, depth: int = 4,
                 prior: float = 0.01) -> None:
        super().__init__()
        self.num_classes, self.num_keypoints = classes, keypoints
        self.class_tower = _tower(channels, depth)
        self.vote_tower = _tower(channels, depth)
        self.class_logits = nn.Conv2d(channels, classes, 3, padding=1)
        self.votes = nn.Conv2d(channels, classes * keypoints * 2, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        # Focal loss starts from "almost everything is background" (score = prior).
        nn.init.constant_(self.class_logits.bias, -math.log((1 - prior) / prior))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps, fine to coarse -> logits (B, N, C), offsets (B, N, C, K, 2); cells row-major."""
        logits, offsets = [], []
        for index, x in enumerate(levels):
            logits.append(_cells(self.class_logits(self.class_tower(x))))
            offsets.append(_cells(self.votes(self.vote_tower(x))) * self.scales[index])
        logits, offsets = torch.cat(logits, 1), torch.cat(offsets, 1)
        shape = (-1, offsets.shape[1], self.num_classes, self.num_keypoints, 2)
        return logits, offsets.reshape(shape)


def _tower(channels: int, depth: int) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for _ in range(depth):
        blocks += [nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(32, channels),
                   nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks)


def _cells(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)."""
    return x.flatten(2).transpose(1, 2)
