"""What the object networks bring to a training run: BOP folders, classes, network, teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from kd_pose_training import strict
from kd_pose_training.config import TrainConfig, from_dict, split_folder
from kd_pose_training.data.fixed_set import FixedAugmentationSet
from kd_pose_training.data.label_noise import disturb_labels
from kd_pose_training.data.samples import make_samples
from kd_pose_training.data.splits import open_split
from kd_pose_training.engine import distributed
from kd_pose_training.engine.checkpoint import (
    CheckpointError,
    check_finite,
    fingerprint,
    load_checkpoint,
)
from kd_pose_training.engine.sampler import sample_seed
from kd_pose_training.models import build_model
from kd_pose_training.models.exported_weights import (
    EXPORTED,
    read_exported,
    restore_batch_norms,
)
from kd_pose_training.models.resnet import read_resnet
from kd_pose_training.tasks.object_codes import CodesTask
from kd_pose_training.tasks.object_votes import VotesTask
from kd_pose_training.training.run import RunParts, averaged_weights

# Keys of the header that stay the same over a run, and what they hold.
FIXED = {"objects": "the objects' models have", "code_tables": "the objects' models have",
         "teacher": "the teacher's file has"}


def bring(config: TrainConfig, world: distributed.World, start: bool = True) -> RunParts:
    """Data, network, losses and teacher of a configuration.

    start: False where a checkpoint will bring the weights, so that ``model.weights``, which may be
    gone by then, is not read.

    Raises:
        ValueError: data, weights, teacher and configuration do not fit together.
    """
    _check_share(config, world)
    datasets = open_datasets(config.data.train, config.data.objects)
    if config.data.label_noise:
        disturb_labels(datasets, config.data.label_noise)
    config, specs = resolve(config, datasets)
    samples = make_samples(config, specs, datasets)
    header = make_header(config, specs, samples.code_tables)
    task = build_task(config, header["objects"], samples.code_tables, start)
    if config.distill:
        header["teacher"] = fingerprint(config.distill.teacher)
    train_set = samples.dataset(datasets, task.network, True)
    if config.data.variants:
        train_set = FixedAugmentationSet(train_set, config.data.variants)
    if start and Path(config.model.weights).suffix == EXPORTED:
        restore_batch_norms(task.network, task.network.backbone, _pictures(train_set))
    if config.distill and config.distill.cache:
        attach_cache(task, train_set, samples.collate, config, world)

    def val_set() -> Any:
        val_sets = open_datasets(config.data.val, config.data.objects)
        return samples.dataset(val_sets, task.network, False)

    return RunParts(config, task, train_set, samples.collate, header,
                    val_set if config.data.val else None, fixed=FIXED)


def _check_share(config: TrainConfig, world: distributed.World) -> None:
    size, least = config.trainer.batch_size, 2 * world.size
    # Batch norm of the image-wide average has one number per image and channel.
    if config.task == "object_codes" and size < least:
        raise ValueError(f"trainer.batch_size is {size}, shared by {world.size} processes; "
                         f"allowed: {least} or more for the task object_codes, 2 in each process")


def open_datasets(entries: Sequence[str], objects: Sequence[str]) -> list:
    """Splits of ``root:split`` texts, limited to the named objects (empty = all): BOP folders,
    or people in COCO's layout."""
    return [open_split(*split_folder(entry), objects=tuple(objects)) for entry in entries]


def resolve(config: TrainConfig, datasets: Sequence[Any]) -> tuple[TrainConfig, list]:
    """Fill in object names and the number of classes; also the objects' specs in that order.

    Raises:
        ValueError: a named object is in none of the folders, or the classes do not fit.
    """
    from kd_pose_training.data.classes import object_specs
    specs = object_specs(datasets, config)
    names = [spec.name for spec in specs]
    classes = config.model.num_classes or len(names)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, objects=tuple(names)),
        model=dataclasses.replace(config.model, num_classes=classes))
    return config, list(specs)


def make_header(config: TrainConfig, specs: Sequence[Any],
                code_tables: Sequence[str] = ()) -> dict:
    """What every checkpoint carries besides weights: plain ``config`` and ``objects``, and of a
    dense network ``code_tables``, the meaning of its codes by object."""
    header = {"config": strict.to_dict(config),
              "objects": [strict.to_dict(spec) for spec in specs]}
    return {**header, "code_tables": list(code_tables)} if code_tables else header


