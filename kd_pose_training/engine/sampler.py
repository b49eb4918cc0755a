"""Which samples an iteration sees: a pure function of (seed, iteration).

Resuming at iteration i therefore gives the same batches as never having stopped, whatever the
number of workers. Epoch permutations are strung together, so batches may span two epochs.
Every draw carries its own seed: a data set receives ``(index, sample_seed)`` and makes all its
random choices from that seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

_EPOCH_STREAM, _SAMPLE_STREAM, _PART_STREAM = 0, 1, 2


class IterationSampler:
    """Batch sampler over iterations ``start`` .. ``stop - 1`` (counted from 0).

    Args:
        length: number of samples in the data set.
        batch_size: samples per iteration over all processes.
        rank, world: this process takes its equal share of every batch.
        mix: samples and weight of consecutive parts of the data set, e.g. real and rendered
            pictures; draws are spread over the parts evenly by weight, and every part has epochs
            of its own. Empty: the data set is one part.

    Raises:
        ValueError: empty data set or part, or a batch that the processes cannot share equally.
    """

    def __init__(self, length: int, batch_size: int, seed: int, start: int, stop: int,
                 rank: int = 0, world: int = 1,
                 mix: Sequence[tuple[int, float]] = ()) -> None:
        if length < 1:
            raise ValueError("the training set is empty: no sample passed the data settings")
        if batch_size % world:
            raise ValueError(f"batch_size {batch_size} must be a multiple of the {world} "
                             "processes")
        counts = [count for count, _ in mix]
        if mix and (min(counts) < 1 or sum(counts) != length):
            raise ValueError(f"the parts of the training set have {counts} samples; each needs "
                             f"some, and together they must be {length}")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world
        self._counts = counts or [length]
        self._firsts = [sum(counts[:part]) for part in range(len(self._counts))]
        # As written in the configuration: 0.1 is a tenth, not the nearest binary fraction.
        self._weights = [Fraction(str(weight)) for _, weight in mix] or [Fraction(1)]
        self._orders: list[tuple[int, np.ndarray]] = [(-1, np.empty(0, np.int64))] * len(
            self._counts)

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

    def epoch_order(self, rng: np.random.Generator, part: int) -> np.ndarray:
        """The samples of a part, counted from its first one, in the order of one epoch."""
        return rng.permutation(self._counts[part])

    def _sample(self, position: int) -> tuple[int, int]:
        part, draw = part_of(position, self._weights)
        epoch, place = divmod(draw, self._counts[part])
        if epoch != self._orders[part][0]:
            stream = (_PART_STREAM, part) if len(self._counts) > 1 else (_EPOCH_STREAM,)
            rng = np.random.default_rng((self.seed, *stream, epoch))
            self._orders[part] = epoch, self.epoch_order(rng, part)
        index = self._firsts[part] + int(self._orders[part][1][place])
        return index, sample_seed(self.seed, position)


def part_of(position: int, weights: Sequence[Fraction]) -> tuple[int, int]:
    """Which part the ``position``-th draw of a run takes, and how many it took from there before.

    A part of share r is taken where floor(p r) steps, so that after p draws it has had floor(p r)
    of them: the shares hold in every batch, as nearly as whole numbers allow.
    """
    left = sum(weights)
    for part, weight in enumerate(weights[:-1]):
        before = position * weight // left
        if (position + 1) * weight // left > before:
            return part, int(before)
        position, left = position - int(before), left - weight
    return len(weights) - 1, position


def sample_seed(seed: int, position: int) -> int:
    """Independent 32-bit seed of the ``position``-th draw of a run."""
    return int(np.random.SeedSequence((seed, _SAMPLE_STREAM, position)).generate_state(1)[0])
