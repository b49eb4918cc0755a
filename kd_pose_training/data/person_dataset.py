"""Training samples of the whole-body networks: one crop around one person.

A sample is a function of (index, seed, stage): everything random is drawn from the seed. The crop
is one warp of the picture by one affine (``kd_pose.crop``), in which shift, scale, turn and mirror
image are contained; keypoints go through the same affine.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from kd_pose.crop import apply_affine, box_affine, crop_pixels
from kd_pose.simcc import SimccCodec
from kd_pose.wholebody_keypoints import FLIP, PARTS
from kd_pose_training.data.coco_wholebody import PersonTable
from kd_pose_training.data.person_augment import (
    PersonAugment,
    Stage,
    augmented_affine,
    change_pixels,
    strong_augment,
    weak_augment,
)
from kd_pose_training.data.person_batch import Encoding, PersonBatch

CROP_PAD = 1.25  # of the person's box, as in all published SimCC models
_PARTS_WITH_VALID = ("foot", "face", "left_hand", "right_hand")

Key = int | tuple[int, int] | tuple[int, int, Stage]


class PersonDataset(torch.utils.data.Dataset):
    """Person crops of a table; items are asked for as ``(index, seed)`` or with a stage.

    Args:
        table: see :mod:`kd_pose_training.data.coco_wholebody`; several sets are concatenated.
        codec: input size, and how targets are made.
        train: with random changes; otherwise crops are what the runtime makes of true boxes.
        augment: strengths by stage; DWPose's by default. Without a stage, a key means strong.
        crop_pad: how much larger than the box a crop is.
        only_valid_parts: a part that the annotators marked as not clear enough to label counts as
            not labelled, even where it has labels. The published trainings do not look at this.
        encoding: normalisation; ImageNet's by default.

    Raises:
        ValueError: the table is empty.
    """

    def __init__(self, table: PersonTable, codec: SimccCodec, train: bool, *,
                 augment: Mapping[Stage, PersonAugment] | None = None,
                 crop_pad: float = CROP_PAD, only_valid_parts: bool = False,
                 encoding: Encoding | None = None) -> None:
        if not len(table):
            raise ValueError(f"there is nobody to learn from: {table.describe()}")
        self.table, self.codec, self.train, self.crop_pad = table, codec, train, crop_pad
        self.augment = dict(augment or {"strong": strong_augment(), "weak": weak_augment()})
        self.only_valid_parts = only_valid_parts
        self.encoding = encoding or Encoding(codec)
        #: Samples and weight of each part of the table, where they are weighed.
        self.mix: tuple[tuple[int, float], ...] = ()
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: Key) -> PersonBatch:
        """One sample as a batch of one crop; without a seed the index is the seed.

        Raises:
            ValueError: the picture cannot be read, or has another size than it should.
        """
        index, seed, stage = (*key, "strong")[:3] if isinstance(key, tuple) else (key, key,
                                                                                 "strong")
        table, size = self.table, self.codec.input_size_wh
        xy, weight = table.xy[index], self._weight(index)
        if self.train:
            config, rng = self.augment[stage], np.random.default_rng(seed)
            M, mirrored = augmented_affine(table.box_xywh[index], xy, weight > 0, size,
                                           self.crop_pad, config, rng)
        else:
            M, mirrored = box_affine(table.box_xywh[index], size, self.crop_pad), False
        pixels = crop_pixels(self._picture(int(table.image[index])), M, size)
        if self.train:
            pixels = change_pixels(pixels, config, rng)
        if mirrored:
            xy, weight = xy[FLIP], weight[FLIP]
        return PersonBatch(
            torch.from_numpy(pixels)[None],
            torch.from_numpy(apply_affine(M, xy).astype(np.float32))[None],
            torch.from_numpy(weight)[None], self.encoding)

    def _picture(self, image: int) -> np.ndarray:
        """A picture, decoded anew only if the last sample was of another one."""
        if self._last is None or self._last[0] != image:
            self._last = (image, self.table.load_image(image))
        return self._last[1]

    def _weight(self, index: int) -> np.ndarray:
        """(133,) float32: 1 where a keypoint is labelled."""
        weight = (self.table.visibility[index] > 0).astype(np.float32)
        if self.only_valid_parts:
            for part, valid in zip(_PARTS_WITH_VALID, self.table.valid[index]):
                weight[PARTS[part]] *= valid
        return weight
