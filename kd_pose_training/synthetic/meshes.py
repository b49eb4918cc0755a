"""Triangle meshes with colours: read from ply, obj or glb, checked, and written for BOP.

A mesh has one texture (RGB, bilinear, row 0 at v = 1) and a colour per vertex; the surface colour
is their product, so that plain, vertex-coloured and textured meshes are one kind of thing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose.manifest import ObjectSpec
from kd_pose_training.trimesh_import import import_trimesh

SUFFIXES = (".ply", ".obj", ".glb", ".gltf", ".stl", ".off")
# What a robot's camera can look at; outside of it the unit is wrong (metres were said).
MIN_DIAMETER_M, MAX_DIAMETER_M = 0.005, 5.0
MAX_TEXTURE = 1024
SMOOTH_ANGLE = np.radians(40.0)
UNSAID_TINT = 102 / 255  # what trimesh says of a material without colour; textures stay bright


class MeshError(ValueError):
    """A mesh file that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class Mesh:
    """Triangles in metres. Every corner has its own vertex where normals or uv differ.

    vertices (V, 3) float32, faces (F, 3) int32, normals (V, 3) float32 unit, uv (V, 2) float32,
    colours (V, 3) float32 in 0..1, texture (H, W, 3) uint8 RGB.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    colours: np.ndarray
    texture: np.ndarray

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest corner (3,), (3,), metres."""
        return self.vertices.min(axis=0), self.vertices.max(axis=0)

    @property
    def radius(self) -> float:
        """Radius of a sphere about the box's centre that holds the mesh, metres."""
        low, high = self.box
        return float(np.linalg.norm(self.vertices - (low + high) / 2, axis=1).max())


@dataclass(frozen=True)
class ObjectMesh:
    """A mesh with its name and symmetries (manifest conventions, metres) and BOP number."""

    obj_id: int
    spec: ObjectSpec
    mesh: Mesh


def plain_texture() -> np.ndarray:
    """One white texel."""
    return np.full((1, 1, 3), 255, np.uint8)


def flat_mesh(vertices: np.ndarray, faces: np.ndarray, *, uv: np.ndarray | None = None,
              colours: np.ndarray | None = None, texture: np.ndarray | None = None,
              smooth: float = SMOOTH_ANGLE) -> Mesh:
    """Mesh of corners of its own: normals are averaged only across edges below ``smooth`` rad.

    vertices (V, 3), faces (F, 3), uv (V, 2), colours (V, 3) 0..1.
    """
    faces = np.asarray(faces, np.int64)
    vertices = np.asarray(vertices, np.float64)
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    good = area > 1e-16
    faces, cross, area = faces[good], cross[good], area[good]
    unit = cross / area[:, None]
    # Vertices at one place are one point, whatever their uv.
    scale = max(np.ptp(vertices, axis=0).max(), 1e-9)
    _, place = np.unique(np.round(vertices / scale * 1e6).astype(np.int64), axis=0,
                         return_inverse=True)
    normals = _corner_normals(place.ravel()[faces], unit, cross, np.cos(smooth))
    flat = faces.ravel()
    count = len(flat)
    return Mesh(
        vertices[flat].astype(np.float32), np.arange(count, dtype=np.int32).reshape(-1, 3),
        normals.reshape(-1, 3).astype(np.float32),
        (np.zeros((count, 2)) if uv is None else np.asarray(uv)[flat]).astype(np.float32),
        (np.ones((count, 3)) if colours is None else np.asarray(colours)[flat]).astype(np.float32),
        plain_texture() if texture is None else np.ascontiguousarray(texture))


