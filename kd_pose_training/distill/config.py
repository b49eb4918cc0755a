"""The ``distill`` section of a training configuration: a teacher and any of the ways to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kd_pose_training.losses import alignment_config
from kd_pose_training.losses.alignment_config import AlignmentConfig


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def _check_weights(section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        _check(0 <= value <= 1e6, name, value, "0 to 1e+06")


@dataclass(frozen=True)
class AlignTerm:
    """Align the distributions of local predictions (arXiv 2205.14971).

    ``weight``: factor of the loss term ``align``; null: 400 for ``unbalanced`` and ``robust``,
    whose values are as small as their knee, 5 for all others. ``preset``: named settings
    (``released``, ``balanced``, ``positions``, ``robust``, ``unbalanced``), or ``custom`` for
    those under ``alignment``; ``auto`` is ``unbalanced`` for vote networks and ``balanced`` for
    dense ones. ``trust``: spread of the teacher's votes for a keypoint, in object sizes, at which
    that keypoint counts half; 0 trusts all alike (after the uncertainty weighting of arXiv
    2503.13053). ``student``: the cells of its set, ``answers`` those that it would answer with,
    chosen as at inference (positives where it has none), ``positives`` those that the truth gives
    an object, as published. ``grid``: cells a side to which the pixels of a dense network are
    pooled (``object_codes`` only, which has no ``trust`` nor ``student`` and always takes
    ``coordinates: none``, ``points: joint``).
    """

    weight: float | None = None
    preset: Literal["auto", "released", "balanced", "positions", "robust", "unbalanced",
                    "custom"] = "auto"
    alignment: AlignmentConfig | None = None
    trust: float = 0.0
    student: Literal["answers", "positives"] = "answers"
    grid: int = 8

    def __post_init__(self) -> None:
        _check_weights(self, *(["trust"] if self.weight is None else ["weight", "trust"]))
        _check(1 <= self.grid <= 32, "grid", self.grid, "1 to 32")
        _check((self.preset == "custom") == (self.alignment is not None), "preset",
               f"{self.preset} with alignment {self.alignment}",
               "a section 'alignment' with preset 'custom' and only then")

    def resolve(self, auto: str) -> tuple[AlignmentConfig, float]:
        """The settings and the weight that are meant; ``auto``: what that preset stands for."""
        name = auto if self.preset == "auto" else self.preset
        usual = 400.0 if name in ("robust", "unbalanced") else 5.0
        weight = usual if self.weight is None else self.weight
        return self.alignment or alignment_config.preset(name), weight


@dataclass(frozen=True)
class NaiveTerm:
    """Copy the teacher's predictions cell by cell: the baseline without transport.

    ``vote_weight``: of the distance between the votes of one cell, or of the divergence of a
    pixel's code bits (dense networks); ``score_weight``: of the squared difference of the scores,
    or of the masks.
    """

    vote_weight: float = 1.0
    score_weight: float = 1.0

    def __post_init__(self) -> None:
        _check_weights(self, "vote_weight", "score_weight")


@dataclass(frozen=True)
class FeatureTerm:
    """Imitate the teacher's pyramid maps (FKD: Zhang & Ma, ICLR 2021); of dense networks the
    backbone's maps of stride 8 and coarser that both have.

    ``attention``: weight of the attention maps' difference, ``masked`` of the maps' difference
    under the attention masks, ``relation`` of the non-local relations. ``temperature``: of the
    masks, in units of the teacher's mean activation; low ones look at few places.
    """

    attention: float = 0.1
    masked: float = 0.1
    relation: float = 0.1
    temperature: float = 0.5

    def __post_init__(self) -> None:
        _check_weights(self, "attention", "masked", "relation")
        _check(1e-3 <= self.temperature <= 1e3, "temperature", self.temperature, "0.001 to 1000")


@dataclass(frozen=True)
class DistillConfig:
    """A teacher and how it is listened to; the terms add up, null leaves one out.

    ``teacher``: checkpoint of a finished run of the same task, objects and image normalisation.
    ``score_threshold``: of the teacher's cells, as at inference. ``max_error``: an object whose
    teacher votes are on average further from the truth than this, in object sizes, is left out;
    0 lets all pass (dense networks: weighted share of wrong bits, which is alike).
    ``max_box_error``: the gate of objects without a pose (``data.pose_share``), for the boxes of
    the teacher's votes and of the object: mean distance of their corners, object sizes. ``cache``:
    folder that keeps the teacher's answers, filled before the first iteration; needs
    ``data.variants``. Empty: the teacher runs along. ``decay``: the weights of all terms fall
    linearly over the run, from full ones to nothing, so that the truth has the last word (the
    r(t) of arXiv 2307.15880, eq. 5, by iterations in place of epochs).
    """

    teacher: str
    align: AlignTerm | None = AlignTerm()
    naive: NaiveTerm | None = None
    features: FeatureTerm | None = None
    score_threshold: float = 0.3
    max_error: float = 0.1
    max_box_error: float = 0.1
    cache: str = ""
    decay: bool = False

    def __post_init__(self) -> None:
        _check(bool(self.teacher), "teacher", self.teacher, "the path of a checkpoint")
        _check(0 <= self.score_threshold <= 1, "score_threshold", self.score_threshold, "0 to 1")
        for name in ("max_error", "max_box_error"):
            _check(0 <= getattr(self, name) <= 1e3, name, getattr(self, name), "0 to 1000")
        _check(any((self.align, self.naive, self.features)), "align, naive, features", None,
               "at least one of them; leave the section out to learn from the truth alone")

    def weights(self, of_truth: Mapping[str, float], of_teacher: Mapping[str, float],
                iteration: int, iterations: int) -> dict[str, float]:
        """Weights of all terms at an iteration (from 0) of a run."""
        share = 1 - iteration / iterations if self.decay else 1.0
        return {**of_truth, **{name: share * weight for name, weight in of_teacher.items()}}
