"""What every network that looks at crops has in common: a session that fits its manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from kd_pose.backends import open_session
from kd_pose.crop import GREY, crop_batch
from kd_pose.manifest import ModelFileError, NetworkManifest, read_manifest, require_task


class CropNetwork:
    """One .onnx file: crops (B, 3, h, w) in, the arrays of `output_shapes` out.

    manifest, session: what it was built from. A subclass says in `output_shapes` what its manifest
    promises. A file whose batch is fixed at 1 is run crop by crop.
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
        self.manifest: NetworkManifest = read_manifest(path)
        require_task(self.manifest, (task,), path)
        self.session = open_session(path, backend, device, precision, threads)
        self._buffer: np.ndarray | None = None
        self._check_shapes()
        self._one_by_one = self.session.inputs[self.input_name][0] == 1

    @property
    def input_name(self) -> str:
        """Name of the crops in the file."""
        return "image"

    @property
    def border_value(self) -> float:
        """What fills the part of a crop that lies outside of the image, 0..255."""
        return GREY

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Outputs in the order of `run`, their shapes without the batch."""
        raise NotImplementedError

    def _check_shapes(self) -> None:
        """What the file says of its sizes; -1 are those that it leaves open, e.g. the batch."""
        width, height = self.manifest.input_size
        inputs, outputs = self.session.inputs, self.session.outputs
        self._check_port(self.input_name, inputs, (3, height, width))
        for name, shape in self.output_shapes().items():
            self._check_port(name, outputs, shape)
        if inputs[self.input_name][0] not in (-1, 1):
            raise ModelFileError(
                f"{self.path}: {self.input_name!r} wants {inputs[self.input_name][0]} crops at "
                "once; the batch must be free or 1"
            )

    def _check_port(self, name: str, ports: dict[str, tuple[int, ...]],
                    shape: tuple[int, ...]) -> None:
        if name not in ports:
            raise ModelFileError(f"{self.path}: no {name!r} among {', '.join(ports)}")
        found = ports[name]
        if len(found) != len(shape) + 1 or any(a not in (-1, b)
                                               for a, b in zip(found[1:], shape)):
            raise ModelFileError(
                f"{self.path}: {name!r} has the shape {found}, its manifest says {(-1, *shape)}"
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
            border_value=self.border_value,
        )

    def run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        """(B, 3, h, w) -> the arrays of `output_shapes`, a batch of each.

        Raises ModelFileError for answers of another shape: a file whose sizes are open tells them
        only when it runs.
        """
        if self._one_by_one and len(batch) > 1:
            answers = [self._run(crop[None]) for crop in batch]
            return tuple(np.concatenate(rows) for rows in zip(*answers))
        return self._run(batch)

    def _run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = self.session.run({self.input_name: batch})
        for name, shape in self.output_shapes().items():
            if outputs[name].shape != (len(batch), *shape):
                raise ModelFileError(
                    f"{self.path}: {name!r} answers {outputs[name].shape} to {len(batch)} crops, "
                    f"its manifest says {(len(batch), *shape)}"
                )
        return tuple(outputs[name] for name in self.output_shapes())

    def warm_up(self, runs: int = 1, batch: int = 1) -> None:
        """Run on zeros, so that the first image does not pay for allocation and tuning."""
        width, height = self.manifest.input_size
        zeros = np.zeros((batch, 3, height, width), dtype=np.float32)
        for _ in range(runs):
            self.run(zeros)

    def close(self) -> None:
        self.session.close()
