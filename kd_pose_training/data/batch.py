"""A training batch of the vote networks: images, cell targets and ragged instances as tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch", bound="TensorFields")


class TensorFields:
    """Moves every field of a dataclass of tensors at once."""

    def to(self: Batch, device: torch.device | str) -> Batch:
        """The batch on a device."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self: Batch) -> Batch:
        """The batch in page-locked memory, for quick copies to a GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
        return type(self)(**{field.name: function(getattr(self, field.name))
                             for field in dataclasses.fields(self)})


@dataclass
class VoteBatch(TensorFields):
    """B images with N cells each and M instances in all, of S symmetry members and K points.

    images: (B, 3, H, W) float32, normalised. cell_class: (B, N) int64, class, BACKGROUND or
    IGNORE. cell_instance: (B, N) int64, row of the instance arrays, -1 where not a positive.
    instance_image, instance_class: (M,) int64. points_cam: (M, S, K, 3) metres, camera frame, one
    set per symmetry member (short ones repeat the first); the detector leaves zeros (M, 1, 2, 3).
    points_px: (M, S, K, 2) input pixels. K_crop: (B, 3, 3). diameter: (M,) metres. size_px: (M,)
    longer side of the projected box, input pixels. posed: (M,) bool, False where the pose counts
    as unknown, so that no loss may look at the points. sample: (B,) int64, which of a fixed set of
    samples each image is; -1 outside of one.
    """

    images: Tensor
    cell_class: Tensor
    cell_instance: Tensor
    instance_image: Tensor
    instance_class: Tensor
    points_cam: Tensor
    points_px: Tensor
    K_crop: Tensor
    diameter: Tensor
    size_px: Tensor
    posed: Tensor
    sample: Tensor


def collate(samples: Sequence[VoteBatch]) -> VoteBatch:
    """Join batches (usually of one image each): instance rows shift, symmetries are padded."""
    members = max(sample.points_cam.shape[1] for sample in samples)
    cell_instance, instance_image, images, rows = [], [], 0, 0
    for sample in samples:
        shifted = torch.where(sample.cell_instance >= 0, sample.cell_instance + rows, -1)
        cell_instance.append(shifted)
        instance_image.append(sample.instance_image + images)
        images += len(sample.images)
        rows += len(sample.instance_image)
    joined = {name: torch.cat([getattr(sample, name) for sample in samples])
              for name in ("images", "cell_class", "instance_class", "K_crop", "diameter",
                           "size_px", "posed", "sample")}
    for name in ("points_cam", "points_px"):
        joined[name] = torch.cat([_pad(getattr(sample, name), members) for sample in samples])
    return VoteBatch(cell_instance=torch.cat(cell_instance),
                     instance_image=torch.cat(instance_image), **joined)


def _pad(points: Tensor, members: int) -> Tensor:
    """Repeat the first symmetry member until there are ``members``."""
    missing = members - points.shape[1]
    return torch.cat([points] + [points[:, :1]] * missing, 1) if missing else points
