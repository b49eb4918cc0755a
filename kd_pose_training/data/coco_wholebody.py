"""People with 133 keypoints from COCO-WholeBody and UBody files, as columns of numbers.

Opening a file parses its JSON once and keeps arrays, 1.7 kB a person, that worker processes share;
pictures are read when asked for. Formats: github.com/jin-s13/COCO-WholeBody, data_format.md, and
UBody as DWPose trains on it (Lin et al., CVPR 2023; Yang et al., ICCVW 2023).

Pixel convention: keypoints are used as they stand in the file (pixel centres at whole numbers).
Boxes there have their edges at whole numbers, that is, half a pixel before a pixel's centre, so
they are moved by -0.5 to the continuous edges of ``kd_pose.crop``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose_training.data.bop_files import numbers
from kd_pose_training.data.coco_files import (
    PART_KEYS,
    WholebodyDataError,
    load_annotated,
    person_columns,
    picture_sizes,
    read_annotations,
    where,
)

VALID_KEYS = ("foot_valid", "face_valid", "lefthand_valid", "righthand_valid")
UBODY_EVERY = 10  # neighbouring frames of a video show the same


@dataclass(frozen=True)
class PersonTable:
    """N people in I pictures; row n of every column with N rows is one person.

    folders: where pictures are. folder: (I,) index into them. file_name: (I,) bytes, UTF-8,
    relative to the folder. image_id: (I,). size_wh: (I, 2) pixels.
    image: (N,) row of the picture. annotation_id: (N,). box_xywh: (N, 4) float32, continuous
    edges, inside of the picture. xy: (N, 133, 2) float32 pixels, 0 where not labelled.
    visibility: (N, 133) float32 as in the file: above 0 is labelled. valid: (N, 4) bool, whether
    the annotators could see feet, face, left hand and right hand well enough to label them.
    skipped: how many annotations were left out, by reason.
    """

    folders: tuple[str, ...]
    folder: np.ndarray
    file_name: np.ndarray
    image_id: np.ndarray
    size_wh: np.ndarray
    image: np.ndarray
    annotation_id: np.ndarray
    box_xywh: np.ndarray
    xy: np.ndarray
    visibility: np.ndarray
    valid: np.ndarray
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image)

    def image_path(self, image: int) -> Path:
        """Path of the picture in row ``image``."""
        return Path(self.folders[self.folder[image]], self.file_name[image].decode())

    def load_image(self, image: int) -> np.ndarray:
        """Picture uint8 (H, W, 3), BGR.

        Raises:
            ValueError: missing, not a picture, or of another size than the annotations say.
        """
        return load_annotated(self.image_path(image), self.size_wh[image])

    def describe(self) -> str:
        """One line on what is in the table, and what was left out and why."""
        text = f"{len(self)} people in {len(np.unique(self.image))} pictures"
        if any(self.skipped.values()):
            reasons = ", ".join(f"{count} {why}" for why, count in self.skipped.items() if count)
            text = f"{text} (left out: {reasons})"
        return text

    def select(self, rows: np.ndarray) -> PersonTable:
        """The table of some people only; pictures nobody refers to any more are dropped."""
        images, image = np.unique(self.image[rows], return_inverse=True)
        people = {name: getattr(self, name)[rows] for name in _PERSON_COLUMNS if name != "image"}
        pictures = {name: getattr(self, name)[images] for name in _IMAGE_COLUMNS}
        return PersonTable(self.folders, **pictures, image=image.astype(np.int32), **people,
                           skipped=self.skipped)


_IMAGE_COLUMNS = ("folder", "file_name", "image_id", "size_wh")
_PERSON_COLUMNS = ("image", "annotation_id", "box_xywh", "xy", "visibility", "valid")


def read_coco_wholebody(annotations: str | Path, images: str | Path, *,
                        every: int = 1, wanted: Callable[[str], bool] | None = None,
                        check_images: bool = True) -> PersonTable:
    """People of one annotation file that can be learned from.

    Left out, and counted: crowds, people without a labelled body point, boxes that are empty or
    lie outside of the picture (others are cut at its edges).

    Args:
        annotations: JSON file. images: folder that its ``file_name`` are relative to.
        every: take only pictures whose id is a multiple. wanted: of a ``file_name``.
        check_images: look at once whether all needed pictures are there.

    Raises:
        ValueError: the file cannot be read, lacks the whole-body keys, holds something else than
            it should, or pictures are missing; file, annotation and key are named.
    """
    path = Path(annotations)
    pictures, people = read_annotations(path)
    row_of = {item["id"]: row for row, item in enumerate(pictures)
              if item["id"] % every == 0 and (wanted is None or wanted(item["file_name"]))}
    skipped: Counter[str] = Counter()
    usable = []
    for item in people:
        if item["image_id"] in row_of:
            reason = _why_not(item, path)
            if reason:
                skipped[reason] += 1
            else:
                usable.append(item)
    image = np.array([row_of[item["image_id"]] for item in usable], dtype=np.int32)
    table = _table(pictures, usable, image, path, str(images), skipped)
    if check_images:
        _check_images(table, path)
    return table


def _table(pictures: list[dict], people: list[dict], image: np.ndarray, path: Path, folder: str,
           skipped: Counter[str]) -> PersonTable:
    """The table of some people, without those whose box shows nothing of the picture."""
    size_wh = picture_sizes(pictures, path)
    points, boxes = person_columns(people, path)
    low = np.clip(boxes[:, :2], 0, size_wh[image])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, size_wh[image])
    has_area = ((high - low) > 0).all(axis=1)
    skipped["without a box in the picture"] += int((~has_area).sum())
    table = PersonTable(
        folders=(folder,), folder=np.zeros(len(pictures), np.int16),
        file_name=np.array([item["file_name"].lstrip("/").encode() for item in pictures],
                           dtype=np.bytes_),
        image_id=np.array([item["id"] for item in pictures], dtype=np.int64),
        size_wh=size_wh, image=image,
        annotation_id=np.array([item["id"] for item in people], dtype=np.int64),
        box_xywh=np.concatenate([low - 0.5, high - low], axis=1).astype(np.float32),
        xy=points[..., :2].astype(np.float32), visibility=points[..., 2].astype(np.float32),
        valid=_valid(people, points[..., 2]), skipped=dict(skipped))
    return table.select(np.flatnonzero(has_area))


def read_ubody(root: str | Path, split: str = "train", *, every: int = UBODY_EVERY,
               scenes: Sequence[str] = (), check_images: bool = True) -> PersonTable:
    """UBody in its public layout; the videos of the intra-scene test list are the test split.

    ``root/annotations/<scene>/keypoint_annotation.json``, ``root/images/<scene>/<video>/*.png``
    and ``root/splits/intra_scene_test_list.npy``. Scenes without a file are not looked for.

    Args:
        split: ``train`` or ``test``. every: pictures by id. scenes: all that are there if empty.
        check_images: as in :func:`read_coco_wholebody`.

    Raises:
        ValueError: as :func:`read_coco_wholebody`, or no scene, or the list cannot be read.
    """
    files, wanted = ubody_files(root, split, scenes)
    return concatenate([
        read_coco_wholebody(path, Path(root) / "images" / path.parent.name, every=every,
                            wanted=wanted, check_images=check_images)
        for path in files])


def ubody_files(root: str | Path, split: str, scenes: Sequence[str] = ()
                ) -> tuple[list[Path], Callable[[str], bool]]:
    """Annotation files of UBody's scenes, by name, and which ``file_name`` belongs to a split.

    Raises:
        ValueError: as :func:`read_ubody`.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; allowed: 'train', 'test'")
    root = Path(root)
    list_path = root / "splits" / "intra_scene_test_list.npy"
    try:
        tested = set(np.load(list_path, allow_pickle=False).astype(str).tolist())
    except FileNotFoundError:
        raise WholebodyDataError(f"{list_path}: no such file; it says which videos are for "
                                 "testing") from None
    except (OSError, ValueError, EOFError) as error:
        raise WholebodyDataError(f"{list_path}: is no array of names: {error}") from error
    files = sorted((root / "annotations").glob("*/keypoint_annotation.json"))
    files = [path for path in files if not scenes or path.parent.name in scenes]
    missing = set(scenes) - {path.parent.name for path in files}
    if missing or not files:
        what = ", ".join(sorted(missing)) or "any scene"
        raise WholebodyDataError(f"{root / 'annotations'}: no keypoint_annotation.json of {what}")

    def wanted(file_name: str) -> bool:
        return (_video(file_name) in tested) == (split == "test")

    return files, wanted


