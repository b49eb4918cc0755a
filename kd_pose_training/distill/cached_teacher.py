"""A teacher that answers from disk: the same answers as the live one, computed once.

Works for a fixed augmentation set (``data.variants``) and any number of runs that share it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kd_pose_training.config import TrainConfig, split_folder, to_dict
from kd_pose_training.data.batch import VoteBatch, collate
from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.data.fixed_set import FixedAugmentationSet
from kd_pose_training.data.split_contents import split_contents
from kd_pose_training.data.teacher_cache import TeacherCache, only_one
from kd_pose_training.distill.code_teacher import CodeTeacher, CodeTeacherOutputs
from kd_pose_training.distill.selection import numpy_of
from kd_pose_training.distill.teacher import Teacher, TeacherOutputs
from kd_pose_training.engine.checkpoint import fingerprint
from kd_pose_training.engine.device import choose_numerics

BATCH = 64  # images a time while filling
Outputs = TypeVar("Outputs", TeacherOutputs, CodeTeacherOutputs)


def cache_key(config: TrainConfig) -> dict[str, Any]:
    """All that the answers depend on: the teacher's file, the samples and how they are changed.

    Raises:
        OSError, ValueError: a file of the teacher or of the training data cannot be read.
    """
    data = to_dict(config)["data"]
    for name in ("cache", "num_workers", "max_val_samples", "val"):
        data.pop(name)
    if config.data.pose_share == 1:  # what is off is no part of it: older caches stay good
        data.pop("pose_share"), data.pop("unposed_share")
    if config.data.label_noise is None:
        data.pop("label_noise")
    numerics = choose_numerics(config.trainer.device, config.trainer.precision, True)
    contents = {entry: split_contents(*split_folder(entry)) for entry in config.data.train}
    return {"teacher": fingerprint(config.distill.teacher), "data": data, "contents": contents,
            "augment": to_dict(config)["augment"], "task": config.task,
            "precision": str(numerics.autocast)}


def fill_cache(teacher: Teacher | CodeTeacher, samples: FixedAugmentationSet,
               config: TrainConfig, with_maps: bool, progress: bool = True,
               join: Callable = collate) -> TeacherCache:
    """The complete cache of a run's folder ``distill.cache``; goes on with an unfinished one.

    Where another process is filling it, waits until that one is done or has died.

    Args:
        join: of samples to a batch; that of the vote networks by default.

    Raises:
        CacheError: see :class:`TeacherCache` and :func:`only_one`.
    """
    numerics = choose_numerics(config.trainer.device, config.trainer.precision,
                               config.trainer.channels_last)
    teacher.to(numerics.device)

    def answer(first: int, last: int) -> dict[str, np.ndarray]:
        batch = join([samples.variant(number) for number in range(first, last)])
        with numerics.context():
            outputs = teacher.answer(batch.to(numerics.device), with_maps)
        return _arrays(outputs)

    shapes = {name: rows.shape[1:] for name, rows in answer(0, 1).items()}
    with only_one(config.distill.cache):
        cache = TeacherCache(config.distill.cache, cache_key(config), shapes, samples.total)
        _fill(cache, answer, progress)
    return cache


def _fill(cache: TeacherCache, answer: Callable[[int, int], dict[str, np.ndarray]],
          progress: bool) -> None:
    from tqdm import tqdm
    with tqdm(desc="asking the teacher", total=cache.total, initial=cache.done, unit=" samples",
              disable=None if progress else True, leave=False) as bar:
        for first in range(cache.done, cache.total, BATCH):
            last = min(first + BATCH, cache.total)
            cache.write(first, answer(first, last))
            bar.update(last - first)


def _arrays(outputs: Outputs) -> dict[str, np.ndarray]:
    arrays = {name: getattr(outputs, name) for name in _names(type(outputs))}
    arrays.update({f"map{level}": part for level, part in enumerate(outputs.maps)})
    return {name: numpy_of(part.float()) for name, part in arrays.items()}


def _names(kind: type) -> list[str]:
    """What an answer holds besides its maps."""
    return [field.name for field in dataclasses.fields(kind) if field.name != "maps"]


def cached_outputs(cache: TeacherCache, batch: VoteBatch | CodeBatch,
                   kind: type[Outputs]) -> Outputs:
    """The teacher's answers to a batch of the fixed set, as a family's teacher gives them.

    Raises:
        CacheError: a sample is not of that set.
    """
    rows: Mapping[str, np.ndarray] = cache.read(numpy_of(batch.sample))

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(rows[name]).to(batch.images.device, non_blocking=True)

    names = _names(kind)
    maps = tuple(tensor(f"map{level}") for level in range(len(rows) - len(names)))
    return kind(*map(tensor, names), maps)
