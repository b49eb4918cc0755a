"""Which samples an iteration sees: a pure function of (seed, iteration).

Resuming at iteration i therefore gives the same batches as never having stopped, whatever the
number of workers. Epoch permutations are strung together, so batches may span two epochs.
Every draw carries its own seed: a data set receives ``(index, sample_seed)`` and makes all its
random choices from that seed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_EPOCH_STREAM, _SAMPLE_STREAM = 0, 1


class IterationSampler:
    """Batch sampler over iterations ``start`` .. ``stop - 1`` (counted from 0).

    Args:
        length: number of samples in the data set.
        batch_size: samples per iteration over all processes.
        rank, world: this process takes its equal share of every batch.

    Raises:
        ValueError: empty data set, or a batch that the processes cannot share equally.
    """

    def __init__(self, length: int, batch_size: int, seed: int, start: int, stop: int,
                 rank: int = 0, world: int = 1) -> None:
        if length < 1:
            raise ValueError("the training set is empty: no sample passed the data settings")
        if batch_size % world:
            raise ValueError(f"batch_size {batch_size} must be a multiple of the {world} "
                             "processes")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in range(self.start, self.stop):
            yield self.batch(iteration)

    def batch(self, iteration: int) -> list[tuple[int, int]]:
        """The (index, sample seed) pairs of this process at one iteration."""
        share = self.batch_size // self.world
        first = iteration * self.batch_size + self.rank * share
        return [self._sample(position) for position in range(first, first + share)]

    def _sample(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.length)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, _EPOCH_STREAM, epoch))
            self._epoch, self._order = epoch, rng.permutation(self.length)
        return int(self._order[place]), sample_seed(self.seed, position)


def sample_seed(seed: int, position: int) -> int:
    """Independent 32-bit seed of the ``position``-th draw of a run."""
    return int(np.random.SeedSequence((seed, _SAMPLE_STREAM, position)).generate_state(1)[0])