def concatenate(tables: Sequence[PersonTable]) -> PersonTable:
    """Several tables as one, in order; nothing is balanced. Image ids may then repeat."""
    if not tables:
        raise ValueError("there is no table to concatenate")
    folders = sum((table.folders for table in tables), ())
    first_folder = np.cumsum([0] + [len(table.folders) for table in tables])
    first_image = np.cumsum([0] + [len(table.image_id) for table in tables])
    columns = {name: np.concatenate([getattr(table, name) for table in tables])
               for name in _IMAGE_COLUMNS + _PERSON_COLUMNS if name not in ("folder", "image")}
    columns["folder"] = np.concatenate(
        [table.folder + np.int16(first) for table, first in zip(tables, first_folder)])
    columns["image"] = np.concatenate(
        [table.image + np.int32(first) for table, first in zip(tables, first_image)])
    skipped = sum((Counter(table.skipped) for table in tables), Counter())
    return PersonTable(folders, **columns, skipped=dict(skipped))


def _why_not(item: Mapping[str, Any], path: Path) -> str:
    """Why a person is not learned from; empty where it is."""
    if item.get("iscrowd", 0):
        return "crowds"
    labelled = False
    if "num_keypoints" in item:
        labelled = numbers(item, "num_keypoints", 1, where(item, path))[0] > 0
    elif "keypoints" in item:
        body = numbers(item, "keypoints", 3 * PART_KEYS["keypoints"], where(item, path))
        labelled = (body[2::3] > 0).any()
    return "" if labelled else "without a labelled body point"


