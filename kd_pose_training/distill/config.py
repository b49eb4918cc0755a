"""The ``distill`` section of a training configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kd_pose_training.losses import alignment_config
from kd_pose_training.losses.alignment_config import AlignmentConfig


@dataclass(frozen=True)
class DistillConfig:
    """A teacher and how its votes are passed on.

    ``teacher``: checkpoint of a finished run of the same task, objects and image normalisation.
    ``weight``: factor of the loss term ``align``. ``preset``: named settings of the alignment
    (``released``, ``balanced``, ``positions``), or ``custom`` for those under ``alignment``.
    ``score_threshold``: of the teacher's cells, as at inference. ``max_error``: an object whose
    teacher votes are on average further from the truth than this, in object sizes, is left out;
    0 lets all pass.
    """

    teacher: str
    weight: float = 5.0
    preset: Literal["released", "balanced", "positions", "custom"] = "balanced"
    alignment: AlignmentConfig | None = None
    score_threshold: float = 0.3
    max_error: float = 0.1

    def __post_init__(self) -> None:
        if not self.teacher:
            raise ValueError("teacher is ''; allowed: the path of a checkpoint")
        for name, high in (("weight", 1e6), ("score_threshold", 1.0), ("max_error", 1e3)):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ValueError(f"{name} is {value!r}; allowed: 0 to {high:g}")
        if (self.preset == "custom") != (self.alignment is not None):
            raise ValueError(f"preset is {self.preset!r} and alignment is {self.alignment!r}; "
                             "allowed: a section 'alignment' with preset 'custom' and only then")

    @property
    def settings(self) -> AlignmentConfig:
        """The settings meant by ``preset``."""
        return self.alignment or alignment_config.preset(self.preset)
