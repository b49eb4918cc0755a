"""Prediction-to-prediction distillation of votes: each cell copies the teacher's same cell.

The baseline "Naive-KD" of arXiv 2205.14971, whose norm is not public; here the distance of the
two votes in object sizes, and the squared difference of the scores.
"""

from __future__ import annotations

from torch import Tensor


def vote_distance(student: Tensor, teacher: Tensor, size: Tensor) -> Tensor:
    """Mean distance of paired votes in object sizes, a scalar; 0 with a graph without any.

    Args:
        student, teacher: (P, K, 2) points of the same cells, pixels. Gradients reach the student.
        size: (P,) size of each cell's object, pixels.
    """
    student = student.float()
    square = (student - teacher.detach().to(student.dtype)).square().sum(-1)
    # The root's slope is infinite at 0: below a thousandth of a pixel the distance is square.
    distance = (square + 1e-6).sqrt() - 1e-3
    relative = distance.mean(-1) / size.clamp(min=1.0)
    return relative.sum() / max(len(relative), 1)


def score_difference(student_logits: Tensor, teacher_scores: Tensor, objects: int) -> Tensor:
    """Sum over cells and classes of the squared difference of the scores, per object.

    Args:
        student_logits, teacher_scores: (..., C) of the same cells. objects: their number, for the
            mean; 0 counts as 1.
    """
    difference = student_logits.float().sigmoid() - teacher_scores.detach().float()
    return difference.square().sum() / max(objects, 1)
