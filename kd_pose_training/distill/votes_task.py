"""Training step of a vote network that learns from the truth and from a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kd_pose.votes import VoteGrid
from kd_pose_training.config import LossConfig, TrainConfig
from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.data.teacher_cache import TeacherCache
from kd_pose_training.distill.align import AlignMethod
from kd_pose_training.distill.cached_teacher import cached_outputs
from kd_pose_training.distill.config import DistillConfig
from kd_pose_training.distill.features import FeatureMethod
from kd_pose_training.distill.naive import NaiveMethod
from kd_pose_training.distill.pseudo_poses import with_teacher_poses
from kd_pose_training.distill.selection import TeacherVotes, numpy_of, select_votes
from kd_pose_training.distill.teacher import Teacher, TeacherError, TeacherOutputs
from kd_pose_training.distill.watch import TeacherWatch
from kd_pose_training.models.votenet import VoteNet
from kd_pose_training.tasks.object_votes import Answers, Positives, VotesTask


class DistilledVotesTask(VotesTask):
    """:class:`VotesTask` with the terms of ``distill``; the teacher is asked once a batch.

    Args:
        network: the student.
        teacher: frozen; its grid is for the same images.
        distill: which terms, their weights and the gates.
        cells_per_instance: how many of the teacher's cells make an object, as at inference.

    Raises:
        TeacherError: a term pairs cells or maps, and the teacher lacks a level of the student.
    """

    def __init__(self, network: VoteNet, input_size: tuple[int, int], loss: LossConfig, task: str,
                 teacher: Teacher, distill: DistillConfig, cells_per_instance: int = 10) -> None:
        super().__init__(network, input_size, loss, task)
        self.teacher, self.distill = teacher, distill
        self.grid = network.grid(input_size)
        self.cells_per_instance = cells_per_instance
        self.cache: TeacherCache | None = None
        self.watch = TeacherWatch(distill)
        self.align = AlignMethod(distill.align) if distill.align else None
        self.naive = self.extras = None
        if distill.naive:
            cells = paired_cells(network.grid(input_size), teacher.grid)
            self.naive = NaiveMethod(distill.naive, torch.as_tensor(cells), self.centers,
                                     self.anchors)
        if distill.features:
            levels = paired_levels(network.strides, teacher.grid.strides)
            self.extras = FeatureMethod(distill.features,
                                        [(network.channels, teacher.network.channels)]
                                        * len(levels), levels)
        methods = [item for item in (self.align, self.naive, self.extras) if item is not None]
        self.of_truth, self.of_teacher = dict(loss.weights), {}
        for item in methods:
            self.of_teacher.update(item.weights)
        self.begin(0, 1)

    def begin(self, iteration: int, iterations: int) -> None:
        """Weights of an iteration (from 0) of a run."""
        self.weights = self.distill.weights(self.of_truth, self.of_teacher, iteration, iterations)

    def outputs(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        if self.extras is None or not self.training:
            return super().outputs(network, images)
        maps = network.maps(images)
        return *network.head(maps), maps

    def more_terms(self, batch: VoteBatch, answers: Answers) -> dict[str, Tensor]:
        """The terms of the methods. ``teacher_used``: part of the instances that the teacher
        teaches; ``teacher_relative``: mean distance of its accepted votes from the truth, object
        sizes; both for watching."""
        outputs = self.teacher_outputs(batch)
        terms: dict[str, Tensor] = {}
        if self.align is not None or self.naive is not None:
            batch, votes = with_teacher_poses(batch, self.select(outputs, batch))
            member = self._members(batch, answers)
            if self.align is not None:
                mine = (self._answered(batch, answers) if self.distill.align.student == "answers"
                        else answers.positives)
                terms.update(self.align.terms(batch, mine, member, votes))
            if self.naive is not None:
                terms.update(self.naive.terms(batch, answers, member, votes, outputs))
            terms.update(_figures(votes, answers.logits.device))
        if self.extras is not None:
            terms.update(self.extras.terms(answers.maps, outputs.maps))
        self.watch.hear(terms)
        return terms

    def remark(self, iterations: int) -> str:
        """See :meth:`TeacherWatch.remark`."""
        return self.watch.remark(iterations)

    def teacher_outputs(self, batch: VoteBatch) -> TeacherOutputs:
        """The teacher's answer to a batch: from the cache if there is one."""
        if self.cache is not None:
            return cached_outputs(self.cache, batch, TeacherOutputs)
        return self.teacher.outputs(batch.images, self.extras is not None)

    def select(self, outputs: TeacherOutputs, batch: VoteBatch) -> TeacherVotes:
        """The teacher's accepted votes for a batch."""
        return self._select(self.teacher.grid, outputs.scores, outputs.offsets, batch,
                            self.distill.max_error, self.distill.max_box_error)

    def _select(self, grid: VoteGrid, scores: Tensor, offsets: Tensor, batch: VoteBatch,
                max_error: float, max_box_error: float) -> TeacherVotes:
        return select_votes(
            grid, numpy_of(scores), numpy_of(offsets), numpy_of(batch.instance_image),
            numpy_of(batch.instance_class), numpy_of(batch.points_px), numpy_of(batch.size_px),
            score_threshold=self.distill.score_threshold,
            cells_per_instance=self.cells_per_instance, max_error=max_error,
            posed=numpy_of(batch.posed), max_box_error=max_box_error)

    def _answered(self, batch: VoteBatch, answers: Answers) -> Positives:
        """The student's cells as at inference; the positives of instances that it did not find."""
        found = self._select(self.grid, answers.logits.float().sigmoid(), answers.offsets.float(),
                             batch, 0.0, 0.0)
        device = answers.logits.device
        mine = answers.positives
        missed = ~torch.as_tensor(found.used, device=device)[mine.instance]
        instance = torch.cat([torch.as_tensor(found.instance, device=device),
                              mine.instance[missed]])
        cell = torch.cat([torch.as_tensor(found.cell, device=device), mine.cell[missed]])
        image, label = batch.instance_image[instance], batch.instance_class[instance]
        points = (self.centers[cell][:, None] + answers.offsets[image, cell, label].float()
                  * self.anchors[cell][:, None, None])
        return Positives(points, answers.logits[image, cell, label], instance,
                         torch.zeros_like(instance), image, cell)

    @torch.no_grad()
    def _members(self, batch: VoteBatch, answers: Answers) -> Tensor:
        """(M,) symmetry member that the student's loss chooses for every instance. Its choice is
        there already for instances with a pose; of the others the batch has the teacher's."""
        positives = answers.positives
        member = torch.zeros(len(batch.instance_image), dtype=torch.long,
                             device=positives.points.device)
        member[positives.instance] = positives.member
        rows = ~batch.posed[positives.instance]
        instance = positives.instance[rows]
        if len(instance):
            member[instance] = self.vote_loss(positives.points[rows], batch,
                                              positives.image[rows], instance,
                                              torch.ones_like(instance, dtype=torch.bool))[1]
        return member


