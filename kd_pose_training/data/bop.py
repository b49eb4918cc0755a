"""BOP folders: models, frames and poses, in metres.

Reads our own synthetic sets and the public ones (LINEMOD, LM-O, YCB-V and others). Opening a
split parses its JSON files and lists its pictures' names; pictures are read when asked for.
Format: github.com/thodan/bop_toolkit, docs/bop_datasets_format.md. Two additions that our writer
makes are understood: the key ``name`` in models_info.json, and ``<scene>/instance_map/%06d.png``,
all visible masks of a frame in one 8-bit picture (row in scene_gt.json, 255 = none).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from kd_pose_training.data import bop_files
from kd_pose_training.data.bop_files import (
    IMAGE_FOLDERS,
    MM,
    MODEL_FOLDERS,
    BopError,
    by_number,
    numbered_folders,
    numbers,
    read_json,
)
from kd_pose_training.data.bop_models import BopModel, read_models
from kd_pose_training.data.bop_targets import TargetList, read_targets, split_listing

__all__ = ["BopDataset", "BopError", "BopFrame", "BopInstance", "read_scene"]

NO_INSTANCE = 255  # in packed instance maps, which therefore hold so many instances at most


@dataclass(slots=True)
class BopInstance:
    """One object in one frame.

    T_cam_obj: (4, 4), metres. bbox_obj (whole silhouette), bbox_visib: continuous xywh (4,), None
    where unknown or empty. visib_fract: visible share, 1 where unknown. row: its place in
    scene_gt.json. scene_path, im_id: where its masks are.
    """

    obj_id: int
    T_cam_obj: np.ndarray
    bbox_obj: np.ndarray | None
    bbox_visib: np.ndarray | None
    visib_fract: float
    row: int
    scene_path: Path
    im_id: int

    @property
    def mask_path(self) -> Path:
        """Mask of the whole silhouette; the file may be absent."""
        return self.scene_path / "mask" / f"{self.im_id:06d}_{self.row:06d}.png"

    @property
    def mask_visib_path(self) -> Path:
        """Mask of the visible part; the file may be absent."""
        return self.scene_path / "mask_visib" / f"{self.im_id:06d}_{self.row:06d}.png"


@dataclass(slots=True)
class BopFrame:
    """One picture with the wanted instances. K: (3, 3). depth_scale: millimetres per unit, None
    where not said. map_path: packed instance map, if there is one. rows: entries in scene_gt."""

    scene_id: int
    im_id: int
    image_path: Path
    depth_path: Path | None
    K: np.ndarray
    depth_scale: float | None
    instances: list[BopInstance]
    map_path: Path | None
    rows: int

    def load_image(self) -> np.ndarray:
        """Picture uint8 (H, W, 3), BGR; grey ones have three equal channels.

        Raises:
            BopError: it cannot be read; also from the loaders below.
        """
        return bop_files.read_picture(self.image_path,
                                      cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)

    def load_depth(self) -> np.ndarray:
        """Depth float32 (H, W) along the camera's z axis, metres, 0 where unknown."""
        if self.depth_path is None:
            scene = self.image_path.parent.parent
            raise BopError(f"{scene / 'depth' / f'{self.im_id:06d}.png'}: no such file")
        if self.depth_scale is None:
            raise BopError(f"{self.image_path.parent.parent / 'scene_camera.json'}: scene "
                           f"{self.scene_id}, image {self.im_id}: key 'depth_scale' is missing")
        raw = bop_files.read_picture(self.depth_path, cv2.IMREAD_UNCHANGED)
        if raw.ndim != 2:
            raise BopError(f"{self.depth_path}: depth must have one channel, has {raw.shape[2]}")
        depth = raw.astype(np.float32) * np.float32(self.depth_scale * MM)
        return np.where(np.isfinite(depth), depth, np.float32(0))

    def load_instance_map(self) -> np.ndarray:
        """Visible instances int16 (H, W): index in ``instances``, -1 where there is none of them.

        From the packed map where there is one, else from the visible masks.
        """
        if self.map_path is not None:
            return self._unpack(bop_files.read_picture(self.map_path, cv2.IMREAD_UNCHANGED))
        if not self.instances:
            return np.full(self.load_image().shape[:2], -1, dtype=np.int16)
        result = None
        for index, instance in enumerate(self.instances):
            mask = bop_files.read_mask(instance.mask_visib_path)
            if result is None:
                result = np.full(mask.shape, -1, dtype=np.int16)
            if mask.shape != result.shape:
                raise BopError(f"{instance.mask_visib_path}: is {mask.shape[1]}x{mask.shape[0]}, "
                               f"the others are {result.shape[1]}x{result.shape[0]}")
            result[mask > 0] = index
        return result

    def _unpack(self, packed: np.ndarray) -> np.ndarray:
        if packed.ndim != 2 or packed.dtype != np.uint8:
            raise BopError(f"{self.map_path}: must be 8-bit with one channel, is {packed.dtype} "
                           f"{packed.shape}")
        unknown = np.full(NO_INSTANCE + 1, 1, dtype=np.uint8)
        unknown[:self.rows], unknown[NO_INSTANCE] = 0, 0
        wrong = cv2.LUT(packed, unknown)  # several times as fast as numpy's indexing
        if wrong.any():
            value = packed[wrong > 0].max()
            raise BopError(f"{self.map_path}: has value {value}, scene_gt.json has {self.rows} "
                           f"instance(s) for scene {self.scene_id}, image {self.im_id}")
        index = np.full(NO_INSTANCE + 1, -1, dtype=np.int16)
        for number, instance in enumerate(self.instances):
            index[instance.row] = number
        return cv2.LUT(packed, index)


