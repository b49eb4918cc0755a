"""Which people an iteration sees: those of one picture together, each with its stage's changes.

Decoding a photograph takes longer than everything else that a sample needs, and COCO has 2.6
usable people in a picture. So an epoch goes through the pictures in random order and takes all
people of each: everyone is seen once an epoch as before, and a picture is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from kd_pose_training.data.coco_wholebody import PersonTable
from kd_pose_training.data.person_augment import Stage
from kd_pose_training.engine.sampler import IterationSampler


class PersonSampler(IterationSampler):
    """Batches of ``(index, sample seed, stage)``; a pure function of (seed, iteration).

    Args:
        image: (N,) picture of every person. stage: of an iteration, see
            :func:`kd_pose_training.data.person_augment.stage_schedule`.
        others: as those of :class:`IterationSampler`.
    """

    def __init__(self, *arguments: int, image: np.ndarray, stage: Callable[[int], Stage],
                 **named: int) -> None:
        super().__init__(*arguments, **named)
        if len(image) != self.length:
            raise ValueError(f"image has {len(image)} rows for {self.length} people")
        self.stage = stage
        self._people = [_by_image(image[first:first + count])
                        for first, count in zip(self._firsts, self._counts)]

    def batch(self, iteration: int) -> list[tuple[int, int, Stage]]:
        """The keys of this process at one iteration."""
        stage = self.stage(iteration)
        return [(index, seed, stage) for index, seed in super().batch(iteration)]

    def epoch_order(self, rng: np.random.Generator, part: int) -> np.ndarray:
        """Pictures in random order, the people of each together."""
        people = self._people[part]
        return np.concatenate([people[picture] for picture in rng.permutation(len(people))])


def _by_image(image: np.ndarray) -> list[np.ndarray]:
    """Indices of the people of each picture."""
    people = np.argsort(image, kind="stable")
    return np.split(people, np.flatnonzero(np.diff(image[people])) + 1)


def person_sampler(table: PersonTable,
                   stage: Callable[[int], Stage]) -> Callable[..., PersonSampler]:
    """What the trainer takes for its ``sampler``."""
    return partial(PersonSampler, image=table.image, stage=stage)
