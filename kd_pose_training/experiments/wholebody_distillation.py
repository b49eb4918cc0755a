"""Does distillation help a whole-body network? DWPose's two stages on rendered people.

Folders as in ``experiments/jobs.py``, and FOLDER/table.md, result.json, curves.png, people.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kd_pose_training import strict
from kd_pose_training.experiments.config import START, PeopleExperiment
from kd_pose_training.experiments.jobs import (
    RESULT,
    TEACHER,
    Job,
    Result,
    check_jobs,
    job_folder,
    run_jobs,
    train_to_end,
)

if TYPE_CHECKING:
    from kd_pose_training.wholebody_config import WholebodyTrainConfig


def run_experiment(config: PeopleExperiment, folder: str | Path,
                   only: Sequence[str] = ()) -> Path:
    """Do what is missing of an experiment, then write its summary.

    Args:
        only: names of arms, with those that they follow; empty: all.

    Returns:
        The folder.

    Raises:
        ValueError: a recipe or a run of another configuration; the message names it.
    """
    folder = Path(folder)
    check_jobs(config, folder, partial(recipe, config))
    folder.mkdir(parents=True, exist_ok=True)
    _make_data(config)
    for jobs in plan(config, only):
        run_jobs(partial(run_job, config, folder), folder, jobs, config.jobs, _say)
    from kd_pose_training.experiments.wholebody_summary import write_summary
    write_summary(config, folder)
    return folder


def plan(config: PeopleExperiment, only: Sequence[str] = ()) -> list[list[Job]]:
    """Jobs in groups, each of which needs those before it.

    The starts need no teacher: they keep the other processes busy while its first stage is
    trained. Then seed by seed: an experiment that is stopped has compared all arms on fewer seeds.
    """
    wanted = set(only or config.arms)
    wanted |= {config.arms[name].after for name in wanted} - {""}
    groups: list[list[Job]] = [[(TEACHER, stage)] for stage in range(len(config.teacher))]
    if config.start_iterations:
        groups[0] += [(START, seed) for seed in map(config.start_seed, config.seeds)]
        groups[0] = list(dict.fromkeys(groups[0]))
    for seed in config.seeds:
        for second in (False, True):
            groups.append([(name, seed) for name, arm in config.arms.items()
                           if name in wanted and bool(arm.after) == second])
    return [group for group in groups if group]


def _make_data(config: PeopleExperiment) -> None:
    """The rendered set, unless it is there; goes on with an unfinished one."""
    from kd_pose_training.synthetic.people.generate import synthesise_people
    from kd_pose_training.synthetic.people.settings import load_settings
    synthesise_people(load_settings(Path(config.synth)), Path(config.data))


def teacher_checkpoint(config: PeopleExperiment, folder: Path) -> Path:
    """The last weights of the run that teaches."""
    return job_folder(folder, TEACHER, len(config.teacher) - 1) / "last.pt"


def recipe(config: PeopleExperiment, folder: Path, name: str, seed: int) -> WholebodyTrainConfig:
    """The training recipe of a job."""
    from kd_pose_training.recipe import load_recipe
    if name == TEACHER:
        before = job_folder(folder, TEACHER, seed - 1) / "last.pt"
        return load_recipe(config.teacher[seed], [f"model.weights={before}"] if seed else [])
    sets = [f"trainer.seed={seed}"]
    if name == START:
        return load_recipe(config.student, [*sets,
                                            f"trainer.iterations={config.start_iterations}"])
    arm = config.arms[name]
    sets.append(f"trainer.iterations={arm.iterations or config.iterations}")
    if arm.after:
        trained = job_folder(folder, arm.after, seed) / "last.pt"
        sets += [f"distill.teacher={trained}", "distill.stage=2"]
    else:
        if config.start_iterations:
            start = job_folder(folder, START, config.start_seed(seed)) / "last.pt"
            sets.append(f"model.weights={start}")
        if arm.taught:
            sets.append(f"distill.teacher={teacher_checkpoint(config, folder)}")
    return load_recipe(config.student, [*sets, *arm.set])


def run_job(config: PeopleExperiment, folder: Path, name: str, seed: int) -> Result:
    """One training with its evaluation on the validation split, true boxes.

    Returns:
        What ``result.json`` holds: figures by part, seconds of learning, recipe.

    Raises:
        KeyboardInterrupt: a signal stopped the training; its checkpoint is there, no result.
    """
    from kd_pose_training.evaluation.report import write_json
    from kd_pose_training.experiments.wholebody_scores import score_checkpoint
    where, settings = job_folder(folder, name, seed), recipe(config, folder, name, seed)
    seconds = train_to_end(settings, where)
    result = {"name": name, "seed": seed, "seconds": round(seconds, 1),
              "iterations": settings.trainer.iterations,
              "recipe": strict.to_dict(recipe(config, Path(), name, seed)),
              **score_checkpoint(where / "last.pt", settings.data.val[0])}
    write_json(result, where / RESULT)
    return result


def _say(result: Result) -> str:
    return f"AP {100 * result['ap']['wholebody']:.1f}, OKS {100 * result['oks']['wholebody']:.1f}"
