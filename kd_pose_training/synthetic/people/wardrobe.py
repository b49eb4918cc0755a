"""Clothes: solids a little larger than the body, cut off at hems, worn on the same bones."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kd_pose_training.synthetic.people.body import (
    BODY_WIDTH,
    CELLS,
    arm_shapes,
    body_shapes,
    leg_shapes,
    torso_shapes,
)
from kd_pose_training.synthetic.people.sdf import (
    Cone,
    Distance,
    Ellipsoid,
    smooth_max,
    smooth_min,
    union,
)
from kd_pose_training.synthetic.people.skin import Piece, bound, cover

TOPS = ("tee", "long", "tank", "jacket", "polo")
BOTTOMS = ("trousers", "shorts", "skirt", "long_skirt", "leggings")
HIDDEN_DEPTH = 0.003  # metres below cloth from which skin is left out
# thickness, end of the sleeve along upper arm and forearm (metres from the shoulder), hem's z
_TOPS = {"tee": (0.015, 0.17, 0.905), "polo": (0.017, 0.20, 0.885), "long": (0.014, 0.535, 0.895),
         "tank": (0.012, 0.035, 0.91), "jacket": (0.020, 0.530, 0.865)}
_BOTTOMS = {"trousers": (0.014, 0.085), "shorts": (0.020, 0.575), "leggings": (0.006, 0.13)}
_WAIST = 1.035
HEM = 0.010  # metres by which cut edges are rounded


def _folds(points: np.ndarray, height: float) -> np.ndarray:
    """Creases (n,) across the limbs."""
    p = points / 0.045
    wave = (np.sin(p[:, 2] * 1.3 + 2.2 * np.sin(p[:, 1] * 0.6))
            * np.sin(p[:, 0] * 0.9 + p[:, 1] * 0.7)
            + 0.5 * np.sin(p[:, 2] * 2.3 - p[:, 1] * 1.1 + 1.0))
    return height * wave.astype(np.float32)


def _sleeves(thick: float, length: float) -> Distance:
    """Both arms' cloth to ``length`` metres from the shoulder."""
    arms = union(arm_shapes(), 0.01)
    shoulder, elbow = bound("l_upper_arm"), bound("l_forearm")
    along = (elbow - shoulder) / np.linalg.norm(elbow - shoulder)
    end = (shoulder + length * along).astype(np.float32)

    def distance(points: np.ndarray) -> np.ndarray:
        left = points * np.float32([1, 0, 1]) + np.abs(points) * np.float32([0, 1, 0])
        return smooth_max(arms(points) - thick, (left - end) @ along.astype(np.float32), HEM)
    return distance


@lru_cache(maxsize=16)
def top_distance(kind: str, curved: bool) -> Distance:
    """A shirt or jacket in the bind pose."""
    thick, sleeve, hem = _TOPS[kind]
    torso, legs = union(torso_shapes(curved), 0.07), union(leg_shapes(), 0.01)
    arms = _sleeves(thick, sleeve)
    low = 0.045 if kind == "tank" else 0.0
    opening = Cone(np.array([0.03 + low / 2, 0, 1.505 - low]), np.array([0.0, 0, 1.62]),
                   0.078 + low / 3, 0.085, "neck")
    collar = Cone(np.array([-0.022, 0, 1.465]), np.array([-0.018, 0, 1.49]), 0.080, 0.074, "neck")
    hood = Ellipsoid(np.array([-0.085, 0, 1.445]), (0.045, 0.095, 0.065), "chest")
    folds = {"tank": 0.0015, "jacket": 0.004}.get(kind, 0.003)

    def distance(points: np.ndarray) -> np.ndarray:
        # The hem lies over the trousers.
        over = 0.013 * np.clip((1.06 - points[:, 2]) / 0.08, 0, 1)
        body = smooth_min(torso(points), legs(points), 0.03) - thick - over
        body -= _folds(points, folds)
        # Cloth hangs straight below the chest.
        if kind != "tank":
            body = smooth_min(body, _drape(points, curved, thick), 0.03)
        total = smooth_min(body, arms(points) - _folds(points, folds * 0.7), 0.03)
        if kind in ("polo", "jacket"):
            total = np.minimum(total, collar(points) if kind == "polo" else
                               smooth_min(collar(points), hood(points), 0.02))
            mouth = opening(points) + 0.016
        else:
            mouth = opening(points)
        total = smooth_max(total, -mouth, 0.012)
        return smooth_max(smooth_max(total, hem - points[:, 2], HEM), points[:, 2] - 1.515, HEM)
    return distance


