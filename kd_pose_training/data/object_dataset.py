"""Training samples of the vote networks from BOP folders.

``object_votes``: a sample is one zoomed crop around one object (dynamic zoom-in as in SO-Pose,
Di et al., ICCV 2021), labelled for every known object that the crop shows. ``object_detector``:
a sample is one whole frame. A sample is a function of (index, seed). The crop's affine A enters
through the intrinsics, K_crop = A K, also when it turns; poses stay those of the camera.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kd_pose.boxes import points_box, xywh_from_xyxy
from kd_pose.crop import (
    apply_affine,
    box_affine,
    crop_intrinsics,
    letterbox_affine,
    normalise,
    warp,
)
from kd_pose.geometry import box_corners, transform_points
from kd_pose.manifest import ObjectSpec
from kd_pose.symmetry import symmetry_transforms
from kd_pose.votes import VoteGrid, encode
from kd_pose_training.config import TrainConfig
from kd_pose_training.data.amodal import amodal_box, outlines, project
from kd_pose_training.data.augment import change_colours, cut_out, jittered_crop, jittered_frame
from kd_pose_training.data.batch import VoteBatch
from kd_pose_training.data.classes import object_specs
from kd_pose_training.data.frame_cache import NONE, FrameStore
from kd_pose_training.data.known_poses import pose_is_known, posed_first

# An object of which less than this share of its box shows in the input is neither learnt nor
# taken for background. Poses of neighbours that a crop just touches cannot be told from it and
# would drown the votes for the object in its middle; a detector wants objects at the frame's edge.
MIN_SHOWN = {"object_votes": 0.2, "object_detector": 0.04}
UNKNOWN, TOO_HIDDEN = -1, -2  # instances that are background, or that are ignored


@dataclass(frozen=True)
class ObjectClass:
    """One class as the data set needs it. corners: (S, 8, 3) box corners for every symmetry
    member, outline: (m, 3) points that span the mesh; metres, object frame."""

    spec: ObjectSpec
    corners: np.ndarray
    outline: np.ndarray


class ObjectVoteDataset(torch.utils.data.Dataset):
    """Samples of BOP splits for ``config.task``; items are asked for as ``(index, seed)``.

    Args:
        datasets: ``BopDataset`` objects.
        config: task, data and augmentation; ``data.objects`` is the order of the classes (empty:
            all objects of the sets, by number).
        grid: the network's cells; None where only :meth:`picture` is asked for.
        train: with random changes; otherwise crops are what the runtime makes of true boxes.
        load_vertices: BOP model -> (n, 3) metres; the BOP reader's own by default.
        progress: show a bar while filling the cache.

    Raises:
        ValueError: an object is in none of the sets, no instance is visible enough, or the cache
            does not fit into memory.
    """

    def __init__(self, datasets: Sequence[Any], config: TrainConfig, grid: VoteGrid | None,
                 train: bool, *, load_vertices: Callable[[Any], np.ndarray] | None = None,
                 progress: bool = True) -> None:
        self.config, self.grid, self.train = config, grid, train
        self.classes = _classes(datasets, config, load_vertices)
        self.frames: list[Any] = []
        self._labels: list[np.ndarray] = []
        for dataset in datasets:
            for frame in dataset.frames:
                self.frames.append(frame)
                self._labels.append(self._frame_labels(frame, dataset.models))
        if config.task != "object_detector":
            self.items = [(number, instance) for number, labels in enumerate(self._labels)
                          for instance in np.flatnonzero(labels >= 0).tolist()]
        else:
            self.items = [(number, -1) for number in range(len(self.frames))]
        if not any((labels >= 0).any() for labels in self._labels):
            names = ", ".join(item.spec.name for item in self.classes)
            raise ValueError(f"no instance of {names} is visible enough (data.min_visib is "
                             f"{config.data.min_visib}) in {len(self.frames)} frames")
        needed = sorted({number for number, _ in self.items})
        self.store = FrameStore(self.frames, config.data.cache, needed, progress)

        counts = _samples_of(datasets, self.items)
        #: Samples and weight of each part of the set, where the configuration weighs them.
        self.mix = sample_mix(counts, config) if train else ()
        share = config.data.pose_share if train else 1.0
        self._posed = [pose_is_known(frame, share) for frame in self.frames]
        if share < 1:
            self.items, self.mix = posed_first(self.items, self._posed,
                                               config.data.unposed_share)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | tuple[int, int]) -> VoteBatch:
        """One sample as a batch of one image; without a seed the index is the seed."""
        index, seed = key if isinstance(key, tuple) else (key, key)
        rng = np.random.default_rng(seed)
        number, instance = self.items[index]
        M, crop, shown = self._crop(number, instance, rng)
        batch = self._encode(self.frames[number], self._labels[number], instance, M, crop, shown,
                             rng)
        if not self._posed[number]:  # never so for codes, whose batches know nothing of it
            batch.posed.fill_(False)
        return batch

    def picture(self, index: int) -> torch.Tensor:
        """The network's input (1, 3, H, W) of a sample, without targets; the index is the seed."""
        crop = self._crop(*self.items[index], np.random.default_rng(index))[1]
        data = self.config.data
        return torch.from_numpy(normalise(crop, data.mean, data.std, True))[None]

    def _crop(self, number: int, instance: int,
              rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Affine image -> input (2, 3), the picture (H, W, 3) BGR and the instances (H, W)."""
        frame, labels = self.frames[number], self._labels[number]
        image, numbers = self.store.load(number)
        M = self._affine(frame, labels, instance, (image.shape[1], image.shape[0]), rng)
        size = self.config.data.input_size
        crop = warp(image, M, size)
        shown = warp(numbers, M, size, border_value=NONE, nearest=True)
        if self.train:
            cut_out(crop, shown, self.config.augment, rng, NONE)
            crop = change_colours(crop, self.config.augment, rng)
        return M, crop, shown

    def _frame_labels(self, frame: Any, models: dict[int, Any]) -> np.ndarray:
        """Class of every instance, UNKNOWN or TOO_HIDDEN."""
        index = {item.spec.name: i for i, item in enumerate(self.classes)}
        labels = np.full(len(frame.instances), UNKNOWN, dtype=np.int64)
        for row, instance in enumerate(frame.instances):
            model = models.get(instance.obj_id)
            label = UNKNOWN if model is None else index.get(model.name, UNKNOWN)
            if label >= 0:
                seen = instance.visib_fract >= self.config.data.min_visib
                # Votes for points beside or behind the camera mean nothing.
                ahead = project(instance.T_cam_obj, self.classes[label].corners[0], frame.K)
                label = label if seen and ahead is not None else TOO_HIDDEN
            labels[row] = label
        return labels

    def _affine(self, frame: Any, labels: np.ndarray, instance: int, image_wh: tuple[int, int],
                rng: np.random.Generator) -> np.ndarray:
        """Image -> input (2, 3), around the instance or (-1) of the whole frame."""
        data, augment = self.config.data, self.config.augment
        if instance < 0:
            return (jittered_frame(image_wh, data.input_size, augment, rng) if self.train
                    else letterbox_affine(image_wh, data.input_size))
        outline = self.classes[labels[instance]].outline
        box = xywh_from_xyxy(amodal_box(frame.instances[instance].T_cam_obj, outline, frame.K))
        if self.train:
            return jittered_crop(box, data.input_size, data.crop_pad, augment, rng)
        return box_affine(box, data.input_size, data.crop_pad)

    def _encode(self, frame: Any, labels: np.ndarray, instance: int, M: np.ndarray,
                crop: np.ndarray, shown: np.ndarray, rng: np.random.Generator) -> VoteBatch:
        data = self.config.data
        K_crop = crop_intrinsics(frame.K, M)
        points = {row: self._points(frame, int(labels[row]), row, M, K_crop)
                  for row in np.flatnonzero(labels >= 0)}
        counts = np.bincount(shown.ravel(), minlength=NONE + 1)
        labels, sizes = labels.copy(), np.zeros(len(labels))
        for row, (_, pixels) in points.items():
            low, high = pixels[0].min(axis=0), pixels[0].max(axis=0)
            sizes[row] = (high - low).max()
            if counts[row] < max(1.0, MIN_SHOWN[self.config.task] * np.prod(high - low)):
                labels[row] = TOO_HIDDEN
        numbers = shown.astype(np.int16)
        numbers[shown == NONE] = -1
        for row in np.flatnonzero(labels == UNKNOWN):
            numbers[shown == row] = -1  # known to be none of the classes: background
        cell_class, owner = encode(self.grid, numbers, labels, sizes, rng,
                                   data.cells_per_instance)
        kept = np.flatnonzero(labels >= 0)
        row_of = np.full(len(labels) + 1, -1, dtype=np.int64)  # the last one is for owner -1
        row_of[kept] = np.arange(len(kept))
        return self._batch(normalise(crop, data.mean, data.std, True), cell_class, row_of[owner],
                           labels[kept], [points[row] for row in kept], K_crop, sizes[kept])

    def _points(self, frame: Any, label: int, row: int, M: np.ndarray,
                K_crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points in the camera (S, K, 3) and in the input (S, K, 2) of an instance."""
        T, item = frame.instances[row].T_cam_obj, self.classes[label]
        if self.config.task == "object_votes":
            camera = transform_points(T, item.corners)
            pixels = camera @ K_crop.T
            return camera, pixels[..., :2] / pixels[..., 2:]
        box = points_box(apply_affine(M, project(T, item.outline, frame.K)))
        return np.zeros((1, 2, 3)), box.reshape(1, 2, 2)

    def _batch(self, image: np.ndarray, cell_class: np.ndarray, cell_instance: np.ndarray,
               labels: np.ndarray, points: list[tuple[np.ndarray, np.ndarray]],
               K_crop: np.ndarray, sizes: np.ndarray) -> VoteBatch:
        keypoints = 8 if self.config.task == "object_votes" else 2
        members = max([len(camera) for camera, _ in points], default=1)
        points_cam = np.zeros((len(points), members, keypoints, 3), np.float32)
        points_px = np.zeros((len(points), members, keypoints, 2), np.float32)
        for row, (camera, pixels) in enumerate(points):
            points_cam[row], points_px[row] = camera[0], pixels[0]
            points_cam[row, :len(camera)], points_px[row, :len(camera)] = camera, pixels
        diameters = np.array([self.classes[label].spec.diameter for label in labels])
        return VoteBatch(
            images=torch.from_numpy(image)[None],
            cell_class=torch.from_numpy(cell_class)[None],
            cell_instance=torch.from_numpy(cell_instance)[None],
            instance_image=torch.zeros(len(points), dtype=torch.int64),
            instance_class=torch.from_numpy(labels.astype(np.int64)),
            points_cam=torch.from_numpy(points_cam), points_px=torch.from_numpy(points_px),
            K_crop=torch.from_numpy(K_crop.astype(np.float32))[None],
            diameter=torch.from_numpy(diameters.astype(np.float32)),
            size_px=torch.from_numpy(sizes.astype(np.float32)),
            posed=torch.ones(len(points), dtype=torch.bool), sample=torch.tensor([-1]))


def sample_mix(counts: Sequence[int], config: TrainConfig) -> tuple[tuple[int, float], ...]:
    """Samples and weight of each training set; empty where ``data.train_shares`` is.

    Raises:
        ValueError: a set that has a share has no sample.
    """
    shares = config.data.train_shares or ()
    empty = [entry for entry, count in zip(config.data.train, counts) if not count]
    if shares and empty:
        raise ValueError(f"data.train: {', '.join(empty)}: has a share of the training "
                         "pictures, but no sample")
    return tuple(zip(counts, shares))


def _samples_of(datasets: Sequence[Any], items: Sequence[tuple[int, int]]) -> list[int]:
    """Number of samples of each data set."""
    ends = np.cumsum([len(dataset.frames) for dataset in datasets])
    found = np.searchsorted([number for number, _ in items], ends)
    return np.diff(found, prepend=0).tolist()


def _classes(datasets: Sequence[Any], config: TrainConfig,
             load_vertices: Callable[[Any], np.ndarray] | None) -> list[ObjectClass]:
    specs = object_specs(datasets, config)
    points = outlines(list(datasets), tuple(spec.name for spec in specs), load_vertices)
    classes = []
    for spec, outline in zip(specs, points):
        corners = box_corners(spec.box_min, spec.box_max)
        members = symmetry_transforms(spec, config.data.symmetry_step_deg)
        classes.append(ObjectClass(
            spec, np.stack([transform_points(T, corners) for T in members]), outline))
    return classes
