"""Boxes of a detector from a file in BOP's detection format.

A JSON list of ``{scene_id, image_id, category_id, bbox, score, time}``, as the benchmark's default
detections are: github.com/thodan/bop_toolkit, inout.py. bbox: x, y, width, height in pixels whose
first one reaches from 0 to 1; here its middle is 0. time: seconds for the whole image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd_pose_training.data.bop_files import BopError, numbers, read_json


@dataclass(frozen=True)
class BopDetection:
    """One box: box_xywh (4,) with continuous edges, score, seconds (-1 where unknown)."""

    obj_id: int
    score: float
    box_xywh: np.ndarray
    time: float


@dataclass(frozen=True)
class DetectionFile:
    """Boxes by (scene, image), best first. flat: entries without a width or a height, which are
    left out; by their place in the file."""

    path: Path
    boxes: dict[tuple[int, int], list[BopDetection]]
    flat: tuple[int, ...] = ()

    def warnings(self) -> list[str]:
        """What is wrong with the file and can be done without."""
        if not self.flat:
            return []
        return [f"{self.path}: {len(self.flat)} boxes have a width or height of 0 and are left "
                f"out (the first: entry {self.flat[0]}); 'bbox' is x, y, width, height"]

    def check_images(self, wanted: Iterable[tuple[int, int]]) -> None:
        """Raises BopError where the file is about none of the images."""
        wanted = list(wanted)
        if wanted and not self.boxes:
            raise BopError(f"{self.path}: has no box at all; --boxes oracle takes the true ones")
        if wanted and not any(place in self.boxes for place in wanted):
            some = "scene {}, image {}".format(*min(self.boxes))
            raise BopError(f"{self.path}: has no box for any of the {len(wanted)} images; it "
                           f"begins with {some}: is it of another data set?")


def read_detections(path: str | Path) -> DetectionFile:
    """Boxes of a file.

    Raises:
        BopError: not such a file; the message names the entry and the key.
    """
    path = Path(path)
    found: dict[tuple[int, int], list[BopDetection]] = {}
    flat = []
    for i, item in enumerate(read_json(path, list)):
        where = f"{path}: entry {i}"
        scene, image, obj_id = (int(numbers(item, key, 1, where)[0])
                                for key in ("scene_id", "image_id", "category_id"))
        x, y, width, height = numbers(item, "bbox", 4, where)
        if width < 0 or height < 0:
            raise BopError(f"{where}: key 'bbox' must be x, y, width, height, got {item['bbox']}")
        time = numbers(item, "time", 1, where)[0] if "time" in item else -1.0
        score = float(numbers(item, "score", 1, where)[0])
        if width == 0 or height == 0:
            flat.append(i)
            continue
        found.setdefault((scene, image), []).append(BopDetection(
            obj_id, score, np.array([x - 0.5, y - 0.5, width, height]), float(time)))
    for boxes in found.values():
        boxes.sort(key=lambda box: -box.score)
    return DetectionFile(path, found, tuple(flat))
