"""A SimCC network ready to run: session, manifest and codec belong together."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from kd_pose.manifest import WholebodyManifest
from kd_pose.network import CropNetwork
from kd_pose.simcc import SimccCodec
from kd_pose.wholebody_keypoints import COUNT


class SimccNetwork(CropNetwork):
    """One .onnx file of the SimCC family ("wholebody"), this project's or a published one."""

    manifest: WholebodyManifest

    @property
    def input_name(self) -> str:
        return self.manifest.input_name

    @property
    def border_value(self) -> float:
        return self.manifest.border_value

    @cached_property
    def codec(self) -> SimccCodec:
        """What its bins mean."""
        return SimccCodec(self.manifest.input_size, split_ratio=self.manifest.split_ratio)

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: (COUNT, bins)
                for name, bins in zip(self.manifest.output_names, self.codec.bins)}

    def decode(self, simcc_x: np.ndarray, simcc_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits of B crops -> keypoints (B, K, 2) in input px, scores (B, K) in 0..1.

        A keypoint with the score 0 has no place: NaN.
        """
        xy, raw = self.codec.decode(simcc_x, simcc_y)
        scores = keypoint_confidence(raw, self.manifest.score_scale)
        xy[scores <= 0] = np.nan
        return xy, scores


def keypoint_confidence(raw: np.ndarray, scale: float) -> np.ndarray:
    """Raw SimCC scores -> 0..1: raw / scale, cut off at both ends.

    A raw score is the smaller of two logits. Targets have the peak 1 on a ground of 0, so a sure
    keypoint of RTMPose or DWPose has a raw score of about 1, now and then more, and the field's
    thresholds (0.2 to count, 0.3 to draw) are meant for it: a map that kept the order above 1
    would shift them. scale: the manifest's `score_scale`.
    """
    return np.clip(raw / np.float32(scale), 0.0, 1.0)
