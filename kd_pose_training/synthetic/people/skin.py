"""Pieces of surface and how they follow the bones: linear blending with half-way bones.

A vertex is carried by the bones it lies near to. At elbows, knees and the like a further bone
that has turned half as far takes a share, which keeps the joint from collapsing as plain linear
blending does (Mohr and Gleicher, "Building efficient, accurate character skins", SIGGRAPH 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kd_pose_training.synthetic.people.sdf import Distance, Shape, mesh_of
from kd_pose_training.synthetic.people.skeleton import (
    INDEX,
    LIMITS,
    MIRROR,
    NAMES,
    PARENT,
    Build,
    Placed,
    Pose,
    place,
)

BIND: Pose = {f"{side}_{name}": value for side in "lr" for name, value in {
    "shoulder_spread": 45.0, "hip_spread": 8.0, "index_spread": 5.0, "ring_spread": -5.0,
    "pinky_spread": -12.0, "thumb_spread": 5.0, "index_base": 6.0, "middle_base": 6.0,
    "ring_base": 6.0, "pinky_base": 6.0}.items()}
assert set(BIND) <= set(LIMITS)
BOUND = place(BIND)
_HALVED = tuple(name for name in NAMES if not name.endswith("_clavicle")
                and name not in ("pelvis", "belly", "chest"))
HALF = {name: len(NAMES) + row for row, name in enumerate(_HALVED)}
CARRIERS = 4  # bones that share a vertex
_OWNER = np.array([*range(len(NAMES)), *(INDEX[name] for name in _HALVED)])


@dataclass(frozen=True)
class Piece:
    """A part of the surface in the bind pose. vertices, normals (V, 3); faces (F, 3); rows (V, 4):
    bones, HALF ones after the others; shares (V, 4), sum 1; uv (V, 2): metres across and up, what
    a pattern is laid out by; zone: place in the texture; tint (V, 3): factor on its colours."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    rows: np.ndarray
    shares: np.ndarray
    uv: np.ndarray
    zone: str
    tint: np.ndarray

    def mirrored(self) -> Piece:
        """The same of the other side."""
        other = _mirror_rows()
        flip = MIRROR.astype(np.float32)
        return replace(self, vertices=self.vertices @ flip, normals=self.normals @ flip,
                       faces=self.faces[:, ::-1], rows=other[self.rows])

    def without(self, hidden: np.ndarray) -> Piece:
        """Without the triangles of which all corners are hidden (V,) bool."""
        faces = self.faces[~hidden[self.faces].all(axis=1)]
        used, faces = np.unique(faces, return_inverse=True)
        kept = {name: getattr(self, name)[used] for name in
                ("vertices", "normals", "rows", "shares", "uv", "tint")}
        return replace(self, faces=faces.reshape(-1, 3).astype(np.int32), **kept)


def _mirror_rows() -> np.ndarray:
    """Row of the other side's bone for every bone."""
    names = [*NAMES, *_HALVED]
    swap = {"l_": "r_", "r_": "l_"}
    rows = []
    for position, name in enumerate(names):
        partner = swap.get(name[:2], name[:2]) + name[2:]
        rows.append(INDEX[partner] if position < len(NAMES) else HALF[partner])
    return np.array(rows)