def _valid(people: Sequence[Mapping[str, Any]], visibility: np.ndarray) -> np.ndarray:
    """(N, 4) bool of the ``*_valid`` keys; where one is missing, whether the part has labels."""
    valid = np.zeros((len(people), len(VALID_KEYS)), dtype=bool)
    ends = np.cumsum(list(PART_KEYS.values()))
    for part, key in enumerate(VALID_KEYS):
        labelled = (visibility[:, ends[part]:ends[part + 1]] > 0).any(axis=1)
        valid[:, part] = [bool(item.get(key, known)) for item, known in zip(people, labelled)]
    return valid


def _video(file_name: str) -> str:
    """Video of a UBody frame: its folder, without the number of the trimmed piece."""
    return Path(file_name).parent.name.split("_Trim")[0]


def missing_pictures(table: PersonTable) -> list[Path]:
    """Pictures of a table that are not there; lists every folder once instead of asking for every
    file."""
    present: dict[Path, set[str]] = {}
    missing = []
    for image in range(len(table.image_id)):
        path = table.image_path(image)
        if path.parent not in present:
            try:
                present[path.parent] = set(os.listdir(path.parent))
            except OSError:
                present[path.parent] = set()
        if path.name not in present[path.parent]:
            missing.append(path)
    return missing


def _check_images(table: PersonTable, source: Path) -> None:
    missing = missing_pictures(table)
    if missing:
        raise WholebodyDataError(f"{source}: {len(missing)} of its {len(table.image_id)} pictures "
                                 f"with people are missing, the first is {missing[0]}")
