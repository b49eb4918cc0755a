"""Training step of a student that aligns its votes with a teacher's, beside learning the truth.

The student's set of an object are its positive cells, which the truth chooses; the teacher's are
the cells that it would answer with. Symmetric objects: the teacher's votes are brought to the
symmetry member that the student's own loss has chosen, so that the two never pull apart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from kd_pose_training.config import LossConfig
from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.distill.config import DistillConfig
from kd_pose_training.distill.selection import TeacherVotes, change_branch, select_votes
from kd_pose_training.distill.teacher import Teacher
from kd_pose_training.losses.alignment import (
    AlignmentLoss,
    LocalPredictions,
    group_predictions,
)
from kd_pose_training.models.votenet import VoteNet
from kd_pose_training.tasks.object_votes import Positives, VotesTask

# ``coordinates: frame`` of a crop: the crop of the published code comes from a LINEMOD frame of
# 640x480 pixels with focal lengths 572.4 and 573.6. Measured in focal lengths, which the crop
# knows of its camera, that frame means the same for any camera.
FRAME_IN_FOCAL_LENGTHS = (640 / 572.4, 480 / 573.6)


class AlignedVotesTask(VotesTask):
    """:class:`VotesTask` with the further term ``align``.

    Args:
        network: the student.
        teacher: frozen; its grid is for the same images.
        distill: weight, settings and gates.
        cells_per_instance: how many of the teacher's cells make an object, as at inference.
    """

    def __init__(self, network: VoteNet, input_size: tuple[int, int], loss: LossConfig, task: str,
                 teacher: Teacher, distill: DistillConfig, cells_per_instance: int = 10) -> None:
        super().__init__(network, input_size, loss, task)
        self.teacher, self.distill = teacher, distill
        self.cells_per_instance = cells_per_instance
        self.align = AlignmentLoss(distill.settings)
        self.weights = {**loss.weights, "align": distill.weight}

    def more_terms(self, batch: VoteBatch, positives: Positives) -> dict[str, Tensor]:
        """``align``: the loss. ``teacher_used``: part of the instances that the teacher teaches;
        ``teacher_relative``: mean distance of its accepted votes from the truth, object sizes."""
        count = len(batch.instance_image)
        member = torch.zeros(count, dtype=torch.long, device=positives.points.device)
        member[positives.instance] = positives.member
        votes = self.teacher_votes(batch)
        points = bring_to_members(votes, batch, member)
        teacher = self._teacher_sets(votes, points, count, positives.points)
        student = group_predictions(positives.points, positives.logits.float().sigmoid(),
                                    positives.instance, count)
        loss = self.align(student, teacher, size=batch.size_px,
                          frame=frame_size(batch.K_crop)[batch.instance_image])
        used = torch.tensor(float(votes.used.mean() if count else 0.0), device=loss.device)
        error = torch.tensor(float(votes.error[votes.used].mean() if votes.used.any() else 0.0),
                             device=loss.device)
        return {"align": loss, "teacher_used": used, "teacher_relative": error}

    def teacher_votes(self, batch: VoteBatch) -> TeacherVotes:
        """The teacher's accepted votes for a batch."""
        scores, offsets = self.teacher(batch.images)
        return select_votes(
            self.teacher.grid, _numpy(scores), _numpy(offsets), _numpy(batch.instance_image),
            _numpy(batch.instance_class), _numpy(batch.points_px), _numpy(batch.size_px),
            score_threshold=self.distill.score_threshold,
            cells_per_instance=self.cells_per_instance, max_error=self.distill.max_error)

    @staticmethod
    def _teacher_sets(votes: TeacherVotes, points: np.ndarray, count: int,
                      like: Tensor) -> LocalPredictions:
        return group_predictions(
            torch.as_tensor(points, dtype=like.dtype, device=like.device),
            torch.as_tensor(votes.scores, dtype=like.dtype, device=like.device),
            torch.as_tensor(votes.instance, device=like.device), count)


def bring_to_members(votes: TeacherVotes, batch: VoteBatch, member: Tensor) -> np.ndarray:
    """The teacher's points (P, K, 2) on the given symmetry member (M,) of every instance."""
    points, wanted = votes.points.copy(), _numpy(member)
    for row in np.flatnonzero(votes.used & (votes.member != wanted)):
        mine = votes.instance == row
        old, new = votes.member[row], wanted[row]
        cam, px = (_numpy(part[row]).astype(np.float64)
                   for part in (batch.points_cam, batch.points_px))
        points[mine] = change_branch(points[mine], cam[old], cam[new], px[old], px[new])
    return points


def frame_size(K: Tensor) -> Tensor:
    """(B, 2) size of the standard frame in crop pixels, from the crops' matrices (B, 3, 3)."""
    focal = K[:, :2, :2].norm(dim=-1)  # of rows: a crop may be turned
    return focal * focal.new_tensor(FRAME_IN_FOCAL_LENGTHS)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def build_aligned_task(network: nn.Module, teacher: Teacher, config) -> AlignedVotesTask:
    """The task of a :class:`kd_pose_training.config.TrainConfig` with a ``distill`` section."""
    return AlignedVotesTask(network, config.data.input_size, config.loss, config.task, teacher,
                            config.distill, config.data.cells_per_instance)
