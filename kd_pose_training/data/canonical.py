"""One pose for all that look alike: what a dense network needs of a symmetric object.

A pixel of a symmetric object has as many surface points as the object has symmetry members, and a
network asked for all of them answers with none. So the truth is brought to one member first: the
one whose rotation, as the crop shows it, is nearest to that of a fixed view from above and in
front. It is a function of the picture alone:

* The rotation is taken as seen along the ray to the object and with the crop's own turn. In the
  camera's frame the same picture has other rotations elsewhere in the frame.
* The angle about a continuous axis is solved for, not stepped, so poses that look the same get
  exactly the same target.

Somewhere the choice must jump between members, no rule is free of that (for a half turn, where
the object is seen turned by a quarter from the view); the view is chosen so that for an object
that stands on its z axis the jumps of a continuous symmetry are at views from below.
"""

from __future__ import annotations

import math

import numpy as np

from kd_pose.geometry import make_pose, rotation_from_vector, transform_points
from kd_pose.manifest import ObjectSpec
from kd_pose.symmetry import symmetry_transforms

# Object axes in the camera: x to the right, z (mostly "up" in data sets) up and towards the eye.
CANONICAL_VIEW = rotation_from_vector((math.radians(135.0), 0.0, 0.0))
_PARALLEL = 1e-6
_STEP_DEG = 30.0  # only for the middle of all members


class CanonicalPose:
    """Brings poses of one object to their canonical symmetry member.

    Args:
        spec: symmetries and box of the object.
    """

    def __init__(self, spec: ObjectSpec) -> None:
        self._axes = [(np.asarray(axis, float) / np.linalg.norm(axis), np.asarray(offset, float))
                      for axis, offset in spec.symmetries_continuous]
        self._discrete = [np.eye(4)] + [np.asarray(values, float).reshape(4, 4)
                                        for values in spec.symmetries_discrete]
        members = symmetry_transforms(spec, _STEP_DEG)
        # The same point for every member, so that the ray to it is, too.
        self._middle = np.mean([transform_points(T, spec.box_center) for T in members], axis=0)
        self.is_symmetric = len(self._discrete) > 1 or bool(self._axes)

    def __call__(self, T_cam_obj: np.ndarray, roll: float = 0.0) -> np.ndarray:
        """The canonical one among the poses (4, 4) that look like ``T_cam_obj``.

        Args:
            roll: angle by which the crop turns the picture, radians, from x towards y.
        """
        T = np.asarray(T_cam_obj, dtype=np.float64)
        if not self.is_symmetric:
            return T
        seen = rotation_from_vector((0.0, 0.0, roll)) @ self._along_ray(T) @ T[:3, :3]
        if self._turns_freely():
            S = _about(seen.T @ CANONICAL_VIEW, self._axes[0][1])
            return T @ S
        best, closest = T, -math.inf
        for member in self._discrete:
            turned = CANONICAL_VIEW.T @ seen @ member[:3, :3]
            S, closeness = member, float(np.trace(turned))
            if self._axes:
                axis, offset = self._axes[0]
                angle, closeness = _best_angle(turned, axis)
                S = member @ _about(rotation_from_vector(angle * axis), offset)
            if closeness > closest + 1e-9:
                best, closest = T @ S, closeness
        return best

    def _along_ray(self, T: np.ndarray) -> np.ndarray:
        """Rotation (3, 3) that turns the ray to the object's middle onto the optical axis."""
        x, y, z = transform_points(T, self._middle)
        across = math.hypot(x, y)
        if across < 1e-12:
            return np.eye(3)
        angle = math.atan2(across, z)
        return rotation_from_vector(angle * np.array([y, -x, 0.0]) / across)

    def _turns_freely(self) -> bool:
        """Two axes that are not parallel make a ball: every rotation is a member."""
        return any(np.linalg.norm(np.cross(self._axes[0][0], axis)) > _PARALLEL
                   for axis, _ in self._axes[1:])


def _best_angle(turned: np.ndarray, axis: np.ndarray) -> tuple[float, float]:
    """Angle about the axis (3,) for which trace(turned @ rotation) is largest, and that trace."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    along = float(axis @ turned @ axis)
    cosine, sine = float(np.trace(turned)) - along, float(np.trace(turned @ cross))
    return math.atan2(sine, cosine), along + math.hypot(sine, cosine)


def _about(R: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) about a point (3,), as a transform (4, 4)."""
    return make_pose(R, point - R @ point)


def crop_roll(M: np.ndarray) -> float:
    """Angle by which an affine (2, 3) image -> input turns the picture, radians."""
    return math.atan2(M[1, 0], M[0, 0])
