"""A folder in COCO's layout with bright people on dark ground, of which everything is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SIZE_WH = (128, 96)


def person(box, crowd=0, **more):
    """An annotation without ids; box xywh as in the file."""
    return {"category_id": 1, "iscrowd": crowd, "bbox": [float(v) for v in box], **more}


def write_people(root: Path, pictures: list[list[dict]], split: str = "train",
                 name: str = "person_keypoints_{}.json", images: str = "{}",
                 more: tuple[dict, ...] = ()) -> Path:
    """Write pictures with the people given for each, who are drawn as full boxes.

    more: annotations that are put into the file as they are.
    """
    folder = root / images.format(split)
    folder.mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    items, annotations = [], list(more)
    for number, people in enumerate(pictures, 1):
        width, height = SIZE_WH
        picture = np.full((height, width, 3), 40, np.uint8)
        for item in people:
            x, y, w, h = np.rint(item["bbox"]).astype(int)
            picture[max(y, 0):max(y + h, 0), max(x, 0):max(x + w, 0)] = (90, 200, 240)
            annotations.append({"id": 100 + len(annotations), "image_id": number, **item})
        items.append({"id": number, "file_name": f"{number:04d}.png", "width": width,
                      "height": height})
        cv2.imwrite(str(folder / f"{number:04d}.png"), picture)
    path = root / "annotations" / name.format(split)
    path.write_text(json.dumps({"images": items, "annotations": annotations,
                                "categories": [{"id": 1, "name": "person"}]}))
    return path


def points(seen: int, hidden: int) -> list[float]:
    """17 body points of which so many are marked as seen and as labelled but hidden."""
    marks = [2] * seen + [1] * hidden + [0] * (17 - seen - hidden)
    return [value for mark in marks for value in (10.0 * (mark > 0), 10.0 * (mark > 0), mark)]
