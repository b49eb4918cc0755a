"""How a student's local predictions are aligned with a teacher's: settings and named presets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AlignmentConfig:
    """Settings of the alignment loss; the defaults are the preset ``balanced``.

    ``masses``: ``scores`` weighs each local prediction with its score, ``uniform`` with 1/n.
    ``normalise_masses``: divide the masses of each set by their sum; raw ones need ``reach``.
    ``detach_student_masses``: the student's scores learn nothing from the alignment.
    ``coordinates``: unit of the points and so of ``blur`` and ``reach``: ``object`` divides by the
    object's size, ``frame`` by the frame's width and height, ``none`` takes them as they are.
    ``points``: ``per_keypoint`` transports every keypoint by itself, ``joint`` all numbers of a
    prediction as one point. ``keypoints``: how the K values of a set become one.
    ``blur``, ``reach`` (null = balanced), ``scaling``, ``debias``, ``exact``, ``knee`` (null = the
    squared distance of the paper): see
    :class:`kd_pose_training.losses.transport.TransportSettings`.
    ``position_weight``, ``mass_weight``: factors on the derivatives by the student's points and by
    its masses; the logged value does not change. ``min_score``: the student's scores count as at
    least this and at most 1 minus it.
    """

    masses: Literal["scores", "uniform"] = "scores"
    normalise_masses: bool = True
    detach_student_masses: bool = False
    coordinates: Literal["object", "frame", "none"] = "object"
    points: Literal["per_keypoint", "joint"] = "per_keypoint"
    keypoints: Literal["sum", "mean"] = "mean"
    blur: float = 0.01
    reach: float | None = None
    scaling: float = 0.5
    debias: bool = True
    exact: bool = True
    knee: float | None = None
    position_weight: float = 1.0
    mass_weight: float = 1.0
    min_score: float = 1e-3

    def __post_init__(self) -> None:
        _check(0 < self.blur < math.inf, "blur", self.blur, "above 0")
        _check(self.reach is None or 0 < self.reach < math.inf, "reach", self.reach,
               "above 0, or null for balanced transport")
        _check(self.knee is None or 0 < self.knee < math.inf, "knee", self.knee,
               "above 0, or null for the squared distance")
        _check(0 < self.scaling < 1, "scaling", self.scaling, "between 0 and 1, exclusive")
        for name in ("position_weight", "mass_weight"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")
        _check(0 <= self.min_score < 0.5, "min_score", self.min_score, "0 to below 0.5")
        balanced = self.reach is None and self.masses == "scores"
        _check(self.normalise_masses or not balanced, "normalise_masses", False,
               "true when reach is null: balanced transport needs equal total masses")


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def released() -> AlignmentConfig:
    """The loss of the code published with arXiv 2205.14971.

    GeomLoss's unbalanced debiased divergence with raw scores as masses, points in parts of the
    frame, summed over the keypoints.
    """
    return AlignmentConfig(masses="scores", normalise_masses=False, coordinates="frame",
                           points="per_keypoint", keypoints="sum", blur=1e-3, reach=0.5,
                           scaling=0.5, debias=True, exact=False)


def balanced() -> AlignmentConfig:
    """Where the votes go, not how sure they are: masses sum to 1, points in object sizes."""
    return AlignmentConfig()


def positions() -> AlignmentConfig:
    """As ``balanced``, and the student's scores are left to the classification loss."""
    return AlignmentConfig(detach_student_masses=True)


def robust() -> AlignmentConfig:
    """As ``positions``, with a cost that grows linearly but for the nearest votes.

    A squared cost spends its force on the worst cells; docs/object_distillation.md.
    """
    return AlignmentConfig(detach_student_masses=True, knee=0.005, blur=0.003)


def unbalanced() -> AlignmentConfig:
    """As ``robust``, with scores as they are: a set weighs as much as its cells are sure of it.

    Both sets may then leave mass out at a price, the unbalanced transport of the paper. The best
    that was found where poses are few; docs/object_distillation.md.
    """
    return AlignmentConfig(detach_student_masses=True, knee=0.005, blur=0.003,
                           normalise_masses=False, reach=0.05)


PRESETS = {"released": released, "balanced": balanced, "positions": positions, "robust": robust,
           "unbalanced": unbalanced}


def preset(name: str) -> AlignmentConfig:
    """Settings by name.

    Raises:
        ValueError: there is no such preset.
    """
    _check(name in PRESETS, "preset", name, ", ".join(PRESETS))
    return PRESETS[name]()
