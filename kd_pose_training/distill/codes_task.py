"""Training step of a dense network that learns from the truth and from a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_pose_training.config import CodesConfig
from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.data.teacher_cache import TeacherCache
from kd_pose_training.distill.align_codes import AlignCodes, code_errors
from kd_pose_training.distill.cached_teacher import cached_outputs
from kd_pose_training.distill.code_teacher import CodeTeacher, CodeTeacherOutputs, deep_levels
from kd_pose_training.distill.config import DistillConfig
from kd_pose_training.distill.features import FeatureMethod
from kd_pose_training.distill.naive_codes import NaiveCodes
from kd_pose_training.distill.watch import TeacherWatch
from kd_pose_training.models.codenet import CodeNet
from kd_pose_training.tasks.object_codes import CodeAnswers, CodesTask


class DistilledCodesTask(CodesTask):
    """:class:`CodesTask` with the terms of ``distill``; the teacher is asked once a batch.

    Args:
        network: the student.
        teacher: frozen; it answers at the student's output pixels.
        distill: which terms, their weights and the gates.
    """

    def __init__(self, network: CodeNet, codes: CodesConfig, teacher: CodeTeacher,
                 distill: DistillConfig) -> None:
        super().__init__(network, codes)
        self.teacher, self.distill = teacher, distill
        self.cache: TeacherCache | None = None
        self.watch = TeacherWatch(distill)
        self.align = AlignCodes(distill.align, distill.score_threshold) if distill.align else None
        self.naive = NaiveCodes(distill.naive) if distill.naive else None
        self.extras = None
        if distill.features:
            self.levels, theirs = paired_maps(network.strides, teacher.network.strides)
            deep = [teacher.network.channels[i] for i in deep_levels(teacher.network.strides)]
            channels = [(network.channels[a], deep[b]) for a, b in zip(self.levels, theirs)]
            self.extras = FeatureMethod(distill.features, channels, theirs)
        self.of_truth, self.of_teacher = dict(codes.weights), {}
        for item in (self.align, self.naive, self.extras):
            self.of_teacher.update(item.weights if item is not None else {})
        self.begin(0, 1)

    def begin(self, iteration: int, iterations: int) -> None:
        """Weights of an iteration (from 0) of a run."""
        self.weights = self.distill.weights(self.of_truth, self.of_teacher, iteration, iterations)

    def outputs(self, network: nn.Module,
                images: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        if self.extras is None or not self.training:
            return super().outputs(network, images)
        maps = network.maps(images)
        return *network.answers(maps), maps

    def more_terms(self, batch: CodeBatch, answers: CodeAnswers) -> dict[str, Tensor]:
        """The terms of the methods. ``teacher_used``: part of the crops that the teacher teaches;
        ``teacher_error``: its mean error there, see :func:`code_errors`; both for watching."""
        outputs = self.teacher_outputs(batch)
        terms: dict[str, Tensor] = {}
        if self.align is not None or self.naive is not None:
            error = code_errors(outputs.codes, answers)
            used = torch.isfinite(error)
            if self.distill.max_error > 0:
                used &= error <= self.distill.max_error
            if self.align is not None:
                terms.update(self.align.terms(batch, answers, outputs, used))
            if self.naive is not None:
                terms.update(self.naive.terms(batch, answers, outputs, used,
                                              self.network.bit_error))
            terms.update(_figures(error, used))
        if self.extras is not None:
            terms.update(self.extras.terms([answers.maps[level] for level in self.levels],
                                           outputs.maps))
        self.watch.hear(terms)
        return terms

    def remark(self, iterations: int) -> str:
        """See :meth:`TeacherWatch.remark`."""
        return self.watch.remark(iterations)

    def teacher_outputs(self, batch: CodeBatch) -> CodeTeacherOutputs:
        """The teacher's answer to a batch: from the cache if there is one."""
        if self.cache is not None:
            return cached_outputs(self.cache, batch, CodeTeacherOutputs)
        return self.teacher.answer(batch, self.extras is not None)


def _figures(error: Tensor, used: Tensor) -> dict[str, Tensor]:
    total = torch.where(used, error, 0.0).sum()
    return {"teacher_used": used.float().mean(),
            "teacher_error": total / used.sum().clamp(min=1)}


def paired_maps(mine: Sequence[int], theirs: Sequence[int]) -> tuple[list[int], list[int]]:
    """Maps of equal stride: their places among the student's, and among the deep ones of the
    teacher (:func:`deep_levels`)."""
    deep = [theirs[level] for level in deep_levels(theirs)]
    shared = [level for level in deep_levels(mine) if mine[level] in deep]
    return shared, [deep.index(mine[level]) for level in shared]