def _drape(points: np.ndarray, curved: bool, thick: float) -> np.ndarray:
    """An upright oval tube from chest to hem."""
    wide, deep = (0.148, 0.108) if curved else (0.152, 0.108)
    tube = Cone(np.array([-0.008, 0, 0.85]), np.array([-0.004, 0, 1.25]), wide + thick - 0.008,
                wide + thick - 0.012, "belly", (deep / wide, 1.0, 1.0))
    return tube(points)


@lru_cache(maxsize=16)
def bottom_distance(kind: str, curved: bool) -> Distance:
    """Trousers or a skirt in the bind pose."""
    hips = union([shape for shape in torso_shapes(curved) if shape.bone in ("pelvis", "belly")],
                 0.07)
    if kind in ("skirt", "long_skirt"):
        end = 0.52 if kind == "skirt" else 0.22
        wide = 0.235 if kind == "skirt" else 0.265
        thighs = union([shape for shape in leg_shapes() if shape.bone.endswith("thigh")], 0.01)
        cone = Cone(np.array([-0.01, 0, end - 0.02]), np.array([-0.008, 0, 1.0]), wide, 0.150,
                    "pelvis", (0.80, 1.0, 1.0))

        def skirt(points: np.ndarray) -> np.ndarray:
            angle = np.arctan2(points[:, 1], points[:, 0] + 0.01)
            swing = np.clip((0.95 - points[:, 2]) / 0.4, 0, 1)
            pleats = 0.010 * swing * np.sin(11 * angle + 2 * np.sin(3 * angle))
            total = smooth_min(cone(points) - pleats, hips(points) - 0.013, 0.04)
            legs = np.maximum(thighs(points) - 0.012, 0.62 - points[:, 2])
            total = smooth_min(total, legs, 0.04)
            total = np.maximum(total, end - points[:, 2])
            return smooth_max(total, points[:, 2] - _WAIST, HEM)
        return skirt
    thick, end = _BOTTOMS[kind]
    left = union([shape for shape in leg_shapes() if shape.bone.startswith("l_")], 0.02)
    right = union([shape for shape in leg_shapes() if shape.bone.startswith("r_")], 0.02)

    def trousers(points: np.ndarray) -> np.ndarray:
        # Legs get looser downwards.
        loose = thick * (1 + (0.8 if kind == "trousers" else 0) *
                         np.clip((0.6 - points[:, 2]) / 0.5, 0, 1))
        legs = smooth_min(left(points), right(points), 0.01) - loose
        total = smooth_min(legs, hips(points) - thick, 0.05) - _folds(points, 0.18 * thick)
        total = smooth_max(total, end - points[:, 2], HEM)
        return smooth_max(total, points[:, 2] - _WAIST, HEM)
    return trousers


@lru_cache(maxsize=64)
def top_piece(kind: str, curved: bool, level: int) -> Piece:
    """Surface of a top; zone ``top``."""
    return cover(top_distance(kind, curved), body_shapes(curved), np.array([-0.30, -0.70, 0.82]),
                 np.array([0.30, 0.70, 1.56]), CELLS["cloth"][level], BODY_WIDTH, "top")


@lru_cache(maxsize=64)
def bottom_piece(kind: str, curved: bool, level: int) -> Piece:
    """Surface of trousers or a skirt; zone ``bottom``. A skirt passes softly from leg to leg."""
    skirt = kind in ("skirt", "long_skirt")
    shapes = [shape for shape in body_shapes(curved) if shape.bone in
              ("pelvis", "belly", "l_thigh", "r_thigh", "l_shin", "r_shin")]
    if skirt:
        shapes = [shape for shape in shapes if not shape.bone.endswith("shin")]
    piece = cover(bottom_distance(kind, curved), shapes, np.array([-0.32, -0.40, 0.05]),
                  np.array([0.32, 0.40, 1.06]), CELLS["cloth"][level],
                  0.022 if skirt else BODY_WIDTH, "bottom")
    # A skirt is open below.
    return piece.without(piece.normals[:, 2] < -0.8) if skirt else piece