def bound(bone: str, offset: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """A point (3,) of the bind pose by a bone's own axes."""
    return BOUND.at(bone, np.asarray(offset, float))


def carriers(points: np.ndarray, shapes: list[Shape],
             width: float) -> tuple[np.ndarray, np.ndarray]:
    """Bones (n, 4) and shares (n, 4) of surface points, by how near each bone's shapes are.

    A finger's surface is carried by this finger and the hand only: fingers that touch in the bind
    pose come apart. ``width``: metres over which one bone takes over from the next.
    """
    names = sorted({shape.bone for shape in shapes})
    distance = np.full((len(points), len(names)), np.inf, np.float32)
    for shape in shapes:
        column = names.index(shape.bone)
        distance[:, column] = np.minimum(distance[:, column], shape(points))
    distance = _keep_own_finger(distance, names)
    rows = [INDEX[name] for name in names]
    columns = [distance]
    for name in names:
        if name not in HALF or NAMES[PARENT[INDEX[name]]] not in names:
            continue
        # Both must be near: the half-way bone lives about the joint.
        own = distance[:, names.index(name)]
        above = distance[:, names.index(NAMES[PARENT[INDEX[name]]])]
        columns.append((np.maximum(own, above) - 0.7 * width)[:, None])
        rows.append(HALF[name])
    distance = np.concatenate(columns, axis=1)
    weight = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / width)
    best = np.argsort(-weight, axis=1)[:, :CARRIERS]
    shares = np.take_along_axis(weight, best, axis=1)
    best = np.pad(np.array(rows)[best], ((0, 0), (0, CARRIERS - best.shape[1])))
    shares = np.pad(shares, ((0, 0), (0, CARRIERS - shares.shape[1])))
    return best, (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def _keep_own_finger(distance: np.ndarray, names: list[str]) -> np.ndarray:
    finger = [name[2:].split("_")[0] if name.endswith(("_base", "_middle", "_end")) else ""
              for name in names]
    present = sorted(set(finger) - {""})
    if not present:
        return distance
    columns = {item: [i for i, own in enumerate(finger) if own == item] for item in present}
    nearest = np.stack([distance[:, columns[item]].min(axis=1) for item in present]).argmin(axis=0)
    result = distance.copy()
    for number, item in enumerate(present):
        result[np.ix_(nearest != number, columns[item])] = np.inf
    return result


def cover(distance: Distance, shapes: list[Shape], low: np.ndarray, high: np.ndarray, cell: float,
          width: float, zone: str) -> Piece:
    """Mesh a surface of the bind pose and tie it to the bones of ``shapes``."""
    vertices, faces, normals = mesh_of(distance, low, high, cell)
    rows, shares = carriers(vertices, shapes, width)
    uv = np.stack([vertices[:, 1] + 0.55 * vertices[:, 0], vertices[:, 2]], axis=1)
    return Piece(vertices, faces, normals, rows, shares, uv, zone,
                 np.ones((len(vertices), 3), np.float32))


def owners(piece: Piece) -> np.ndarray:
    """Row (V,) in NAMES of the bone that carries most of each vertex."""
    rows = np.arange(len(piece.rows))
    return _OWNER[piece.rows[rows, piece.shares.argmax(axis=1)]].astype(np.int16)


def join(pieces: Sequence[Piece]) -> Piece:
    """One piece; uv and zone of it have no meaning."""
    starts = np.cumsum([0] + [len(piece.vertices) for piece in pieces[:-1]])
    return Piece(*(np.concatenate([getattr(piece, name) for piece in pieces]) if name != "faces"
                   else np.concatenate([p.faces + start for p, start in zip(pieces, starts)])
                   for name in ("vertices", "faces", "normals", "rows", "shares", "uv")),
                 zone="", tint=np.concatenate([piece.tint for piece in pieces]))


def _half_turns(rotations: np.ndarray) -> np.ndarray:
    """Rotations (n, 3, 3) by half the angle."""
    from scipy.spatial.transform import Rotation
    return Rotation.from_rotvec(Rotation.from_matrix(rotations).as_rotvec() / 2).as_matrix()


def _frames(placed: Placed) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (C, 3, 3) and origins (C, 3) of all bones and half-way bones."""
    rows = np.array([INDEX[name] for name in _HALVED])
    above = placed.rotations[PARENT[rows]]
    half = above @ _half_turns(above.transpose(0, 2, 1) @ placed.rotations[rows])
    return (np.concatenate([placed.rotations, half]),
            np.concatenate([placed.joints, placed.joints[rows]]))


def motions(placed: Placed, build: Build) -> tuple[np.ndarray, np.ndarray]:
    """A (C, 3, 3), b (C, 3): carrier c moves a bind-pose point p to A[c] p + b[c]."""
    factors = build.factors()
    rows = np.array([INDEX[name] for name in _HALVED])
    factors = np.concatenate([factors, np.sqrt(factors[rows] * factors[PARENT[rows]])])
    R0, o0 = _frames(BOUND)
    R1, o1 = _frames(placed)
    A = (R1 * factors[:, None, :]) @ R0.transpose(0, 2, 1)
    return A, o1 - np.einsum("cij,cj->ci", A, o0)


def move(piece: Piece, placed: Placed, build: Build) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and unit normals (V, 3) of a piece on a posed person, body frame."""
    A, b = motions(placed, build)
    table = np.concatenate([A, b[..., None]], axis=2).astype(np.float32).reshape(len(A), 12)
    blend = np.zeros((len(piece.vertices), 12), np.float32)
    for column in range(CARRIERS):
        blend += piece.shares[:, column:column + 1] * table[piece.rows[:, column]]
    blend = blend.reshape(-1, 3, 4)
    vertices = np.einsum("vij,vj->vi", blend[:, :, :3], piece.vertices) + blend[:, :, 3]
    normals = np.einsum("vij,vj->vi", blend[:, :, :3], piece.normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return vertices, normals


def move_point(point: np.ndarray, bone: str, placed: Placed, build: Build) -> np.ndarray:
    """A bind-pose point (3,) that one bone carries alone, on a posed person."""
    row = INDEX[bone]
    local = BOUND.rotations[row].T @ (np.asarray(point) - BOUND.joints[row])
    return placed.joints[row] + placed.rotations[row] @ (build.factors()[row] * local)
