"""Files of BOP folders: JSON and pictures, with errors that name file, place and key.

Format: github.com/thodan/bop_toolkit, docs/bop_datasets_format.md. Lengths stay in millimetres
here; ``bop.py`` turns them into metres.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

MODEL_FOLDERS = ("models", "models_eval", "models_cad", "models_reconst")
IMAGE_FOLDERS = ("rgb", "gray")
MM = 1e-3  # metres per millimetre
ROTATION_TOLERANCE = 1e-2  # of R R^T from the identity; public sets are rounded to some 1e-4
# All objects of a scene nearer than this: the translations are metres, not millimetres.
NEAREST_MM = 10.0


class BopError(ValueError):
    """A BOP folder cannot be read; the message begins with the file and names the key."""


def read_json(path: Path, kind: type = dict) -> Any:
    """Contents of a JSON file whose top level is a ``kind``.

    Raises:
        BopError: missing, truncated, not JSON, or another kind.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
    except FileNotFoundError:
        raise BopError(f"{path}: no such file") from None
    except OSError as error:
        raise BopError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BopError(f"{path}: truncated, or not JSON: {error}") from error
    if not isinstance(data, kind):
        wanted = "an object" if kind is dict else "a list"
        raise BopError(f"{path}: must hold {wanted}, holds {type(data).__name__}")
    return data


def by_number(data: Mapping[str, Any], path: Path, kind: type) -> dict[int, Any]:
    """Entries by their number, in rising order.

    Raises:
        BopError: a key is no number, or an entry is not a ``kind``.
    """
    for key, value in data.items():
        if not key.isdecimal():
            raise BopError(f"{path}: key {key!r} is not a number")
        if not isinstance(value, kind):
            raise BopError(f"{path}: key {key!r} must be a {kind.__name__}, got "
                           f"{_short(value)}")
    return {int(key): data[key] for key in sorted(data, key=int)}


def numbers(item: Mapping[str, Any], key: str, count: int, where: str) -> np.ndarray:
    """Float64 (count,) under a key; ``where`` begins the error.

    Raises:
        BopError: the key is missing, or is not ``count`` finite numbers.
    """
    if not isinstance(item, Mapping) or key not in item:
        raise BopError(f"{where}: key {key!r} is missing")
    value = item[key]
    try:
        array = np.array(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if len(array) != count or not np.isfinite(array).all():
        raise BopError(f"{where}: key {key!r} must be {count} finite number(s), got "
                       f"{_short(value)}")
    return array


def column(items: Sequence[Mapping[str, Any]], key: str, count: int,
           where: Callable[[int], str]) -> np.ndarray:
    """Float64 (n, count): :func:`numbers` of many items at once; ``where`` of an index.

    Raises:
        BopError: as :func:`numbers`, for the first item that is wrong.
    """
    try:
        array = np.array([item[key] for item in items], dtype=np.float64).reshape(-1, count)
        if len(array) == len(items) and np.isfinite(array).all():
            return array
    except (KeyError, TypeError, ValueError):
        pass
    return np.stack([numbers(item, key, count, where(i)) for i, item in enumerate(items)])


def poses(items: Sequence[Mapping[str, Any]], where: Callable[[int], str]) -> np.ndarray:
    """``T_cam_obj`` (n, 4, 4), metres, of ``cam_R_m2c`` and ``cam_t_m2c`` (millimetres).

    Raises:
        BopError: missing or not numbers, no rotation, or translations in another unit.
    """
    T = np.tile(np.eye(4), (len(items), 1, 1))
    if not items:
        return T
    R = column(items, "cam_R_m2c", 9, where).reshape(-1, 3, 3)
    t = column(items, "cam_t_m2c", 3, where)
    error = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    wrong = (error > ROTATION_TOLERANCE) | (np.linalg.det(R) < 0)
    if wrong.any():
        i = int(wrong.argmax())
        raise BopError(f"{where(i)}: key 'cam_R_m2c' is no rotation (R R^T is off by "
                       f"{error[i]:.2g}, determinant {np.linalg.det(R[i]):.2g})")
    distance = np.linalg.norm(t, axis=1)
    if distance.max() < NEAREST_MM:
        raise BopError(f"{where(0)}: key 'cam_t_m2c' must be in millimetres; all objects of the "
                       f"scene are within {distance.max():.2g} of the camera: are they metres?")
    T[:, :3, :3], T[:, :3, 3] = R, MM * t
    return T


def intrinsics(camera: Mapping[str, Any], where: str) -> np.ndarray:
    """K (3, 3) of an entry of scene_camera.json.

    Raises:
        BopError: ``cam_K`` is missing or no camera matrix.
    """
    K = numbers(camera, "cam_K", 9, where).reshape(3, 3)
    if not (K[0, 0] > 0 and K[1, 1] > 0 and K[1, 0] == 0 and (K[2] == (0, 0, 1)).all()):
        raise BopError(f"{where}: key 'cam_K' must be row-major fx, s, cx, 0, fy, cy, 0, 0, 1 "
                       f"with positive fx and fy, got {K.ravel().tolist()}")
    return K


def boxes(items: Sequence[Mapping[str, Any]], key: str,
          where: Callable[[int], str]) -> list[np.ndarray | None]:
    """Integer pixel boxes as continuous xywh (4,) float64; None for empty ones (-1 in files)."""
    if not items:
        return []
    array = column(items, key, 4, where)
    array[:, :2] -= 0.5
    return [box if box[2] > 0 and box[3] > 0 else None for box in array]


def numbered_folders(folder: Path) -> list[tuple[int, Path]]:
    """Folders in a folder that have a number for a name, in its order."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted((int(entry.name), folder / entry.name) for entry in entries
                      if entry.name.isdecimal() and entry.is_dir())


def list_pictures(folder: Path) -> dict[int, Path]:
    """Files of a folder whose stem is a number, by it; empty where there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {}
    for name in names:
        stem, dot, ending = name.partition(".")
        if stem.isdecimal() and dot and ending.lower() in ("png", "jpg", "jpeg", "tif", "tiff"):
            found[int(stem)] = folder / name
    return found


def read_picture(path: Path, flags: int) -> np.ndarray:
    """Decoded picture as OpenCV's flags say.

    Raises:
        BopError: missing, or it cannot be decoded.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise BopError(f"{path}: no such file") from None
    except OSError as error:
        raise BopError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        picture = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:
        picture = None
    if picture is None:
        raise BopError(f"{path}: cannot be decoded; truncated, or not a picture "
                       f"({len(data)} bytes)")
    return picture


def read_mask(path: Path) -> np.ndarray:
    """Single-channel 8-bit picture (H, W)."""
    return read_picture(path, cv2.IMREAD_GRAYSCALE)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
