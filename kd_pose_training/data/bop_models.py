"""Objects of a BOP folder: models_info.json and meshes, in metres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose.manifest import ObjectSpec
from kd_pose_training.data.bop_files import (
    MM,
    MODEL_FOLDERS,
    ROTATION_TOLERANCE,
    BopError,
    by_number,
    numbers,
    read_json,
)
from kd_pose_training.trimesh_import import import_trimesh

DIAMETER_RANGE_MM = (5.0, 5000.0)


@dataclass(frozen=True)
class BopModel:
    """An object of a set. Lengths in metres, in the mesh's frame; symmetries as in ObjectSpec."""

    obj_id: int
    name: str
    diameter: float
    box_min: tuple[float, float, float]
    box_max: tuple[float, float, float]
    symmetries_discrete: tuple[tuple[float, ...], ...]
    symmetries_continuous: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    mesh_path: Path

    @property
    def spec(self) -> ObjectSpec:
        """What a network's manifest says of the object."""
        return ObjectSpec(self.name, self.diameter, self.box_min, self.box_max,
                          self.symmetries_discrete, self.symmetries_continuous)


def models_file(root: Path, first: str = MODEL_FOLDERS[0]) -> Path:
    """The models_info.json that counts: of the folder ``first`` if there, else of the others."""
    paths = [folder / "models_info.json" for folder in _model_folders(root, first)]
    return next((path for path in paths if path.is_file()), paths[0])


def _model_folders(root: Path, first: str) -> list[Path]:
    return [root / name for name in dict.fromkeys((first, *MODEL_FOLDERS))]


def read_models(root: Path, first: str = MODEL_FOLDERS[0]) -> dict[int, BopModel]:
    """Objects of a set by number; their meshes are not opened.

    Raises:
        BopError: models_info.json is missing, a key is, or is wrong, or two names are the same.
    """
    path, folders = models_file(root, first), _model_folders(root, first)
    models = {obj_id: read_model(obj_id, info, path, folders)
              for obj_id, info in by_number(read_json(path), path, dict).items()}
    names: dict[str, int] = {}
    for obj_id, model in models.items():
        if model.name in names:
            raise BopError(f"{path}: objects {names[model.name]} and {obj_id}: same key 'name', "
                           f"{model.name!r}")
        names[model.name] = obj_id
    return models


def read_model(obj_id: int, info: Mapping[str, Any], path: Path,
               folders: Sequence[Path] = ()) -> BopModel:
    """An entry of models_info.json (``path``); its mesh is beside it, or else in ``folders``.

    Raises:
        BopError: a key is missing or wrong.
    """
    where = f"{path}: object {obj_id}"
    name = info.get("name", f"obj_{obj_id:06d}")
    if not isinstance(name, str) or not name:
        raise BopError(f"{where}: key 'name' must be a text, got {name!r}")
    diameter = float(numbers(info, "diameter", 1, where)[0])
    low, high = DIAMETER_RANGE_MM
    if not low <= diameter <= high:
        raise BopError(f"{where}: key 'diameter' must be {low:g} to {high:g} millimetres, the "
                       f"unit of BOP files, got {diameter:g}")
    corner = np.array([numbers(info, f"min_{axis}", 1, where)[0] for axis in "xyz"])
    size = np.array([numbers(info, f"size_{axis}", 1, where)[0] for axis in "xyz"])
    if (size < 0).any() or size.max() > 1.05 * diameter:
        raise BopError(f"{where}: keys 'size_x', 'size_y', 'size_z' must be 0 to the diameter "
                       f"{diameter:g}, got {size.tolist()}")
    discrete, continuous = _symmetries(info, where)
    # Some sets have the meshes and their description in different folders.
    meshes = [folder / f"obj_{obj_id:06d}.ply" for folder in (path.parent, *folders)]
    mesh = next((item for item in meshes if item.is_file()), meshes[0])
    return BopModel(obj_id, name, MM * diameter, tuple((MM * corner).tolist()),
                    tuple((MM * (corner + size)).tolist()), discrete, continuous, mesh)


def _symmetries(info: Mapping[str, Any], where: str) -> tuple[tuple, tuple]:
    discrete, continuous = [], []
    lists = {key: info.get(key, []) for key in ("symmetries_discrete", "symmetries_continuous")}
    for key, items in lists.items():
        if not isinstance(items, list):
            raise BopError(f"{where}: key {key!r} must be a list, got {items!r}")
    for i, item in enumerate(lists["symmetries_discrete"]):
        T = numbers({"symmetries_discrete": item}, "symmetries_discrete", 16,
                    f"{where}, entry {i}").reshape(4, 4)
        R = T[:3, :3]
        if (np.abs(R @ R.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(R) < 0
                or T[3].tolist() != [0, 0, 0, 1]):
            raise BopError(f"{where}, entry {i}: key 'symmetries_discrete' must be a rigid motion "
                           f"(rotation and translation, row by row, then 0, 0, 0, 1), got {item}")
        T[:3, 3] *= MM
        discrete.append(tuple(T.ravel().tolist()))
    for i, item in enumerate(lists["symmetries_continuous"]):
        place = f"{where}: key 'symmetries_continuous', entry {i}"
        axis, offset = numbers(item, "axis", 3, place), numbers(item, "offset", 3, place)
        if not axis.any():
            raise BopError(f"{place}: key 'axis' must not be zero")
        continuous.append((tuple(axis.tolist()), tuple((MM * offset).tolist())))
    return tuple(discrete), tuple(continuous)


def load_mesh_vertices(model: BopModel) -> np.ndarray:
    """Vertices of an object's mesh, float64 (n, 3), metres.

    Raises:
        BopError: missing, unreadable or empty, or of another size than models_info.json says (a
            mesh in metres).
    """
    return load_mesh_surface(model)[0]


def load_mesh_surface(model: BopModel) -> tuple[np.ndarray, np.ndarray]:
    """Vertices, float64 (n, 3), metres, and triangles, int64 (F, 3), F = 0 for a cloud of points.

    Raises:
        BopError: see :func:`load_mesh_vertices`.
    """
    trimesh = import_trimesh()
    path = model.mesh_path
    if not path.is_file():
        raise BopError(f"{path}: no such file")
    try:
        mesh = trimesh.load(path, process=False)
        vertices = np.asarray(mesh.vertices, dtype=np.float64).reshape(-1, 3)
        faces = np.asarray(getattr(mesh, "faces", ()), dtype=np.int64).reshape(-1, 3)
    except Exception as error:  # the parsers raise what they like
        raise BopError(f"{path}: not a readable mesh: {type(error).__name__}: {error}") from error
    if len(vertices) == 0 or not np.isfinite(vertices).all():
        raise BopError(f"{path}: the mesh is empty or has coordinates that are not finite")
    sides = np.ptp(vertices, axis=0) * MM
    # The diameter is between longest side and diagonal; a factor of 2 is for simplified meshes.
    if not (sides.max() <= 2 * model.diameter and 2 * np.linalg.norm(sides) >= model.diameter):
        raise BopError(f"{path}: the mesh is {sides.max() / MM:.4g} mm long, models_info.json "
                       f"says diameter {model.diameter / MM:.4g}; both must be in millimetres")
    return vertices * MM, faces
