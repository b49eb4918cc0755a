"""DarkNet backbones: the 53-layer teacher and the compact students.

Each backbone has ``strides`` and ``channels`` of the maps it returns, fine to coarse. Layer plans
follow Redmon's Darknet reference networks (53: YOLOv3; tiny: the 1x1/3x3 "tiny" network).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_pose_training.models.bricks import ConvBNAct, Residual


class DarkNet53(nn.Module):
    """Stem and five stages of a strided 3x3 convolution and residual units."""

    strides = (8, 16, 32)

    def __init__(self, stem: int = 32, widths: Sequence[int] = (64, 128, 256, 512, 1024),
                 depths: Sequence[int] = (1, 2, 8, 8, 4)) -> None:
        super().__init__()
        self.channels = tuple(widths[2:])
        self.stem = ConvBNAct(3, stem, 3)
        self.stages = nn.ModuleList()
        inputs = stem
        for width, depth in zip(widths, depths):
            units = [Residual(width) for _ in range(depth)]
            self.stages.append(nn.Sequential(ConvBNAct(inputs, width, 3, 2), *units))
            inputs = width

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[2:]


class DarkNetTiny(nn.Module):
    """Five stages of 3x3 and 1x1 convolutions with 2x2 max pooling between them.

    The pooled third stage is the stride-8 map; the last stage, stride 16, ends in a 1x1.
    """

    strides = (8, 16)
    plan = ((16,), (32,), (16, 128, 16, 128), (32, 256, 32, 256), (64, 512, 64, 512, 128))

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        inputs = 3
        for index, widths in enumerate(self.plan):
            layers: list[nn.Module] = []
            for position, outputs in enumerate(widths):
                pointwise = len(widths) > 1 and position % 2 == 0
                outputs = int(outputs * width)
                layers.append(ConvBNAct(inputs, outputs, 1 if pointwise else 3))
                inputs = outputs
            if index < len(self.plan) - 1:  # ceil: every level has ceil(size/stride) cells
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            self.stages.append(nn.Sequential(*layers))
        self.channels = (int(128 * width), int(128 * width))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.stage_maps(images)
        return [maps[2], maps[4]]

    def stage_maps(self, images: Tensor) -> list[Tensor]:
        """Outputs of the five stages, of strides 2, 4, 8, 16 and 16."""
        x, maps = images, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
