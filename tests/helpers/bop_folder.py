"""A tiny BOP set on disk: two objects, one scene of three frames, 8x6 pixels.

Values are chosen to be worked by hand. Object 1 is a block 40 x 30 x 20 mm, object 5 a disc of
100 mm with both kinds of symmetry.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 8, 6
TURN_Z = [0, -1, 0, 1, 0, 0, 0, 0, 1]
PIXELS = {0: (slice(1, 4), slice(2, 5)), 1: (slice(2, 6), slice(5, 8))}  # rows, columns by row
MODELS = {
    "1": {"name": "block", "diameter": 53.85164807134504, "min_x": -20, "min_y": -15,
          "min_z": -10, "size_x": 40, "size_y": 30, "size_z": 20},
    "5": {"name": "disc", "diameter": 100.0, "min_x": -50.0, "min_y": -50.0, "min_z": 0.0,
          "size_x": 100.0, "size_y": 100.0, "size_z": 4.0,
          "symmetries_discrete": [[1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 4, 0, 0, 0, 1]],
          "symmetries_continuous": [{"axis": [0, 0, 1], "offset": [0, 0, 2]}]},
}
TRUTH = [{"obj_id": 5, "cam_R_m2c": [1, 0, 0, 0, 1, 0, 0, 0, 1], "cam_t_m2c": [0, 0, 800]},
         {"obj_id": 1, "cam_R_m2c": TURN_Z, "cam_t_m2c": [100.0, -50.0, 750.0]}]
INFO = [{"bbox_obj": [2, 1, 4, 3], "bbox_visib": [2, 1, 3, 3], "px_count_all": 12,
         "px_count_valid": 12, "px_count_visib": 9, "visib_fract": 0.75},
        {"bbox_obj": [5, 2, 3, 4], "bbox_visib": [-1, -1, -1, -1], "px_count_all": 12,
         "px_count_valid": 12, "px_count_visib": 12, "visib_fract": 1.0}]
CAMERA = {"cam_K": [10.0, 0.0, 3.5, 0.0, 11.0, 2.5, 0.0, 0.0, 1.0], "depth_scale": 0.1}


def write_json(path: Path, data) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def write_ply(path: Path, vertices: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}",
             *(f"property float {axis}" for axis in "xyz"), "element face 1",
             "property list uchar int vertex_indices", "end_header",
             *(" ".join(f"{value:g}" for value in point) for point in vertices), "3 0 1 2"]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def corners(info: dict) -> np.ndarray:
    low = np.array([info[f"min_{axis}"] for axis in "xyz"], dtype=float)
    size = np.array([info[f"size_{axis}"] for axis in "xyz"], dtype=float)
    return np.array([low + size * (i & 1, i >> 1 & 1, i >> 2 & 1) for i in range(8)])


def write_models(root: Path, folder: str = "models", names: bool = True) -> None:
    """models_info.json and the meshes; as in public sets without names."""
    infos = {key: {k: v for k, v in info.items() if names or k != "name"}
             for key, info in MODELS.items()}
    write_json(root / folder / "models_info.json", infos)
    for key, info in infos.items():
        write_ply(root / folder / f"obj_{int(key):06d}.ply", corners(info))


def write_scene(scene: Path, images=(2, 0, 10), *, colour: str = "rgb/{:06d}.png",
                packed: bool = True, info: bool = True) -> None:
    """Frames with both objects; the first number's frame has none.

    Depth is 7500 units of 0.1 mm, and 0 in the first pixel.
    """
    truth = {str(im_id): TRUTH if im_id != images[0] else [] for im_id in images}
    write_json(scene / "scene_gt.json", truth)
    write_json(scene / "scene_camera.json", {key: CAMERA for key in truth})
    if info:
        write_json(scene / "scene_gt_info.json",
                   {key: INFO if items else [] for key, items in truth.items()})
    for im_id in images:
        picture = np.full((HEIGHT, WIDTH, 3), (im_id, 100, 200), np.uint8)
        grey = colour.startswith("gray")
        write_picture(scene / colour.format(im_id), picture[..., 1] if grey else picture)
        depth = np.full((HEIGHT, WIDTH), 7500, np.uint16)
        depth[0, 0] = 0
        write_picture(scene / "depth" / f"{im_id:06d}.png", depth)
        rows = np.full((HEIGHT, WIDTH), 255, np.uint8)
        for row in range(len(truth[str(im_id)])):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[PIXELS[row]] = 255
            rows[mask > 0] = row
            for kind in ("mask", "mask_visib"):
                write_picture(scene / kind / f"{im_id:06d}_{row:06d}.png", mask)
        if packed:
            write_picture(scene / "instance_map" / f"{im_id:06d}.png", rows)


def write_set(root: Path, split: str = "train", **options) -> Path:
    """A whole set with scene 3; returns the scene's folder."""
    write_models(root)
    write_scene(root / split / "000003", **options)
    return root / split / "000003"
