"""The vote network: backbone, feature pyramid, shared head (WDRNet+ shape).

Every cell of the pyramid gives one score per class and K image points per class, as offsets from
the cell's centre in units of the level's anchor size. With K = 8 box corners it serves poses, with
K = 2 it is the detector. Named sizes are the short functions at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_pose.votes import VoteGrid
from kd_pose_training.config import DEFAULT_STRIDES, ModelConfig
from kd_pose_training.models.backbones import DarkNet53, DarkNetTiny
from kd_pose_training.models.bricks import FeaturePyramid, SharedHead


class VoteNet(nn.Module):
    """Images to class logits and keypoint votes.

    Args:
        backbone: module with ``strides`` and ``channels`` that returns maps fine to coarse.
        strides: pyramid levels in pixels, neighbouring powers of two; at least one is a
            stride of the backbone.
        channels: width of pyramid and head.
    """

    def __init__(self, backbone: nn.Module, strides: Sequence[int], channels: int, classes: int,
                 keypoints: int, head_depth: int = 4, anchor_scale: float = 4.0) -> None:
        super().__init__()
        self.strides, self.anchor_scale = tuple(strides), float(anchor_scale)
        self.channels = channels
        self.num_classes, self.num_keypoints = classes, keypoints
        used = [i for i, stride in enumerate(backbone.strides) if stride in strides]
        if not used or used[-1] != len(backbone.strides) - 1:
            raise ValueError(f"strides are {self.strides}; the backbone's last stride "
                             f"{backbone.strides[-1]} must be among them")
        self._first = used[0]
        self.backbone = backbone
        self.pyramid = FeaturePyramid([backbone.channels[i] for i in used], backbone.channels[-1],
                                      channels, len(self.strides) - len(used))
        self.head = SharedHead(channels, classes, keypoints, len(self.strides), head_depth)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) -> logits (B, N, C), offsets (B, N, C, K, 2)."""
        return self.head(self.maps(images))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Pyramid maps (B, channels, ceil(H/stride), ceil(W/stride)), one per stride."""
        maps = self.backbone(images)
        return self.pyramid(maps[self._first:], maps[-1])

    def grid(self, input_size: tuple[int, int]) -> VoteGrid:
        """The cells of this network for images of (width, height) pixels."""
        return VoteGrid(tuple(input_size), self.strides, self.anchor_scale)


def darknet53(classes: int, keypoints: int, strides: Sequence[int] = (), channels: int = 0,
              head_depth: int = 4, anchor_scale: float = 4.0) -> VoteNet:
    """Teacher: 51.08 M parameters with 15 classes and 8 keypoints."""
    return VoteNet(DarkNet53(), strides or DEFAULT_STRIDES["darknet53"], channels or 256,
                   classes, keypoints, head_depth, anchor_scale)


def darknet_tiny(classes: int, keypoints: int, strides: Sequence[int] = (), channels: int = 0,
                 head_depth: int = 4, anchor_scale: float = 4.0) -> VoteNet:
    """Student: 8.36 M parameters with 15 classes and 8 keypoints."""
    return VoteNet(DarkNetTiny(), strides or DEFAULT_STRIDES["darknet_tiny"], channels or 256,
                   classes, keypoints, head_depth, anchor_scale)


def darknet_tiny_h(classes: int, keypoints: int, strides: Sequence[int] = (), channels: int = 0,
                   head_depth: int = 4, anchor_scale: float = 4.0) -> VoteNet:
    """Small student, half of tiny's widths: 2.24 M parameters with 15 classes, 8 keypoints."""
    return VoteNet(DarkNetTiny(width=0.5), strides or DEFAULT_STRIDES["darknet_tiny_h"],
                   channels or 128, classes, keypoints, head_depth, anchor_scale)


SIZES = {"darknet53": darknet53, "darknet_tiny": darknet_tiny, "darknet_tiny_h": darknet_tiny_h}


def build_model(config: ModelConfig) -> VoteNet:
    """Network of a configuration whose numbers of classes and keypoints are known.

    Raises:
        ValueError: ``num_classes`` or ``num_keypoints`` is not set.
    """
    for name in ("num_classes", "num_keypoints"):
        if getattr(config, name) is None:
            raise ValueError(f"model.{name} is not set; give it or let the data set fill it in")
    return SIZES[config.size](config.num_classes, config.num_keypoints, config.strides,
                              config.fpn_channels, config.head_depth, config.anchor_scale)
