"""The trainings of an experiment: where each lives, which are missing, how they are done.

    FOLDER/teacher/stage<n>      the teacher's recipes one after another; the last teaches
    FOLDER/<name>/seed<n>        everything else
    .../result.json              is written last and marks a training as done; says by which recipe

A training that was stopped goes on from its checkpoint; what is finished is not done again, and
refused where the experiment has another recipe for it by now.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_pose_training import strict
from kd_pose_training.engine.processes import in_processes
from kd_pose_training.experiments.config import START, Experiment

if TYPE_CHECKING:
    from kd_pose_training.recipe import Recipe

RESULT = "result.json"
TEACHER = "teacher"
_PATHS = (("model", "weights"), ("distill", "teacher"), ("distill", "cache"))  # in the folder

Job = tuple[str, int]  # name of an arm or of something else that is trained, and its seed
Result = dict[str, Any]


def job_folder(folder: Path, name: str, seed: int) -> Path:
    """Where a training lives; ``seed`` is the stage of the teacher."""
    return folder / name / f"{'stage' if name == TEACHER else 'seed'}{seed}"


def check_jobs(config: Experiment, folder: Path,
                  recipe: Callable[[Path, str, int], Recipe]) -> None:
    """Refuse mistakes in any recipe, and results of others: a table compares equals.

    Args:
        recipe: of a folder and a job. That of no folder is compared, which may have been moved.

    Raises:
        ValueError: a recipe is wrong, or the result is of another one; names every differing key
            with both values.
    """
    jobs = [*((TEACHER, stage) for stage in range(len(config.teacher))),
            *((START, seed) for seed in config.seeds if config.start_iterations),
            *((name, seed) for name in config.arms for seed in config.seeds)]
    for name, seed in jobs:
        where = job_folder(folder, name, seed)
        # A mistake in any of them is found here, before the first is done.
        settings = strict.to_dict(recipe(Path(), name, seed))
        if (where / RESULT).exists():
            _check_result(where, settings)


def _check_result(where: Path, plan: dict[str, Any]) -> None:
    from kd_pose_training.engine.checkpoint import LAST, load_checkpoint
    from kd_pose_training.training.run import check_same_run
    path = where / RESULT
    then = json.loads(path.read_text(encoding="utf-8")).get("recipe")
    if then is None:  # of an earlier version
        path = where / LAST
        if not path.is_file():
            print(f"warning: {where}: {RESULT} does not say by which recipe, and there is no "
                  f"{LAST} that does; it is taken for one of this experiment", file=sys.stderr)
            return
        then = load_checkpoint(path)["config"]
        _fill_in(plan, then)
    try:
        check_same_run({"config": plan}, {"config": then}, path, {})
    except ValueError as error:
        raise ValueError(f"{error}; a table compares runs of one plan: choose another folder, or "
                         f"remove {where} to train it anew") from error


def _fill_in(plan: dict[str, Any], then: dict[str, Any]) -> None:
    """Give a plan what its run found by itself: the experiment's folder, objects, iterations."""
    for section, key in _PATHS:
        mine, whole = (Path((side.get(section) or {}).get(key) or "") for side in (plan, then))
        if mine.parts and whole.parts[-len(mine.parts):] == mine.parts:
            plan[section][key] = then[section][key]
    for section, key in (("data", "objects"), ("model", "num_classes")):
        if key in plan[section] and not plan[section][key]:
            plan[section][key] = then[section][key]
    if plan["trainer"].get("epochs"):
        plan["trainer"]["iterations"] = then["trainer"]["iterations"]


def run_jobs(run: Callable[[str, int], Result], folder: Path, jobs: Sequence[Job], at_a_time: int,
             say: Callable[[Result], str]) -> None:
    """Do what is missing of the jobs, ``at_a_time`` of them at once.

    Args:
        run: does one job and writes its result; is sent to other processes where more than one
            runs at a time. say: what to print of a result.
    """
    missing = [job for job in jobs if not (job_folder(folder, *job) / RESULT).exists()]
    if not missing:
        return
    from tqdm import tqdm
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit=" runs") as bar:
        for result in _results(run, missing, at_a_time):
            bar.update()
            tqdm.write(f"{result['name']} seed {result['seed']}: {say(result)}")


def _results(run: Callable[[str, int], Result], jobs: Sequence[Job],
             at_a_time: int) -> Iterator[Result]:
    """Results of the jobs as they finish; one at a time needs no other process."""
    if at_a_time == 1:
        yield from (run(*job) for job in jobs)
        return
    yield from in_processes(run, jobs, at_a_time)


def train_to_end(settings: Recipe, where: Path) -> float:
    """Train into a folder, or go on with what is there; returns :func:`seconds_learnt`.

    Raises:
        KeyboardInterrupt: a signal stopped the training; its checkpoint is there.
    """
    from kd_pose_training.training import run
    run.train_to_end(settings, where)
    return seconds_learnt(where, settings.trainer.batch_size)


def logged(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What a run has logged, in order: ``train`` while it learns, ``val`` on validation."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


def seconds_learnt(folder: Path, batch_size: int) -> float:
    """Seconds of a run's iterations by its log, however often it was stopped; what lies between
    them (starting, validation, files) is left out."""
    rows = logged(folder, "train")
    done = [0, *(row["iteration"] for row in rows)]
    return sum((after - before) * batch_size / row["samples_per_s"]
               for before, after, row in zip(done, done[1:], rows))


def last_validation(folder: Path) -> dict[str, float]:
    """The numbers of a run's last validation; none: empty."""
    rows = logged(folder, "val")
    return {key: value for key, value in rows[-1].items() if isinstance(value, float)} if rows \
        else {}
