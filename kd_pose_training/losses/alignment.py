"""Alignment of a student's local predictions with a teacher's by optimal transport.

Guo, Hu, Alvarez, Salzmann, "Knowledge Distillation for 6D Pose Estimation by Aligning
Distributions of Local Predictions", CVPR 2023 (arXiv 2205.14971): the local predictions of an
object are a weighted set, their scores are the masses, and the loss is the cost of carrying the
student's set into the teacher's. No prediction of one has a fixed partner in the other, so both
may have any number of them, from any level or cell.

For group g (an object of a class in an image), keypoint k, student points x with masses a and
teacher points y with masses b:

    loss = mean over g of sum (or mean) over k of S(sum_i a_i delta(x_ik), sum_j b_j delta(y_jk))

with the Sinkhorn divergence S of :mod:`kd_pose_training.losses.transport`. Groups in which one
side found nothing do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd_pose_training.losses.alignment_config import AlignmentConfig
from kd_pose_training.losses.precision import set_diameter, widened
from kd_pose_training.losses.transport import TransportSettings, transport_cost


@dataclass(frozen=True)
class LocalPredictions:
    """G padded sets of local predictions.

    points: (G, n, K, D), K keypoints of D numbers each (a code vector is one keypoint), any unit.
    scores: (G, n), 0..1. valid: (G, n) bool, which of them are predictions and not padding.
    """

    points: Tensor
    scores: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.points.shape)
        for name in ("scores", "valid"):
            found = tuple(getattr(self, name).shape)
            if len(shape) != 4 or found != shape[:2]:
                raise ValueError(f"points must be (G, n, K, D) and {name} (G, n), got {shape} "
                                 f"and {found}")


def group_predictions(points: Tensor, scores: Tensor, group: Tensor,
                      num_groups: int) -> LocalPredictions:
    """Predictions in any order into padded sets; differentiable.

    Args:
        points: (P, K, D). scores: (P,). group: (P,) int64 set of each, below ``num_groups``.
    """
    order = torch.argsort(group, stable=True)
    counts = torch.bincount(group, minlength=num_groups)
    first = counts.cumsum(0) - counts
    row = group[order]
    place = torch.arange(len(row), device=row.device) - first[row]
    longest = int(counts.max()) if len(row) else 0
    shape = (num_groups, longest)
    return LocalPredictions(
        points.new_zeros(*shape, *points.shape[1:]).index_put((row, place), points[order]),
        scores.new_zeros(shape).index_put((row, place), scores[order]),
        torch.arange(longest, device=row.device) < counts[:, None])


def alignment_values(student: LocalPredictions, teacher: LocalPredictions,
                     config: AlignmentConfig, *, size: Tensor | None = None,
                     frame: Tensor | None = None, keypoint_weights: Tensor | None = None
                     ) -> tuple[Tensor, Tensor]:
    """Cost of every group, in float32 or better.

    Args:
        student, teacher: the same G groups, K keypoints and D numbers; n may differ. Gradients
            reach the student alone.
        size: (G,) size of each object, unit of the points; for ``coordinates: object``.
        frame: (D,) or (G, D) size of the frame along each axis; for ``coordinates: frame``.
        keypoint_weights: (G, K) factor of each keypoint's cost; 1 for all where left out.

    Returns:
        (G,) values, 0 where a side is empty, and (G,) bool: the groups in which none is.

    Raises:
        ValueError: shapes that do not fit, or the size that the coordinates need is missing.
    """
    shapes = tuple(student.points.shape), tuple(teacher.points.shape)
    if shapes[0][0] != shapes[1][0] or shapes[0][2:] != shapes[1][2:]:
        raise ValueError("student and teacher must have the same groups, keypoints and "
                         f"dimensions, got points {shapes[0]} and {shapes[1]}")
    scale = _scale(config, shapes[0], size, frame)
    x, y = (_scaled(side.points, scale) for side in (student, teacher))
    a = _masses(student, config, config.min_score)
    b = _masses(teacher, config, 0.0).detach()
    if config.detach_student_masses:
        a = a.detach()
    values = _transport(x, a, y.detach(), b, config)
    if keypoint_weights is not None:
        values = values * _checked_weights(keypoint_weights, values)
    values = values.sum(1) if config.keypoints == "sum" else values.mean(1)
    return values, student.valid.any(1) & teacher.valid.any(1)


def _checked_weights(weights: Tensor, values: Tensor) -> Tensor:
    if weights.shape != values.shape:
        raise ValueError(f"keypoint_weights must be {tuple(values.shape)}, got "
                         f"{tuple(weights.shape)}")
    return weights.detach().to(values.dtype)


def _scale(config: AlignmentConfig, shape: tuple, size: Tensor | None,
           frame: Tensor | None) -> Tensor | None:
    """What the points are divided by, broadcastable to (G, n, K, D)."""
    if config.coordinates == "none":
        return None
    name, value = ("size", size) if config.coordinates == "object" else ("frame", frame)
    if value is None:
        raise ValueError(f"coordinates are {config.coordinates!r}, which needs {name}")
    groups, dims = shape[0], shape[3]
    allowed = [(groups,)] if name == "size" else [(dims,), (groups, dims)]
    if tuple(value.shape) not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(str, allowed))}, "
                         f"got {tuple(value.shape)}")
    value = value.detach().clamp(min=1e-6)
    return value[:, None, None, None] if name == "size" else value.reshape(-1, 1, 1, dims)


def _scaled(points: Tensor, scale: Tensor | None) -> Tensor:
    points = widened(points)
    return points if scale is None else points / scale.to(points.dtype)


def _masses(side: LocalPredictions, config: AlignmentConfig, floor: float) -> Tensor:
    """(G, n): 0 for padding."""
    scores = widened(side.scores)
    if config.masses == "uniform":
        scores = torch.ones_like(scores)
    elif floor > 0:
        scores = scores.clamp(floor, 1 - floor)
    masses = torch.where(side.valid, scores, 0.0)
    if config.normalise_masses or config.masses == "uniform":
        tiny = torch.finfo(masses.dtype).tiny
        masses = masses / masses.sum(1, keepdim=True).clamp(min=tiny)
    return masses


def _transport(x: Tensor, a: Tensor, y: Tensor, b: Tensor, config: AlignmentConfig) -> Tensor:
    """(G, K) costs, or (G, 1) of joint points."""
    groups, _, keypoints, dims = x.shape
    if config.points == "joint":
        x, y = (points.flatten(2)[:, :, None] for points in (x, y))
        keypoints, dims = 1, keypoints * dims
    # All keypoints of a group start their annealing at one diameter, as in the released code.
    diameter = set_diameter(
        *(part for points, mass in ((x, a), (y, b)) for part in (
            points.flatten(1, 2), (mass > 0).repeat_interleave(keypoints, 1))))
    x, y = (points.transpose(1, 2).reshape(groups * keypoints, points.shape[1], dims)
            for points in (x, y))
    a, b = (mass.repeat_interleave(keypoints, 0) for mass in (a, b))
    settings = TransportSettings(blur=config.blur, reach=config.reach, scaling=config.scaling,
                                 debias=config.debias, exact=config.exact, knee=config.knee)
    values = transport_cost(x, a, y, b, settings, diameter=diameter.repeat_interleave(keypoints),
                            position_weight=config.position_weight,
                            mass_weight=config.mass_weight)
    return values.reshape(groups, keypoints)


class AlignmentLoss(nn.Module):
    """Mean of :func:`alignment_values` over the groups that count; 0 with a graph without any."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, student: LocalPredictions, teacher: LocalPredictions, *,
                size: Tensor | None = None, frame: Tensor | None = None,
                keypoint_weights: Tensor | None = None) -> Tensor:
        values, counted = alignment_values(student, teacher, self.config, size=size, frame=frame,
                                           keypoint_weights=keypoint_weights)
        return values.sum() / counted.sum().clamp(min=1)
