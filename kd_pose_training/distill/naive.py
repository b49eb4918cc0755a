"""Copying a teacher cell by cell: the baseline that alignment is measured against."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_pose.votes import IGNORE
from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.distill.align import on_members
from kd_pose_training.distill.config import NaiveTerm
from kd_pose_training.distill.selection import TeacherVotes, numpy_of
from kd_pose_training.distill.teacher import TeacherOutputs
from kd_pose_training.losses.naive_votes import score_difference, vote_distance
from kd_pose_training.tasks.object_votes import Answers


class NaiveMethod:
    """The terms ``naive_votes`` and ``naive_scores``.

    Votes are copied at the student's positive cells of the objects that passed the gate, on the
    student's symmetry member; scores at every cell that the truth does not ignore.

    Args:
        cells: (N,) the teacher's cell for each of the student's.
        centers (N, 2), anchors (N,): of the student's cells, pixels.
    """

    def __init__(self, config: NaiveTerm, cells: Tensor, centers: Tensor, anchors: Tensor) -> None:
        self.cells, self.centers, self.anchors = cells, centers, anchors
        self.weights = {"naive_votes": config.vote_weight, "naive_scores": config.score_weight}

    def terms(self, batch: VoteBatch, answers: Answers, member: Tensor, votes: TeacherVotes,
              outputs: TeacherOutputs) -> dict[str, Tensor]:
        """Both terms of a batch; see :meth:`AlignMethod.terms` for the arguments."""
        positives = answers.positives
        device = positives.points.device
        used = torch.as_tensor(votes.used, device=device)
        keep = used[positives.instance]
        image, cell, row = (part[keep] for part in (positives.image, positives.cell,
                                                    positives.instance))
        cells, centers, anchors = (part.to(device) for part in (self.cells, self.centers,
                                                                self.anchors))
        offsets = outputs.offsets[image, cells[cell], batch.instance_class[row]]
        theirs = centers[cell][:, None] + offsets * anchors[cell][:, None, None]
        brought = on_members(numpy_of(theirs), numpy_of(row), votes.member, numpy_of(member),
                             batch)
        theirs = torch.as_tensor(brought, dtype=theirs.dtype, device=device)
        counted = batch.cell_class != IGNORE
        return {
            "naive_votes": vote_distance(positives.points[keep], theirs, batch.size_px[row]),
            "naive_scores": score_difference(answers.logits[counted],
                                             outputs.scores[:, cells][counted],
                                             len(batch.instance_image))}
