"""BOP files from drawn scenes: pictures, depth, masks, poses, visibility, COCO annotations.

Millimetres live here only. A scene folder is written under another name and renamed when it is
complete, so that a folder with its right name is always whole.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kd_pose_training.synthetic.meshes import ObjectMesh, save_ply_mm
from kd_pose_training.synthetic.render import Buffers
from kd_pose_training.synthetic.scene import Scene

DEPTH_SCALE = 0.1  # millimetres per unit: 0.1 mm up to 6.5 m
NO_INSTANCE = 255
FOLDERS = ("rgb", "depth", "mask", "mask_visib", "instance_map")


def write_json(path: Path, data: Any) -> None:
    """Write beside, then rename."""
    part = path.with_name(path.name + ".part")
    _write(part, json.dumps(data).encode())
    os.replace(part, path)


def _write(path: Path, data: bytes) -> None:
    """Write a file; errors of a full disk, too, name it."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_models(root: Path, objects: list[ObjectMesh]) -> None:
    """models/ with a ply (mm) per object and models_info.json."""
    folder = root / "models"
    folder.mkdir(parents=True, exist_ok=True)
    info = {}
    for item in objects:
        save_ply_mm(item.mesh, folder / f"obj_{item.obj_id:06d}.ply")
        info[str(item.obj_id)] = model_info(item)
    write_json(folder / "models_info.json", info)


def model_info(item: ObjectMesh) -> dict:
    """One entry of models_info.json, with the extra key ``name``."""
    spec = item.spec
    low, high = 1000 * np.array(spec.box_min), 1000 * np.array(spec.box_max)
    entry: dict[str, Any] = {"name": spec.name, "diameter": 1000 * spec.diameter}
    for axis, name in enumerate("xyz"):
        entry["min_" + name] = float(low[axis])
        entry["size_" + name] = float(high[axis] - low[axis])
    if spec.symmetries_discrete:
        matrices = [np.array(m, float).reshape(4, 4) for m in spec.symmetries_discrete]
        for matrix in matrices:
            matrix[:3, 3] *= 1000
        entry["symmetries_discrete"] = [m.ravel().tolist() for m in matrices]
    if spec.symmetries_continuous:
        entry["symmetries_continuous"] = [
            {"axis": list(axis), "offset": [1000 * v for v in offset]}
            for axis, offset in spec.symmetries_continuous]
    return entry


def write_frame(folder: Path, number: int, scene: Scene, picture: np.ndarray, buffers: Buffers,
                areas: list[int], objects: list[ObjectMesh], quality: int) -> dict:
    """Write the files of one frame into a scene folder; returns what the JSON files need of it.

    picture: RGB uint8 (H, W, 3). areas: pixels of every instance alone, also outside the frame.
    Instances of which nothing lies inside the frame are left out.
    """
    kept = [row for row in range(len(scene.objects)) if buffers.whole[row].any()]
    name = f"{number:06d}"
    write_image(folder / "rgb" / f"{name}.jpg", np.ascontiguousarray(picture[..., ::-1]),
             [cv2.IMWRITE_JPEG_QUALITY, quality])
    units = np.rint(buffers.depth * (1000 / DEPTH_SCALE))
    units[(units < 0) | (units > 65535)] = 0
    write_image(folder / "depth" / f"{name}.png", units.astype(np.uint16),
             [cv2.IMWRITE_PNG_COMPRESSION, 1])
    seen = np.full(buffers.ids.shape, NO_INSTANCE, np.uint8)
    truths, infos = [], []
    for index, row in enumerate(kept):
        thing, visible = scene.objects[row], buffers.ids == row
        seen[visible] = index
        T = scene.pose(thing)
        item = objects[thing.item]
        for kind, mask in (("mask", buffers.whole[row]), ("mask_visib", visible)):
            write_image(folder / kind / f"{name}_{index:06d}.png", mask.astype(np.uint8) * 255,
                     [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_BILEVEL, 1])
        truths.append({"obj_id": item.obj_id, "cam_R_m2c": T[:3, :3].ravel().tolist(),
                       "cam_t_m2c": (1000 * T[:3, 3]).tolist()})
        infos.append(_info(scene, T, item, visible, areas[row]))
    write_image(folder / "instance_map" / f"{name}.png", seen, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return {"camera": {"cam_K": scene.K.ravel().tolist(), "depth_scale": DEPTH_SCALE},
            "gt": truths, "info": infos, "size": [scene.width, scene.height],
            "rle": [mask_rle(seen == index) for index in range(len(kept))]}


def write_image(path: Path, image: np.ndarray, flags: list[int]) -> None:
    """Encode by the file's ending and write; BGR, flags as cv2.imwrite takes them."""
    good, data = cv2.imencode(path.suffix, image, flags)
    if not good:
        raise OSError(f"{path}: the picture could not be encoded")
    _write(path, data.tobytes())


def _info(scene: Scene, T: np.ndarray, item: ObjectMesh, visible: np.ndarray, area: int) -> dict:
    """One entry of scene_gt_info.json. bbox_obj is of the whole object, also outside the frame."""
    points = item.mesh.vertices @ T[:3, :3].T + T[:3, 3]
    pixels = points @ scene.K.T
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)
    low, high = np.floor(pixels.min(axis=0) + 0.5), np.floor(pixels.max(axis=0) + 0.5)
    count = int(visible.sum())
    return {"bbox_obj": [int(v) for v in (*low, *(high - low + 1))],
            "bbox_visib": mask_box(visible), "px_count_all": area, "px_count_valid": area,
            "px_count_visib": count, "visib_fract": min(1.0, count / max(area, 1))}


def mask_box(mask: np.ndarray) -> list[int]:
    """x, y, w, h of a mask (H, W) in BOP's whole pixels; -1 four times when it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return [-1, -1, -1, -1]
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1),
            int(rows[-1] - rows[0] + 1)]


def mask_rle(mask: np.ndarray) -> dict:
    """COCO's uncompressed run lengths of a mask (H, W): columns first, starting with zeros."""
    flat = mask.ravel(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return {"counts": [0, *runs] if len(flat) and flat[0] else runs, "size": list(mask.shape)}


def finish_scene(folder: Path, frames: dict[int, dict], objects: list[ObjectMesh]) -> None:
    """Write a scene's JSON files from what ``write_frame`` returned, by frame number."""
    order = sorted(frames)
    write_json(folder / "scene_camera.json", {str(n): frames[n]["camera"] for n in order})
    write_json(folder / "scene_gt.json", {str(n): frames[n]["gt"] for n in order})
    write_json(folder / "scene_gt_info.json", {str(n): frames[n]["info"] for n in order})
    annotations = []
    for n in order:
        for truth, info, rle in zip(frames[n]["gt"], frames[n]["info"], frames[n]["rle"]):
            annotations.append({
                "id": len(annotations) + 1, "image_id": n, "category_id": truth["obj_id"],
                "iscrowd": 0, "ignore": info["px_count_visib"] == 0, "bbox": info["bbox_obj"],
                "area": info["px_count_visib"], "segmentation": rle})
    images = [{"id": n, "file_name": f"rgb/{n:06d}.jpg", "width": frames[n]["size"][0],
               "height": frames[n]["size"][1]} for n in order]
    categories = [{"id": item.obj_id, "name": item.spec.name, "supercategory": "object"}
                  for item in objects]
    write_json(folder / "scene_gt_coco.json", {
        "info": {"description": "rendered by kd_pose"}, "licenses": [],
        "categories": categories, "images": images, "annotations": annotations})
