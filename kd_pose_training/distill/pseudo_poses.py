"""The teacher's poses in place of those that nobody has labelled.

Where ``data.pose_share`` hides a pose, the true points of the batch must not be looked at. What
symmetry handling needs of them (which member each network is on) comes from the pose that the
teacher's votes give, found as at inference.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from kd_pose.geometry import transform_points
from kd_pose.pnp import solve_pnp
from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.distill.selection import TeacherVotes, numpy_of

MAX_ERROR = 0.05  # of an inlier vote, object sizes
MIN_INLIERS = 0.5  # of the votes


def with_teacher_poses(batch: VoteBatch, votes: TeacherVotes) -> tuple[VoteBatch, TeacherVotes]:
    """Batch and votes in which every used instance has points to go by.

    Instances without a pose get ``points_cam`` and ``points_px`` of the teacher's pose, all
    symmetry members alike; the teacher is then on member 0. Those whose votes give no pose are
    used no more.
    """
    rows = np.flatnonzero(votes.used & ~numpy_of(batch.posed))
    if not len(rows):
        return batch, votes
    batch = dataclasses.replace(batch, points_cam=batch.points_cam.clone(),
                                points_px=batch.points_px.clone())
    used, member = votes.used.copy(), votes.member.copy()
    for row in rows:
        mine = votes.instance == row
        # Any pose of the object will do as its shape: what is solved for is the way from there.
        shape = numpy_of(batch.points_cam[row]).astype(np.float64)
        K = numpy_of(batch.K_crop[batch.instance_image[row]]).astype(np.float64)
        posed = _posed(shape, votes.points[mine], votes.scores[mine], K,
                       float(batch.size_px[row]))
        used[row], member[row] = posed is not None, 0
        if posed is not None:
            pixels = posed @ K.T
            batch.points_cam[row] = torch.from_numpy(posed)
            batch.points_px[row] = torch.from_numpy(pixels[..., :2] / pixels[..., 2:])
    kept = used[votes.instance]
    return batch, dataclasses.replace(votes, points=votes.points[kept], scores=votes.scores[kept],
                                      instance=votes.instance[kept], cell=votes.cell[kept],
                                      used=used, member=member)


def _posed(shape: np.ndarray, points: np.ndarray, scores: np.ndarray, K: np.ndarray,
           size: float) -> np.ndarray | None:
    """All members (S, K, 3), metres, of a shape at the pose of votes (n, K, 2), or None."""
    middle = shape[0].mean(0)
    # A crop's matrix may turn; PnP is asked in a picture that does not.
    focal = np.sqrt(abs(np.linalg.det(K[:2, :2])))
    rays = (points - K[:2, 2]) @ np.linalg.inv(K[:2, :2]).T
    found = solve_pnp(np.tile(shape[0] - middle, (len(points), 1)), focal * rays.reshape(-1, 2),
                      np.diag([focal, focal, 1.0]), weights=np.repeat(scores, points.shape[1]),
                      max_error_px=MAX_ERROR * max(size, 1.0),
                      min_inliers=max(6, int(MIN_INLIERS * points[..., 0].size)))
    if found is None:
        return None
    posed = transform_points(found.T_cam_obj, shape - middle)
    return posed if (posed[..., 2] > 0).all() else None
