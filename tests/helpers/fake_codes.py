"""A data set of made-up crops with surface codes, for tests of the dense networks' training."""

from __future__ import annotations

import torch

from kd_pose_training.data.code_batch import CodeBatch


class FakeCodes(torch.utils.data.Dataset):
    """``(index, seed)`` -> one crop: class in the mean grey, random codes on a square.

    Args:
        size: side of the crops, pixels. stride: input pixels per output pixel.
    """

    def __init__(self, size: int = 64, stride: int = 4, bits: int = 4, classes: int = 2,
                 length: int = 8) -> None:
        self.size, self.stride, self.bits = size, stride, bits
        self.classes, self.length = classes, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> CodeBatch:
        index, seed = key
        rng = torch.Generator().manual_seed(seed)
        label, side = index % self.classes, self.size // self.stride
        codes = torch.full((1, side, side), -1, dtype=torch.int32)
        inner = slice(side // 4, side - side // 4)
        codes[:, inner, inner] = torch.randint(0, 2**self.bits, codes[:, inner, inner].shape,
                                               generator=rng, dtype=torch.int32)
        images = torch.randn(1, 3, self.size, self.size, generator=rng) + label
        return CodeBatch(images, torch.tensor([label]), codes >= 0, codes, torch.tensor([-1]))
