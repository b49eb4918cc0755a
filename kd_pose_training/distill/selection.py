"""Which of the teacher's votes a student learns from, and on which symmetry branch.

As at inference: the runtime's own decoding groups the teacher's cells and keeps those that suit
the object's size. Each found object goes to the true one it fits best, and only if it is near
enough to the truth. Works in numpy on the CPU: a few objects an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kd_pose.votes import VoteGrid, VoteInstance, decode


@dataclass(frozen=True)
class TeacherVotes:
    """The accepted votes of a batch with M true instances and K points.

    points: (P, K, 2) float64, input pixels. scores: (P,). instance: (P,) int64 true instance.
    cell: (P,) int64, which cell of the instance's image voted.
    member: (M,) int64 symmetry member that the teacher is nearest to. error: (M,) its mean
    distance from that member in object sizes, inf where nothing was found. used: (M,) bool.
    """

    points: np.ndarray
    scores: np.ndarray
    instance: np.ndarray
    cell: np.ndarray
    member: np.ndarray
    error: np.ndarray
    used: np.ndarray


def select_votes(grid: VoteGrid, scores: np.ndarray, offsets: np.ndarray,
                 instance_image: np.ndarray, instance_class: np.ndarray, points_px: np.ndarray,
                 size_px: np.ndarray, *, score_threshold: float = 0.3,
                 cells_per_instance: int = 10, max_error: float = 0.1,
                 posed: np.ndarray | None = None, max_box_error: float = 0.1) -> TeacherVotes:
    """Teacher outputs of a batch -> votes per true instance.

    An instance without a pose has an ``error`` of the boxes of the votes and of its points, and
    member 0.

    Args:
        grid: the teacher's cells. scores: (B, N, C). offsets: (B, N, C, K, 2).
        instance_image, instance_class: (M,). points_px: (M, S, K, 2) true points of every
            symmetry member, input pixels. size_px: (M,) size of each object, pixels.
        max_error: largest accepted error in object sizes, 0 = any.
        posed: (M,) bool, instances whose pose is known; None: all. max_box_error: of the others.
    """
    count = len(instance_image)
    posed = np.ones(count, bool) if posed is None else posed
    member = np.zeros(count, dtype=np.int64)
    error, chosen = np.full(count, np.inf), [None] * count
    for image in np.unique(instance_image):
        rows = np.flatnonzero(instance_image == image)
        found = decode(grid, scores[image], offsets[image], score_threshold=score_threshold,
                       cells_per_instance=cells_per_instance,
                       classes=np.unique(instance_class[rows]))
        for row, other, members, errors in _assign(found, rows, instance_class, points_px,
                                                   np.maximum(size_px, 1.0), posed):
            member[row], error[row], chosen[row] = members, errors, found[other]
    limit = np.where(posed, max_error, max_box_error)
    used = np.isfinite(error) & ((error <= limit) | (limit == 0))
    kept = [(row, chosen[row]) for row in np.flatnonzero(used)]
    keypoints = points_px.shape[2]
    return TeacherVotes(
        np.concatenate([votes.points for _, votes in kept] or [np.empty((0, keypoints, 2))]),
        np.concatenate([votes.weights for _, votes in kept] or [np.empty(0)]),
        np.concatenate([np.full(len(votes.cells), row) for row, votes in kept]
                       or [np.empty(0, np.int64)]).astype(np.int64),
        np.concatenate([votes.cells for _, votes in kept]
                       or [np.empty(0, np.int64)]).astype(np.int64),
        member, error, used)


def _assign(found: list[VoteInstance], rows: np.ndarray, classes: np.ndarray,
            points_px: np.ndarray, size_px: np.ndarray, posed: np.ndarray):
    """(row, found, member, error) of true and found objects, nearest first, each once."""
    pairs = []
    for other, votes in enumerate(found):
        mean = np.average(votes.points, axis=0, weights=votes.weights)
        for row in rows[classes[rows] == votes.class_index]:
            truth, answer = points_px[row], mean
            if not posed[row]:
                truth, answer = box_of(truth[:1]), box_of(mean)
            distance = np.linalg.norm(truth - answer, axis=-1).mean(-1) / size_px[row]
            best = int(distance.argmin())
            pairs.append((float(distance[best]), int(row), other, best))
    taken_rows, taken = set(), set()
    for error, row, other, best in sorted(pairs):
        if row not in taken_rows and other not in taken and np.isfinite(error):
            taken_rows.add(row), taken.add(other)
            yield row, other, best, error


def box_of(points: np.ndarray) -> np.ndarray:
    """(..., 2, 2) lower and upper corner of the box of points (..., K, 2)."""
    return np.stack([points.min(-2), points.max(-2)], -2)


def change_branch(points: np.ndarray, from_cam: np.ndarray, to_cam: np.ndarray,
                  from_px: np.ndarray, to_px: np.ndarray) -> np.ndarray:
    """Votes for the box corners of one symmetry member -> votes for those of another.

    What counts of a vote is how far it is off the truth, as a function of the place on the object:
    it is interpolated (trilinearly over the box) at the places where the other member has its
    corners. Exact where a symmetry maps corners onto corners, and to first order for any error
    that a wrong pose makes.

    Args:
        points: (n, 8, 2) votes, input pixels, for the corners ``from_px`` (8, 2).
        from_cam, to_cam: (8, 3) corners of both members, metres, camera frame. to_px: (8, 2).
    """
    return to_px + box_weights(from_cam, to_cam) @ (points - from_px)


def box_weights(box: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Trilinear weights (q, 8) of a box's corners (8, 3) at places (q, 3); rows sum to 1."""
    axes = box[[1, 2, 4]] - box[0]
    parts = (places - box[0]) @ axes.T / np.maximum((axes**2).sum(1), 1e-18)
    bits = (np.arange(8)[:, None] >> np.arange(3)) & 1
    return np.where(bits, parts[:, None], 1 - parts[:, None]).prod(-1)


def numpy_of(tensor: Tensor) -> np.ndarray:
    """A tensor's values on the CPU."""
    return tensor.detach().cpu().numpy()
