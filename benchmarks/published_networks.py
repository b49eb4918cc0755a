"""ONNX files of the true architectures whose answers are known, since no weights can be fetched.

Random weights find nobody, and what they answer would send both sides' trackers astray. So each
file computes the whole network and then answers with what is true for the pictures of
`wholebody_frame`: the pose network finds the brightest dots of its crop, the detector the boxes
that were built in. The random network's answer is still part of it, a ten thousandth of it, so
that no engine can leave it out.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from kd_pose.manifest import PersonDetectorManifest
from kd_pose_training.export import embed_manifest
from kd_pose_training.export_wholebody import export_wholebody
from kd_pose_training.models.simcc_net import SimccNet, build_simcc_net

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FOLDER = Path(tempfile.gettempdir()) / "kd_pose_benchmarks_3"
SQUARE = (640, 640)
TRACE = 1e-4
NO_NETWORKS = "no networks"  # instead of a size: files that cost next to nothing


def pose_file(size: str = "rtmpose_m") -> Path:
    """133 keypoints at 256x192; keypoint k finds the brightest dot of channel k % 3.

    Its channels are those of the picture as it comes: rtmlib never swaps them.
    """
    path = FOLDER / f"{size}.onnx"
    if not path.is_file():
        torch.manual_seed(0)
        network = build_simcc_net("rtmpose_t" if size == NO_NETWORKS else size)
        finder = DotFinder(network, compute=size != NO_NETWORKS)
        export_wholebody(_with_statistics(finder), path, border_value=0.0)
        embed_manifest(path, _replace(path, channel_order="bgr"))
    return path


def detector_file(boxes_xyxy: np.ndarray, small: bool = False,
                  input_wh: tuple[int, int] = SQUARE) -> Path:
    """YOLOX-m as OpenMMLab's files are: dets (1, n, 5) and labels (1, n).

    boxes_xyxy: (n, 4) input px, what it answers, all with the score 0.9. small: without YOLOX.
    input_wh: in the manifest. Another than 640x640 makes a file whose sizes are open.
    """
    shape = "" if input_wh == SQUARE else "_{}x{}".format(*input_wh)
    path = FOLDER / f"{'small' if small else 'yolox_m'}_{len(boxes_xyxy)}{shape}.onnx"
    if not path.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        yolox = nn.AvgPool2d(32) if small else Yolox(0.75, 0.67)
        network = _with_statistics(FixedBoxes(yolox, boxes_xyxy)).eval()
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (torch.zeros(1, 3, 640, 640),), dynamo=True, input_names=["input"],
                output_names=["dets", "labels"], opset_version=18, verbose=False,
                dynamic_shapes={"image": _open_sizes()} if shape else None)
        model = program.model_proto
        model.ir_version = 10
        beside = path.with_suffix(".part")
        onnx.save(model, str(beside))
        embed_manifest(beside, PersonDetectorManifest(
            task="person_detector", architecture="yolox", layout="dets_labels",
            input_size=input_wh, mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr",
            input_name="input", output_names=("dets", "labels")))
        beside.rename(path)
    return path


def _open_sizes() -> dict[int, Dim]:
    """Heights and widths that are multiples of the coarsest stride."""
    return {2: 32 * Dim("rows", min=2, max=60), 3: 32 * Dim("columns", min=2, max=60)}


def _replace(path: Path, **changes):
    import dataclasses

    from kd_pose.manifest import read_manifest

    return dataclasses.replace(read_manifest(path), **changes)


def _with_statistics(network: nn.Module) -> nn.Module:
    """Norm statistics as if it had seen something."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0.0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return network