def _corner_normals(places: np.ndarray, unit: np.ndarray, cross: np.ndarray,
                    limit: float) -> np.ndarray:
    """Normal (F, 3, 3) of every corner: area-weighted mean of the faces around it within limit."""
    order = np.argsort(places.ravel(), kind="stable")
    owner = order // 3  # face of every corner, corners sorted by place
    starts = np.flatnonzero(np.diff(places.ravel()[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    normals = np.repeat(unit, 3, axis=0)
    for size in np.unique(counts):
        if size > 64:  # the tip of a fan: its faces stay as they are
            continue
        rows = starts[counts == size][:, None] + np.arange(size)
        face = owner[rows]  # (g, size)
        close = np.einsum("gai,gbi->gab", unit[face], unit[face]) >= limit
        total = np.einsum("gab,gbi->gai", close.astype(float), cross[face])
        length = np.linalg.norm(total, axis=2, keepdims=True)
        normals[order[rows]] = np.where(length > 1e-20, total / np.maximum(length, 1e-20),
                                        unit[face])
    return normals.reshape(-1, 3, 3)


def merge(*meshes: Mesh) -> Mesh:
    """One mesh of several that use the same texture (the first one's)."""
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(*(np.concatenate([getattr(mesh, name) for mesh in meshes])
                  if name != "faces" else
                  np.concatenate([m.faces + o for m, o in zip(meshes, offsets)]).astype(np.int32)
                  for name in ("vertices", "faces", "normals", "uv", "colours")),
                texture=meshes[0].texture)


def load_mesh(path: str | Path, scale: float = 1.0) -> Mesh:
    """Read a mesh; ``scale`` turns its unit into metres (0.001 for millimetres).

    Raises:
        MeshError: file missing, of another kind, unreadable, without triangles, with numbers
            that are not finite, or of an implausible size (a wrong unit).
    """
    trimesh = import_trimesh()
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MeshError(f"{path}: meshes are read from {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise MeshError(f"{path}: no such mesh file")
    if not scale > 0:
        raise MeshError(f"{path}: scale is {scale}; it must be positive")
    try:
        loaded = trimesh.load_scene(path, process=False)
        parts = [part for part in loaded.dump() if isinstance(part, trimesh.Trimesh)]
    except Exception as error:  # trimesh's readers raise whatever they stumble over
        raise MeshError(f"{path}: cannot be read as a mesh ({error})") from error
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise MeshError(f"{path}: is empty, it has no triangles")
    for part in parts:
        _check_part(part, path)
    mesh = _join(path, [_convert(part) for part in parts])
    mesh = replace(mesh, vertices=mesh.vertices * np.float32(scale))
    check_mesh(mesh, str(path))
    return mesh


def _check_part(part: Any, path: Path) -> None:
    """Refuse numbers that would otherwise vanish with the triangles they spoil."""
    if not np.isfinite(part.vertices).all():
        raise MeshError(f"{path}: has vertices that are not finite")
    last = len(part.vertices) - 1
    if part.faces.min() < 0 or part.faces.max() > last:
        raise MeshError(f"{path}: a triangle names vertex {int(part.faces.max())}; "
                        f"there are 0 to {last}")


def _convert(part: Any) -> Mesh:
    """A trimesh with its visual -> Mesh in file units."""
    visual, count = part.visual, len(part.vertices)
    uv, texture, colours = None, None, None
    if visual.kind == "texture" and getattr(visual, "uv", None) is not None:
        image, tint = _material(visual.material)
        if image is not None:
            uv, texture = np.asarray(visual.uv), image
        colours = np.tile(tint, (count, 1))
    elif visual.kind == "texture":
        colours = np.tile(_material(visual.material)[1], (count, 1))
    elif visual.kind == "vertex":
        colours = np.asarray(visual.vertex_colors)[:, :3] / 255.0
    elif visual.kind == "face":
        faces = np.asarray(part.faces)
        colour = np.repeat(np.asarray(visual.face_colors)[:, :3] / 255.0, 3, axis=0)
        return flat_mesh(np.asarray(part.vertices)[faces.ravel()],
                         np.arange(3 * len(faces)).reshape(-1, 3), colours=colour)
    return flat_mesh(part.vertices, part.faces, uv=uv, colours=colours, texture=texture)


def _material(material: Any) -> tuple[np.ndarray | None, np.ndarray]:
    """Texture image RGB (or None) and factor (3,) in 0..1 of a trimesh material."""
    image = getattr(material, "baseColorTexture", None)
    tint = getattr(material, "baseColorFactor", None)
    if hasattr(material, "diffuse"):
        image, tint = material.image, material.diffuse
    tint = np.ones(3) if tint is None else np.asarray(tint, float)[:3]
    tint = tint / 255.0 if tint.max() > 1.0 else tint
    if image is None:
        return None, tint
    if np.allclose(tint, UNSAID_TINT):
        tint = np.ones(3)
    image = image.convert("RGB")
    image.thumbnail((MAX_TEXTURE, MAX_TEXTURE))
    return np.asarray(image), (np.ones(3) if tint.max() <= 0 else tint)


def _join(path: Path, parts: list[Mesh]) -> Mesh:
    """Several parts, each with its texture -> one mesh with the textures side by side."""
    if len(parts) == 1:
        return parts[0]
    height = max(part.texture.shape[0] for part in parts)
    width = sum(part.texture.shape[1] + 2 for part in parts)
    atlas, left, moved = np.full((height, width, 3), 255, np.uint8), 0, []
    for part in parts:
        h, w = part.texture.shape[:2]
        tile = np.pad(part.texture, ((0, height - h), (1, 1), (0, 0)), mode="edge")
        atlas[:, left:left + w + 2] = tile
        u = (left + 1 + np.clip(part.uv[:, 0] % 1.0001, 0, 1) * w) / width
        v = 1.0 - (1.0 - np.clip(part.uv[:, 1] % 1.0001, 0, 1)) * h / height
        moved.append(replace(part, uv=np.stack([u, v], 1).astype(np.float32), texture=atlas))
        left += w + 2
    if width > 8 * MAX_TEXTURE:
        raise MeshError(f"{path}: {len(parts)} parts with textures of {width} pixels in all; "
                        "join its textures into one first")
    return merge(*moved)


def check_mesh(mesh: Mesh, source: str) -> None:
    """Refuse what cannot be rendered or is of another unit.

    Raises:
        MeshError: no triangles, numbers that are not finite, or an implausible diameter.
    """
    if len(mesh.faces) == 0 or len(mesh.vertices) == 0:
        raise MeshError(f"{source}: is empty, it has no triangles")
    if not np.isfinite(mesh.vertices).all():
        raise MeshError(f"{source}: has vertices that are not finite")
    size = diameter(mesh.vertices)
    if not MIN_DIAMETER_M <= size <= MAX_DIAMETER_M:
        hint = ("is it in millimetres? Then give --scale 0.001 (in an objects.yaml: scale: 0.001)"
                if size > MAX_DIAMETER_M else
                "give the --scale (in an objects.yaml: scale) that turns its unit into metres")
        raise MeshError(f"{source}: its diameter is {size:.4g} m, plausible are {MIN_DIAMETER_M} "
                        f"to {MAX_DIAMETER_M} m; {hint}")


def diameter(vertices: np.ndarray) -> float:
    """Largest distance between two vertices (n, 3), as BOP defines an object's diameter."""
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist
    points = np.unique(np.asarray(vertices, np.float64), axis=0)
    if len(points) > 100:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # flat meshes have no hull
            pass
    if len(points) > 4000:  # a finely tessellated ball: its hull is everything
        from kd_pose_training.data.amodal import support_points
        points = support_points(points, 2000)
    return float(pdist(points).max()) if len(points) > 1 else 0.0


def vertex_colours(mesh: Mesh) -> np.ndarray:
    """Colour (V, 3) uint8 of every vertex: its texel times its own colour."""
    h, w = mesh.texture.shape[:2]
    column = np.clip(np.floor((mesh.uv[:, 0] % 1.0001) * w), 0, w - 1).astype(int)
    row = np.clip(np.floor((1.0 - mesh.uv[:, 1] % 1.0001) * h), 0, h - 1).astype(int)
    return np.clip(mesh.texture[row, column] * mesh.colours, 0, 255).astype(np.uint8)


def save_ply_mm(mesh: Mesh, path: Path) -> None:
    """Binary ply in millimetres with normals and vertex colours, as BOP's models folders hold."""
    kind = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("nx", "<f4"), ("ny", "<f4"),
                     ("nz", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])
    rows = np.zeros(len(mesh.vertices), kind)
    for axis, name in enumerate("xyz"):
        rows[name] = mesh.vertices[:, axis] * 1000.0
        rows["n" + name] = mesh.normals[:, axis]
    for axis, name in enumerate(("red", "green", "blue")):
        rows[name] = vertex_colours(mesh)[:, axis]
    faces = np.zeros(len(mesh.faces), np.dtype([("count", "u1"), ("index", "<i4", 3)]))
    faces["count"], faces["index"] = 3, mesh.faces
    types = {"f": "float", "u": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}",
             *(f"property {types[kind[name].kind]} {name}" for name in kind.names),
             f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    part = path.with_name(path.name + ".part")
    part.write_bytes(("\n".join(lines) + "\n").encode() + rows.tobytes() + faces.tobytes())
    os.replace(part, path)


def save_glb(mesh: Mesh, path: Path) -> None:
    """Metres, with the texture inside."""
    trimesh = import_trimesh()
    from PIL import Image
    # glTF counts texture rows from the top; trimesh turns v around by itself.
    visual = trimesh.visual.TextureVisuals(
        uv=mesh.uv, material=trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(mesh.texture), metallicFactor=0.0,
            roughnessFactor=0.6))
    whole = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals,
                            visual=visual, process=False)
    part = path.with_name(path.name + ".part")
    part.write_bytes(whole.export(file_type="glb"))
    os.replace(part, path)
