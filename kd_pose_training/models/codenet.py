"""The dense network: encoder, decoder to a fine map, a mask and a code per class.

Every output pixel has, per class, a mask logit and the logits of its surface point's code bits,
the coarsest first (:mod:`kd_pose.codes`). With one class the teacher is the network of ZebraPose
(Su et al., CVPR 2022): ResNet-34 of output stride 8, atrous spatial pyramid pooling (Chen et al.,
arXiv 1706.05587), two upsampling steps with skip connections. The students have the compact
DarkNet-tiny and a decoder of depthwise and 1x1 convolutions. Named sizes are the short functions
at the end; ``kd_pose_training.config.DEFAULT_STRIDES`` has the stride of each one's output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_pose_training.models.backbones import DarkNetTiny
from kd_pose_training.models.bricks import ConvBNAct
from kd_pose_training.models.resnet import ResNet34Dilated


class CodeNet(nn.Module):
    """Images to masks and surface codes at the resolution of the backbone's finest map.

    Args:
        backbone: returns maps fine to coarse, of ``strides`` and ``channels``.
        decoder: those maps -> (B, ``decoder.channels``, h, w) at the first one's stride s.
        classes, bits: numbers of classes and of code bits.
    """

    def __init__(self, backbone: nn.Module, decoder: nn.Module, classes: int, bits: int) -> None:
        super().__init__()
        self.num_classes, self.bits = classes, bits
        self.strides, self.channels = tuple(backbone.strides), tuple(backbone.channels)
        self.backbone, self.decoder = backbone, decoder
        self.head = nn.Conv2d(decoder.channels, classes * (1 + bits), 1)
        # Running share of wrong bits, which the code loss weighs the bits by; kept with the
        # network so that its checkpoint continues exactly. The start is chance.
        self.register_buffer("bit_error", torch.full((bits,), 0.5))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) -> mask logits (B, C, H/s, W/s) and code logits
        (B, C, bits, H/s, W/s). H and W are multiples of 16."""
        return self.answers(self.maps(images))

    def maps(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps of ``strides`` and ``channels``, fine to coarse."""
        return self.backbone(images)

    def answers(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the network says with these maps, see :meth:`forward`."""
        x = self.head(self.decoder(maps))
        masks, codes = x[:, :self.num_classes], x[:, self.num_classes:]
        return masks, codes.unflatten(1, (self.num_classes, self.bits))


class AsppDecoder(nn.Module):
    """Pyramid of dilated convolutions at the coarsest map, then upsampling with skips.

    Args:
        channels_in: of the maps of strides 2, 4 and 8.
        width: of all layers.
    """

    def __init__(self, channels_in: Sequence[int], width: int = 256,
                 dilations: Sequence[int] = (6, 12, 18)) -> None:
        super().__init__()
        half, quarter, deep = channels_in
        self.branches = nn.ModuleList([_conv_bn(deep, width, 1)])
        self.branches.extend(_conv_bn(deep, width, 3, dilation) for dilation in dilations)
        self.pooled = _conv_bn(deep, width, 1)
        self.project = _conv_bn((len(self.branches) + 1) * width, width, 1)
        self.up_quarter = _upsample(width, width)
        self.up_half = _upsample(width + quarter, width)
        self.channels = width + half

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        half, quarter, deep = maps
        pooled = self.pooled(deep.mean((2, 3), keepdim=True)).expand(-1, -1, *deep.shape[2:])
        x = self.project(torch.cat([*(branch(deep) for branch in self.branches), pooled], 1))
        x = self.up_half(torch.cat([self.up_quarter(x), quarter], 1))
        return torch.cat([x, half], 1)


def _conv_bn(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, 1, dilation * (kernel // 2), dilation),
        nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _upsample(inputs: int, width: int) -> nn.Sequential:
    """Twice the resolution by a transposed 3x3 convolution, then two 3x3 convolutions."""
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(inputs, width, 3, 2, 1, output_padding=1, bias=False)]
    for index in range(3):
        if index:
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class TinyBackbone(DarkNetTiny):
    """DarkNet-tiny with its maps of strides 2, 4, 8 and 16, or those from ``finest`` on."""

    def __init__(self, width: float = 1.0, finest: int = 2) -> None:
        super().__init__(width)
        every = (2, 4, 8, 16)
        self._first = every.index(finest)
        self.strides = every[self._first:]
        self.channels = tuple(int(count * width) for count in (16, 32, 128, 128)[self._first:])

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.stage_maps(images)
        return [*maps[self._first:3], maps[4]]


class LightDecoder(nn.Module):
    """Context from the whole image, then upsampling steps of depthwise and 1x1 convolutions.

    Args:
        channels_in: of the backbone's maps, fine to coarse, each half the size of the last.
        widths: of the decoder at those maps.
    """

    def __init__(self, channels_in: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.context = nn.Conv2d(channels_in[-1], channels_in[-1], 1)
        self.deep = nn.Sequential(*(SeparableConv(channels_in[-1] if i == 0 else widths[-1],
                                                  widths[-1], dilation)
                                    for i, dilation in enumerate((1, 2, 4))))
        inputs = [coarse + skip for coarse, skip in zip(widths[1:], channels_in)]
        self.steps = nn.ModuleList(
            nn.Sequential(ConvBNAct(count, width, 1), SeparableConv(width, width),
                          SeparableConv(width, width))
            for count, width in zip(inputs, widths))
        self.channels = widths[0]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        deep = maps[-1]
        # No norm here: a batch of one image has one number per channel.
        x = self.deep(deep + self.context(deep.mean((2, 3), keepdim=True)))
        for step, skip in zip(reversed(self.steps), reversed(maps[:-1])):
            x = step(torch.cat([F.interpolate(x, size=skip.shape[-2:]), skip], 1))
        return x


class SeparableConv(nn.Module):
    """Depthwise 3x3 convolution, then a 1x1 with batch norm; added to the input where it fits."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, 1, dilation, dilation, groups=inputs,
                                   bias=False)
        self.pointwise = ConvBNAct(inputs, outputs, 1)
        self.residual = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        return x + y if self.residual else y


def resnet34_dense(classes: int, bits: int = 16) -> CodeNet:
    """Teacher: 29.1 M parameters (21.3 encoder, 7.8 decoder) with one class and 16 bits."""
    backbone = ResNet34Dilated()
    return CodeNet(backbone, AsppDecoder(backbone.channels), classes, bits)


def dense_tiny(classes: int, bits: int = 16) -> CodeNet:
    """Student: 1.0 M parameters with one class and 16 bits."""
    backbone = TinyBackbone()
    return CodeNet(backbone, LightDecoder(backbone.channels, (48, 64, 96, 128)), classes, bits)


def dense_tiny_h(classes: int, bits: int = 16) -> CodeNet:
    """Student for CPUs: 0.33 M parameters, half the width of ``dense_tiny``, output of stride 4.

    Its backbone is that of the vote networks' ``darknet_tiny_h``, so a run of those can start it.
    """
    backbone = TinyBackbone(width=0.5, finest=4)
    return CodeNet(backbone, LightDecoder(backbone.channels, (64, 96, 128)), classes, bits)


CODE_SIZES = {"resnet34_dense": resnet34_dense, "dense_tiny": dense_tiny,
              "dense_tiny_h": dense_tiny_h}
