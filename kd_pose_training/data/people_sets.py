"""Sets of people by the texts of a recipe, such as ``coco:train`` and ``UBody:train``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_pose_training.data.coco_files import WholebodyDataError
from kd_pose_training.data.coco_wholebody import (
    PersonTable,
    concatenate,
    read_coco_wholebody,
    read_ubody,
)
from kd_pose_training.wholebody_config import split_people

UBODY_FILES = "annotations/*/keypoint_annotation.json"


@dataclass(frozen=True)
class PeopleFiles:
    """An annotation file and the folder of its pictures."""

    annotations: Path
    images: Path


def open_people(entries: Sequence[str], check_images: bool = True) -> PersonTable:
    """The people of all sets, one after the other.

    Raises:
        ValueError: a set is not there, cannot be read or lacks pictures; see
            :mod:`kd_pose_training.data.coco_wholebody`.
    """
    return concatenate([_open(entry, check_images) for entry in entries])


def _open(entry: str, check_images: bool) -> PersonTable:
    root, split = split_people(entry)
    if is_ubody(root):
        return read_ubody(root, split, check_images=check_images)
    files = find_files(entry)
    return read_coco_wholebody(files.annotations, files.images, check_images=check_images)


def is_ubody(root: str | Path) -> bool:
    """Whether a folder has UBody's layout: one annotation file for each scene."""
    return next(Path(root).glob(UBODY_FILES), None) is not None


def find_files(entry: str) -> PeopleFiles:
    """Where the annotations and pictures of ``folder:split`` or ``file.json:pictures`` are.

    The pictures' folder is looked for, not into.

    Raises:
        ValueError: neither annotations nor pictures under the names where they are looked for.
    """
    first, second = split_people(entry)
    if first.endswith(".json"):
        return PeopleFiles(Path(first), Path(second))
    root = Path(first)
    if not root.is_dir():
        raise WholebodyDataError(f"{entry}: there is no folder {root}")
    annotations = root / f"annotations/coco_wholebody_{second}_v1.0.json"
    if not annotations.is_file():
        there = sorted(path.name for path in root.glob("annotations/coco_wholebody_*.json"))
        raise WholebodyDataError(
            f"{entry}: there is no {annotations} (nor {root}/{UBODY_FILES}, as in UBody); "
            + (f"the folder has {', '.join(there)}" if there else "no other split either"))
    folders = image_folders(root, second)
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise WholebodyDataError(f"{entry}: its pictures are missing; looked for the folders "
                                 + ", ".join(map(str, folders)))
    return PeopleFiles(annotations, found)


def image_folders(root: Path, split: str) -> tuple[Path, ...]:
    """Where the pictures of a split may be: COCO's own folders, or this project's."""
    return root / f"{split}2017", root / f"images/{split}2017", root / f"images/{split}"
