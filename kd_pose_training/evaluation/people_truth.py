"""What a whole-body network is scored on: an annotation file, or UBody's many as one.

UBody's files count their pictures each from the beginning, so ids are moved apart: those of the
n-th scene (by name) are ``n * SCENE_STRIDE`` larger than in its file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd_pose_training.data.coco_files import WholebodyDataError
from kd_pose_training.data.coco_wholebody import UBODY_EVERY, read_coco_wholebody, ubody_files
from kd_pose_training.data.people_sets import find_files, is_ubody, split_people
from kd_pose_training.evaluation.wholebody import PersonTruth, read_truth
from kd_pose_training.evaluation.wholebody_results import PersonBoxes, read_boxes
from kd_pose_training.evaluation.wholebody_run import true_boxes

SCENE_STRIDE = 10**8


@dataclass(frozen=True)
class ScoredPeople:
    """People to be found. boxes: the annotated ones of those that can be learned from. images:
    folder that the truth's file names are relative to. scenes: of UBody, by name."""

    truth: PersonTruth
    boxes: PersonBoxes
    images: Path
    scenes: tuple[str, ...] = ()

    def read_boxes(self, path: str | Path) -> PersonBoxes:
        """A detector's boxes of these pictures, from a file.

        Raises:
            ValueError: as :func:`~kd_pose_training.evaluation.wholebody_results.read_boxes`; or
                of several scenes the ids were not moved apart.
        """
        boxes = read_boxes(path, self.truth.image_id, self.truth.size_wh)
        several = self.scenes and max(self.truth.image_id, default=0) >= SCENE_STRIDE
        if several and max(boxes.image_id, default=SCENE_STRIDE) < SCENE_STRIDE:
            raise WholebodyDataError(
                f"{path}: key 'image_id' is below {SCENE_STRIDE} in all boxes, which are then of "
                f"{self.scenes[0]} alone; UBody's scenes count each from the beginning, so ids of "
                f"the n-th by name, {self.scenes[1]} being n = 1, must be n * {SCENE_STRIDE} "
                "larger than in its annotation file")
        return boxes

    def some(self, limit: int) -> ScoredPeople:
        """At most ``limit`` of the pictures, spread evenly, with their people; 0: all."""
        count = len(self.truth.image_id)
        if not limit or limit >= count:
            return self
        chosen = np.zeros(count, bool)
        chosen[np.arange(limit) * count // limit] = True
        return self.select(chosen)

    def select(self, chosen: np.ndarray) -> ScoredPeople:
        """Some of the pictures, by mask (I,)."""
        truth = self.truth
        place = np.cumsum(chosen) - 1
        people = chosen[truth.image]
        part = PersonTruth(
            truth.image_id[chosen],
            tuple(name for name, there in zip(truth.file_name, chosen) if there),
            truth.size_wh[chosen], place[truth.image[people]], truth.points[people],
            truth.box_xywh[people], truth.area[people], truth.crowd[people])
        rows = np.isin(self.boxes.image_id, part.image_id)
        return dataclasses.replace(self, truth=part, boxes=PersonBoxes(
            self.boxes.image_id[rows], self.boxes.box_xywh[rows], self.boxes.score[rows]))


def open_scored_people(entry: str, use_area: bool = True) -> ScoredPeople:
    """The people of ``coco:val``, ``UBody:test`` or ``annotations.json:pictures``.

    Args:
        use_area: take the annotated areas, else 0.53 of the boxes; UBody always has the latter.

    Raises:
        ValueError: the set is not there or cannot be read.
    """
    root, split = split_people(entry)
    if is_ubody(root):
        return _ubody(Path(root), split)
    files = find_files(entry)
    table = read_coco_wholebody(files.annotations, files.images, check_images=False)
    return ScoredPeople(read_truth(files.annotations, use_area), true_boxes(table), files.images)


def _ubody(root: Path, split: str) -> ScoredPeople:
    """Every tenth picture of the videos that belong to the split."""
    paths, wanted = ubody_files(root, split)
    scenes = []
    for number, path in enumerate(paths):
        table = read_coco_wholebody(path, root / "images" / path.parent.name, every=UBODY_EVERY,
                                    wanted=wanted, check_images=False)
        scene = ScoredPeople(read_truth(path, use_area=False), true_boxes(table), root / "images")
        truth = scene.truth
        if len(truth.image_id) and truth.image_id[-1] >= SCENE_STRIDE:
            raise WholebodyDataError(f"{path}: image id {truth.image_id[-1]} is too large to be "
                                     f"told from another scene's; allowed: below {SCENE_STRIDE}")
        scene = scene.select((truth.image_id % UBODY_EVERY == 0)
                             & np.array([wanted(name) for name in truth.file_name], bool))
        scenes.append(_moved(scene, number * SCENE_STRIDE, path.parent.name))
    return _joined(scenes, tuple(path.parent.name for path in paths))


def _moved(scene: ScoredPeople, offset: int, folder: str) -> ScoredPeople:
    truth = dataclasses.replace(
        scene.truth, image_id=scene.truth.image_id + offset,
        file_name=tuple(f"{folder}/{name}" for name in scene.truth.file_name))
    boxes = dataclasses.replace(scene.boxes, image_id=scene.boxes.image_id + offset)
    return dataclasses.replace(scene, truth=truth, boxes=boxes)


def _joined(parts: Sequence[ScoredPeople], scenes: tuple[str, ...]) -> ScoredPeople:
    truths, boxes = [part.truth for part in parts], [part.boxes for part in parts]
    first = np.cumsum([0] + [len(truth.image_id) for truth in truths])
    columns = {name: np.concatenate([getattr(truth, name) for truth in truths])
               for name in ("image_id", "size_wh", "points", "box_xywh", "area", "crowd")}
    truth = PersonTruth(
        file_name=sum((truth.file_name for truth in truths), ()),
        image=np.concatenate([truth.image + row for truth, row in zip(truths, first)]), **columns)
    return ScoredPeople(truth, PersonBoxes(*(
        np.concatenate([getattr(box, name) for box in boxes])
        for name in ("image_id", "box_xywh", "score"))), parts[0].images, scenes)