class BopDataset:
    """A split of a BOP folder.

    ``models``: BopModel by object number. ``frames``: BopFrames by scene and image. Both only of
    the wanted objects; a frame without any stays, others' instances are background. ``targets``:
    how many instances of which object are to be found, by (scene, image), where a file says so.

    Args:
        root: folder of the set, with ``models`` (or models_eval, models_cad).
        split: folder of scenes in it, e.g. ``test`` or ``train_pbr``. ``test@list.json``: only the
            images that this file in ``root`` names; ``test@!list.json``: all others.
        objects: names of the wanted objects (``obj_000001`` and so on where models_info.json has
            no names); None or empty: all. Names that the set lacks are left out.
        targets: such a file, e.g. ``test_targets_bop19.json``.
        models: folder to be preferred for models_info.json and the meshes.

    Raises:
        BopError: a file or key is missing or wrong, or the set has none of the objects.
    """

    def __init__(self, root: str | Path, split: str, *,
                 objects: Collection[str] | None = None,
                 targets: str | Path | None = None, models: str = MODEL_FOLDERS[0]) -> None:
        self.root, self.split = Path(root), split
        folder, listed = split_listing(self.root, split)
        scenes = _scene_folders(self.root, folder)
        known = read_models(self.root, models)
        self.models = _select(known, objects, self.root)
        if targets is not None:
            listed = read_targets(self.root / targets)
        if listed is not None:
            listed.check_scenes([scene_id for scene_id, _ in scenes], self.root / folder)
        self.targets = {} if listed is None else listed.objects
        self.frames: list[BopFrame] = []
        for scene_id, scene in scenes:
            if listed is None or not listed.skips(scene_id):
                self.frames += read_scene(scene_id, scene, known, self.models, listed)

    def __len__(self) -> int:
        return len(self.frames)


def _scene_folders(root: Path, split: str) -> list[tuple[int, Path]]:
    if not root.is_dir():
        raise BopError(f"{root}: no such folder")
    scenes = numbered_folders(root / split) if split else []
    if not scenes:
        splits = sorted(item.name for item in root.iterdir() if numbered_folders(item))
        there = f"there are {', '.join(splits)}" if splits else "the folder has none"
        what = "has no scenes" if split and (root / split).is_dir() else "no such split"
        raise BopError(f"{root / split if split else root}: {what}; {there}")
    return scenes


def _select(known: Mapping[int, BopModel], objects: Collection[str] | None,
            root: Path) -> dict[int, BopModel]:
    if not objects:
        return dict(known)
    if isinstance(objects, str):
        raise BopError(f"{root}: objects must be a list of names, got {objects!r}")
    models = {obj_id: model for obj_id, model in known.items() if model.name in objects}
    if not models:
        raise BopError(f"{root}: has none of the objects {', '.join(map(str, objects))}; there "
                       f"are {', '.join(model.name for model in known.values())}")
    return models


