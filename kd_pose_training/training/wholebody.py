"""What the whole-body networks bring to a training run: people, network, stages of distillation.

Seeds come first: a teacher is loaded after the student was made, so that it changes nothing of
what the seed gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from kd_pose.simcc import SimccCodec
from kd_pose_training import strict
from kd_pose_training.data.known_labels import labelled_first
from kd_pose_training.data.people_sets import open_people
from kd_pose_training.data.person_augment import stage_schedule
from kd_pose_training.data.person_batch import Encoding, collate
from kd_pose_training.data.person_dataset import PersonDataset
from kd_pose_training.data.person_sampler import person_sampler
from kd_pose_training.distill.teacher import TeacherError
from kd_pose_training.distill.wholebody_config import StageConfig, preset
from kd_pose_training.distill.wholebody_stage1 import StageOneTask, label_loss
from kd_pose_training.distill.wholebody_stage2 import StageTwoTask
from kd_pose_training.engine.checkpoint import (
    LAST,
    CheckpointError,
    find_checkpoint,
    fingerprint,
    is_finished,
    load_checkpoint,
)
from kd_pose_training.models.exported_weights import EXPORTED, restore_batch_norms
from kd_pose_training.models.simcc_net import KEYPOINTS, SimccNet, build_simcc_net
from kd_pose_training.models.simcc_weights import SimccWeights, build_from, read_weights
from kd_pose_training.tasks.wholebody import SimccTask
from kd_pose_training.training.run import RunParts, check_same_run
from kd_pose_training.wholebody_config import PeopleData, WholebodyTrainConfig

# Keys of the header that stay the same over a run, and what they hold.
FIXED = {"teacher": "the teacher's file has", "people": "the people of the training set have"}


def bring(config: WholebodyTrainConfig, start: bool = True) -> RunParts:
    """Data, network, losses and teacher of a recipe.

    start: False where a checkpoint will bring the weights, so that ``model.weights``, which may be
    gone by then, is not read.

    Raises:
        ValueError: data, weights, teacher and recipe do not fit together.
    """
    task = build_task(config, start)
    people, mix = labelled_first(open_people(config.data.train, config.data.check_images),
                                 config.data.label_share, config.data.unlabelled_share)
    config = resolve(config, len(people))
    stages = {"strong": config.augment.strong, "weak": config.augment.weak}
    train_set = person_set(config.data, people, augment=stages)
    train_set.mix = mix
    if start and Path(_own_weights(config)).suffix == EXPORTED:
        restore_batch_norms(task.network, task.network.backbone, _pictures(train_set))
    stage = stage_schedule(config.trainer.iterations, config.augment.weak_share)
    header = {"config": strict.to_dict(config), "people": len(people)}
    if config.distill is not None:
        header["teacher"] = fingerprint(find_checkpoint(config.distill.teacher))
    return RunParts(config, task, train_set, collate, header, _val_set(config.data),
                    best="keypoints", sampler=person_sampler(people, stage), fixed=FIXED)


def resolve(config: WholebodyTrainConfig, people: int) -> WholebodyTrainConfig:
    """Fill in the number of iterations of a run that is told in epochs."""
    trainer = config.trainer
    if not trainer.epochs:
        return config
    iterations = max(1, round(trainer.epochs * people / trainer.batch_size))
    return dataclasses.replace(config, trainer=dataclasses.replace(trainer, iterations=iterations))


def finished(folder: str | Path, config: WholebodyTrainConfig) -> bool:
    """Whether a folder holds the end of a run, by its checkpoint, and its teacher's if that is
    still there.

    Raises:
        ValueError: the run there is one of other settings or of another teacher, or its checkpoint
            cannot be read.
    """
    last = Path(folder) / LAST
    if not last.is_file():
        return False
    state = load_checkpoint(last)
    if not is_finished(state):
        return False
    if config.trainer.epochs:
        config = dataclasses.replace(config, trainer=dataclasses.replace(
            config.trainer, iterations=state["iterations"]))
    header, fixed = {"config": strict.to_dict(config)}, {}
    if config.distill is not None and Path(config.distill.teacher).exists():
        teacher = find_checkpoint(config.distill.teacher)
        header["teacher"] = fingerprint(teacher)
        fixed = {"teacher": f"the file of the teacher, {teacher}, has"}
    check_same_run(header, state, last, fixed)
    return True


def person_set(data: PeopleData, people: Any, augment: dict | None = None) -> PersonDataset:
    """Samples with the random changes of ``augment`` by stage, or without any."""
    codec = SimccCodec(data.input_size)
    return PersonDataset(people, codec, train=augment is not None, augment=augment,
                         crop_pad=data.crop_pad, only_valid_parts=data.only_valid_parts,
                         encoding=Encoding(codec, data.mean, data.std))


def _own_weights(config: WholebodyTrainConfig) -> str:
    """The file that the student's backbone is from; in stage 2 the network teaches itself."""
    second = config.distill is not None and config.distill.stage == 2
    return config.distill.teacher if second else config.model.weights


