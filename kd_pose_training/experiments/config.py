"""What an experiment compares: recipes, arms, seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kd_pose_training import strict

T = TypeVar("T", bound="Experiment")
START = "start"  # folder of what all students of a seed share


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True)
class Arm:
    """One way of training the student. ``label``: its name in tables. ``set``: changes to the
    student's recipe, as for ``train --set``; none: the student learns alone. ``teacher``: false
    lets it learn alone in spite of changes. ``question``: what comparing it tells."""

    label: str
    set: tuple[str, ...] = ()
    teacher: bool = True
    question: str = ""

    @property
    def taught(self) -> bool:
        """Whether the student has a teacher."""
        return bool(self.set) and self.teacher


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A teacher and students that differ in one thing each.

    ``synth``: recipe of the set that is rendered into ``data``. ``student``: training recipe on
    that set. ``teacher``: recipes that follow each other, each from the weights of the one before.
    Every seed's students share ``start_iterations`` of learning alone (0: they start from random
    weights); each arm then has ``iterations`` of its own. ``baseline``: the arm that the others
    are compared with. ``jobs``: trainings at a time.
    """

    synth: str
    data: str
    teacher: tuple[str, ...]
    student: str
    arms: Mapping[str, Arm]
    seeds: tuple[int, ...] = (0, 1, 2)
    start_iterations: int = 0
    iterations: int = 1000
    baseline: str = "alone"
    jobs: int = 1

    def __post_init__(self) -> None:
        _check(len(self.arms) > 0, "arms", self.arms, "at least one")
        _check(len(self.teacher) > 0, "teacher", self.teacher, "at least one recipe")
        _check(len(set(self.seeds)) == len(self.seeds) > 0, "seeds", self.seeds,
               "at least one, each once")
        for name in ("iterations", "jobs"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _check(self.start_iterations >= 0, "start_iterations", self.start_iterations, "0 or more")
        self._check_arms("baseline", self.baseline)
        for name in self.arms:
            _check(name.isidentifier() and name not in ("teacher", START), "arms", name,
                   "names that can be a folder: letters, digits, _; not 'teacher' or 'start'")

    def _check_arms(self, key: str, *names: str) -> None:
        for name in names:
            _check(name in self.arms, key, name, ", ".join(self.arms))

    @property
    def labels(self) -> dict[str, str]:
        """Names of the arms in tables."""
        return {name: arm.label for name, arm in self.arms.items()}


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(Experiment):
    """Objects.

    ``meshes``: folder of the meshes, filled with this project's own objects where it is empty.
    ``variants``: fixed changes of every picture, for which the teacher is asked once.
    ``votes_of``: arms in the picture of the votes.
    """

    meshes: str
    arms: dict[str, Arm]
    variants: int = 2
    votes_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.variants >= 1, "variants", self.variants, "1 or more")
        self._check_arms("votes_of", *self.votes_of)


@dataclass(frozen=True)
class PeopleArm(Arm):
    """``after``: second stage; the arm whose network teaches a fresh head on its own backbone.
    ``iterations``: of this arm; 0: those of the experiment."""

    after: str = ""
    iterations: int = 0

    def __post_init__(self) -> None:
        _check(self.iterations >= 0, "iterations", self.iterations, "0 (as all) or more")


@dataclass(frozen=True, kw_only=True)
class PeopleExperiment(Experiment):
    """Whole-body keypoints: both stages of distillation.

    ``shown``: arms in the picture of people. ``one_start``: the start is that of the first seed
    for all of them, as published students share a trained backbone; seeds then differ in the
    order and changes of the data and in what is fresh (adapters, heads of stage 2).
    """

    arms: dict[str, PeopleArm]
    shown: tuple[str, ...] = ()
    one_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_arms("shown", *self.shown)
        first = [name for name, arm in self.arms.items() if not arm.after]
        for name, arm in self.arms.items():
            if arm.after:
                _check(arm.after in first, f"arms.{name}.after", arm.after,
                       f"an arm that is no second stage itself: {', '.join(first)}")

    def start_seed(self, seed: int) -> int:
        """Whose start a seed's students share."""
        return self.seeds[0] if self.one_start else seed


def load_experiment(path: str | Path, overrides: tuple[str, ...] = (),
                    kind: type[T] = ExperimentConfig) -> T:
    """Read an experiment's YAML; ``overrides`` are ``a.b=value`` texts."""
    return strict.load(kind, path, overrides)
