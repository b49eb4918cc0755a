"""A fixed augmentation set: every sample in a given number of variants and no others.

Training draws a new change of every picture each time. Where something costly is computed from
the picture (a large teacher's answer), it pays to draw from few variants and compute once.
"""

from __future__ import annotations

import dataclasses

import torch

from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.engine.sampler import sample_seed

_SET_SEED = 0  # of the variants; not the run's, so that runs with other seeds share a cache


class FixedAugmentationSet(torch.utils.data.Dataset):
    """``variants`` fixed versions of each item of a data set.

    ``(index, seed)`` gives one of them, as the seed says; :meth:`variant` one by its number, which
    stands in the batch's ``sample``: ``index * variants + variant``.
    """

    def __init__(self, dataset: torch.utils.data.Dataset, variants: int) -> None:
        if variants < 1:
            raise ValueError(f"variants must be 1 or more, got {variants}")
        self.dataset, self.variants = dataset, variants

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def mix(self) -> tuple[tuple[int, float], ...]:
        """Of the data set."""
        return getattr(self.dataset, "mix", ())

    @property
    def total(self) -> int:
        """Number of different samples."""
        return len(self.dataset) * self.variants

    def __getitem__(self, key: tuple[int, int]) -> VoteBatch | CodeBatch:
        index, seed = key
        return self.variant(index * self.variants + seed % self.variants)

    def variant(self, sample: int) -> VoteBatch | CodeBatch:
        """Sample number ``sample``, below :attr:`total`."""
        batch = self.dataset[sample // self.variants, sample_seed(_SET_SEED, sample)]
        return dataclasses.replace(batch, sample=torch.tensor([sample]))
