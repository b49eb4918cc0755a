"""A dense network ready to run: session, manifest and code tables belong together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from kd_pose.codes import CodeTable, decode
from kd_pose.manifest import DenseManifest
from kd_pose.object_network import Correspondences, ObjectNetwork


class DenseNetwork(ObjectNetwork):
    """One .onnx file of the dense family ("object_codes").

    One network serves all its classes: each has its own mask and code channels, and the class of
    the box that a crop was cut around says which of them are read.
    """

    manifest: DenseManifest

    @cached_property
    def tables(self) -> list[CodeTable]:
        """What the codes of each class mean."""
        return self.manifest.tables()

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        width, height = (size // self.manifest.stride for size in self.manifest.input_size)
        c = len(self.names)
        return {"masks": (c, height, width), "codes": (c, self.tables[0].bits, height, width)}

    def correspondences(
        self,
        outputs: Sequence[np.ndarray],
        class_index: int,
        box_xyxy: np.ndarray,
        score_threshold: float | None = None,
    ) -> Correspondences | None:
        """Surface points of the pixels on the object. The network is taught to mask the object in
        the middle of its crop and no neighbour, so the box itself is not needed."""
        manifest = self.manifest
        masks, codes = outputs
        pairs = decode(
            self.tables[class_index],
            masks[class_index],
            codes[class_index],
            stride=manifest.stride,
            mask_threshold=manifest.score_threshold if score_threshold is None
            else score_threshold,
            max_pairs=manifest.max_pairs,
        )
        if len(pairs.weights) == 0:
            return None
        # As for votes: between the mean and the maximum of what the pairs say.
        score = float(np.average(pairs.weights, weights=pairs.weights))
        return Correspondences(
            class_index, score, pairs.pixels, pairs.points, pairs.weights, pairs.patches
        )
