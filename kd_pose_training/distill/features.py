"""Imitating a teacher's maps, level by level (FKD)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_pose_training.distill.config import FeatureTerm
from kd_pose_training.losses.feature_attention import feature_terms

NAMES = ("fkd_attention", "fkd_masked", "fkd_relation")


class FeatureMethod(nn.Module):
    """The terms ``fkd_attention``, ``fkd_masked`` and ``fkd_relation``, means over the levels.

    Holds the 1x1 convolutions that bring the student's maps to the teacher's width; they are
    trained with the student and thrown away with the teacher.

    Args:
        channels: of each of the student's levels, its own width and the teacher's.
        levels: for each of the student's levels, the teacher's.
    """

    def __init__(self, config: FeatureTerm, channels: Sequence[tuple[int, int]],
                 levels: Sequence[int]) -> None:
        super().__init__()
        self.config, self.levels = config, tuple(levels)
        self.adapters = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in channels)
        self.weights = dict(zip(NAMES, (config.attention, config.masked, config.relation)))

    def terms(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> dict[str, Tensor]:
        """The three terms of the maps of both."""
        values = [torch.stack(feature_terms(adapter(mine), teacher[level],
                                            self.config.temperature))
                  for adapter, mine, level in zip(self.adapters, student, self.levels)]
        return dict(zip(NAMES, torch.stack(values).mean(0)))
