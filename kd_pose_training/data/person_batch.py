"""Person crops on their way to the network: bytes and points; targets are made where they go.

A sample is 149 kB instead of the 1.1 MB of a normalised crop with its SimCC targets. What a worker
hands over, what is pinned and what is copied to the GPU is small, and the GPU does the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_pose.simcc import WINDOW, SimccCodec
from kd_pose_training.data.simcc_batch import SimccBatch


@dataclass(frozen=True)
class Encoding:
    """How a batch enters the network. mean, std: RGB order, 0..255 scale (ImageNet's)."""

    codec: SimccCodec
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)


@dataclass
class PersonBatch:
    """B crops of people with K keypoints.

    pixels: (B, H, W, 3) uint8, BGR. xy: (B, K, 2) float32, input pixels. weight: (B, K) float32,
    0 where a keypoint is not labelled.
    """

    pixels: Tensor
    xy: Tensor
    weight: Tensor
    encoding: Encoding

    def pin_memory(self) -> PersonBatch:
        """The batch in page-locked memory, for quick copies to a GPU."""
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device | str) -> SimccBatch:
        """Normalised RGB images and SimCC targets on a device.

        The targets equal ``SimccCodec.encode`` to float32's rounding; a keypoint whose Gaussian
        lies more than 3 sigmas outside of the crop gets weight 0.
        """
        moved = self._map(lambda value: value.to(device, non_blocking=True))
        codec = self.encoding.codec
        place = torch.round(moved.xy * codec.split_ratio)
        labelled = moved.weight > 0
        for axis, (bins, sigma) in enumerate(zip(codec.bins, codec.sigma)):
            radius = WINDOW * sigma
            labelled &= ((place[..., axis] - radius < bins)
                         & (place[..., axis] + radius + 1 >= 0))
        targets = [_gaussians(place[..., axis], labelled, bins, sigma)
                   for axis, (bins, sigma) in enumerate(zip(codec.bins, codec.sigma))]
        return SimccBatch(_normalise(moved.pixels, self.encoding), *targets,
                          moved.weight * labelled)

    def _map(self, function: Callable[[Tensor], Tensor]) -> PersonBatch:
        return dataclasses.replace(self, pixels=function(self.pixels), xy=function(self.xy),
                                   weight=function(self.weight))


def _gaussians(place: Tensor, labelled: Tensor, bins: int, sigma: float) -> Tensor:
    """exp(-(b - place)^2 / 2 sigma^2) over the bins b: (B, K) -> (B, K, bins)."""
    # Labels without a place would make NaN, which a factor of 0 does not take away.
    place = torch.where(labelled, place, 0.0)
    offset = torch.arange(bins, device=place.device, dtype=torch.float32) - place[..., None]
    return torch.exp(offset.square_().mul_(-0.5 / sigma**2)).mul_(labelled[..., None])


def _normalise(pixels: Tensor, encoding: Encoding) -> Tensor:
    """(B, H, W, 3) uint8 BGR -> (B, 3, H, W) float32 RGB, (value - mean) / std."""
    mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1)
                 for values in (encoding.mean, encoding.std))
    planes = pixels.permute(0, 3, 1, 2).flip(1)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).sub_(mean).div_(std)


def collate(samples: Sequence[PersonBatch]) -> PersonBatch:
    """Join batches, usually of one crop each; all must have the same encoding."""
    return PersonBatch(*(torch.cat([getattr(sample, name) for sample in samples])
                         for name in ("pixels", "xy", "weight")), samples[0].encoding)
