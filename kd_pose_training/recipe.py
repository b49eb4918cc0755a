"""Recipes of training runs: which configuration a YAML file or a checkpoint holds.

The key ``task`` decides: ``wholebody`` is a :class:`WholebodyTrainConfig`, everything else a
:class:`TrainConfig` of the object networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_pose_training import strict
from kd_pose_training.config import TrainConfig
from kd_pose_training.wholebody_config import WholebodyTrainConfig

Recipe = TrainConfig | WholebodyTrainConfig


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe strictly; ``overrides`` are ``a.b=value`` texts.

    Raises:
        ConfigError: names file, key, value and what is allowed.
    """
    data = strict.apply_overrides(strict.read_yaml(path), overrides)
    return from_dict(data, f"{path} with --set {' '.join(overrides)}" if overrides else str(path))


def from_dict(data: Mapping[str, Any], source: str = "configuration") -> Recipe:
    """Recipe from plain data, such as a checkpoint's ``config``."""
    kind = WholebodyTrainConfig if data.get("task") == "wholebody" else TrainConfig
    return strict.from_dict(kind, data, source)