def read_scene(scene_id: int, folder: Path, known: Collection[int],
               models: Collection[int], listed: TargetList | None = None) -> list[BopFrame]:
    """Frames of a scene, all or those of the listed images.

    known: numbers of all objects of the set; models: those of which instances are wanted.

    Raises:
        BopError: a file or key is missing or wrong.
    """
    truth_path, camera_path = folder / "scene_gt.json", folder / "scene_camera.json"
    truth = by_number(read_json(truth_path), truth_path, list)
    if listed is not None:
        chosen = listed.choose(scene_id, truth.keys(), truth_path)
        truth = {im_id: truth[im_id] for im_id in truth if im_id in chosen}
    cameras = by_number(read_json(camera_path), camera_path, dict)
    instances = _instances(scene_id, folder, truth, known, models)
    images = next((found for name in IMAGE_FOLDERS
                   if (found := bop_files.list_pictures(folder / name))), {})
    depths = bop_files.list_pictures(folder / "depth")
    maps = bop_files.list_pictures(folder / "instance_map")
    frames = []
    for im_id, items in truth.items():
        where = f"{camera_path}: scene {scene_id}, image {im_id}"
        if im_id not in cameras:
            raise BopError(f"{where}: is missing, scene_gt.json has it")
        if im_id not in images:
            raise BopError(f"{folder / 'rgb' / f'{im_id:06d}.png'}: no such file, nor .jpg, nor "
                           "one in gray; scene_gt.json has this image")
        camera = cameras[im_id]
        scale = numbers(camera, "depth_scale", 1, where)[0] if "depth_scale" in camera else None
        frames.append(BopFrame(scene_id, im_id, images[im_id], depths.get(im_id),
                               bop_files.intrinsics(camera, where), scale, instances[im_id],
                               maps.get(im_id) if len(items) <= NO_INSTANCE else None,
                               len(items)))
    return frames


def _instances(scene_id: int, folder: Path, truth: Mapping[int, list],
               known: Collection[int],
               models: Collection[int]) -> dict[int, list[BopInstance]]:
    """Instances of the wanted objects by image; the others are checked too."""
    places = [(im_id, row) for im_id, items in truth.items() for row in range(len(items))]
    items = [item for image in truth.values() for item in image]
    where = partial(_where, folder / "scene_gt.json", scene_id, places)
    numbered = bop_files.column(items, "obj_id", 1, where)[:, 0] if items else []
    T = bop_files.poses(items, where)
    whole, visible, share = _visibility(scene_id, folder, truth, places)
    result: dict[int, list[BopInstance]] = {im_id: [] for im_id in truth}
    for i, (im_id, row) in enumerate(places):
        obj_id = int(numbered[i])
        if obj_id not in known:
            raise BopError(f"{where(i)}: key 'obj_id': {obj_id} is not in models_info.json, "
                           f"which has {', '.join(map(str, known))}")
        if obj_id in models:
            result[im_id].append(BopInstance(obj_id, T[i], whole[i], visible[i], share[i], row,
                                             folder, im_id))
    return result


def _visibility(scene_id: int, folder: Path, truth: Mapping[int, list],
                places: Sequence[tuple[int, int]]) -> tuple[list, list, list[float]]:
    """``bbox_obj``, ``bbox_visib`` and ``visib_fract`` of every instance."""
    path = folder / "scene_gt_info.json"
    if not path.is_file():
        return [None] * len(places), [None] * len(places), [1.0] * len(places)
    infos = by_number(read_json(path), path, list)
    for im_id, rows in truth.items():
        if len(infos.get(im_id, ())) != len(rows):
            raise BopError(f"{path}: scene {scene_id}, image {im_id}: {len(infos.get(im_id, ()))} "
                           f"entries, scene_gt.json has {len(rows)}")
    items = [info for im_id in truth for info in infos.get(im_id, ())]
    where = partial(_where, path, scene_id, places)
    share = bop_files.column(items, "visib_fract", 1, where)[:, 0] if items else np.zeros(0)
    wrong = (share < 0) | (share > 1.001)
    if wrong.any():
        i = int(wrong.argmax())
        raise BopError(f"{where(i)}: key 'visib_fract' must be 0 to 1, got {share[i]:g}")
    return (bop_files.boxes(items, "bbox_obj", where), bop_files.boxes(items, "bbox_visib", where),
            np.minimum(share, 1.0).tolist())


def _where(path: Path, scene_id: int, places: Sequence[tuple[int, int]], i: int) -> str:
    im_id, row = places[i]
    return f"{path}: scene {scene_id}, image {im_id}, instance {row}"
