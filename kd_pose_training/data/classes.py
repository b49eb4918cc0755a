"""Which objects of BOP folders are a network's classes, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kd_pose.manifest import ObjectSpec
from kd_pose_training.config import TrainConfig


def object_specs(datasets: Sequence[Any], config: TrainConfig) -> tuple[ObjectSpec, ...]:
    """The classes in the order of the network's outputs.

    Raises:
        ValueError: an object of ``data.objects`` is in none of the sets.
    """
    found: dict[str, ObjectSpec] = {}
    for dataset in datasets:
        for _, model in sorted(dataset.models.items()):
            found.setdefault(model.name, model.spec)
    names = config.data.objects or tuple(found)
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"data.objects: {', '.join(missing)} not in the folders; there are "
                         f"{', '.join(found)}")
    return tuple(found[name] for name in names)
