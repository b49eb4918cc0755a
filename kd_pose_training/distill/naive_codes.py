"""Copying a dense teacher pixel by pixel: the baseline that alignment is measured against."""

from __future__ import annotations

from torch import Tensor

from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.distill.code_teacher import CodeTeacherOutputs
from kd_pose_training.distill.config import NaiveTerm
from kd_pose_training.losses.codes import bit_weights
from kd_pose_training.losses.naive_codes import code_divergence, mask_difference
from kd_pose_training.tasks.object_codes import CodeAnswers


class NaiveCodes:
    """The terms ``naive_votes``, a pixel's code bits, and ``naive_scores``, its mask.

    Only crops that passed the gate count: codes where the object is visible, the mask everywhere.
    """

    def __init__(self, config: NaiveTerm) -> None:
        self.weights = {"naive_votes": config.vote_weight, "naive_scores": config.score_weight}

    def terms(self, batch: CodeBatch, answers: CodeAnswers, outputs: CodeTeacherOutputs,
              used: Tensor, bit_error: Tensor) -> dict[str, Tensor]:
        """Both terms of a batch.

        Args:
            used: (B,) bool, crops that the teacher teaches.
            bit_error: (bits,) running error by which the truth's own loss weighs the bits.
        """
        return {"naive_votes": code_divergence(answers.codes, outputs.codes,
                                               batch.mask & used[:, None, None],
                                               bit_weights(bit_error)),
                "naive_scores": mask_difference(answers.masks, outputs.masks, used)}
