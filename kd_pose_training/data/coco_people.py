"""Boxes of people from COCO's annotation files: what a person detector learns from.

Reads COCO's ``person_keypoints_*`` and ``instances_*`` files and those of COCO-WholeBody, so also
what ``kd-pose-train synth-people`` renders. Pictures without people are kept: a detector must be
shown what is none. Boxes are of what is seen, with edges at whole numbers in the file and at half
ones here (``kd_pose.crop``). Masks only say which cells lie on a person; where a file has none, or
has them compressed, the ellipse in the box stands in.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kd_pose.geometry import box_corners
from kd_pose.manifest import ObjectSpec
from kd_pose_training.data.coco_files import (
    WholebodyDataError,
    load_annotated,
    picture_sizes,
    pixel_column,
    read_people,
    where,
)
from kd_pose_training.data.people_sets import image_folders

ANNOTATIONS = ("coco_wholebody_{}_v1.0.json", "person_keypoints_{}.json",
               "person_keypoints_{}2017.json", "instances_{}.json", "instances_{}2017.json")
NAME = "person"
# Pictures of people tell no sizes. The manifest of a detector wants one for every class: the box
# of a standing adult, metres, by which nothing is computed.
_LOW, _HIGH = (-0.3, -0.3, 0.0), (0.3, 0.3, 1.8)
PERSON_SPEC = ObjectSpec(NAME, float(np.linalg.norm(np.ptp(box_corners(_LOW, _HIGH), axis=0))),
                         _LOW, _HIGH)
_BITS = 4  # fractional bits of polygon corners


@dataclass(frozen=True)
class PersonModel:
    """The one class of such sets, as BOP folders have their models."""

    name: str = NAME
    spec: ObjectSpec = PERSON_SPEC


@dataclass(frozen=True)
class PeopleFrame:
    """One picture and its n people.

    image_path, size_wh (pixels). boxes_xywh: (n, 4) float64, continuous edges, inside of the
    picture. crowd: (n,) bool, the box is of many people. seen: (n,) share of the labelled body
    points that is marked as seen; 0 where none is labelled, 1 where the file has no points.
    outlines: per person polygons [(k, 2) float32], run lengths (int64) or None.
    """

    image_path: Path
    size_wh: tuple[int, int]
    boxes_xywh: np.ndarray
    crowd: np.ndarray
    seen: np.ndarray
    outlines: tuple[list[np.ndarray] | np.ndarray | None, ...]

    @property
    def instances(self) -> range:
        """Numbers of the people, as they stand in the map."""
        return range(len(self.boxes_xywh))

    def load_image(self) -> np.ndarray:
        """Picture uint8 (H, W, 3), BGR.

        Raises:
            ValueError: missing, not a picture, or of another size than the annotations say.
        """
        return load_annotated(self.image_path, self.size_wh)

    def load_instance_map(self) -> np.ndarray:
        """Number of the person at each pixel, int16 (H, W), -1 where there is nobody.

        Masks may overlap: the smaller box is drawn later, crowds before all others.
        """
        result = np.full(self.size_wh[::-1], -1, dtype=np.int16)
        order = np.lexsort((-self.boxes_xywh[:, 2:].prod(axis=1), ~self.crowd))
        for row in order:
            outline = self.outlines[row]
            if isinstance(outline, np.ndarray):
                result[_mask(outline, self.size_wh)] = row
            elif outline:
                corners = [np.rint(points * (1 << _BITS)).astype(np.int32) for points in outline]
                cv2.fillPoly(result, corners, int(row), cv2.LINE_8, _BITS)
            else:
                _ellipse(result, self.boxes_xywh[row], int(row))
        return result


class CocoPeople:
    """A split of a folder in COCO's layout.

    Read like a ``BopDataset``: ``models`` has the one class ``person``, ``frames`` all pictures of
    the annotation file in its order. Boxes without area inside of their picture are left out.

    Args:
        root: folder with ``annotations`` and pictures, in ``<split>2017``, ``images/<split>2017``,
            ``images/<split>`` or ``<split>``.
        split: as in the name of its annotation file, e.g. ``train``.
        objects: names of the wanted classes; None or empty: all.

    Raises:
        ValueError: a file, a picture or a key is missing or wrong, or the class is not wanted.
    """

    def __init__(self, root: str | Path, split: str, *,
                 objects: Collection[str] | None = None) -> None:
        self.root, self.split = Path(root), split
        if objects and NAME not in objects:
            raise WholebodyDataError(f"{self.root}: has none of the objects {', '.join(objects)}; "
                                     f"there is {NAME}")
        self.models = {1: PersonModel()}
        path = annotation_path(self.root, split)
        folders = (*image_folders(self.root, split), self.root / split)
        folder = next((item for item in folders if item.is_dir()), folders[-1])
        self.frames = _frames(path, folder)

    def __len__(self) -> int:
        return len(self.frames)


def is_coco(root: str | Path) -> bool:
    """Whether a folder has COCO's layout rather than BOP's."""
    return (Path(root) / "annotations").is_dir()


def annotation_path(root: Path, split: str) -> Path:
    """The annotation file of a split.

    Raises:
        ValueError: there is none; says which names were looked for.
    """
    names = [name.format(split) for name in ANNOTATIONS]
    for name in names:
        if (root / "annotations" / name).is_file():
            return root / "annotations" / name
    raise WholebodyDataError(f"{root / 'annotations'}: has none of {', '.join(names)}")


def _frames(path: Path, folder: Path) -> list[PeopleFrame]:
    pictures, people = read_people(path)
    sizes = picture_sizes(pictures, path)
    rows: dict[Any, list[dict]] = {item["id"]: [] for item in pictures}
    for item in people:
        rows[item["image_id"]].append(item)
    _check_pictures([item["file_name"] for item in pictures], folder, path)
    return [_frame(folder / item["file_name"], tuple(size.tolist()), rows[item["id"]], path)
            for item, size in zip(pictures, sizes)]


def _frame(image: Path, size_wh: tuple[int, int], people: list[dict], path: Path) -> PeopleFrame:
    boxes = pixel_column(people, "bbox", 4, path) if people else np.zeros((0, 4))
    low = np.clip(boxes[:, :2], 0, size_wh)
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, size_wh)
    kept = np.flatnonzero(((high - low) > 0).all(axis=1))
    return PeopleFrame(
        image, size_wh, np.concatenate([low - 0.5, high - low], axis=1)[kept],
        np.array([bool(people[i].get("iscrowd", 0)) for i in kept], dtype=bool),
        np.array([_seen(people[i], path) for i in kept], dtype=np.float64),
        tuple(_outline(people[i], size_wh, path) for i in kept))


def _seen(item: Mapping[str, Any], path: Path) -> float:
    """Share of the labelled body points that is marked as seen (v = 2)."""
    if "keypoints" not in item:
        return 1.0
    try:
        marks = np.asarray(item["keypoints"], dtype=np.float64).reshape(-1, 3)[:, 2]
    except (TypeError, ValueError):
        raise WholebodyDataError(f"{where(item, path)}: key 'keypoints' must be a list of x, y, "
                                 "visibility of every point") from None
    return float((marks == 2).sum() / max((marks > 0).sum(), 1))


def _outline(item: Mapping[str, Any], size_wh: tuple[int, int],
             path: Path) -> list[np.ndarray] | np.ndarray | None:
    """Polygons moved to pixel centres, run lengths as an array, or None."""
    value = item.get("segmentation")
    if isinstance(value, dict) and isinstance(value.get("counts"), list):
        counts = np.asarray(value["counts"], dtype=np.int64)
        if tuple(value.get("size", ())) != size_wh[::-1] or counts.sum() != np.prod(size_wh):
            raise WholebodyDataError(f"{where(item, path)}: key 'segmentation' does not fit the "
                                     f"picture of {size_wh[0]}x{size_wh[1]} pixels")
        return counts
    if isinstance(value, list) and value:
        try:
            return [np.asarray(points, dtype=np.float32).reshape(-1, 2) - np.float32(0.5)
                    for points in value]
        except (TypeError, ValueError):
            raise WholebodyDataError(f"{where(item, path)}: key 'segmentation' must hold lists of "
                                     "x, y, x, y, ...") from None
    return None


def _mask(counts: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Bool (H, W) of COCO's run lengths: columns first, beginning with the outside."""
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size_wh).T


def _ellipse(target: np.ndarray, box_xywh: np.ndarray, value: int) -> None:
    centre = box_xywh[:2] + box_xywh[2:] / 2
    scale = 1 << _BITS
    cv2.ellipse(target, np.rint(centre * scale).astype(int).tolist(),
                np.rint(box_xywh[2:] / 2 * scale).astype(int).tolist(), 0, 0, 360, value, -1,
                cv2.LINE_8, _BITS)


def _check_pictures(names: list[str], folder: Path, source: Path) -> None:
    """Lists the folder once instead of asking for every file."""
    try:
        present = set(os.listdir(folder))
    except OSError:
        present = set()
    missing = [name for name in names if name not in present
               and not ("/" in name and (folder / name).is_file())]
    if missing:
        raise WholebodyDataError(f"{source}: {len(missing)} of its {len(names)} pictures are "
                                 f"missing, the first is {folder / missing[0]}")
