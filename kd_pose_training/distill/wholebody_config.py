"""Settings of the two stages of DWPose (arXiv 2307.15880), and where paper and code differ.

Every term is a mean over the images of a batch. The published loss against the labels is a sum
over them instead, beside distillation terms that are means, so that its share grows with the batch
of each GPU. ``reference_batch`` fixes that share at one batch size: with it the published numbers
come out at that size, and the same ratios at any other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class WholebodyDistillConfig:
    """Settings of both stages; the defaults are the preset ``released``.

    ``feature_weight``: alpha, of the term ``feature``. ``feature_mean``: that term is a mean over
    the numbers of a map, not their sum. ``logit_weight``: of the term ``logit`` in stage 1,
    ``second_logit_weight``: in stage 2 (the paper's beta and gamma). ``second_labels``: stage 2
    learns from the labels as well. ``beta``: factor before every softmax, 1 / temperature.
    ``keypoint_mean``: terms over keypoints are means over the K of them, not sums. ``entropy``:
    the term ``logit`` is a divergence; off: the cross entropy, which has the same gradient.
    ``reference_batch``: images per GPU at which the terms stand as published. ``decay``: the
    teacher's share of stage 1 falls over the run, in ``epochs`` equal parts (t_max).
    """

    feature_weight: float = 7e-5
    feature_mean: bool = False
    logit_weight: float = 0.1
    second_logit_weight: float = 1.0
    second_labels: bool = True
    beta: float = 10.0
    keypoint_mean: bool = True
    entropy: bool = True
    reference_batch: int = 64
    decay: bool = True
    epochs: int = 270

    def __post_init__(self) -> None:
        for name in ("feature_weight", "logit_weight", "second_logit_weight"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")
        _check(0 < self.beta < math.inf, "beta", self.beta, "above 0")
        for name in ("reference_batch", "epochs"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def released(input_size: Sequence[int] = (192, 256)) -> WholebodyDistillConfig:
    """What the published code does, at its 64 images a GPU, or 32 for inputs above 192x256."""
    large = input_size[0] * input_size[1] > 192 * 256
    return WholebodyDistillConfig(reference_batch=32 if large else 64)


def paper(input_size: Sequence[int] = (192, 256)) -> WholebodyDistillConfig:
    """What the paper writes: eqs. 1 to 7 with alpha 5e-5, beta 0.1, gamma 1.

    Its alpha stands before a mean, which makes the feature term thousands of times smaller than
    the code's; stage 2 leaves the labels out; nothing is divided by the number of keypoints. It
    writes no temperature; its distributions are RTMPose's, whose temperature is 0.1.
    """
    return WholebodyDistillConfig(
        feature_weight=5e-5, feature_mean=True, second_labels=False, keypoint_mean=False,
        entropy=False, reference_batch=released(input_size).reference_batch)


PRESETS = {"released": released, "paper": paper}


def preset(name: str, input_size: Sequence[int] = (192, 256)) -> WholebodyDistillConfig:
    """Settings by name, for an input of (width, height) pixels.

    Raises:
        ValueError: there is no such preset.
    """
    _check(name in PRESETS, "preset", name, ", ".join(PRESETS))
    return PRESETS[name](input_size)


# Where an MMPose file keeps a network, see kd_pose_training.models.mmpose_checkpoint.
FilePart = Literal["auto", "plain", "student", "teacher", "second_stage"]


@dataclass(frozen=True)
class StageConfig:
    """The section ``distill`` of a whole-body recipe: a teacher, and which of the stages.

    ``stage`` 1: labels, and a larger network's features and logits. ``stage`` 2: a trained
    network teaches a fresh head on its own frozen backbone; ``teacher`` is that network.
    ``teacher``: checkpoint of a run, its folder, its exported ``.onnx``, or an MMPose file
    (``part``: which of the networks in it). Same input size, keypoints and normalisation as the
    student; in stage 2 the same size of network as well. ``preset`` and the others: see
    :class:`WholebodyDistillConfig`; null takes the preset's value.
    """

    teacher: str
    stage: Literal[1, 2] = 1
    preset: Literal["released", "paper"] = "released"
    part: FilePart = "auto"
    feature_weight: float | None = None
    feature_mean: bool | None = None
    logit_weight: float | None = None
    second_logit_weight: float | None = None
    second_labels: bool | None = None
    beta: float | None = None
    keypoint_mean: bool | None = None
    entropy: bool | None = None
    reference_batch: int | None = None
    decay: bool | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        what = "trained network" if self.stage == 2 else "teacher"
        _check(bool(self.teacher), "teacher", self.teacher, f"the checkpoint of the {what}")
        self.settings((192, 256))  # checks the values

    def settings(self, input_size: Sequence[int]) -> WholebodyDistillConfig:
        """The preset for an input of (width, height) pixels, with what is set here."""
        names = (field.name for field in dataclasses.fields(WholebodyDistillConfig))
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(preset(self.preset, input_size), **given)


def decay(t: int, t_max: int) -> float:
    """r(t) = 1 - (t - 1) / t_max of the epochs t = 1 .. t_max (eq. 5): from 1 down to 1 / t_max.

    Raises:
        ValueError: an epoch that is not among them.
    """
    _check(1 <= t <= t_max, "t", t, f"1 to {t_max}")
    return 1 - (t - 1) / t_max


def epoch_at(iteration: int, iterations: int, epochs: int) -> int:
    """The epoch, from 1, of an iteration from 0, when `iterations` are `epochs` equal parts."""
    return 1 + iteration * epochs // iterations
