"""To be looked at: a sheet of a set's pictures, every second row with its keypoints, and a clip's
video."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np

from kd_pose.skeleton_drawing import draw_people
from kd_pose_training.synthetic.bop_writer import write_image
from kd_pose_training.synthetic.people.generate import annotation_file
from kd_pose_training.synthetic.sheet import tiled

COLUMNS, PAIRS, TILE_WIDTH = 4, 3, 480
CLIP_HZ = 10.0
HIDDEN_SCORE = 0.35  # hidden points are drawn, but paler
KEYS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")


def keypoints_of(annotation: dict) -> np.ndarray:
    """All points (133, 3) of an annotation: x, y, v."""
    return np.concatenate([np.reshape(annotation[key], (-1, 3)) for key in KEYS])


def write_people_sheet(root: Path, split: str) -> Path:
    """Write ``root``/sheet.jpg: frames of all parts of the split, each also with its points."""
    root = Path(root)
    data = json.loads(annotation_file(root, split).read_text(encoding="utf-8"))
    count = min(COLUMNS * PAIRS, len(data["images"]))
    rows = np.linspace(0, len(data["images"]) - 1, count).astype(int)
    picked = [data["images"][row] for row in rows]
    plain, drawn = [], []
    for item in picked:
        image = cv2.imread(str(root / "images" / split / item["file_name"]))
        people = [keypoints_of(a) for a in data["annotations"] if a["image_id"] == item["id"]]
        points = np.array(people).reshape(-1, 133, 3)
        scores = np.select([points[..., 2] == 2, points[..., 2] == 1], [1.0, HIDDEN_SCORE], 0.0)
        plain.append(image)
        drawn.append(draw_people(image, points[..., :2], scores))
    tiles = []
    for start in range(0, count, COLUMNS):
        for images in (plain, drawn):
            row = images[start:start + COLUMNS]
            tiles += row + [np.zeros_like(row[0])] * (COLUMNS - len(row))
    path = root / "sheet.jpg"
    write_image(path, tiled(tiles, COLUMNS, TILE_WIDTH), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def write_video(root: Path, split: str) -> Path:
    """Write ``root``/<split>.mp4: the split's pictures in order, 10 a second.

    Raises:
        OSError: this OpenCV writes no MPEG-4.
    """
    root = Path(root)
    data = json.loads(annotation_file(root, split).read_text(encoding="utf-8"))
    path, beside = root / f"{split}.mp4", root / f".{split}.part.mp4"
    first = data["images"][0]
    writer = cv2.VideoWriter(str(beside), cv2.VideoWriter_fourcc(*"mp4v"), CLIP_HZ,
                             (first["width"], first["height"]))
    if not writer.isOpened():
        raise OSError(f"{path}: OpenCV cannot write MPEG-4 video here")
    for item in data["images"]:
        writer.write(cv2.imread(str(root / "images" / split / item["file_name"])))
    writer.release()
    os.replace(beside, path)
    return path
