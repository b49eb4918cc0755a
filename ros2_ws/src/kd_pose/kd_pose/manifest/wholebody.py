"""Manifest of whole-body networks: the project's own and published RTMPose/DWPose files."""

from __future__ import annotations

from dataclasses import dataclass

from kd_pose.manifest.base import NetworkManifest, check_choice, check_range, texts
from kd_pose.wholebody_keypoints import NAME

SKELETONS = (NAME,)


@dataclass(frozen=True, kw_only=True)
class WholebodyManifest(NetworkManifest):
    """Everything the runtime must know about a SimCC network.

    crop_pad: how much larger than the person's box the training crops were. border_value: what
    filled the part of a crop outside of its image, 0..255; 0 for networks that MMPose trained.
    split_ratio: bins a pixel. score_scale: the raw score that stands for certainty, see
    `simcc_network.keypoint_confidence`: 1 for RTMPose and DWPose, 10 for RTMW, whose logits were
    compared as they are with labels times 10.
    skeleton: what the K keypoints are. input_name: of the crops (B, 3, h, w) in the file;
    output_names: of the logits over x (B, K, split_ratio * w) and y (B, K, split_ratio * h).
    """

    TASKS = ("wholebody",)

    crop_pad: float = 1.25
    border_value: float = 114.0
    split_ratio: float = 2.0
    score_scale: float = 1.0
    skeleton: str = NAME
    input_name: str = "image"
    output_names: tuple[str, str] = ("simcc_x", "simcc_y")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("crop_pad", self.crop_pad, 0.1, 10.0)
        check_range("split_ratio", self.split_ratio, 0.1, 16.0)
        check_range("border_value", self.border_value, 0.0, 255.0)
        check_range("score_scale", self.score_scale, 1e-6, 1e6)
        bins = [self.split_ratio * size for size in self.input_size]
        if any(count != round(count) for count in bins):
            raise ValueError(f"split_ratio {self.split_ratio} gives no whole number of bins for "
                             f"input_size {self.input_size}")
        check_choice("skeleton", self.skeleton, SKELETONS)
        names = texts(self.output_names, "output_names")
        object.__setattr__(self, "output_names", names)
        if len(names) != 2 or names[0] == names[1] or not all(names):
            raise ValueError("output_names must be two different texts, those of x and y, got "
                             f"{names}")
        if not isinstance(self.input_name, str) or not self.input_name:
            raise ValueError(f"input_name must be a text, got {self.input_name!r}")
