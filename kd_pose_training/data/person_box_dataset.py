"""Training samples of a person detector from COCO folders: whole frames.

The samples are those of ``ObjectVoteDataset`` for ``object_detector`` but for what people allow:
pictures are mirrored, and boxes are of what is seen, so a frame's edge cuts a box. Who cannot be
told (too small, mostly hidden, a crowd) is neither learnt nor taken for background. A sample is a
function of (index, seed).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kd_pose.boxes import points_box, xyxy_from_xywh
from kd_pose.crop import apply_affine, letterbox_affine, normalise, warp
from kd_pose.votes import VoteGrid, encode
from kd_pose_training.config import TrainConfig
from kd_pose_training.data.augment import change_colours, cut_out, jittered_frame
from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.data.coco_people import PERSON_SPEC, CocoPeople, PeopleFrame
from kd_pose_training.data.frame_cache import NONE, FrameStore
from kd_pose_training.data.object_dataset import MIN_SHOWN, TOO_HIDDEN, sample_mix

# Longer side in the input, pixels, below which a person is ignored.
SMALLEST_PX = 12.0
PERSON = 0  # the only class


class PersonBoxDataset(torch.utils.data.Dataset):
    """Samples of COCO folders; items are asked for as ``(index, seed)``.

    Args:
        datasets: ``CocoPeople`` objects.
        config: data and augmentation. Ignored are people of whose labelled body points less than
            ``data.min_visib`` are marked as seen.
        grid: the network's cells; None where only :meth:`picture` is asked for.
        train: with random changes; otherwise frames as the runtime sees them.
        progress: show a bar while filling the cache.

    Raises:
        ValueError: nobody in the sets can be learnt, or the cache does not fit into memory.
    """

    def __init__(self, datasets: Sequence[CocoPeople], config: TrainConfig,
                 grid: VoteGrid | None, train: bool, *, progress: bool = True) -> None:
        self.config, self.grid, self.train = config, grid, train
        self.frames = [frame for dataset in datasets for frame in dataset.frames]
        if not any(known(frame, config.data.min_visib).any() for frame in self.frames):
            raise ValueError(f"nobody is visible enough (data.min_visib is "
                             f"{config.data.min_visib}) in {len(self.frames)} pictures")
        self.store = FrameStore(self.frames, config.data.cache, range(len(self.frames)), progress)
        #: Samples and weight of each of the data sets, where the configuration weighs them.
        self.mix = sample_mix([len(dataset) for dataset in datasets], config) if train else ()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: int | tuple[int, int]) -> VoteBatch:
        """One sample as a batch of one image; without a seed the index is the seed."""
        index, seed = key if isinstance(key, tuple) else (key, key)
        rng = np.random.default_rng(seed)
        M, picture, shown = self._view(index, rng)
        boxes, labels = self._people(self.frames[index], M, shown)
        sizes = np.max(boxes[:, 2:] - boxes[:, :2], axis=1, initial=0.0)
        numbers = shown.astype(np.int16)
        numbers[shown == NONE] = -1
        cell_class, owner = encode(self.grid, numbers, labels, sizes, rng,
                                   self.config.data.cells_per_instance)
        kept = np.flatnonzero(labels >= 0)
        row_of = np.full(len(labels) + 1, -1, dtype=np.int64)  # the last one is for owner -1
        row_of[kept] = np.arange(len(kept))
        return self._batch(picture, cell_class, row_of[owner], boxes[kept], sizes[kept])

    def picture(self, index: int) -> torch.Tensor:
        """The network's input (1, 3, H, W) of a sample, without targets; the index is the seed."""
        return self._input(self._view(index, np.random.default_rng(index))[1])

    def _view(self, index: int,
              rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Affine image -> input (2, 3), the picture (H, W, 3) BGR and the people (H, W)."""
        data, augment = self.config.data, self.config.augment
        image, numbers = self.store.load(index)
        size_wh = self.frames[index].size_wh
        if self.train:
            M = jittered_frame(size_wh, data.input_size, augment, rng)
            M = mirrored(M, data.input_size[0]) if rng.random() < 0.5 else M
        else:
            M = letterbox_affine(size_wh, data.input_size)
        picture = warp(image, M, data.input_size)
        shown = warp(numbers, M, data.input_size, border_value=NONE, nearest=True)
        if self.train:
            cut_out(picture, shown, augment, rng, NONE)
            picture = change_colours(picture, augment, rng)
        return M, picture, shown

    def _people(self, frame: PeopleFrame, M: np.ndarray,
                shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes xyxy (n, 4) in the input, cut at its edges, and labels (n,)."""
        x0, y0, x1, y1 = xyxy_from_xywh(frame.boxes_xywh).T
        corners = np.stack([np.stack([x0, y0], 1), np.stack([x1, y0], 1),
                            np.stack([x0, y1], 1), np.stack([x1, y1], 1)], axis=1)
        boxes = points_box(apply_affine(M, corners.reshape(-1, 2)).reshape(-1, 4, 2))
        edge = np.array(self.config.data.input_size * 2) - 0.5
        boxes = np.clip(boxes, -0.5, edge)
        sides = boxes[:, 2:] - boxes[:, :2]
        pixels = np.bincount(shown.ravel(), minlength=NONE + 1)[:len(boxes)]
        least = np.maximum(MIN_SHOWN["object_detector"] * sides.prod(axis=1), 1.0)
        clear = known(frame, self.config.data.min_visib) & (pixels >= least)
        clear &= np.max(sides, axis=1, initial=0.0) >= SMALLEST_PX
        return boxes, np.where(clear, PERSON, TOO_HIDDEN)

    def _input(self, picture: np.ndarray) -> torch.Tensor:
        data = self.config.data
        return torch.from_numpy(normalise(picture, data.mean, data.std, True))[None]

    def _batch(self, picture: np.ndarray, cell_class: np.ndarray, cell_instance: np.ndarray,
               boxes: np.ndarray, sizes: np.ndarray) -> VoteBatch:
        count = len(boxes)
        return VoteBatch(
            images=self._input(picture), cell_class=torch.from_numpy(cell_class)[None],
            cell_instance=torch.from_numpy(cell_instance)[None],
            instance_image=torch.zeros(count, dtype=torch.int64),
            instance_class=torch.full((count,), PERSON, dtype=torch.int64),
            points_cam=torch.zeros(count, 1, 2, 3),
            points_px=torch.from_numpy(boxes.astype(np.float32)).reshape(count, 1, 2, 2),
            K_crop=torch.eye(3)[None], diameter=torch.full((count,), PERSON_SPEC.diameter),
            size_px=torch.from_numpy(sizes.astype(np.float32)),
            posed=torch.ones(count, dtype=torch.bool), sample=torch.tensor([-1]))


def known(frame: PeopleFrame, min_seen: float) -> np.ndarray:
    """(n,) bool: single people of whom enough is seen to be learnt and counted."""
    return ~frame.crowd & (frame.seen >= min_seen)


def mirrored(M: np.ndarray, width: int) -> np.ndarray:
    """``M`` (2, 3), image -> input, followed by a change of left and right in the input."""
    M = M.copy()
    M[0] *= -1
    M[0, 2] += width - 1
    return M