def _figures(votes: TeacherVotes, device: torch.device) -> dict[str, Tensor]:
    used = float(votes.used.mean()) if len(votes.used) else 0.0
    error = float(votes.error[votes.used].mean()) if votes.used.any() else 0.0
    return {"teacher_used": torch.tensor(used, device=device),
            "teacher_relative": torch.tensor(error, device=device)}


def paired_levels(mine: Sequence[int], theirs: Sequence[int]) -> list[int]:
    """For each of the student's strides, the index of the teacher's level.

    Raises:
        TeacherError: the teacher has no such level.
    """
    missing = sorted(set(mine) - set(theirs))
    if missing:
        raise TeacherError(f"the student has levels of stride {missing}, which the teacher "
                           f"(strides {list(theirs)}) lacks; distill.naive and distill.features "
                           "pair levels")
    return [list(theirs).index(stride) for stride in mine]


def paired_cells(mine: VoteGrid, theirs: VoteGrid) -> np.ndarray:
    """(N,) the teacher's cell at the place and level of each of the student's.

    Raises:
        TeacherError: the teacher lacks a level, or its cells vote in another unit.
    """
    levels = paired_levels(mine.strides, theirs.strides)
    sizes = [rows * columns for rows, columns in theirs.level_shapes]
    first = np.concatenate([[0], np.cumsum(sizes)])
    cells = np.concatenate([np.arange(first[level], first[level + 1]) for level in levels])
    if mine.anchor_scale != theirs.anchor_scale:
        raise TeacherError(f"the student's model.anchor_scale is {mine.anchor_scale}, the "
                           f"teacher's {theirs.anchor_scale}; distill.naive needs equal ones")
    return cells


def build_distilled_task(network: nn.Module, teacher: Teacher,
                         config: TrainConfig) -> DistilledVotesTask:
    """The task of a configuration with a ``distill`` section."""
    return DistilledVotesTask(network, config.data.input_size, config.loss, config.task, teacher,
                              config.distill, config.data.cells_per_instance)