def _pictures(train_set: PersonDataset, count: int = 256, at_a_time: int = 16
              ) -> Iterator[torch.Tensor]:
    """Normalised crops (B, 3, H, W) of people spread over a training set, changed as in its last
    part."""
    count = min(count, len(train_set))
    rows = [(i * len(train_set) // count, i, "weak") for i in range(count)]
    for first in range(0, count, at_a_time):
        yield torch.cat([train_set[row].to("cpu").images
                         for row in rows[first:first + at_a_time]])


def _val_set(data: PeopleData) -> Any:
    if not data.val:
        return None
    return lambda: person_set(data, open_people(data.val, data.check_images))


def build_task(config: WholebodyTrainConfig, start: bool = True) -> SimccTask:
    """Network (at the ``start`` with ``model.weights``) with its losses, and its teacher.

    Raises:
        ValueError: weights or teacher do not fit.
    """
    torch.manual_seed(config.trainer.seed)
    model, size = config.model, config.data.input_size
    network = build_simcc_net(model.size, KEYPOINTS, size)
    if start and model.weights:
        weights = read_weights(model.weights, model.part, backbone_only=model.backbone_only)
        weights.fill(network, model.backbone_only)
    if config.distill is None:
        return SimccTask(network, label_loss(preset("released", size), KEYPOINTS))
    if config.distill.stage == 2:
        open_trained(config.distill, config).fill(network)
        return StageTwoTask(network, config.distill.settings(size))
    teacher = open_teacher(config.distill, config)
    return StageOneTask(network, teacher, config.distill.settings(size))


def open_teacher(stage: StageConfig, student: WholebodyTrainConfig) -> SimccNet:
    """The network of ``distill.teacher``, of any size.

    Raises:
        TeacherError: another input size, number of keypoints or normalisation than the student's.
        CheckpointError: missing, damaged or no checkpoint of a whole-body network.
    """
    weights = read_weights(stage.teacher, stage.part)
    _check_same(weights, student)
    return build_from(weights)


def open_trained(stage: StageConfig, config: WholebodyTrainConfig) -> SimccWeights:
    """The trained network of stage 2.

    Raises:
        TeacherError: another input size or normalisation than the recipe's, or it has not been
            trained. CheckpointError: missing, damaged, no checkpoint, or of another size.
    """
    weights = read_weights(stage.teacher, stage.part)
    _check_same(weights, config)
    if weights.size != config.model.size:
        raise TeacherError(f"{weights.path}: is a {weights.size}, model.size is "
                           f"{config.model.size}; in stage 2 a network teaches itself, so they "
                           "must be equal")
    if weights.state is not None and not weights.state["iteration"]:
        raise TeacherError(f"{weights.path}: has not been trained yet; stage 2 wants a trained "
                           "network, of stage 1 or any other")
    return weights


def _check_same(weights: SimccWeights, config: WholebodyTrainConfig) -> None:
    """A teacher sees the student's crops. MMPose's files say nothing of their normalisation and
    padding; all published ones have the defaults."""
    data = PeopleData(("a:b",)) if weights.state is None else recipe_of(weights).data
    for name in ("input_size", "mean", "std", "crop_pad"):
        mine = getattr(config.data, name)
        other = weights.input_size if name == "input_size" else getattr(data, name)
        if mine != other:
            raise TeacherError(f"{weights.path}: the teacher has data.{name} {other}, the student "
                               f"{mine}; they must be equal (the size of the network need not)")


def recipe_of(weights: SimccWeights) -> WholebodyTrainConfig:
    """The recipe that a run's checkpoint was trained by."""
    return strict.from_dict(WholebodyTrainConfig, weights.state["config"], str(weights.path))


def load_network(path: str | Path, averaged: bool = True
                 ) -> tuple[SimccNet, WholebodyTrainConfig, SimccWeights]:
    """Network in eval mode and recipe of a run (checkpoint or folder), and what was read.

    Raises:
        CheckpointError: missing, damaged, or no checkpoint of a whole-body run.
    """
    weights = read_weights(path, averaged=averaged)
    if weights.state is None:
        raise CheckpointError(f"{weights.path}: is no checkpoint of this project, so it has no "
                              "recipe")
    return build_from(weights).eval(), recipe_of(weights), weights
