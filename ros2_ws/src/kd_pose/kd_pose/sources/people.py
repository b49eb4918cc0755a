"""True people of a recording, from annotations in COCO's format.

COCO's own person_keypoints files (17 points), COCO-WholeBody (133) and what `kd-pose-train
synth-people` writes. A `.gz` is unpacked while it is read.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose.sources.base import Frame, Source, SourceError, TruePerson
from kd_pose.wholebody_keypoints import COUNT, PARTS

# Key of the file -> the keypoints that it has.
KEYS = {"keypoints": "body", "foot_kpts": "foot", "face_kpts": "face",
        "lefthand_kpts": "left_hand", "righthand_kpts": "right_hand"}


class PeopleSource(Source):
    """A recording whose frames also say who is in them."""

    def __init__(self, source: Source, path: Path, by_name: bool) -> None:
        """path: the annotations. by_name: pictures are found by `file_name`, as in a folder; else
        frames come in the order of the image ids, as in a video."""
        super().__init__(**{name: getattr(source, name) for name in Source.__dataclass_fields__})
        self._source, self._by_name, self._file = source, by_name, path
        images, people = _read(path)
        self._people = {name if by_name else index: tuple(people.get(number, ()))
                        for index, (number, name) in enumerate(sorted(images.items()))}
        if not by_name and source.count is not None and source.count > len(images):
            raise SourceError(f"{path}: has {len(images)} images, {source.path} has "
                              f"{source.count}; its images, by id, must be those of the recording")

    def frames(self) -> Iterator[Frame]:
        for index, frame in enumerate(self._source.frames()):
            key = Path(frame.picture.where).name if self._by_name else index
            if key not in self._people:
                raise SourceError(f"{self._file}: does not have picture {key} of {self.path}")
            yield replace(frame, people=self._people[key])


def _read(path: Path) -> tuple[dict[int, str], dict[int, list[TruePerson]]]:
    """Names of the pictures and their people, by image id."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SourceError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list)
                                             for key in ("images", "annotations")):
        raise SourceError(f"{path}: must be annotations of COCO's format with the lists 'images' "
                          "and 'annotations'")
    images = {}
    for row, item in enumerate(data["images"]):
        try:
            images[int(item["id"])] = Path(item["file_name"]).name
        except (KeyError, TypeError, ValueError):
            raise SourceError(f"{path}: images[{row}] needs 'id' and 'file_name', got "
                              f"{str(item)[:80]}") from None
    people: dict[int, list[TruePerson]] = {}
    for row, item in enumerate(data["annotations"]):
        where = f"{path}: annotations[{row}]"
        if (not isinstance(item, dict) or not isinstance(item.get("image_id"), (int, float))
                or item["image_id"] not in images):
            raise SourceError(f"{where}: needs the 'image_id' of one of the images, got "
                              f"{str(item)[:80]}")
        if not item.get("iscrowd"):
            people.setdefault(item["image_id"], []).append(_person(item, where))
    return images, people


def _person(item: dict[str, Any], where: str) -> TruePerson:
    points = np.full((COUNT, 3), np.nan)
    for key, part in KEYS.items():
        count = PARTS[part].stop - PARTS[part].start
        if key == "keypoints" or key in item:
            points[PARTS[part]] = _numbers(item, key, 3 * count, where).reshape(count, 3)
    # 0: not labelled, and the place is then 0, 0.
    points[~(points[:, 2] > 0)] = np.nan
    box = tuple(_numbers(item, "bbox", 4, where).tolist())
    if min(box[2:]) < 0:
        raise SourceError(f"{where}: key 'bbox' must be x, y, width and height, got {box}")
    return TruePerson(str(item.get("track_id", "")), box, points[:, :2])


def _numbers(item: dict[str, Any], key: str, count: int, where: str) -> np.ndarray:
    try:
        values = np.array(item[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        values = np.zeros(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise SourceError(f"{where}: key '{key}' must be {count} numbers, got "
                          f"{str(item.get(key))[:80]}")
    return values
