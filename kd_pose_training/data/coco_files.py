"""COCO's annotation files of people: pictures and people as they stand there, and their numbers.

Errors name file, place, key, value and what is allowed. Format: cocodataset.org, and
github.com/jin-s13/COCO-WholeBody, data_format.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kd_pose.wholebody_keypoints import COUNT
from kd_pose_training.data.bop_files import column, read_json, read_picture

PERSON = 1  # COCO's category
# Keys of an annotation in the order of the 133 points, and how many points each holds.
PART_KEYS = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21,
             "righthand_kpts": 21}
ID_LIMIT = 2**63  # columns of ids are int64
LARGEST = 2**20  # pixels along a side of a picture, the most that OpenCV reads
FARTHEST = 1e9  # pixels, of a point or box; far from where float32 and sums of squares end


class WholebodyDataError(ValueError):
    """A file with people cannot be used; the message begins with the file and names the key."""


def read_annotations(path: Path) -> tuple[list[dict], list[dict]]:
    """Pictures and annotations of people of a COCO-WholeBody file, unchanged.

    Raises:
        ValueError: as :func:`read_people`, or the whole-body keys are missing.
    """
    pictures, people = read_people(path)
    absent = [key for key in PART_KEYS if people and not any(key in item for item in people)]
    if absent:
        raise WholebodyDataError(
            f"{path}: no annotation has the keys {', '.join(absent)}; whole-body training needs "
            "the COCO-WholeBody files (coco_wholebody_train_v1.0.json), not COCO's own")
    return pictures, people


def read_people(path: Path) -> tuple[list[dict], list[dict]]:
    """Pictures and annotations of people of any COCO file, unchanged.

    Raises:
        ValueError: not such a file, ids are missing, no whole numbers or repeat, a picture has no
            name, or an annotation's picture is not in the file.
    """
    data = read_json(path)
    for key in ("images", "annotations"):
        if not isinstance(data.get(key), list):
            raise WholebodyDataError(f"{path}: key '{key}' must be a list; this is no COCO file")
    pictures, people = data["images"], data["annotations"]
    for kind, items, keys in (("images", pictures, ("id", "file_name")),
                              ("annotations", people, ("id", "image_id", "category_id"))):
        for i, item in enumerate(items):
            for key in keys:
                if not isinstance(item, dict) or key not in item:
                    raise WholebodyDataError(f"{path}: {kind}[{i}]: key '{key}' is missing")
                _check_name(key, item[key], f"{path}: {kind}[{i}]")
    known = {item["id"] for item in pictures}
    if len(known) != len(pictures):
        raise WholebodyDataError(f"{path}: an image id is given twice")
    people = [item for item in people if item["category_id"] == PERSON]
    for item in people:
        if item["image_id"] not in known:
            raise WholebodyDataError(f"{where(item, path)}: image_id {item['image_id']} is not "
                                     "among the images")
    return pictures, people


def _check_name(key: str, value: Any, place: str) -> None:
    """Raise where an id is no whole number or a file's name no text."""
    if key == "file_name":
        if not isinstance(value, str) or not value:
            raise WholebodyDataError(f"{place}: key '{key}' must be a text, got {value!r}")
        if "\0" in value or not value.isascii() and not _is_unicode(value):
            raise WholebodyDataError(f"{place}: key '{key}' must be a text that can name a file "
                                     f"(no NUL, no half of a surrogate pair), got {value!r}")
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and abs(value) < ID_LIMIT and value == int(value)):
        raise WholebodyDataError(f"{place}: key '{key}' must be a whole number, as in COCO's own "
                                 f"files, got {value!r}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_annotated(path: Path, size_wh: Sequence[int]) -> np.ndarray:
    """Picture uint8 (H, W, 3), BGR, as its annotations see it: never turned.

    Raises:
        ValueError: missing, not a picture, or of another size than the annotations say.
    """
    picture = read_picture(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    height, width = picture.shape[:2]
    if (width, height) != tuple(size_wh):
        raise WholebodyDataError(f"{path}: is {width}x{height} pixels, its annotations say "
                                 f"{size_wh[0]}x{size_wh[1]}")
    return picture


def picture_sizes(pictures: Sequence[Mapping[str, Any]], path: Path) -> np.ndarray:
    """Width and height (I, 2) of the pictures of a file, int32.

    Raises:
        ValueError: one is missing or no whole number that a picture can have.
    """
    if not pictures:
        return np.zeros((0, 2), np.int32)

    def place(row: int) -> str:
        return f"{path}: image {pictures[row]['id']}"

    sizes = {key: column(pictures, key, 1, place) for key in ("width", "height")}
    for key, values in sizes.items():
        wrong = (values < 1) | (values > LARGEST) | (values != np.floor(values))
        if wrong.any():
            row = int(wrong.argmax())
            raise WholebodyDataError(f"{place(row)}: key '{key}' must be a whole number of 1 to "
                                     f"{LARGEST}, got {values[row, 0]:g}")
    return np.concatenate(list(sizes.values()), axis=1).astype(np.int32)


def person_columns(people: Sequence[Mapping[str, Any]],
                   path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 133, 3) x, y, visibility and boxes (N, 4) xywh of the file, float64.

    Raises:
        ValueError: a key is missing, has another number of numbers than it should, or one that
            no picture can have.
    """
    if not people:
        return np.zeros((0, COUNT, 3)), np.zeros((0, 4))
    points = np.concatenate([pixel_column(people, key, 3 * count, path)
                             for key, count in PART_KEYS.items()], axis=1)
    return points.reshape(-1, COUNT, 3), pixel_column(people, "bbox", 4, path)


def pixel_column(people: Sequence[Mapping[str, Any]], key: str, count: int,
                 path: Path) -> np.ndarray:
    """Places in the pictures, float64 (N, count), under a key of each person.

    Raises:
        ValueError: the key is missing, or is not ``count`` numbers within ``FARTHEST``.
    """
    values = column(people, key, count, lambda row: where(people[row], path))
    far = np.abs(values) > FARTHEST
    if far.any():
        row, place = np.unravel_index(int(far.argmax()), far.shape)
        raise WholebodyDataError(f"{where(people[row], path)}: key '{key}' must be {count} finite "
                                 f"number(s) of {-FARTHEST:g} to {FARTHEST:g}, got "
                                 f"{values[row, place]:g}")
    return values


def where(item: Mapping[str, Any], path: Path) -> str:
    """How messages name an annotation."""
    return f"{path}: annotation {item['id']}"
