"""A sheet of a set's pictures with their boxes, to be looked at before training for an hour."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from kd_pose.geometry import box_corners, transform_points
from kd_pose.keypoints import BOX_EDGES
from kd_pose_training.data.bop import BopDataset

COLUMNS, ROWS, TILE_WIDTH = 4, 4, 480


def write_sheet(root: Path, split: str) -> Path:
    """Write ``root``/sheet.jpg: frames of all parts of the split, every second one with boxes."""
    dataset = BopDataset(root, split)
    count = min(COLUMNS * ROWS, len(dataset.frames))
    picked = np.linspace(0, len(dataset.frames) - 1, count).astype(int)
    tiles = []
    for number, index in enumerate(picked):
        frame = dataset.frames[index]
        image = np.ascontiguousarray(frame.load_image())
        if number % 2:
            _draw_boxes(image, frame, dataset)
        height = round(image.shape[0] * TILE_WIDTH / image.shape[1])
        tiles.append(cv2.resize(image, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA))
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i:i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    path = Path(root) / "sheet.jpg"
    part = path.with_name(".sheet.part.jpg")
    if not cv2.imwrite(str(part), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 90]):
        raise OSError(f"{path}: cannot be written")
    os.replace(part, path)
    return path


def _draw_boxes(image: np.ndarray, frame, dataset: BopDataset) -> None:
    for instance in frame.instances:
        if instance.visib_fract < 0.1:
            continue
        spec = dataset.models[instance.obj_id].spec
        points = transform_points(instance.T_cam_obj, box_corners(spec.box_min, spec.box_max))
        if points[:, 2].min() < 0.01:
            continue
        pixels = points @ frame.K.T
        pixels = np.rint(pixels[:, :2] / pixels[:, 2:]).astype(int)
        for a, b in BOX_EDGES:
            cv2.line(image, pixels[a].tolist(), pixels[b].tolist(), (80, 255, 120), 1, cv2.LINE_AA)
