"""RTMPose: CSPNeXt and its SimCC head, in the sizes t, s, m, l, x, and a smaller one, n.

Parameters with 133 keypoints at 192x256 and at 288x384 pixels stand beside each size. A network
takes RGB images, normalised with ImageNet's mean and standard deviation, and answers with raw
logits over the bins of ``kd_pose.simcc.SimccCodec``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_pose.simcc import SimccCodec
from kd_pose_training.models.cspnext import CSPNeXt
from kd_pose_training.models.rtmcc_head import WIDTH, RTMCCHead

KEYPOINTS = 133
SMALL, LARGE = (192, 256), (288, 384)  # (width, height) that networks are published for


class SimccNet(nn.Module):
    """Images (B, 3, H, W) -> logits (B, K, Wx) and (B, K, Wy).

    Args:
        backbone: images to one map; has ``channels`` and ``stride``.
        keypoints: K.
        input_size: (width, height) of the images, pixels; multiples of the stride. The head's
            weights belong to this size.
        head_width: of a keypoint's token in the head.

    Raises:
        ValueError: a size that is no multiple of the stride.
    """

    def __init__(self, backbone: CSPNeXt, keypoints: int = KEYPOINTS,
                 input_size: Sequence[int] = SMALL, head_width: int = WIDTH) -> None:
        super().__init__()
        width, height = input_size
        if width % backbone.stride or height % backbone.stride or min(input_size) < 1:
            raise ValueError(f"input_size must be multiples of {backbone.stride}, got "
                             f"{tuple(input_size)}")
        self.codec = SimccCodec((width, height))
        self.num_keypoints, self.head_width = keypoints, head_width
        self.backbone = backbone
        self.head = self.new_head()
        self._frozen = False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.backbone(images))

    def new_head(self) -> RTMCCHead:
        """An untrained head that fits the backbone."""
        width, height = self.codec.input_size_wh
        stride = self.backbone.stride
        return RTMCCHead(self.backbone.channels, self.num_keypoints,
                         (height // stride, width // stride), self.codec.bins, self.head_width)

    def freeze_backbone(self) -> SimccNet:
        """From now on the backbone wants no gradient and is in eval mode whatever is asked."""
        self.backbone.requires_grad_(False)
        self._frozen = True
        return self.train(self.training)

    def train(self, mode: bool = True) -> SimccNet:
        super().train(mode)
        if self._frozen:  # batch statistics must not move
            self.backbone.eval()
        return self


def rtmpose_n(keypoints: int = KEYPOINTS, input_size: Sequence[int] = SMALL) -> SimccNet:
    """2.94 M and 3.01 M parameters. Not a published size, but for trainings on a CPU: two thirds
    of the widths of t and half the width of the head's tokens."""
    return SimccNet(CSPNeXt((16, 32, 64, 128, 256), (1, 1, 1, 1)), keypoints, input_size, 128)


def rtmpose_t(keypoints: int = KEYPOINTS, input_size: Sequence[int] = SMALL) -> SimccNet:
    """5.52 M and 5.65 M parameters."""
    return SimccNet(CSPNeXt((24, 48, 96, 192, 384), (1, 1, 1, 1)), keypoints, input_size)


def rtmpose_s(keypoints: int = KEYPOINTS, input_size: Sequence[int] = SMALL) -> SimccNet:
    """8.38 M and 8.51 M parameters."""
    return SimccNet(CSPNeXt((32, 64, 128, 256, 512), (1, 2, 2, 1)), keypoints, input_size)


def rtmpose_m(keypoints: int = KEYPOINTS, input_size: Sequence[int] = SMALL) -> SimccNet:
    """17.95 M and 18.08 M parameters."""
    return SimccNet(CSPNeXt((48, 96, 192, 384, 768), (2, 4, 4, 2)), keypoints, input_size)


def rtmpose_l(keypoints: int = KEYPOINTS, input_size: Sequence[int] = SMALL) -> SimccNet:
    """33.48 M and 33.61 M parameters."""
    return SimccNet(CSPNeXt((64, 128, 256, 512, 1024), (3, 6, 6, 3)), keypoints, input_size)


def rtmpose_x(keypoints: int = KEYPOINTS, input_size: Sequence[int] = SMALL) -> SimccNet:
    """56.58 M and 56.71 M parameters."""
    return SimccNet(CSPNeXt((80, 160, 320, 640, 1280), (4, 8, 8, 4)), keypoints, input_size)


SIZES = {"rtmpose_n": rtmpose_n, "rtmpose_t": rtmpose_t, "rtmpose_s": rtmpose_s,
         "rtmpose_m": rtmpose_m, "rtmpose_l": rtmpose_l, "rtmpose_x": rtmpose_x}


def build_simcc_net(size: str, keypoints: int = KEYPOINTS,
                    input_size: Sequence[int] = SMALL) -> SimccNet:
    """Network by the name of its size.

    Raises:
        ValueError: there is no such size.
    """
    if size not in SIZES:
        raise ValueError(f"size is {size!r}; allowed: {', '.join(SIZES)}")
    return SIZES[size](keypoints, input_size)
