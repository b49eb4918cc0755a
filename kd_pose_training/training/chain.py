"""A chain of whole-body networks: the largest teaches the next, and so on down.

    FOLDER/<size>/plain     the first network, which nobody teaches
    FOLDER/<size>/stage1    a network that learnt from its teacher
    FOLDER/<size>/stage2    the same with a head that its own has taught

Each is a run like any other. What is finished is not done again; a run that was stopped goes on
from its checkpoint; a change of a recipe after its run was started is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kd_pose_training import strict
from kd_pose_training.engine.checkpoint import find_checkpoint
from kd_pose_training.engine.log import read_log
from kd_pose_training.recipe import load_recipe
from kd_pose_training.training.run import train_to_end
from kd_pose_training.training.wholebody import finished
from kd_pose_training.wholebody_config import SizeName, WholebodyTrainConfig

PLAIN, STAGE1, STAGE2 = "plain", "stage1", "stage2"


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True)
class Link:
    """One network. ``teacher``: size of an earlier link; empty: the one before. ``weights``: of
    the first link: a trained network (a run, or a file of MMPose) in its place, which is then not
    trained. ``set``: changes to all recipes of this link, as for ``train --set``."""

    size: SizeName
    teacher: str = ""
    weights: str = ""
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChainConfig:
    """The recipes and the order of a chain.

    ``plain``, ``stage1``, ``stage2``: recipes; size and teacher come from the links.
    ``taught_by``: whether a network teaches the next one with the head of stage 1 or of stage 2.
    ``set``: changes to all recipes.
    """

    plain: str
    stage1: str
    stage2: str
    links: tuple[Link, ...]
    taught_by: Literal["stage1", "stage2"] = "stage2"
    set: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = [link.size for link in self.links]
        _check(len(frozenset(sizes)) == len(sizes) >= 2, "links", sizes,
               "at least two sizes, each once")
        _check(not self.links[0].teacher, "links[0].teacher", self.links[0].teacher,
               "nothing: the first network has no teacher")
        for row, link in enumerate(self.links[1:], 1):
            _check(not link.weights, f"links[{row}].weights", link.weights,
                   "nothing: only the first network can be there already")
            _check(link.teacher in ("", *sizes[:row]), f"links[{row}].teacher", link.teacher,
                   f"one of {', '.join(sizes[:row])}, which stand before it")


@dataclass(frozen=True)
class Step:
    """One run of a chain. ``teacher``: the checkpoint that it learns from; empty: none.
    ``given``: no run of the chain makes that one."""

    name: str
    config: WholebodyTrainConfig
    teacher: str
    given: bool = False


def load_chain(path: str | Path, overrides: Sequence[str] = ()) -> ChainConfig:
    """Read a chain strictly; ``overrides`` are ``a.b=value`` texts."""
    return strict.load(ChainConfig, path, overrides)


def plan(chain: ChainConfig, folder: str | Path) -> list[Step]:
    """The runs of a chain in order; every recipe is read and checked.

    Raises:
        ConfigError: a recipe cannot be read, or is not one of whole bodies in the stage it
            stands for.
    """
    folder, steps = Path(folder), []
    teachers: dict[str, str] = {}
    before = ""
    for link in chain.links:
        if not before and link.weights:
            teachers[link.size] = link.weights
        elif not before:
            steps.append(_step(chain, link, PLAIN, ""))
            teachers[link.size] = str(folder / steps[-1].name / "last.pt")
        else:
            first = _step(chain, link, STAGE1, teachers[link.teacher or before])
            second = _step(chain, link, STAGE2, str(folder / first.name / "last.pt"))
            steps += [first, second]
            taught = first if chain.taught_by == STAGE1 else second
            teachers[link.size] = str(folder / taught.name / "last.pt")
        before = link.size
    return steps


def _step(chain: ChainConfig, link: Link, kind: str, teacher: str) -> Step:
    path = getattr(chain, kind)
    overrides = [*chain.set, *link.set, f"model.size={link.size}"]
    if teacher:
        overrides.append(f"distill.teacher={teacher}")
    config = load_recipe(path, overrides)
    if not isinstance(config, WholebodyTrainConfig):
        raise strict.ConfigError(f"{path}: is a recipe of {config.task}; a chain has wholebody")
    stage = config.distill.stage if config.distill else 0
    if stage != (PLAIN, STAGE1, STAGE2).index(kind):
        raise strict.ConfigError(
            f"{path}: is the recipe '{kind}' of a chain, so it should have "
            + ("no section distill" if kind == PLAIN else f"distill.stage {kind[-1]}"))
    given = bool(teacher) and teacher == chain.links[0].weights
    return Step(f"{link.size}/{kind}", config, teacher, given)


def step_finished(step: Step, folder: str | Path) -> bool:
    """Whether a run of a chain is done.

    Raises:
        ValueError: it is one of other settings or of another teacher; or it is to be done and its
            teacher, which no run of the chain makes, is not there.
    """
    if finished(Path(folder) / step.name, step.config):
        return True
    if step.given and not find_checkpoint(step.teacher).is_file():
        raise ValueError(f"links[0].weights is {step.teacher!r}, which does not exist; allowed: a "
                         "run's checkpoint or folder, or a file of MMPose")
    return False


def run_chain(chain: ChainConfig, folder: str | Path) -> list[Step]:
    """Train what is missing of a chain, in order; returns all of its runs.

    Raises:
        ValueError: a recipe does not fit, or a run of it was started with other settings.
        KeyboardInterrupt: a signal stopped it; the same call goes on.
    """
    folder, steps = Path(folder), plan(chain, folder)
    for number, step in enumerate(steps, 1):
        where = folder / step.name
        done = step_finished(step, folder)
        print(f"{number}/{len(steps)} {step.name}: "
              + ("finished" if done else f"learns from {step.teacher or 'the labels'}"),
              flush=True)
        if not done:
            train_to_end(step.config, where)
    return steps


def table(steps: Sequence[Step], folder: str | Path) -> str:
    """What the validations of the finished runs say, a line each."""
    lines = [f"{'run':20}{'keypoints':>12}{'error_px':>10}"]
    for step in steps:
        rows = [row for row in read_log(Path(folder) / step.name) if row["kind"] == "val"]
        numbers = ([f"{rows[-1]['keypoints']:12.3f}", f"{rows[-1]['error_px']:10.2f}"] if rows
                   else [f"{'-':>12}", f"{'-':>10}"])
        lines.append(f"{step.name:20}{''.join(numbers)}")
    return "\n".join(lines)
