"""RTMPose's head: one token a keypoint, a gated attention unit, two classifications.

Jiang et al., arXiv 2303.07399. The gated attention unit is Hua et al., ICML 2022, with squared
ReLU attention. As in the published networks, and unlike the paper's eq. 2, the attention is not
divided by the number of tokens, and there is no rotary position: a token is a keypoint and knows
which one by its own convolution filter. Modules are named as in the published checkpoints.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_pose_training.models.bricks import TinyMapConv2d

WIDTH = 256  # of a token in the published networks; twice that inside, half for queries and keys


class ScaleNorm(nn.Module):
    """Vectors of the last axis, `size` long, to root-mean-square 1, times one learnt number.

    Nguyen and Salazar, IWSLT 2019. A root mean square below 1e-5 counts as 1e-5.
    """

    def __init__(self, size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale, self.eps = size ** -0.5, eps
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.scale
        return x / norm.clamp(min=self.eps) * self.g


class Scale(nn.Module):
    """One learnt factor a channel."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttentionUnit(nn.Module):
    """Tokens (B, K, width) -> tokens of the same shape, with a scaled residual."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.sizes = [2 * width, 2 * width, width // 2]
        self.ln = ScaleNorm(width)
        self.uv = nn.Linear(width, sum(self.sizes), bias=False)
        self.gamma = nn.Parameter(torch.rand(2, self.sizes[2]))
        self.beta = nn.Parameter(torch.rand(2, self.sizes[2]))
        self.o = nn.Linear(self.sizes[0], width, bias=False)
        self.res_scale = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value, base = F.silu(self.uv(self.ln(x))).split(self.sizes, dim=-1)
        query, key = (base * self.gamma[row] + self.beta[row] for row in (0, 1))
        attention = F.relu(query @ key.transpose(1, 2) / math.sqrt(self.sizes[2])).square()
        return self.res_scale(x) + self.o(gate * (attention @ value))


class RTMCCHead(nn.Module):
    """Map (B, C, H, W) -> logits (B, K, Wx) and (B, K, Wy).

    Args:
        channels: C. keypoints: K. map_size: (H, W) cells. bins: (Wx, Wy). width: of a token.
    """

    def __init__(self, channels: int, keypoints: int, map_size: tuple[int, int],
                 bins: tuple[int, int], width: int = WIDTH) -> None:
        super().__init__()
        cells = map_size[0] * map_size[1]
        self.final_layer = TinyMapConv2d(channels, keypoints, 7, padding=3)
        self.mlp = nn.Sequential(ScaleNorm(cells), nn.Linear(cells, width, bias=False))
        self.gau = GatedAttentionUnit(width)
        self.cls_x = nn.Linear(width, bins[0], bias=False)
        self.cls_y = nn.Linear(width, bins[1], bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
        # Unlike the published trainings, which begin with a trained backbone: squared attention
        # sums over all K tokens, which at random weights drowns each in what they have in common,
        # so the unit begins with giving nothing. See docs/wholebody_distillation.md.
        nn.init.zeros_(self.gau.o.weight)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.gau(self.mlp(self.final_layer(features).flatten(2)))
        return self.cls_x(tokens), self.cls_y(tokens)
