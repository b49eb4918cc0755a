"""A scene of a BOP set: pictures, K of each, and the true poses.

Format: github.com/thodan/bop_toolkit, docs/bop_datasets_format.md; the own sets' extra key `name`
in models_info.json is understood. Files are in millimetres, what leaves here is in metres.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose.sources.base import Calibration, Frame, Source, SourceError, TrueObject, read_picture
from kd_pose.sources.pictures import PICTURE_SUFFIXES

MM = 1e-3  # metres per millimetre
IMAGE_FOLDERS = ("rgb", "gray")
MODEL_FOLDERS = ("models", "models_eval", "models_cad", "models_reconst")
CAMERA_FILE = "scene_camera.json"


def is_bop_scene(folder: Path) -> bool:
    """Whether a folder is meant as a BOP scene, complete or not."""
    return (folder / CAMERA_FILE).exists() or (folder / "scene_gt.json").exists()


def scenes_below(folder: Path, limit: int = 5) -> list[Path]:
    """Scenes of a split or a set, for a person who named that instead of a scene."""
    found = [*folder.glob(f"*/{CAMERA_FILE}"), *folder.glob(f"*/*/{CAMERA_FILE}")]
    return sorted(path.parent for path in found)[:limit]


class BopSource(Source):
    """One scene. Frames have no times; they have the truth where the scene has scene_gt.json."""

    def __init__(self, folder: Path, truth: bool = False, min_visible: float = 0.0) -> None:
        """truth: read the poses too. min_visible: share of an object that must be seen."""
        self._cameras = _numbered(_read_json(folder / CAMERA_FILE), folder / CAMERA_FILE, dict)
        if not self._cameras:
            raise SourceError(f"{folder / CAMERA_FILE}: has no images")
        self._images = _images(folder)
        super().__init__(folder, f"BOP scene {folder}, {len(self._cameras)} pictures",
                         len(self._cameras))
        self._K = {image: self._intrinsics(image) for image in self._cameras}
        self._truth = _Truth(folder, min_visible) if truth else None
        self.has_truth = truth
        for image in self._cameras:
            if image not in self._images:
                raise SourceError(
                    f"{folder / 'rgb'}: has no picture {image:06d}, which {CAMERA_FILE} has "
                    "(gray was looked into, too)"
                )

    def _intrinsics(self, image: int) -> tuple[float, ...]:
        where = f"{self.path / CAMERA_FILE}: image {image}"
        k = _numbers(self._cameras[image], "cam_K", 9, where)
        if not (k[0] > 0 and k[4] > 0):
            raise SourceError(f"{where}: key 'cam_K' must have positive focal lengths, got "
                              f"{list(k)}")
        return k

    def frames(self) -> Iterator[Frame]:
        size: tuple[int, int] | None = None
        for image in self._cameras:
            picture = read_picture(self._images[image])
            found = picture.raw.width, picture.raw.height
            size = size or found
            if found != size:
                raise SourceError(f"{picture.where}: is {found[0]}x{found[1]}, the first picture "
                                  f"is {size[0]}x{size[1]}; all pictures must have one size")
            truth = None if self._truth is None else self._truth.objects(image)
            yield Frame(picture, Calibration(*size, self._K[image]), truth=truth)


class _Truth:
    """scene_gt.json with the names and boxes of models_info.json, checked on construction."""

    def __init__(self, folder: Path, min_visible: float) -> None:
        path = folder / "scene_gt.json"
        if not path.is_file():
            raise SourceError(f"{path}: no such file, so there are no true poses to publish: set "
                              "publish_truth to false")
        self._path = path
        self._entries = _numbered(_read_json(path), path, list)
        self._models = _models(folder)
        self._visible = self._visibility(folder, min_visible)

    def _visibility(self, folder: Path, minimum: float) -> dict[int, list[bool]]:
        path = folder / "scene_gt_info.json"
        if minimum <= 0 or not path.is_file():
            return {}
        visible = {}
        for image, items in _numbered(_read_json(path), path, list).items():
            where = f"{path}: image {image}"
            visible[image] = [_numbers(item, "visib_fract", 1, where)[0] >= minimum
                              for item in items]
            if len(items) != len(self._entries.get(image, items)):
                raise SourceError(f"{where}: {len(items)} entries, scene_gt.json has "
                                  f"{len(self._entries[image])}")
        return visible

    def objects(self, image: int) -> tuple[TrueObject, ...]:
        """The truth of one image; an image that scene_gt.json does not have shows nothing."""
        found = []
        for row, item in enumerate(self._entries.get(image, [])):
            if image in self._visible and not self._visible[image][row]:
                continue
            found.append(self._object(item, f"{self._path}: image {image}, entry {row}"))
        return tuple(found)

    def _object(self, item: Any, where: str) -> TrueObject:
        number = int(_numbers(item, "obj_id", 1, where)[0])
        if number not in self._models:
            raise SourceError(f"{where}: key 'obj_id': {number} is not in models_info.json, which "
                              f"has {', '.join(map(str, self._models))}")
        T = np.eye(4)
        T[:3, :3] = np.reshape(_numbers(item, "cam_R_m2c", 9, where), (3, 3))
        T[:3, 3] = MM * np.array(_numbers(item, "cam_t_m2c", 3, where))
        name, box_min, box_max = self._models[number]
        return TrueObject(name, T, box_min, box_max)


def _models(folder: Path) -> dict[int, tuple[str, tuple, tuple]]:
    """Name and box (metres) of every object of the set that the scene belongs to."""
    scene = folder.resolve()
    places = [root / name / "models_info.json" for root in (scene.parent.parent, scene.parent)
              for name in MODEL_FOLDERS]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise SourceError(f"{places[0]}: no such file, nor in {', '.join(MODEL_FOLDERS[1:])}: the "
                          "names of the objects are needed for publish_truth")
    models = {}
    for number, info in _numbered(_read_json(path), path, dict).items():
        where = f"{path}: object {number}"
        name = info.get("name", f"obj_{number:06d}")
        if not isinstance(name, str) or not name:
            raise SourceError(f"{where}: key 'name' must be a text, got {name!r}")
        low = [_numbers(info, f"min_{axis}", 1, where)[0] for axis in "xyz"]
        size = [_numbers(info, f"size_{axis}", 1, where)[0] for axis in "xyz"]
        box_max = tuple(MM * (start + length) for start, length in zip(low, size))
        models[number] = (name, tuple(MM * start for start in low), box_max)
    return models


def _images(folder: Path) -> dict[int, Path]:
    """Picture files by their number."""
    for name in IMAGE_FOLDERS:
        if (folder / name).is_dir():
            found = {int(path.stem): path for path in (folder / name).iterdir()
                     if path.stem.isdecimal() and path.suffix.lower() in PICTURE_SUFFIXES}
            if found:
                return found
    raise SourceError(f"{folder}: a BOP scene needs pictures in rgb or gray, there are none")


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"{path}: truncated, or not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path}: must hold an object, holds {type(content).__name__}")
    return content


def _numbered(content: dict, path: Path, kind: type) -> dict[int, Any]:
    """Entries by their number, in rising order."""
    for key, value in content.items():
        if not key.isdecimal():
            raise SourceError(f"{path}: key {key!r} is not a number")
        if not isinstance(value, kind):
            raise SourceError(f"{path}: key {key!r} must be a {kind.__name__}, is a "
                              f"{type(value).__name__}")
    return {int(key): content[key] for key in sorted(content, key=int)}


def _numbers(item: Any, key: str, count: int, where: str) -> tuple[float, ...]:
    if not isinstance(item, dict) or key not in item:
        raise SourceError(f"{where}: key {key!r} is missing")
    try:
        values = np.array(item[key], dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        raise SourceError(f"{where}: key {key!r} must be {count} finite number(s), got "
                          f"{item[key]!r}")
    return tuple(values.tolist())
