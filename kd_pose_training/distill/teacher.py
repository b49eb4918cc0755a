"""The teacher: a finished network that cannot be trained, whatever is done to what holds it.

Its weights want no gradient, it is always in eval mode and it computes without a graph. It is
loaded strictly: anything that does not fit stops the run, since a wrong teacher teaches nonsense
quietly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_pose_training.config import TrainConfig, from_dict
from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.distill.frozen import Frozen
from kd_pose_training.engine.checkpoint import check_finite, load_checkpoint
from kd_pose_training.models import build_model
from kd_pose_training.models.exported_weights import EXPORTED, exported_state
from kd_pose_training.models.votenet import VoteNet

# Lengths of two models of one object may differ by this, in metres: rounding, not another mesh.
SAME_LENGTH = 1e-4


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher says to B images with N cells, in the student's C classes.

    scores: (B, N, C) 0..1. offsets: (B, N, C, K, 2) in anchor sizes. maps: pyramid maps
    (B, channels, rows, columns), one per stride; none where they were not asked for. All float32.
    """

    scores: Tensor
    offsets: Tensor
    maps: tuple[Tensor, ...] = ()


class TeacherError(ValueError):
    """A teacher that cannot teach this student; the message names the file."""


class Teacher(Frozen):
    """A frozen network that answers in the student's classes.

    Args:
        network: the teacher's network; it is frozen in place.
        classes: for each of the student's classes, the teacher's own.
        input_size: (width, height) of the student's images, pixels.
    """

    def __init__(self, network: VoteNet, classes: Sequence[int],
                 input_size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.grid = network.grid(input_size)
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.long), persistent=False)
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> scores (B, N, C) 0..1 and offsets (B, N, C, K, 2), float32."""
        outputs = self.outputs(images)
        return outputs.scores, outputs.offsets

    def answer(self, batch: VoteBatch, with_maps: bool = False) -> TeacherOutputs:
        """:meth:`outputs` for a batch."""
        return self.outputs(batch.images, with_maps)

    @torch.no_grad()
    def outputs(self, images: Tensor, with_maps: bool = False) -> TeacherOutputs:
        """The same, with the pyramid maps if they are wanted."""
        maps = self.network.maps(images) if with_maps else ()
        logits, offsets = self.network.head(maps) if with_maps else self.network(images)
        return TeacherOutputs(logits[..., self.classes].float().sigmoid(),
                              offsets[:, :, self.classes].float(),
                              tuple(level.float() for level in maps))


@dataclass(frozen=True)
class OpenedTeacher:
    """A checkpoint, or what was exported of one, that fits a student: network with its averaged
    weights, for each of the student's classes the teacher's own, and all that it holds."""

    network: nn.Module
    classes: list[int]
    state: dict[str, Any]


def load_teacher(path: str | Path, student: TrainConfig,
                 objects: Sequence[Mapping[str, Any]] = ()) -> Teacher:
    """The averaged network of a checkpoint, or that of an exported vote network, for a student
    with its objects filled in.

    Args:
        student: the run of the student; ``data.objects`` names its classes.
        objects: the student's object specs as plain data; compared where given.

    Raises:
        TeacherError: another task, number of keypoints, normalisation, an object that the teacher
            does not know or knows with another box, or weights that do not fit.
        CheckpointError: missing, damaged or no checkpoint, or weights that are not finite.
        ValueError: an exported file that cannot be read back.
    """
    opened = open_teacher(path, student, objects)
    return Teacher(opened.network, opened.classes, student.data.input_size)


def open_teacher(path: str | Path, student: TrainConfig,
                 objects: Sequence[Mapping[str, Any]] = ()) -> OpenedTeacher:
    """What teachers of all object networks have in common; see :func:`load_teacher`."""
    exported = Path(path).suffix == EXPORTED
    state = exported_state(path) if exported else load_checkpoint(path)
    try:
        config = from_dict(state["config"], str(path))
        network = build_model(config.model)
        average = state.get("average")
        network.load_state_dict(average["network"] if average else state["network"], strict=True)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TeacherError(f"{path}: holds no usable teacher: {error}") from error
    check_finite(network.state_dict(), path)
    _check_same(path, config, student)
    classes = _classes(path, config.data.objects, student.data.objects)
    known = list(state.get("objects", ()))
    for name, spec in zip(student.data.objects, objects):
        _check_object(path, name, known[config.data.objects.index(name)], spec)
    return OpenedTeacher(network, classes, state)


def _check_same(path: str | Path, teacher: TrainConfig, student: TrainConfig) -> None:
    for name, theirs, mine in (
            ("task", teacher.task, student.task),
            ("model.num_keypoints", teacher.model.num_keypoints, student.model.num_keypoints),
            ("model.code_bits", teacher.model.code_bits, student.model.code_bits),
            ("data.mean", teacher.data.mean, student.data.mean),
            ("data.std", teacher.data.std, student.data.std)):
        if theirs != mine:
            raise TeacherError(f"{path}: the teacher has {name} {theirs}, the student {mine}; "
                               "they must be equal")


def _classes(path: str | Path, theirs: Sequence[str], mine: Sequence[str]) -> list[int]:
    missing = [name for name in mine if name not in theirs]
    if missing or not mine:
        raise TeacherError(f"{path}: the teacher does not know {', '.join(missing) or 'a class'}; "
                           f"it knows {', '.join(theirs)}")
    return [list(theirs).index(name) for name in mine]


def _check_object(path: str | Path, name: str, theirs: Mapping[str, Any],
                  mine: Mapping[str, Any]) -> None:
    """Corners and diameter must mean the same."""
    for key in ("diameter", "box_min", "box_max"):
        pair = [torch.as_tensor(spec[key], dtype=torch.float64).reshape(-1)
                for spec in (theirs, mine)]
        if (pair[0] - pair[1]).abs().max() > SAME_LENGTH:
            raise TeacherError(f"{path}: the teacher learnt {name} with {key} {theirs[key]}, the "
                               f"student's data have {mine[key]} (metres)")
