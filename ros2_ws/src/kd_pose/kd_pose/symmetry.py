"""Symmetric objects: the set of transforms that leave an object looking the same.

Follows the BOP convention (`models_info.json`): `symmetries_discrete` are 4x4 transforms of the
object onto itself, `symmetries_continuous` are an axis and a point on it; the whole set is every
product of a discrete one and a rotation. Metres here, millimetres in the BOP file.
"""

from __future__ import annotations

import itertools

import numpy as np

from kd_pose.geometry import make_pose, rotation_from_vector


def _axis_rotations(axis: np.ndarray, offset: np.ndarray, step_deg: float) -> list[np.ndarray]:
    """Rotations about the line through `offset` along `axis`, every `step_deg`, 0 first."""
    axis = np.asarray(axis, dtype=np.float64).reshape(3)
    offset = np.asarray(offset, dtype=np.float64).reshape(3)
    norm = np.linalg.norm(axis)
    if not norm > 0:
        raise ValueError(f"axis of a continuous symmetry must not be zero, got {axis}")
    count = max(1, int(round(360.0 / step_deg)))
    members = []
    for step in range(count):
        R = rotation_from_vector(axis / norm * (2.0 * np.pi * step / count))
        members.append(make_pose(R, offset - R @ offset))
    return members


def symmetry_transforms(spec, step_deg: float = 15.0) -> np.ndarray:
    """All symmetry members of an object -> (S, 4, 4) float64, identity first, no duplicates.

    spec: anything with `symmetries_discrete` (16 numbers each, row-major 4x4) and
    `symmetries_continuous` (pairs of axis and offset), metres.
    step_deg: spacing of the discretised continuous symmetries, degrees, in (0, 360].
    """
    if not 0.0 < step_deg <= 360.0:
        raise ValueError(f"step_deg must be in (0, 360], got {step_deg}")
    discrete = [np.eye(4)]
    for values in spec.symmetries_discrete:
        T = np.asarray(values, dtype=np.float64)
        if T.size != 16:
            raise ValueError(f"a discrete symmetry needs 16 numbers, got {T.size}")
        discrete.append(T.reshape(4, 4))
    continuous = [
        _axis_rotations(axis, offset, step_deg) for axis, offset in spec.symmetries_continuous
    ]
    members: list[np.ndarray] = []
    for combination in itertools.product(discrete, *continuous):
        T = combination[0]
        for rotation in combination[1:]:
            T = rotation @ T
        # Products meet again, e.g. a half turn and a continuous axis parallel to it.
        if not any(np.abs(T - other).max() < 1e-6 for other in members):
            members.append(T)
    return np.stack(members)


def nearest_member(T_cam_obj: np.ndarray, T_ref: np.ndarray, syms: np.ndarray) -> np.ndarray:
    """The pose among `T_cam_obj @ syms[s]` whose rotation is nearest to that of `T_ref` (4, 4).

    Two members of one object differ in rotation; translations differ only where the symmetry axis
    misses the origin, so they break ties.
    """
    members = np.asarray(T_cam_obj, dtype=np.float64) @ np.asarray(syms, dtype=np.float64)
    # trace(R_ref^T R) = sum of elementwise products; larger means a smaller angle.
    closeness = np.einsum("ij,sij->s", np.asarray(T_ref)[:3, :3], members[:, :3, :3])
    shift = np.linalg.norm(members[:, :3, 3] - np.asarray(T_ref)[:3, 3], axis=1)
    return members[int(np.lexsort((shift, -np.round(closeness, 9)))[0])]
