"""Training samples of the dense networks from BOP folders.

A sample is one zoomed crop around one object, cut, turned, covered and coloured exactly as for
the vote networks; its targets are the visible mask of that object and the surface codes that
show there. Other objects in the crop are background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from kd_pose.crop import crop_intrinsics, normalise
from kd_pose_training.config import TrainConfig
from kd_pose_training.data.canonical import crop_roll
from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.data.code_targets import SurfaceCodes
from kd_pose_training.data.object_dataset import ObjectVoteDataset


class ObjectCodeDataset(ObjectVoteDataset):
    """Samples of BOP splits for ``object_codes``; items are asked for as ``(index, seed)``.

    Args:
        datasets, config, train, load_vertices, progress: as of the vote networks' data set.
        surfaces: mesh and codes of every class, in the order of the classes.

    Raises:
        ValueError: as there.
    """

    def __init__(self, datasets: Sequence[Any], config: TrainConfig,
                 surfaces: Sequence[SurfaceCodes], train: bool, *,
                 load_vertices: Callable[[Any], np.ndarray] | None = None,
                 progress: bool = True) -> None:
        super().__init__(datasets, config, None, train, load_vertices=load_vertices,
                         progress=progress)
        names = [item.spec.name for item in self.classes]
        given = [surface.spec.name for surface in surfaces]
        if names != given:
            raise ValueError(f"codes are of {', '.join(given)}, the classes are "
                             f"{', '.join(names)}")
        self.surfaces = list(surfaces)

    def _encode(self, frame: Any, labels: np.ndarray, instance: int, M: np.ndarray,
                crop: np.ndarray, shown: np.ndarray, rng: np.random.Generator) -> CodeBatch:
        data, label = self.config.data, int(labels[instance])
        stride = self.config.model.strides[0]
        mask = cell_mask(shown == instance, stride)
        codes = self.surfaces[label].render(frame.instances[instance].T_cam_obj,
                                            crop_intrinsics(frame.K, M), mask, stride,
                                            crop_roll(M))
        return CodeBatch(
            images=torch.from_numpy(normalise(crop, data.mean, data.std, True))[None],
            label=torch.tensor([label]), mask=torch.from_numpy(mask)[None],
            codes=torch.from_numpy(codes)[None], sample=torch.tensor([-1]))


def cell_mask(mask: np.ndarray, stride: int) -> np.ndarray:
    """(H, W) bool at the input's resolution -> (H/s, W/s): at least half of the s² pixels."""
    height, width = mask.shape
    blocks = mask.reshape(height // stride, stride, width // stride, stride)
    return 2 * blocks.sum(axis=(1, 3)) >= stride**2