class DotFinder(SimccNet):
    """A SimCC network that computes everything, or nothing, and answers with bright dots."""

    def __init__(self, network: SimccNet, compute: bool) -> None:
        super().__init__(network.backbone, network.num_keypoints, network.codec.input_size_wh)
        self.compute = compute
        self.register_buffer("channel", torch.arange(network.num_keypoints) % 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        answers = []
        logits = super().forward(images) if self.compute else (None, None)
        for axis, count in enumerate(self.codec.bins):
            bins = torch.arange(count)
            brightest = images.amax(2 + axis)[:, self.channel][..., bins // 2]
            # of the two bins of a pixel the first is a little better, so that no rounding decides
            dots = 0.3 * brightest * (1.0 - 1e-3 * (bins % 2))
            answers.append(dots + TRACE * logits[axis].clamp(-1.0, 1.0) if self.compute else dots)
        return tuple(answers)


class FixedBoxes(nn.Module):
    """A detector that computes everything and then answers with the same boxes."""

    def __init__(self, network: nn.Module, boxes_xyxy: np.ndarray) -> None:
        super().__init__()
        self.network = network
        rows = np.concatenate([boxes_xyxy, np.full((len(boxes_xyxy), 1), 0.9)], axis=1)
        self.register_buffer("rows", torch.tensor(rows, dtype=torch.float32)[None])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        trace = TRACE * self.network(image).mean().clamp(-1.0, 1.0)
        return self.rows + trace, torch.zeros(self.rows.shape[:2], dtype=torch.int64)


class Yolox(nn.Module):
    """YOLOX (Ge et al., arXiv 2107.08430): (B, 3, H, W) -> (B, N, 85).

    25.3 M parameters with width 0.75 and depth 0.67, the published number for YOLOX-m.
    """

    def __init__(self, width: float, depth: float, classes: int = 80) -> None:
        super().__init__()
        w, n = round(64 * width), max(round(3 * depth), 1)
        self.stem = _conv(12, w, 3)
        self.dark3 = nn.Sequential(_conv(w, 2 * w, 3, 2), Csp(2 * w, 2 * w, n),
                                   _conv(2 * w, 4 * w, 3, 2), Csp(4 * w, 4 * w, 3 * n))
        self.dark4 = nn.Sequential(_conv(4 * w, 8 * w, 3, 2), Csp(8 * w, 8 * w, 3 * n))
        self.dark5 = nn.Sequential(_conv(8 * w, 16 * w, 3, 2), Spp(16 * w),
                                   Csp(16 * w, 16 * w, n, False))
        self.lateral5, self.lateral4 = _conv(16 * w, 8 * w, 1), _conv(8 * w, 4 * w, 1)
        self.up4, self.up3 = Csp(16 * w, 8 * w, n, False), Csp(8 * w, 4 * w, n, False)
        self.down3, self.down4 = _conv(4 * w, 4 * w, 3, 2), _conv(8 * w, 8 * w, 3, 2)
        self.out4, self.out5 = Csp(8 * w, 8 * w, n, False), Csp(16 * w, 16 * w, n, False)
        self.heads = nn.ModuleList(Head(c * w, 4 * w, classes) for c in (4, 8, 16))

    def forward(self, image: Tensor) -> Tensor:
        image = torch.cat([image[..., y::2, x::2] for x in (0, 1) for y in (0, 1)], 1)
        c3 = self.dark3(self.stem(image))
        c4 = self.dark4(c3)
        f5 = self.lateral5(self.dark5(c4))
        f4 = self.lateral4(self.up4(torch.cat([_twice(f5), c4], 1)))
        p3 = self.up3(torch.cat([_twice(f4), c3], 1))
        p4 = self.out4(torch.cat([self.down3(p3), f4], 1))
        p5 = self.out5(torch.cat([self.down4(p4), f5], 1))
        rows = [head(level) for head, level in zip(self.heads, (p3, p4, p5))]
        return torch.cat(rows, 2).transpose(1, 2)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
                         nn.BatchNorm2d(outputs, eps=1e-3), nn.SiLU())


def _twice(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="nearest")


class Bottleneck(nn.Sequential):
    """1x1, 3x3, and the input added where `add`."""

    def __init__(self, channels: int, add: bool) -> None:
        super().__init__(_conv(channels, channels, 1), _conv(channels, channels, 3))
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return x + y if self.add else y


class Csp(nn.Module):
    """Two halves, one through `count` bottlenecks."""

    def __init__(self, inputs: int, outputs: int, count: int, add: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.main, self.short = _conv(inputs, half, 1), _conv(inputs, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half, add) for _ in range(count)))
        self.last = _conv(2 * half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.blocks(self.main(x)), self.short(x)], 1))


class Spp(nn.Module):
    """The map beside its maxima over 5, 9 and 13 cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = _conv(channels, channels // 2, 1), _conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        pools = [nn.functional.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13)]
        return self.last(torch.cat([x, *pools], 1))


class Head(nn.Module):
    """Box, objectness and classes of one level, (B, 5 + classes, cells)."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.stem = _conv(inputs, width, 1)
        self.classes = nn.Sequential(_conv(width, width, 3), _conv(width, width, 3),
                                     nn.Conv2d(width, classes, 1))
        self.boxes = nn.Sequential(_conv(width, width, 3), _conv(width, width, 3))
        self.box, self.objectness = nn.Conv2d(width, 4, 1), nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        box = self.boxes(x)
        return torch.cat([self.box(box), self.objectness(box).sigmoid(),
                          self.classes(x).sigmoid()], 1).flatten(2)
