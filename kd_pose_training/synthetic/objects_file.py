"""From mesh files to objects: names, scale and symmetries from an objects.yaml or the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kd_pose.manifest import ObjectSpec
from kd_pose_training import strict
from kd_pose_training.synthetic.meshes import Mesh, MeshError, ObjectMesh, diameter, load_mesh
from kd_pose_training.synthetic.settings import MeshEntry, ObjectsFile


def make_spec(mesh: Mesh, entry: MeshEntry) -> ObjectSpec:
    """Spec of a mesh: diameter and box are measured, symmetries are the entry's.

    Raises:
        ValueError: a symmetry is no rigid motion, or does not take the mesh to itself.
    """
    low, high = mesh.box
    spec = ObjectSpec(
        entry.name, diameter(mesh.vertices), tuple(map(float, low)), tuple(map(float, high)),
        symmetries_discrete=entry.symmetries_discrete,
        symmetries_continuous=tuple((item.axis, item.offset)
                                    for item in entry.symmetries_continuous))
    _check_symmetries(mesh, spec)
    return spec


def _check_symmetries(mesh: Mesh, spec: ObjectSpec) -> None:
    """Every declared motion must leave the object's surface about where it is (5 % of its size).

    A symmetry in another unit or about another origin would teach the network wrong poses.
    """
    from scipy.spatial import cKDTree

    from kd_pose.geometry import transform_points
    from kd_pose.symmetry import symmetry_transforms
    from kd_pose_training.synthetic.check import surface_points
    motions = symmetry_transforms(spec, 45.0)
    if len(motions) < 2:
        return
    dense = surface_points(mesh.vertices, mesh.faces, 8000)
    tree = cKDTree(dense)
    for T in motions[1:]:
        away = tree.query(transform_points(T, dense[:500]))[0]
        if np.quantile(away, 0.9) > 0.05 * spec.diameter:
            raise ValueError(
                f"{spec.name}: a declared symmetry moves its surface by "
                f"{np.quantile(away, 0.9):.3g} m; symmetries are in metres and in the mesh's own "
                f"frame (translation of this one: {np.round(T[:3, 3], 4).tolist()})")


def load_objects(sources: list[Path], scale: float | None = None) -> list[ObjectMesh]:
    """Objects of meshes, of objects.yaml files, or of folders that hold an objects.yaml or meshes.

    Args:
        scale: unit of plain mesh files in metres (default 1); not for objects.yaml, which has its
            own.

    Raises:
        MeshError, ConfigError: a file that cannot be used.
        ValueError: two objects of one name, or nothing to render.
    """
    entries: list[tuple[Path, MeshEntry]] = []
    for source in sources:
        entries += _entries(source, 1.0 if scale is None else scale, scale is not None)
    names = [entry.name for _, entry in entries]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"objects: two are called {double[0]!r}; name them in an objects.yaml")
    if not entries:
        raise ValueError("no meshes were given: --meshes takes .ply, .obj, .glb, objects.yaml or "
                         "a folder of them")
    objects = []
    for number, (base, entry) in enumerate(entries, start=1):
        mesh = load_mesh(base / entry.mesh, entry.scale)
        objects.append(ObjectMesh(number, make_spec(mesh, entry), mesh))
    return objects


def _entries(source: Path, scale: float, scaled: bool) -> list[tuple[Path, MeshEntry]]:
    if source.is_dir() and (source / "objects.yaml").exists():
        source = source / "objects.yaml"
    if source.suffix.lower() in (".yaml", ".yml"):
        if scaled:
            raise ValueError(f"{source}: has a scale for every object; leave --scale out")
        found = strict.load(ObjectsFile, source)
        return [(source.parent, entry) for entry in found.objects]
    if source.is_dir():
        from kd_pose_training.synthetic.meshes import SUFFIXES
        meshes = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
        if not meshes:
            raise MeshError(f"{source}: holds neither objects.yaml nor meshes "
                            f"({', '.join(SUFFIXES)})")
        return [(p.parent, MeshEntry(p.stem, p.name, scale)) for p in meshes]
    return [(source.parent, MeshEntry(source.stem or str(source), source.name, scale))]
