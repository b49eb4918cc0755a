"""``kd-pose-train train``: a configuration and BOP folders become a trained network.

The output folder holds config.yaml, last.pt, best.pt, log.jsonl and tensorboard events. Every
checkpoint carries the configuration and the objects' boxes, so that evaluation and export need
nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_pose_training.config import TrainConfig
    from kd_pose_training.tasks.object_codes import CodesTask
    from kd_pose_training.tasks.object_votes import VotesTask

_EPILOG = """\
examples:
  kd-pose-train train config/training/object_student.yaml -o runs/student
  kd-pose-train train config/training/object_detector.yaml -o runs/detector \\
      --set trainer.iterations=5000 --set optim.lr=5e-4
  kd-pose-train train config/training/object_student.yaml -o runs/student --resume
  torchrun --nproc-per-node 2 -m kd_pose_training.cli train config/... -o runs/two
  tensorboard --logdir runs

Ctrl-C saves a checkpoint and stops; --resume goes on exactly where it was.
"""

# What may differ between a run and its continuation: nothing that changes the losses.
_FREE_KEYS = {
    "data": {"num_workers", "cache"},
    "trainer": {"device", "threads", "log_every", "validate_every", "checkpoint_every",
                "progress_bar", "tensorboard", "compile"},
}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``train``."""
    parser = subparsers.add_parser(
        "train", help="train a network on BOP folders", epilog=_EPILOG,
        description="Train a network (poses or detector) as a configuration file says.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="YAML file, see config/training/")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER",
                        help="new folder for checkpoints and logs")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE", help="change one setting, e.g. trainer.seed=1")
    parser.add_argument("--resume", action="store_true",
                        help="continue the run in FOLDER from its last checkpoint")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.config import load_config
    path = train(load_config(options.config, options.overrides), options.output, options.resume)
    print(path)
    return 0


def train(config: TrainConfig, output_dir: str | Path, resume: bool = False) -> Path:
    """Train as configured and return the path of the last checkpoint.

    Args:
        config: the run. Objects and number of classes left open are filled in from the data.
        output_dir: new or empty folder; with ``resume`` the folder of the run to continue.

    Raises:
        ValueError: the folder is not empty and ``resume`` is off, the checkpoint belongs to
            another configuration, or data and configuration do not fit together.
    """
    from kd_pose_training.data.fixed_set import FixedAugmentationSet
    from kd_pose_training.data.samples import make_samples
    from kd_pose_training.engine import checkpoint, distributed
    from kd_pose_training.engine.trainer import Trainer

    folder = Path(output_dir)
    with distributed.process_group(config.trainer.device) as world:
        if world.is_main:
            prepare_folder(folder, resume)
        distributed.barrier()
        datasets = open_datasets(config.data.train, config.data.objects)
        config, specs = resolve(config, datasets)
        samples = make_samples(config, specs, datasets)
        header = make_header(config, specs, samples.code_tables)
        task = build_task(config, header["objects"], samples.code_tables)
        train_set = samples.dataset(datasets, task.network, True)
        if config.data.variants:
            train_set = FixedAugmentationSet(train_set, config.data.variants)
        if config.distill and config.distill.cache:
            attach_cache(task, train_set, config, world)
        validate = None
        if config.data.val and world.is_main:
            val_sets = open_datasets(config.data.val, config.data.objects)
            validate = make_validation(
                task, samples.dataset(val_sets, task.network, False), config, samples.collate)
        trainer = Trainer(task, train_set, samples.collate, config.trainer, config.optim, folder,
                          header=header, world=world, num_workers=config.data.num_workers,
                          validate=validate)
        last = folder / checkpoint.LAST
        if resume and last.exists():
            check_same_run(header, checkpoint.load_checkpoint(last), last)
            trainer.resume(last)
        if world.is_main:
            _save_config(config, folder)
        return trainer.run()


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


def open_datasets(entries: Sequence[str], objects: Sequence[str]) -> list:
    """BOP splits of ``root:split`` texts, limited to the named objects (empty = all)."""
    from kd_pose_training.config import split_folder
    from kd_pose_training.data.bop import BopDataset
    return [BopDataset(*split_folder(entry), objects=tuple(objects) or None)
            for entry in entries]


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
    from kd_pose_training.config import to_dict
    from kd_pose_training.strict import to_dict as plain
    header = {"config": to_dict(config), "objects": [plain(spec) for spec in specs]}
    return {**header, "code_tables": list(code_tables)} if code_tables else header


def build_task(config: TrainConfig, objects: Sequence[dict] = (),
               code_tables: Sequence[str] = ()) -> VotesTask | CodesTask:
    """Network (from the seed, or from ``model.weights``) with its losses, and its teacher.

    Raises:
        ValueError: weights or teacher do not fit; ``objects`` and ``code_tables`` are what both
            must share.
    """
    import torch

    from kd_pose_training.models import build_model
    from kd_pose_training.tasks.object_votes import VotesTask
    torch.manual_seed(config.trainer.seed)
    network = build_model(config.model)
    if config.model.weights:
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
    from kd_pose_training.tasks.object_codes import CodesTask
    if config.distill is None:
        return CodesTask(network, config.codes)
    from kd_pose_training.distill.align_codes import DistilledCodesTask
    from kd_pose_training.distill.code_teacher import load_code_teacher
    teacher = load_code_teacher(config.distill.teacher, config, objects, code_tables)
    return DistilledCodesTask(network, config.codes, teacher, config.distill)


