"""The teacher of a dense network: frozen, of the same codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_pose.codes import code_table_from_text
from kd_pose_training.config import TrainConfig
from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.distill.frozen import Frozen
from kd_pose_training.distill.teacher import SAME_LENGTH, TeacherError, open_teacher
from kd_pose_training.models.codenet import CodeNet

# Maps finer than this are not imitated: relations of all their places with all others would not
# fit into memory. Every size has maps of this stride.
MAP_STRIDE = 8


@dataclass(frozen=True)
class CodeTeacherOutputs:
    """What a teacher says of the objects of B crops, at the student's output pixels.

    masks: (B, h, w) and codes: (B, bits, h, w), 0..1. maps: the backbone's of MAP_STRIDE and
    coarser (B, channels, rows, columns); none where they were not asked for. All float32.
    """

    masks: Tensor
    codes: Tensor
    maps: tuple[Tensor, ...] = ()


class CodeTeacher(Frozen):
    """A frozen dense network that answers in the student's classes, at the student's pixels.

    Args:
        network: the teacher's network; it is frozen in place.
        classes: for each of the student's classes, the teacher's own.
        coarser: output pixels of the teacher along one of the student's.
    """

    def __init__(self, network: CodeNet, classes: Sequence[int], coarser: int = 1) -> None:
        super().__init__()
        self.network, self.coarser = network, coarser
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.long), persistent=False)
        self.freeze()

    def forward(self, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (B, 3, H, W) around objects of the student's classes (B,) -> probabilities:
        masks (B, h, w) and codes (B, bits, h, w), float32."""
        outputs = self.outputs(images, label)
        return outputs.masks, outputs.codes

    def answer(self, batch: CodeBatch, with_maps: bool = False) -> CodeTeacherOutputs:
        """:meth:`outputs` for a batch."""
        return self.outputs(batch.images, batch.label, with_maps)

    @torch.no_grad()
    def outputs(self, images: Tensor, label: Tensor,
                with_maps: bool = False) -> CodeTeacherOutputs:
        """The same, with the backbone's maps if they are wanted."""
        deep: list[Tensor] = []
        if with_maps:
            maps = self.network.maps(images)
            masks, codes = self.network.answers(maps)
            deep = [maps[level].float() for level in deep_levels(self.network.strides)]
        else:
            masks, codes = self.network(images)
        rows, label = torch.arange(len(label), device=label.device), self.classes[label]
        masks, codes = (part[rows, label].float().sigmoid() for part in (masks, codes))
        if self.coarser > 1:
            masks, codes = coarsened(masks, codes, self.coarser)
        return CodeTeacherOutputs(masks, codes, tuple(deep))


def deep_levels(strides: Sequence[int]) -> list[int]:
    """Which of the maps of these strides are imitated."""
    return [level for level, stride in enumerate(strides) if stride >= MAP_STRIDE]


def coarsened(masks: Tensor, codes: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Answers (B, h, w) and (B, bits, h, w), 0..1, averaged over squares of ``factor`` pixels;
    codes by the mask's weight, so that the background beside an edge does not blur them."""
    weights = masks[:, None].clamp(min=1e-6)
    mean = F.avg_pool2d(codes * weights, factor) / F.avg_pool2d(weights, factor)
    return F.avg_pool2d(masks, factor), mean


def load_code_teacher(path: str | Path, student: TrainConfig,
                      objects: Sequence[Mapping[str, Any]],
                      code_tables: Sequence[str]) -> CodeTeacher:
    """The averaged network of a checkpoint, for a student with its objects filled in.

    Args:
        student, objects: see :func:`kd_pose_training.distill.teacher.load_teacher`.
        code_tables: what the codes of each of the student's classes mean.

    Raises:
        TeacherError: as there; also another number of bits, an object whose codes mean other
            places, or an output coarser than the student's. CheckpointError: missing, damaged or
            no checkpoint.
    """
    opened = open_teacher(path, student, objects)
    mine, theirs = student.model.strides[0], opened.network.strides[0]
    if mine % theirs:
        raise TeacherError(f"{path}: the teacher answers every {theirs} pixels, the student "
                           f"every {mine}; a teacher's output must be at least as fine")
    known = list(opened.state.get("code_tables", ()))
    for name, number, text in zip(student.data.objects, opened.classes, code_tables):
        if number >= len(known) or not same_codes(known[number], text):
            raise TeacherError(
                f"{path}: the codes of {name} mean other places on it than the student's; both "
                "must be trained on the same mesh with the same codes.surface_samples")
    return CodeTeacher(opened.network, opened.classes, mine // theirs)


def same_codes(text: str, other: str) -> bool:
    """Whether two code tables put every code at the same place."""
    if text == other:
        return True
    a, b = (code_table_from_text(item).points for item in (text, other))
    return a.shape == b.shape and bool(np.abs(a - b).max() <= SAME_LENGTH)
