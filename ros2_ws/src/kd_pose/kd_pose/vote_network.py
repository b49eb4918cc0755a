"""A vote network ready to run: session, manifest and cells belong together."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from kd_pose.backends import open_session
from kd_pose.crop import crop_batch
from kd_pose.manifest import ModelFileError, read_manifest, require_task
from kd_pose.votes import VoteGrid, VoteInstance, decode


class VoteNetwork:
    """One .onnx file of the vote family.

    manifest, grid, session: what it was built from. names: class names by index.
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
        self.manifest = read_manifest(path)
        require_task(self.manifest, (task,), path)
        manifest = self.manifest
        self.names = tuple(spec.name for spec in manifest.objects)
        self.grid = VoteGrid(manifest.input_size, manifest.strides, manifest.anchor_scale)
        self.session = open_session(path, backend, device, precision, threads)
        self._buffer: np.ndarray | None = None
        self._check_shapes()

    def _check_shapes(self) -> None:
        manifest = self.manifest
        width, height = manifest.input_size
        n, c, k = self.grid.num_cells, len(manifest.objects), manifest.num_keypoints
        expected = {
            "image": (self.session.inputs, (-1, 3, height, width)),
            "scores": (self.session.outputs, (-1, n, c)),
            "offsets": (self.session.outputs, (-1, n, c, k, 2)),
        }
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

    def run(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, h, w) -> scores (B, N, C), offsets (B, N, C, K, 2)."""
        outputs = self.session.run({"image": batch})
        return outputs["scores"], outputs["offsets"]

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

    def warm_up(self, runs: int = 1, batch: int = 1) -> None:
        """Run on zeros, so that the first image does not pay for allocation and tuning."""
        width, height = self.manifest.input_size
        zeros = np.zeros((batch, 3, height, width), dtype=np.float32)
        for _ in range(runs):
            self.run(zeros)

    def close(self) -> None:
        self.session.close()
