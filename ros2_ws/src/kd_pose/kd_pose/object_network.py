"""What object networks have in common: a session that fits its manifest, crops in, pairs out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kd_pose.backends import open_session
from kd_pose.crop import crop_batch
from kd_pose.manifest import ModelFileError, ObjectManifest, read_manifest, require_task


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


class ObjectNetwork:
    """One .onnx file: `image` (B, 3, h, w) in, the arrays of `output_shapes` out.

    manifest, session: what it was built from. names: class names by index.
    A subclass says in `output_shapes` what its manifest promises.
    Raises ModelFileError if the file is missing, broken, for another task, or contradicts its own
    manifest; BackendError as `backends.open_session`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        task: str,
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "fp32",
        threads: int = 0,
    ) -> None:
        self.path = str(path)
        self.manifest: ObjectManifest = read_manifest(path)
        require_task(self.manifest, (task,), path)
        self.names = tuple(spec.name for spec in self.manifest.objects)
        self.session = open_session(path, backend, device, precision, threads)
        self._buffer: np.ndarray | None = None
        self._check_shapes()

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Outputs in the order of `run`, their shapes without the batch."""
        raise NotImplementedError

    def _check_shapes(self) -> None:
        width, height = self.manifest.input_size
        expected = {"image": (self.session.inputs, (-1, 3, height, width))}
        for name, shape in self.output_shapes().items():
            expected[name] = (self.session.outputs, (-1, *shape))
        for name, (ports, shape) in expected.items():
            if name not in ports:
                raise ModelFileError(f"{self.path}: no {name!r} among {', '.join(ports)}")
            found = ports[name]
            # -1 in the file is a size that it leaves open, e.g. the batch
            fits = len(found) == len(shape) and all(
                a == b or a == -1 for a, b in zip(found[1:], shape[1:])
            )
            if not fits:
                raise ModelFileError(
                    f"{self.path}: {name!r} has the shape {found}, its manifest says {shape}"
                )

    def swap_channels(self, channel_order: str) -> bool:
        """Whether an image of `channel_order` must be reversed for this network."""
        if channel_order not in ("bgr", "rgb"):
            raise ValueError(f"channel_order must be bgr or rgb, got {channel_order!r}")
        return channel_order != self.manifest.channel_order

    def prepare(
        self, image: np.ndarray, affines: Sequence[np.ndarray], channel_order: str
    ) -> np.ndarray:
        """Regions of an image, given by affines (2, 3) image -> input, as (B, 3, h, w) float32.

        The result is a buffer that the next call overwrites.
        """
        manifest = self.manifest
        width, height = manifest.input_size
        if self._buffer is None or len(self._buffer) < len(affines):
            self._buffer = np.empty((len(affines), 3, height, width), dtype=np.float32)
        return crop_batch(
            image,
            affines,
            manifest.input_size,
            manifest.mean,
            manifest.std,
            self.swap_channels(channel_order),
            out=self._buffer[: len(affines)],
        )

    def run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        """(B, 3, h, w) -> the arrays of `output_shapes`, a batch of each."""
        outputs = self.session.run({"image": batch})
        return tuple(outputs[name] for name in self.output_shapes())

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

    def warm_up(self, runs: int = 1, batch: int = 1) -> None:
        """Run on zeros, so that the first image does not pay for allocation and tuning."""
        width, height = self.manifest.input_size
        zeros = np.zeros((batch, 3, height, width), dtype=np.float32)
        for _ in range(runs):
            self.run(zeros)

    def close(self) -> None:
        self.session.close()
