"""Camera calibration from a file beside the pictures, or from a field of view.

Three formats are read: what camera_calibration and camera_info_manager write (`image_width`,
`camera_matrix: {data: ...}`), what `ros2 topic echo --once camera_info` prints, and the
camera.json of BOP sets (`fx`, `fy`, `cx`, `cy`, `width`, `height`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose.sources.base import Calibration, SourceError

NAMES = ("camera.yaml", "camera_info.yaml", "camera.yml", "camera.json")
# Field of CameraInfo -> keys of camera_calibration and of the message, count of numbers.
MATRICES = {
    "k": ("camera_matrix", "k", 9),
    "r": ("rectification_matrix", "r", 9),
    "p": ("projection_matrix", "p", 12),
}


def find_calibration(folder: Path, stem: str = "") -> Path | None:
    """The calibration file in a folder: `<stem>.yaml` first, then one of NAMES; None if none."""
    names = ((f"{stem}.yaml", f"{stem}.yml") if stem else ()) + NAMES
    return next((folder / name for name in names if (folder / name).is_file()), None)


def missing_calibration(source: Path, folder: Path) -> SourceError:
    """The error for pictures without a calibration."""
    return SourceError(
        f"{source}: no calibration: put {NAMES[0]} (as camera_calibration writes it) into "
        f"{folder}, name one with camera_file, or estimate one with horizontal_fov_deg"
    )


def calibration_from_fov(width: int, height: int, fov_deg: float) -> Calibration:
    """A pinhole camera with square pixels whose picture is `fov_deg` wide, centred."""
    focal = width / (2.0 * math.tan(math.radians(fov_deg) / 2.0))
    centre = (width - 1) / 2.0, (height - 1) / 2.0
    k = (focal, 0.0, centre[0], 0.0, focal, centre[1], 0.0, 0.0, 1.0)
    return Calibration(width, height, k)


def read_calibration(path: Path) -> Calibration:
    """A calibration file; SourceError that names file and key."""
    content = _read_yaml(path)
    if "fx" in content:
        fx, fy, cx, cy = (_numbers(content, key, 1, path)[0] for key in ("fx", "fy", "cx", "cy"))
        values = {"k": (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)}
        size = tuple(_count(content, key, path) for key in ("width", "height"))
        return _checked(path, *size, **values)
    written = "image_width" in content
    size_keys = ("image_width", "image_height") if written else ("width", "height")
    size = tuple(_count(content, key, path) for key in size_keys)
    values = {}
    for field, (long, short, count) in MATRICES.items():
        key = long if written else short
        if field == "k" or key in content:
            values[field] = _numbers(content, key, count, path)
    key = "distortion_coefficients" if written else "d"
    if key in content:
        values["d"] = _numbers(content, key, None, path)
        values["distortion_model"] = _text(content, "distortion_model", path)
    for key in ("binning_x", "binning_y"):
        if content.get(key, 0) not in (0, 1):
            raise SourceError(f"{path}: key {key!r} must be 0 or 1 in a file, got "
                              f"{content[key]!r}")
    return _checked(path, *size, **values)


def _checked(path: Path, width: int, height: int, **values: Any) -> Calibration:
    k = values["k"]
    if not (k[0] > 0 and k[4] > 0):
        raise SourceError(
            f"{path}: the focal lengths must be positive, got {k[0]:g} and {k[4]:g}: the camera "
            "is not calibrated"
        )
    return Calibration(width, height, **values)


def _read_yaml(path: Path) -> dict[str, Any]:
    """The first document of a YAML or JSON file; `ros2 topic echo` ends each with ---."""
    import yaml

    try:
        documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        content = next(iter(documents), None)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not a YAML file: {error}") from error
    if content is None:
        raise SourceError(f"{path}: is empty, needed is a calibration, as camera_calibration "
                          "writes it")
    if not isinstance(content, dict):
        raise SourceError(f"{path}: must hold keys and values, holds {type(content).__name__}")
    return content


def _numbers(content: dict, key: str, count: int | None, path: Path) -> tuple[float, ...]:
    if key not in content:
        raise SourceError(f"{path}: key {key!r} is missing")
    value = content[key]
    if isinstance(value, dict):  # {rows, cols, data}
        value = value.get("data")
    try:
        numbers = np.array(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all() or (count is not None and len(numbers) != count):
        wanted = "finite numbers" if count is None else f"{count} finite number(s)"
        raise SourceError(f"{path}: key {key!r} must be {wanted}, got {value!r}")
    return tuple(numbers.tolist())


def _count(content: dict, key: str, path: Path) -> int:
    if key not in content:
        raise SourceError(f"{path}: key {key!r} is missing")
    value = content[key]
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise SourceError(f"{path}: key {key!r} must be a positive whole number, got {value!r}")
    return value


def _text(content: dict, key: str, path: Path) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise SourceError(f"{path}: key {key!r} must be a text, got {value!r}")
    return value
