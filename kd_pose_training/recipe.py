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
TASKS = ("object_votes", "object_detector", "object_codes", "wholebody")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe strictly; ``overrides`` are ``a.b=value`` texts.

    Raises:
        ConfigError: names file, key, value and what is allowed.
    """
    data = strict.apply_overrides(strict.read_yaml(path), overrides)
    return from_dict(data, f"{path} with --set {' '.join(overrides)}" if overrides else str(path))


def from_dict(data: Mapping[str, Any], source: str = "configuration") -> Recipe:
    """Recipe from plain data, such as a checkpoint's ``config``."""
    task = data.get("task")
    if isinstance(task, str) and task not in TASKS:
        raise strict.ConfigError(f"{source}: key 'task' has the value {task!r}; expected one of "
                                 + ", ".join(TASKS))
    kind = WholebodyTrainConfig if task == "wholebody" else TrainConfig
    return strict.from_dict(kind, data, source)


def task_of(checkpoint: str | Path) -> str:
    """Task of a run's checkpoint, or folder; ``wholebody`` for any other file of weights, which
    only that task reads.

    Raises:
        CheckpointError: there is no such file, or no checkpoint in the folder.
    """
    from kd_pose_training.engine.checkpoint import (
        CheckpointError,
        find_checkpoint,
        load_checkpoint,
    )
    path = find_checkpoint(checkpoint)
    try:
        return load_checkpoint(path)["config"].get("task", TrainConfig.task)
    except CheckpointError:
        if path.suffix != ".pth":
            raise
        return "wholebody"
