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
        tiles.append(image)
    path = Path(root) / "sheet.jpg"
    part = path.with_name(".sheet.part.jpg")
    sheet = tiled(tiles, COLUMNS, TILE_WIDTH)
    if not cv2.imwrite(str(part), sheet, [cv2.IMWRITE_JPEG_QUALITY, 90]):
        raise OSError(f"{path}: cannot be written")
    os.replace(part, path)
    return path


def tiled(images: list[np.ndarray], columns: int, width: int) -> np.ndarray:
    """Pictures of one size in rows of ``columns``, each made ``width`` pixels wide; what is left
    of the last row is black."""
    height = round(images[0].shape[0] * width / images[0].shape[1])
    tiles = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i:i + columns]) for i in range(0, len(tiles), columns)])


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
