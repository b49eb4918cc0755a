"""A training run of any task: output folder, checkpoints, resuming, validation.

What a task brings (data, network, losses, teacher) comes as :class:`RunParts` from
``training/objects.py`` or ``training/wholebody.py``; all else is the same for every task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from kd_pose_training import recipe, strict
from kd_pose_training.engine import checkpoint, distributed
from kd_pose_training.engine.loading import load_batches
from kd_pose_training.engine.sampler import IterationSampler, sample_seed
from kd_pose_training.engine.trainer import Task, Trainer

if TYPE_CHECKING:
    from kd_pose_training.recipe import Recipe

# What may differ between a run and its continuation: nothing that changes the losses.
_FREE_KEYS = {
    "data": {"num_workers", "cache", "check_images"},
    "trainer": {"device", "threads", "log_every", "validate_every", "checkpoint_every",
                "progress_bar", "tensorboard", "compile"},
}


@dataclass
class RunParts:
    """What a task brings to a run.

    config: with all that was left open filled in. train_set, collate, sampler: as
    :class:`Trainer` takes them. header: plain data stored in every checkpoint, with ``config``.
    val_set: opened when it is needed; None: no validation. best: name of the validated number
    that decides about ``best.pt``. fixed: keys of the header, and what they hold, in words, that
    must be the same when the run is resumed.
    """

    config: Recipe
    task: Task
    train_set: Dataset
    collate: Callable
    header: dict[str, Any]
    val_set: Callable[[], Dataset] | None = None
    best: str = "total"
    sampler: Callable[..., IterationSampler] = IterationSampler
    fixed: Mapping[str, str] = field(default_factory=dict)


def train(config: Recipe, output_dir: str | Path, resume: bool = False) -> Path:
    """Train as configured and return the path of the last checkpoint.

    Args:
        config: the run. What it leaves open is filled in from the data.
        output_dir: new or empty folder; with ``resume`` the folder of the run to continue.

    Raises:
        ValueError: the folder is not empty and ``resume`` is off, the checkpoint belongs to
            another configuration, or data, weights, teacher and configuration do not fit together.
    """
    folder = Path(output_dir)
    fresh = not folder.exists()
    try:
        return _train(config, folder, resume)
    except BaseException:
        if fresh and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # of a run that could not even begin
        raise


def _train(config: Recipe, folder: Path, resume: bool) -> Path:
    with distributed.process_group(config.trainer.device) as world:
        if world.is_main:
            prepare_folder(folder, resume)
        distributed.barrier()
        last = folder / checkpoint.LAST
        goes_on = resume and last.exists()
        parts = _bring(config, world, not goes_on)
        config = parts.config
        validate = None
        if parts.val_set is not None and world.is_main:
            validate = make_validation(parts.task, parts.val_set(), config, parts.collate)
        trainer = Trainer(parts.task, parts.train_set, parts.collate, config.trainer, config.optim,
                          folder, header=parts.header, world=world,
                          num_workers=config.data.num_workers, validate=validate, best=parts.best,
                          sampler=parts.sampler)
        finished = False
        if goes_on:
            state = checkpoint.load_checkpoint(last)
            check_same_run(parts.header, state, last, parts.fixed)
            trainer.resume(last)
            finished = checkpoint.is_finished(state)
        if world.is_main:
            strict.save(config, folder / "config.yaml")
        # A finished run stays as it is to the byte: others may have learnt from it.
        return last if finished else trainer.run()


def train_to_end(config: Recipe, folder: str | Path) -> Path:
    """Train into a folder, or go on with what is there; returns the last checkpoint.

    Raises:
        KeyboardInterrupt: a signal stopped the training; its checkpoint is there.
        ValueError: as :func:`train`.
    """
    folder = Path(folder)
    last = train(config, folder, resume=folder.is_dir())
    state = checkpoint.load_checkpoint(last)
    if not checkpoint.is_finished(state):
        raise KeyboardInterrupt(f"{folder}: stopped at iteration {state['iteration']}")
    return last


def _bring(config: Recipe, world: distributed.World, start: bool) -> RunParts:
    if config.task == "wholebody":
        from kd_pose_training.training import wholebody
        return wholebody.bring(config, start)
    from kd_pose_training.training import objects
    return objects.bring(config, world, start)


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make the output folder, or refuse one that holds something.

    Raises:
        ValueError: it is not empty (without ``resume``), or absent (with it).
    """
    if resume:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no run to resume")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists and is not empty; choose another folder, or "
                         "--resume to continue the run in it")
    folder.mkdir(parents=True, exist_ok=True)


def check_same_run(header: Mapping[str, Any], state: Mapping[str, Any], path: Path,
                   fixed: Mapping[str, str]) -> None:
    """Refuse to resume with settings that would change the course of the run.

    Raises:
        ValueError: names every differing key with both values.
    """
    # Read anew: a run of an earlier version lacks the settings that have been added since.
    old = _flatten(strict.to_dict(recipe.from_dict(state["config"], str(path))))
    new = _flatten(header["config"])
    free = {f"{section}.{key}" for section, keys in _FREE_KEYS.items() for key in keys}
    changed = [f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
               for key in sorted(old.keys() | new.keys())
               if old.get(key) != new.get(key) and key not in free]
    if changed:
        raise ValueError(f"{path}: was trained with other settings: {'; '.join(changed)}")
    for key, what in fixed.items():
        # A checkpoint of an earlier version may lack the key.
        if key in state and state[key] != header.get(key):
            raise ValueError(f"{path}: {what} changed since the run was started")


def make_validation(task: Task, dataset: Any, config: Recipe,
                    collate: Callable) -> Callable[[Any], Mapping[str, float]]:
    """Function of a network: its averaged terms over the same validation samples every time."""
    count = min(len(dataset), config.data.max_val_samples or len(dataset))
    if not count:
        raise ValueError("the validation set is empty: no sample passed the data settings")
    # Spread over the set: neighbours are often of one scene.
    chosen = [(i * len(dataset) // count, sample_seed(0, i)) for i in range(count)]
    size = config.trainer.batch_size
    batches = [chosen[i:i + size] for i in range(0, count, size)]

    def validate(network: Any) -> dict[str, float]:
        device = next(task.network.parameters()).device
        loaded = load_batches(dataset, batches, collate, config.data.num_workers, 0)
        sums: dict[str, float] = {}
        task.eval()
        for samples, batch in zip(batches, loaded):
            for key, value in task.terms(network, batch.to(device)).items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(samples)
        values = {key: value / count for key, value in sums.items()}
        heard = task.weights.keys() & values  # a teacher is heard in training only
        if heard:
            values["total"] = sum(values[key] * task.weights[key] for key in heard)
        return values

    return validate


def averaged_weights(state: Mapping[str, Any]) -> dict:
    """The weights to use of a checkpoint: the averaged ones where there are any."""
    return state["average"]["network"] if state["average"] else state["network"]


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, item in value.items()
            for k, v in _flatten(item, f"{path}.{key}" if path else key).items()}
