"""ResNet-34 with dilated last stages: stride 8 at the end, as dense prediction wants it.

He et al., CVPR 2016; the third and fourth stage keep the resolution and take 3x3 convolutions of
dilation 2 and 4 instead (output stride 8). Modules are named as in torchvision, so that its
ImageNet weights fit by key.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input (or its 1x1 projection)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride, dilation)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3x3(outputs, outputs, 1, dilation)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                            nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(x + shortcut)


class ResNet34Dilated(nn.Module):
    """Images to maps of strides 2, 4 and 8 with 64, 64 and 512 channels."""

    strides = (2, 4, 8)
    channels = (64, 64, 512)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, 3)
        self.layer2 = _stage(64, 128, 4, stride=2)
        self.layer3 = _stage(128, 256, 6, dilation=2)
        self.layer4 = _stage(256, 512, 3, dilation=4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        half = self.relu(self.bn1(self.conv1(images)))
        quarter = self.layer1(self.maxpool(half))
        return [half, quarter, self.layer4(self.layer3(self.layer2(quarter)))]


def read_resnet(path: str | Path) -> dict[str, Tensor] | None:
    """Weights of a plain ResNet file by their names in a dense network; None if it is none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many types for a file that is something else
        return None
    if not isinstance(state, dict) or "layer1.0.conv1.weight" not in state:
        return None
    return {f"backbone.{name}": value for name, value in state.items()}


def _conv3x3(inputs: int, outputs: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)


def _stage(inputs: int, outputs: int, depth: int, stride: int = 1,
           dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride, dilation),
                         *(BasicBlock(outputs, outputs, 1, dilation) for _ in range(depth - 1)))
