"""A vote network ready to run: session, manifest and cells belong together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from kd_pose.boxes import decode_boxes, iou
from kd_pose.crop import letterbox_affine
from kd_pose.geometry import box_corners
from kd_pose.manifest import Manifest
from kd_pose.object_network import Correspondences, ObjectNetwork
from kd_pose.results import Detection2D
from kd_pose.votes import VoteGrid, VoteInstance, decode

# The group of votes taken for a box must overlap it at least this much, else it is another object.
MIN_GROUP_OVERLAP = 0.1


class VoteNetwork(ObjectNetwork):
    """One .onnx file of the vote family, for "object_votes" or "object_detector"."""

    manifest: Manifest

    @cached_property
    def grid(self) -> VoteGrid:
        """Its cells."""
        manifest = self.manifest
        return VoteGrid(manifest.input_size, manifest.strides, manifest.anchor_scale)

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        n, c, k = self.grid.num_cells, len(self.names), self.manifest.num_keypoints
        return {"scores": (n, c), "offsets": (n, c, k, 2)}

    def decode(
        self,
        scores: np.ndarray,
        offsets: np.ndarray,
        *,
        score_threshold: float | None = None,
        max_instances: int = 20,
        classes: Sequence[int] | None = None,
    ) -> list[VoteInstance]:
        """One input's outputs (N, C), (N, C, K, 2) -> instances; see `votes.decode`."""
        manifest = self.manifest
        return decode(
            self.grid,
            scores,
            offsets,
            score_threshold=manifest.score_threshold if score_threshold is None
            else score_threshold,
            cells_per_instance=manifest.cells_per_instance,
            max_instances=max_instances,
            classes=classes,
        )

    def detect(
        self,
        image: np.ndarray,
        channel_order: str = "bgr",
        *,
        score_threshold: float | None = None,
        max_instances: int = 20,
        classes: Sequence[int] | None = None,
    ) -> list[Detection2D]:
        """Boxes of a whole image uint8 (H, W, 3), best first; for "object_detector"."""
        M = letterbox_affine(image.shape[1::-1], self.manifest.input_size)
        scores, offsets = self.run(self.prepare(image, [M], channel_order))
        instances = self.decode(scores[0], offsets[0], score_threshold=score_threshold,
                                max_instances=max_instances, classes=classes)
        return decode_boxes(instances, M, self.names)

    def correspondences(
        self,
        outputs: Sequence[np.ndarray],
        class_index: int,
        box_xyxy: np.ndarray,
        score_threshold: float | None = None,
    ) -> Correspondences | None:
        """The votes for the object that the box is about: a crop may show its neighbour too."""
        instances = self.decode(*outputs, score_threshold=score_threshold, classes=[class_index])
        if not instances:
            return None
        overlaps = iou(box_xyxy, np.array([instance.box_xyxy for instance in instances]))
        best = int(np.argmax(overlaps))
        if overlaps[best] < MIN_GROUP_OVERLAP:
            return None
        group, spec = instances[best], self.manifest.objects[class_index]
        cells, count = group.points.shape[:2]
        return Correspondences(
            class_index,
            group.score,
            pixels=group.points.reshape(-1, 2),
            points=np.tile(box_corners(spec.box_min, spec.box_max), (cells, 1)),
            weights=np.repeat(group.weights, count),
            groups=np.tile(np.arange(count), cells),
            of_corners=True,
        )
