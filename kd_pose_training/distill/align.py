"""Aligning the distribution of a student's votes with a teacher's (arXiv 2205.14971).

The set of an object are the cells that a network would answer with, of the teacher and of the
student alike: a pose is made of those. The published student's set is another, its positive cells,
which the truth chooses (``student: positives``). Symmetric objects: the teacher's votes are
brought to the symmetry member that the student's own loss has chosen, so that the two never pull
apart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.distill.config import AlignTerm
from kd_pose_training.distill.selection import TeacherVotes, change_branch, numpy_of
from kd_pose_training.losses.alignment import (
    AlignmentLoss,
    LocalPredictions,
    group_predictions,
)
from kd_pose_training.tasks.object_votes import Positives

# ``coordinates: frame`` of a crop: the crop of the published code comes from a LINEMOD frame of
# 640x480 pixels with focal lengths 572.4 and 573.6. Measured in focal lengths, which the crop
# knows of its camera, that frame means the same for any camera.
FRAME_IN_FOCAL_LENGTHS = (640 / 572.4, 480 / 573.6)


class AlignMethod:
    """The term ``align``: transport between the votes of both, object by object."""

    def __init__(self, config: AlignTerm) -> None:
        settings, weight = config.resolve(auto="unbalanced")
        self.config, self.loss = config, AlignmentLoss(settings)
        self.weights = {"align": weight}

    def terms(self, batch: VoteBatch, mine: Positives, member: Tensor,
              votes: TeacherVotes) -> dict[str, Tensor]:
        """``align`` of a batch.

        Args:
            mine: the student's cells and votes.
            member: (M,) symmetry member of every instance that the student learns.
            votes: the teacher's accepted votes.
        """
        count, like = len(batch.instance_image), mine.points
        points = bring_to_members(votes, batch, member)
        teacher = group_predictions(
            torch.as_tensor(points, dtype=like.dtype, device=like.device),
            torch.as_tensor(votes.scores, dtype=like.dtype, device=like.device),
            torch.as_tensor(votes.instance, device=like.device), count)
        student = group_predictions(like, mine.logits.float().sigmoid(), mine.instance, count)
        weights = (keypoint_trust(teacher, batch.size_px, self.config.trust)
                   if self.config.trust else None)
        return {"align": self.loss(student, teacher, size=batch.size_px,
                                   frame=frame_size(batch.K_crop)[batch.instance_image],
                                   keypoint_weights=weights)}


def keypoint_trust(teacher: LocalPredictions, size: Tensor, half: float) -> Tensor:
    """How far to trust each keypoint of a teacher: (G, K), 0..1.

    1 / (1 + (s / half)^2), where s is the spread of the votes for the keypoint (root mean square
    distance from their mean, weighted by score) in object sizes (G,). Ousalah et al., arXiv
    2503.13053, take the uncertainty from an ensemble of teachers; the votes of one are free.
    """
    weights = torch.where(teacher.valid, teacher.scores, 0.0).float()
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
    points = teacher.points.float()
    # Inside autocast the sums would round pixels to half precision, coarser than the spread.
    with torch.autocast(points.device.type, enabled=False):
        mean = torch.einsum("gn,gnkd->gkd", weights, points)
        square = torch.einsum("gn,gnk->gk", weights, (points - mean[:, None]).square().sum(-1))
    return 1 / (1 + square / (half * size.clamp(min=1.0)[:, None]) ** 2)


def bring_to_members(votes: TeacherVotes, batch: VoteBatch, member: Tensor) -> np.ndarray:
    """The teacher's points (P, K, 2) on the given symmetry member (M,) of every instance."""
    return on_members(votes.points, votes.instance, votes.member, numpy_of(member), batch)


def on_members(points: np.ndarray, instance: np.ndarray, have: np.ndarray, want: np.ndarray,
               batch: VoteBatch) -> np.ndarray:
    """Votes (P, K, 2) of instances (P,) from the members they are on (M,) to others (M,)."""
    points = points.copy()
    for row in np.intersect1d(np.flatnonzero(have != want), instance):
        mine = instance == row
        cam, px = (numpy_of(part[row]).astype(np.float64)
                   for part in (batch.points_cam, batch.points_px))
        old, new = have[row], want[row]
        points[mine] = change_branch(points[mine], cam[old], cam[new], px[old], px[new])
    return points


def frame_size(K: Tensor) -> Tensor:
    """(B, 2) size of the standard frame in crop pixels, from the crops' matrices (B, 3, 3)."""
    focal = K[:, :2, :2].norm(dim=-1)  # of rows: a crop may be turned
    return focal * focal.new_tensor(FRAME_IN_FOCAL_LENGTHS)
