"""Does distillation help a vote network? Teacher, students of several kinds, the same budget.

    FOLDER/teacher/stage<n>          the teacher's recipes one after another; the last teaches
    FOLDER/cache                     its answers to the fixed augmentation set
    FOLDER/start/seed<n>             what all students of a seed share
    FOLDER/<arm>/seed<n>             a student; result.json is written last and marks it done
    FOLDER/table.md, result.json, curves.png, votes.png

Whatever is finished is not done again; a training that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_pose_training import strict
from kd_pose_training.experiments.config import START, ExperimentConfig
from kd_pose_training.experiments.jobs import (
    RESULT,
    TEACHER,
    Job,
    check_jobs,
    job_folder,
    last_validation,
    run_jobs,
    train_to_end,
)

if TYPE_CHECKING:
    from kd_pose_training.config import TrainConfig

CACHE = "cache"


def run_experiment(config: ExperimentConfig, folder: str | Path,
                   only: Sequence[str] = ()) -> Path:
    """Do what is missing of an experiment, then write its summary.

    Args:
        only: names of arms; empty: all.

    Returns:
        The folder.

    Raises:
        ValueError: a recipe or a run of another configuration; the message names it.
    """
    folder = Path(folder)
    check_jobs(config, folder, partial(recipe, config))
    folder.mkdir(parents=True, exist_ok=True)
    _make_data(config)
    run = partial(run_job, config, folder)
    before, after = plan(config, only)
    for jobs in before:
        run_jobs(run, folder, jobs, config.jobs, _say)
    _fill_cache(config, folder)
    run_jobs(run, folder, after, config.jobs, _say)
    from kd_pose_training.experiments.summary import write_summary
    write_summary(config, folder)
    return folder


def plan(config: ExperimentConfig, only: Sequence[str] = ()) -> tuple[list[list[Job]], list[Job]]:
    """Jobs in groups, each of which needs those before it, until the teacher is there, and those
    after it has answered.

    What needs no teacher keeps the other processes busy while the teacher is trained: the starts
    in its first stage, then students who learn alone. The others go seed by seed: an experiment
    that is stopped has compared all arms on fewer seeds.
    """
    arms = [name for name in config.arms if not only or name in only]
    alone = [name for name in arms if not config.arms[name].taught]
    students = [(name, seed) for seed in config.seeds for name in arms]
    groups: list[list[Job]] = [[(TEACHER, stage)] for stage in range(len(config.teacher))]
    groups[0] += [(START, seed) for seed in config.seeds if config.start_iterations]
    if len(groups) > 1:
        groups[1] += [job for job in students if job[0] in alone]
    done = {job for group in groups for job in group}
    return groups, [job for job in students if job not in done]


def _make_data(config: ExperimentConfig) -> None:
    """Meshes and the rendered set, unless they are there; goes on with an unfinished set."""
    from kd_pose_training.synthetic.generate import synthesise
    from kd_pose_training.synthetic.objects_file import load_objects
    from kd_pose_training.synthetic.settings import load_settings
    from kd_pose_training.synthetic.shipped_objects import write_shipped_objects
    meshes = Path(config.meshes)
    if not (meshes / "objects.yaml").exists():
        write_shipped_objects(meshes)
    synthesise(load_objects([meshes], None), load_settings(Path(config.synth), ()),
               Path(config.data))


def teacher_folder(config: ExperimentConfig, folder: Path) -> Path:
    """The run that teaches."""
    return job_folder(folder, TEACHER, len(config.teacher) - 1)


def recipe(config: ExperimentConfig, folder: Path, name: str, seed: int) -> TrainConfig:
    """The training configuration of a job."""
    from kd_pose_training.config import load_config
    if name == TEACHER:
        before = job_folder(folder, TEACHER, seed - 1) / "last.pt"
        return load_config(config.teacher[seed], [f"model.weights={before}"] if seed else [])
    sets = [f"trainer.seed={seed}"]
    if name == START:
        return load_config(config.student, [*sets,
                                            f"trainer.iterations={config.start_iterations}"])
    sets += [f"trainer.iterations={config.iterations}", f"data.variants={config.variants}"]
    if config.start_iterations:
        sets.append(f"model.weights={job_folder(folder, START, seed) / 'last.pt'}")
    if config.arms[name].taught:
        sets += [f"distill.teacher={teacher_folder(config, folder) / 'last.pt'}",
                 f"distill.cache={folder / CACHE}"]
    return load_config(config.student, [*sets, *config.arms[name].set])


def _say(result: dict[str, Any]) -> str:
    return f"ADD(-S)-0.1d {result['metrics']['mean']['add_recall']:.1%}"


def run_job(config: ExperimentConfig, folder: Path, name: str, seed: int) -> dict[str, Any]:
    """One training with its evaluation on the validation split, true boxes.

    Returns:
        What ``result.json`` holds: metrics, last validation, seconds of learning, recipe.

    Raises:
        KeyboardInterrupt: a signal stopped the training; its checkpoint is there, no result.
    """
    where, settings = job_folder(folder, name, seed), recipe(config, folder, name, seed)
    seconds = train_to_end(settings, where)
    return score_run(where, settings, name=name, seed=seed, seconds=round(seconds, 1),
                     recipe=strict.to_dict(recipe(config, Path(), name, seed)))


def score_run(where: Path, settings: TrainConfig, **notes: Any) -> dict[str, Any]:
    """Export a finished run, evaluate it on its validation split, write ``result.json``."""
    from kd_pose_training.config import split_folder
    from kd_pose_training.data.bop import BopDataset
    from kd_pose_training.engine.checkpoint import LAST
    from kd_pose_training.evaluation.object_pose import evaluate
    from kd_pose_training.evaluation.report import summarise, write_json
    from kd_pose_training.export import export
    model = export(where / LAST, where / "model.onnx")
    dataset = BopDataset(*split_folder(settings.data.val[0]))
    found = evaluate(model, None, dataset, boxes="oracle", min_visib=settings.data.min_visib,
                     threads=settings.trainer.threads, progress=False)
    result = {**notes, "metrics": summarise(found), "errors": relative_errors(found),
              "validation": last_validation(where)}
    write_json(result, where / RESULT)
    return result


def relative_errors(found: Any) -> dict[str, list[float | None]]:
    """ADD(-S) in diameters of every target, by object; None where nothing was found."""
    errors: dict[str, list[float | None]] = {}
    for item in found.instances:
        value = None if item.error is None else round(item.error / item.diameter, 5)
        errors.setdefault(item.name, []).append(value)
    return errors


def _fill_cache(config: ExperimentConfig, folder: Path) -> None:
    """Ask the teacher once, with its maps, before several trainings want to at a time."""
    from kd_pose_training.data.fixed_set import FixedAugmentationSet
    from kd_pose_training.data.object_dataset import ObjectVoteDataset
    from kd_pose_training.distill.cached_teacher import fill_cache
    from kd_pose_training.distill.teacher import load_teacher
    from kd_pose_training.models import build_model
    from kd_pose_training.training.objects import make_header, open_datasets, resolve
    taught = [name for name, arm in config.arms.items() if arm.taught]
    if not taught:
        return
    settings = recipe(config, folder, taught[0], config.seeds[0])
    datasets = open_datasets(settings.data.train, settings.data.objects)
    settings, specs = resolve(settings, datasets)
    teacher = load_teacher(settings.distill.teacher, settings,
                           make_header(settings, specs)["objects"])
    grid = build_model(settings.model).grid(settings.data.input_size)
    samples = FixedAugmentationSet(ObjectVoteDataset(datasets, settings, grid, True),
                                   settings.data.variants)
    fill_cache(teacher, samples, settings, with_maps=True)