def build_task(config: TrainConfig, objects: Sequence[dict] = (),
               code_tables: Sequence[str] = (), start: bool = True) -> VotesTask | CodesTask:
    """Network (from the seed, or at the ``start`` from ``model.weights``) with its losses, and its
    teacher.

    Raises:
        ValueError: weights or teacher do not fit; ``objects`` and ``code_tables`` are what both
            must share.
    """
    torch.manual_seed(config.trainer.seed)
    network = build_model(config.model)
    if start and config.model.weights:
        load_start_weights(network, config.model.weights)
    if config.task == "object_codes":
        return _build_codes_task(network, config, objects, code_tables)
    if config.distill is None:
        return VotesTask(network, config.data.input_size, config.loss, config.task)
    from kd_pose_training.distill.teacher import load_teacher
    from kd_pose_training.distill.votes_task import build_distilled_task
    # Built last: the teacher must not change what the seed gives the student.
    teacher = load_teacher(config.distill.teacher, config, objects)
    return build_distilled_task(network, teacher, config)


def _build_codes_task(network: Any, config: TrainConfig, objects: Sequence[dict],
                      code_tables: Sequence[str]) -> CodesTask:
    if config.distill is None:
        return CodesTask(network, config.codes)
    from kd_pose_training.distill.code_teacher import load_code_teacher
    from kd_pose_training.distill.codes_task import DistilledCodesTask
    teacher = load_code_teacher(config.distill.teacher, config, objects, code_tables)
    return DistilledCodesTask(network, config.codes, teacher, config.distill)


def attach_cache(task: Any, train_set: Any, join: Callable, config: TrainConfig,
                 world: Any) -> None:
    """Let a distilling task read its teacher's answers from ``distill.cache``.

    The main process fills what is missing; the others wait and then only read.
    """
    from kd_pose_training.distill.cached_teacher import fill_cache
    with_maps = task.extras is not None
    if world.is_main:
        task.cache = fill_cache(task.teacher, train_set, config, with_maps, join=join)
    distributed.barrier()
    if not world.is_main:
        task.cache = fill_cache(task.teacher, train_set, config, with_maps, join=join)


def load_start_weights(network: Any, path: str) -> None:
    """Start from another run's averaged weights, from a vote network's exported file, or a
    dilated ResNet from a plain one's as torchvision saves it. Layers of another shape keep their
    own start.

    Raises:
        ValueError: none of the three, no layer of its backbone fits, or a layer that fits has
            values that are not finite.
    """
    if Path(path).suffix == EXPORTED:
        weights = read_exported(path)
    else:
        try:
            weights = averaged_weights(load_checkpoint(path))
        except CheckpointError:
            weights = read_resnet(path)
            if weights is None:
                raise
    mine = network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in mine and mine[k].shape == v.shape}
    if not any(key.startswith("backbone.") and value.ndim == 4 for key, value in fitting.items()):
        raise ValueError(f"model.weights: {path} holds no backbone that fits this network")
    check_finite(fitting, path)
    network.load_state_dict(fitting, strict=False)


def _pictures(samples: Any, count: int = 256, at_a_time: int = 16) -> Iterator[torch.Tensor]:
    """Images (B, 3, H, W) of samples spread over a training set."""
    count = min(count, len(samples))
    chosen = [(i * len(samples) // count, sample_seed(0, i)) for i in range(count)]
    for first in range(0, count, at_a_time):
        yield torch.cat([samples[key].images for key in chosen[first:first + at_a_time]])


def load_network(path: str | Path) -> tuple[Any, TrainConfig, list[dict]]:
    """Network in eval mode (averaged weights), configuration and object specs of a checkpoint.

    Raises:
        ValueError: see :func:`kd_pose_training.engine.checkpoint.load_checkpoint`; or its weights
            are not finite.
    """
    state = load_checkpoint(path)
    config = from_dict(state["config"], str(path))
    network = build_model(config.model)
    weights = averaged_weights(state)
    check_finite(weights, path)
    network.load_state_dict(weights)
    return network.eval(), config, state["objects"]
