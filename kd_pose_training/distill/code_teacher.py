"""The teacher of a dense network: frozen, of the same codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_pose.codes import code_table_from_text
from kd_pose_training.config import TrainConfig
from kd_pose_training.distill.frozen import Frozen
from kd_pose_training.distill.teacher import SAME_LENGTH, TeacherError, open_teacher
from kd_pose_training.models.codenet import CodeNet


class CodeTeacher(Frozen):
    """A frozen dense network that answers in the student's classes.

    Args:
        network: the teacher's network; it is frozen in place.
        classes: for each of the student's classes, the teacher's own.
    """

    def __init__(self, network: CodeNet, classes: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.long), persistent=False)
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (B, 3, H, W) around objects of the student's classes (B,) -> probabilities:
        masks (B, h, w) and codes (B, bits, h, w), float32."""
        masks, codes = self.network(images)
        rows, label = torch.arange(len(label), device=label.device), self.classes[label]
        return masks[rows, label].float().sigmoid(), codes[rows, label].float().sigmoid()


def load_code_teacher(path: str | Path, student: TrainConfig,
                      objects: Sequence[Mapping[str, Any]],
                      code_tables: Sequence[str]) -> CodeTeacher:
    """The averaged network of a checkpoint, for a student with its objects filled in.

    Args:
        student, objects: see :func:`kd_pose_training.distill.teacher.load_teacher`.
        code_tables: what the codes of each of the student's classes mean.

    Raises:
        TeacherError: as there; also another number of bits, or an object whose codes mean other
            places. CheckpointError: missing, damaged or no checkpoint.
    """
    opened = open_teacher(path, student, objects)
    known = list(opened.state.get("code_tables", ()))
    for name, number, text in zip(student.data.objects, opened.classes, code_tables):
        if number >= len(known) or not same_codes(known[number], text):
            raise TeacherError(
                f"{path}: the codes of {name} mean other places on it than the student's; both "
                "must be trained on the same mesh with the same codes.surface_samples")
    return CodeTeacher(opened.network, opened.classes)


def same_codes(text: str, other: str) -> bool:
    """Whether two code tables put every code at the same place."""
    if text == other:
        return True
    a, b = (code_table_from_text(item).points for item in (text, other))
    return a.shape == b.shape and bool(np.abs(a - b).max() <= SAME_LENGTH)
