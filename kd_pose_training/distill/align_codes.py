"""Aligning the distribution of a student's surface codes with a teacher's (arXiv 2205.14971).

The local predictions of a dense network are its pixels: a point in the space of code vectors,
with the mask's probability as its mass. Pixels are averaged over the cells of a coarse grid first,
since transport between all of them would be too much. That much the paper says; its numbers for
dense networks are not public. These choices are ours:

* Bit k counts sqrt(2^-(k+1)), scaled so that a code and its complement are 1 apart. A region of
  level k has 2^-k of the surface and so about 2^(-k/2) of its length: distances in code space are
  like distances on the object, in object sizes, and blur and reach mean the same as for votes.
* The student's cells are those where the true mask covers ``score_threshold`` of the cell (as the
  truth chooses the positive cells of a vote network), the teacher's those where its own does.
* The mask's probabilities weigh the pixels of a cell, but learn nothing by it: only through the
  masses.
* An object that the teacher has wrong is left out: its share of wrong bits, weighted as above, is
  above ``max_error``. So a teacher that took another symmetry member teaches nothing there.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.distill.code_teacher import CodeTeacherOutputs
from kd_pose_training.distill.config import AlignTerm
from kd_pose_training.losses.alignment import AlignmentLoss, LocalPredictions
from kd_pose_training.tasks.object_codes import CodeAnswers


def bit_shares(bits: int, device: torch.device | None = None) -> Tensor:
    """(bits,) what each bit adds to a squared distance in code space; they sum to 1."""
    shares = 0.5 ** torch.arange(1, bits + 1, dtype=torch.float64)
    return (shares / shares.sum()).to(device=device, dtype=torch.float32)


def pool_codes(masks: Tensor, codes: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Average pixels over the cells of a grid, weighted by the mask.

    Args:
        masks: (B, h, w), 0..1. codes: (B, bits, h, w), 0..1. grid: cells a side.

    Returns:
        Masses (B, grid²), mean of the mask in each cell, and points (B, grid², bits) in code
        space; 0 where a cell has no mass. Points have no gradient by the masks.
    """
    mass = F.adaptive_avg_pool2d(masks, grid).flatten(1)
    weights = masks.detach()[:, None]
    total = F.adaptive_avg_pool2d(weights, grid)
    mean = F.adaptive_avg_pool2d(codes * weights, grid) / total.clamp(min=1e-6)
    scale = bit_shares(codes.shape[1], codes.device).sqrt()
    return mass, mean.flatten(2).transpose(1, 2) * scale


def code_errors(codes: Tensor, answers: CodeAnswers) -> Tensor:
    """Weighted share (B,) of wrong bits of a teacher's codes (B, bits, h, w), probabilities.

    The expected squared distance from the truth in code space; infinite where no pixel of the
    object has a known code.
    """
    wrong = ((codes > 0.5) != answers.bits) & answers.coded[:, None]
    pixels = answers.coded.sum((1, 2))
    share = wrong.sum((2, 3)) / pixels.clamp(min=1)[:, None]
    # Not a matrix product: autocast would round it to half precision.
    error = (share * bit_shares(codes.shape[1], codes.device)).sum(1)
    return torch.where(pixels > 0, error, torch.inf)


class AlignCodes:
    """The term ``align``: transport between the pooled pixels of both, crop by crop."""

    def __init__(self, config: AlignTerm, score_threshold: float) -> None:
        self.config, self.score_threshold = config, score_threshold
        settings, weight = config.resolve(auto="balanced")
        self.loss = AlignmentLoss(dataclasses.replace(settings, coordinates="none",
                                                      points="joint"))
        self.weights = {"align": weight}

    def terms(self, batch: CodeBatch, answers: CodeAnswers, outputs: CodeTeacherOutputs,
              used: Tensor) -> dict[str, Tensor]:
        """``align`` of a batch, of the crops (B,) that the teacher teaches."""
        visible = batch.mask.float()
        teacher = self._set(outputs.masks, outputs.codes, outputs.masks, used)
        student = self._set(answers.masks.float().sigmoid() * visible,
                            answers.codes.float().sigmoid(), visible, used)
        return {"align": self.loss(student, teacher)}

    def _set(self, masks: Tensor, codes: Tensor, chooser: Tensor,
             used: Tensor) -> LocalPredictions:
        """Pooled pixels; cells count where ``chooser`` (B, h, w) covers enough of them."""
        grid = self.config.grid
        mass, points = pool_codes(masks, codes, grid)
        share = F.adaptive_avg_pool2d(chooser, grid).flatten(1)
        valid = (share >= max(self.score_threshold, 1e-6)) & used[:, None]
        return LocalPredictions(points[:, :, None], mass, valid)