def attach_cache(task: Any, train_set: Any, config: TrainConfig, world: Any) -> None:
    """Let a distilling task read its teacher's answers from ``distill.cache``.

    The main process fills what is missing; the others wait and then only read.
    """
    from kd_pose_training.distill.cached_teacher import fill_cache
    from kd_pose_training.engine import distributed
    if world.is_main:
        task.cache = fill_cache(task.teacher, train_set, config, task.extras is not None)
    distributed.barrier()
    if not world.is_main:
        task.cache = fill_cache(task.teacher, train_set, config, task.extras is not None)


def load_start_weights(network: Any, path: str) -> None:
    """Start from another run's averaged weights, or a dilated ResNet from a plain one's as
    torchvision saves it; layers of another shape keep their own start.

    Raises:
        ValueError: neither of the two, or no layer of its backbone fits.
    """
    from kd_pose_training.engine.checkpoint import CheckpointError, load_checkpoint
    from kd_pose_training.models.resnet import read_resnet
    try:
        weights = averaged_weights(load_checkpoint(path))
    except CheckpointError:
        weights = read_resnet(path)
        if weights is None:
            raise
    mine = network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in mine and mine[k].shape == v.shape}
    if not any(key.startswith("backbone.") for key in fitting):
        raise ValueError(f"model.weights: {path} holds no backbone that fits this network")
    network.load_state_dict(fitting, strict=False)


def averaged_weights(state: Mapping[str, Any]) -> dict:
    """The weights to use of a checkpoint: the averaged ones where there are any."""
    return state["average"]["network"] if state["average"] else state["network"]


def load_network(path: str | Path) -> tuple[Any, TrainConfig, list[dict]]:
    """Network in eval mode (averaged weights), configuration and object specs of a checkpoint.

    Raises:
        ValueError: see :func:`kd_pose_training.engine.checkpoint.load_checkpoint`.
    """
    from kd_pose_training.config import from_dict
    from kd_pose_training.engine.checkpoint import load_checkpoint
    from kd_pose_training.models import build_model
    state = load_checkpoint(path)
    config = from_dict(state["config"], str(path))
    network = build_model(config.model)
    network.load_state_dict(averaged_weights(state))
    return network.eval(), config, state["objects"]


def check_same_run(header: Mapping[str, Any], state: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume with settings that would change the course of the run.

    Raises:
        ValueError: names every differing key with both values.
    """
    from kd_pose_training.config import from_dict, to_dict
    # Read anew: a run of an earlier version lacks the settings that have been added since.
    old = _flatten(to_dict(from_dict(state["config"], str(path))))
    new = _flatten(header["config"])
    free = {f"{section}.{key}" for section, keys in _FREE_KEYS.items() for key in keys}
    changed = [f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
               for key in sorted(old.keys() | new.keys())
               if old.get(key) != new.get(key) and key not in free]
    if changed:
        raise ValueError(f"{path}: was trained with other settings: {'; '.join(changed)}")
    if any(list(state.get(key, ())) != list(header.get(key, ()))
           for key in ("objects", "code_tables")):
        raise ValueError(f"{path}: the objects' models have changed since the run was started")


def make_validation(task: VotesTask | CodesTask, dataset: Any, config: TrainConfig,
                    collate: Callable) -> Callable[[Any], Mapping[str, float]]:
    """Function of a network: its averaged terms over the same validation samples every time."""
    from torch.utils.data import DataLoader

    from kd_pose_training.engine.sampler import sample_seed
    from kd_pose_training.engine.trainer import init_worker

    count = min(len(dataset), config.data.max_val_samples or len(dataset))
    if not count:
        raise ValueError("the validation set is empty: no sample passed the data settings")
    # Spread over the set: neighbours are often of one scene.
    chosen = [(i * len(dataset) // count, sample_seed(0, i)) for i in range(count)]
    size = config.trainer.batch_size
    batches = [chosen[i:i + size] for i in range(0, count, size)]

    def validate(network: Any) -> dict[str, float]:
        import torch
        device = next(task.network.parameters()).device
        loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate,
                            num_workers=config.data.num_workers, worker_init_fn=init_worker,
                            generator=torch.Generator().manual_seed(0))
        sums: dict[str, float] = {}
        task.eval()
        for samples, batch in zip(batches, loader):
            for key, value in task.terms(network, batch.to(device)).items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(samples)
        values = {key: value / count for key, value in sums.items()}
        values["total"] = sum(values[key] * weight for key, weight in task.weights.items()
                              if key in values)  # a teacher is heard in training only
        return values

    return validate


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, item in value.items()
            for k, v in _flatten(item, f"{path}.{key}" if path else key).items()}


def _save_config(config: TrainConfig, folder: Path) -> None:
    from kd_pose_training.config import save_config
    save_config(config, folder / "config.yaml")
