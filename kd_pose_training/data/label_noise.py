"""Labels as people leave them: fixed errors on the poses of training pictures.

Rendered poses are exact; poses that somebody has fitted by hand, or that a marker gave, are not.
With this a rendered set stands in for such labels, so that ways of learning can be compared by how
they bear them. Every instance keeps its error for good, as a wrong label does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kd_pose.geometry import rotation_from_vector
from kd_pose_training.config import LabelNoise
from kd_pose_training.data.bop import BopDataset

_STREAM = 0x1ABE1  # apart from the seeds of pictures and samples


def disturb_labels(datasets: Sequence[BopDataset], noise: LabelNoise) -> None:
    """Change the poses of all instances in place, the same way every time.

    Raises:
        ValueError: a set has no poses.
    """
    for dataset in datasets:
        if not isinstance(dataset, BopDataset):
            raise ValueError("data.label_noise: needs sets of objects with poses (BOP layout)")
        for frame in dataset.frames:
            for instance in frame.instances:
                rng = np.random.default_rng((_STREAM, frame.scene_id, frame.im_id, instance.row))
                instance.T_cam_obj = disturbed(
                    instance.T_cam_obj, dataset.models[instance.obj_id].diameter, noise, rng)


def disturbed(T_cam_obj: np.ndarray, diameter: float, noise: LabelNoise,
              rng: np.random.Generator) -> np.ndarray:
    """A pose (4, 4), metres, with an error drawn from ``noise``."""
    turn, shift = rng.normal(size=3), diameter * rng.normal(size=3)
    sight = T_cam_obj[:3, 3] / np.linalg.norm(T_cam_obj[:3, 3])
    along = (shift @ sight) * sight
    result = T_cam_obj.copy()
    # Three independent parts of 1/sqrt(3) each: the angle's mean square is that of rotation_deg.
    R = rotation_from_vector(turn * math.radians(noise.rotation_deg) / math.sqrt(3))
    result[:3, :3] = R @ T_cam_obj[:3, :3]
    result[:3, 3] += noise.across * (shift - along) + noise.depth * along
    return result
