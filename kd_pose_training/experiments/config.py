"""What an experiment compares: recipes, arms, seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kd_pose_training import strict


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True)
class Arm:
    """One way of training the student. ``label``: its name in tables. ``set``: changes to the
    student's recipe, as for ``train --set``; none: the student learns alone. ``question``: what
    comparing it tells."""

    label: str
    set: tuple[str, ...] = ()
    question: str = ""


@dataclass(frozen=True)
class ExperimentConfig:
    """A teacher, students that start alike, and arms that differ in one thing each.

    ``synth``: recipe of the set that is rendered into ``data``; ``meshes``: folder of the meshes,
    filled with this project's own objects where it is empty. ``student``: training recipe on
    that set. ``teacher``: recipes that follow each other, each from the weights of the one before.
    Every seed's students share ``start_iterations`` of learning alone (0: they start from random
    weights); each arm then has ``iterations`` of its own. ``variants``: fixed changes of every
    picture, for which the teacher is asked once. ``baseline``: the arm that the others are
    compared with. ``jobs``: trainings at a time.
    ``votes_of``: arms in the picture of the votes.
    """

    meshes: str
    synth: str
    data: str
    teacher: tuple[str, ...]
    student: str
    arms: dict[str, Arm]
    seeds: tuple[int, ...] = (0, 1, 2)
    start_iterations: int = 0
    iterations: int = 1000
    variants: int = 2
    baseline: str = "alone"
    votes_of: tuple[str, ...] = ()
    jobs: int = 1

    def __post_init__(self) -> None:
        _check(len(self.arms) > 0, "arms", self.arms, "at least one")
        _check(len(self.teacher) > 0, "teacher", self.teacher, "at least one recipe")
        _check(len(set(self.seeds)) == len(self.seeds) > 0, "seeds", self.seeds,
               "at least one, each once")
        for name in ("iterations", "variants", "jobs"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _check(self.start_iterations >= 0, "start_iterations", self.start_iterations, "0 or more")
        for name in (self.baseline, *self.votes_of):
            _check(name in self.arms, "baseline, votes_of", name, ", ".join(self.arms))
        for name in self.arms:
            _check(name.isidentifier() and name not in ("teacher", "start"), "arms", name,
                   "names that can be a folder: letters, digits, _; not 'teacher' or 'start'")


def load_experiment(path: str | Path, overrides: tuple[str, ...] = ()) -> ExperimentConfig:
    """Read an experiment's YAML; ``overrides`` are ``a.b=value`` texts."""
    return strict.load(ExperimentConfig, path, overrides)
