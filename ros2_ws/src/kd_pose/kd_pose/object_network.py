"""What object networks have in common: crops in, 2D-3D pairs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kd_pose.manifest import ObjectManifest
from kd_pose.network import CropNetwork


@dataclass
class Correspondences:
    """What a network says of one object in one crop: image points of points of the object.

    score: 0..1. pixels: (P, 2) input px. points: (P, 3) metres, object frame. weights: (P,) above
    0. groups: (P,) integers, pairs of one group err alike and teach no more than one of them: the
    votes for one box corner, the pixels on one patch of the surface. of_corners: whether the
    groups are the box corners, numbered as `keypoints.BOX_CORNERS_8`.
    """

    class_index: int
    score: float
    pixels: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    of_corners: bool = False


class ObjectNetwork(CropNetwork):
    """A network that says of a crop where an object of a class is in it."""

    manifest: ObjectManifest

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Class names by index."""
        return tuple(spec.name for spec in self.manifest.objects)

    def correspondences(
        self,
        outputs: Sequence[np.ndarray],
        class_index: int,
        box_xyxy: np.ndarray,
        score_threshold: float | None = None,
    ) -> Correspondences | None:
        """What one crop's `outputs` say of the object of that class in the box (4,), input px.

        score_threshold: None = the manifest's. None where there is nothing.
        """
        raise NotImplementedError
