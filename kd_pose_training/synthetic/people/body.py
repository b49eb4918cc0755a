"""Shapes of body, hands and shoes in the bind pose, and the keypoints that lie on them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from kd_pose_training.synthetic.people.sdf import (
    Cone,
    Distance,
    Ellipsoid,
    Shape,
    onto_surface,
    smooth_min,
    union,
)
from kd_pose_training.synthetic.people.skeleton import FINGERS, HAND_TIPS, INDEX, JOINTS, MIRROR
from kd_pose_training.synthetic.people.skin import BOUND, Piece, bound, cover

BODY_WIDTH, HAND_WIDTH = 0.014, 0.0022  # metres over which a bone takes over from its neighbour
SOLE = -0.085  # height of the ground in the foot's axes
# Cells in metres of near and of distant people.
CELLS = {"body": (0.013, 0.022), "hand": (0.0033, 0.0058), "shoe": (0.008, 0.014),
         "cloth": (0.012, 0.022)}


def _cone(bone: str, a: tuple, b: tuple, ra: float, rb: float, squash: tuple = (1, 1, 1)) -> Cone:
    return Cone(bound(bone, a), bound(bone, b), ra, rb, bone, squash)


def mirror_shape(shape: Shape) -> Shape:
    """The same shape on the right side."""
    bone = "r" + shape.bone[1:] if shape.bone.startswith("l_") else shape.bone
    if isinstance(shape, Cone):
        return replace(shape, a=MIRROR @ shape.a, b=MIRROR @ shape.b, bone=bone)
    turn = None if shape.turn is None else MIRROR @ shape.turn @ MIRROR
    return replace(shape, centre=MIRROR @ shape.centre, bone=bone, turn=turn)


def torso_shapes(curved: bool) -> list[Shape]:
    """Trunk and neck. ``curved``: with breasts, a narrower waist and wider hips."""
    waist, hip = (0.120, 0.172) if curved else (0.138, 0.160)
    shapes: list[Shape] = [
        Ellipsoid(np.array([-0.015, 0, 1.275]), (0.112, 0.152, 0.20), "chest"),
        Ellipsoid(np.array([-0.008, 0, 1.085]), (0.098, waist, 0.17), "belly"),
        Ellipsoid(np.array([-0.012, 0, 0.955]), (0.108, hip, 0.115), "pelvis"),
        Cone(np.array([-0.026, 0, 1.43]), np.array([-0.012, 0, 1.585]), 0.058, 0.054, "neck"),
        Cone(np.array([-0.005, 0, 1.60]), np.array([0.0, 0, 1.63]), 0.05, 0.05, "head")]
    left: list[Shape] = [
        Cone(np.array([-0.03, 0.02, 1.49]), np.array([-0.03, 0.14, 1.445]), 0.035, 0.030,
             "l_clavicle"),
        Cone(np.array([-0.018, 0.07, 1.403]), np.array([-0.014, 0.140, 1.392]), 0.055, 0.047,
             "l_clavicle"),
        Ellipsoid(np.array([-0.055, 0.07, 0.905]), (0.085, 0.082, 0.085), "pelvis")]
    if curved:
        left.append(Ellipsoid(np.array([0.070, 0.070, 1.275]), (0.062, 0.062, 0.060), "chest"))
    else:
        left.append(Ellipsoid(np.array([0.055, 0.070, 1.315]), (0.045, 0.072, 0.055), "chest"))
    return shapes + left + [mirror_shape(shape) for shape in left]


def _left_arm() -> list[Shape]:
    return [
        _cone("l_upper_arm", (0, 0, 0), (0, 0, -0.11), 0.048, 0.046),
        _cone("l_upper_arm", (0, 0, -0.11), (0, 0, -0.285), 0.046, 0.037),
        _cone("l_forearm", (0, 0, 0), (0.004, 0, -0.075), 0.038, 0.0415),
        _cone("l_forearm", (0.004, 0, -0.075), (0, 0, -0.245), 0.0415, 0.0240)]


def _left_leg() -> list[Shape]:
    return [
        _cone("l_thigh", (0, 0.004, 0), (0.01, 0, -0.17), 0.088, 0.076),
        _cone("l_thigh", (0.01, 0, -0.17), (0, 0, -0.41), 0.076, 0.053),
        _cone("l_shin", (0, 0, 0), (-0.014, 0, -0.13), 0.051, 0.054),
        _cone("l_shin", (-0.014, 0, -0.13), (-0.006, 0, -0.39), 0.054, 0.035)]


def arm_shapes() -> list[Shape]:
    """Both arms to the wrist."""
    left = _left_arm()
    return left + [mirror_shape(shape) for shape in left]


def leg_shapes() -> list[Shape]:
    """Both legs to the ankle."""
    left = _left_leg()
    return left + [mirror_shape(shape) for shape in left]


def body_distance(curved: bool) -> Distance:
    """Trunk, neck, arms and legs. The legs flow into the trunk, hardly into each other."""
    torso = union(torso_shapes(curved), 0.07)
    arms = union(arm_shapes(), 0.004)
    left = union(_left_leg(), 0.005)
    right = union([mirror_shape(shape) for shape in _left_leg()], 0.005)

    def distance(points: np.ndarray) -> np.ndarray:
        legs = smooth_min(left(points), right(points), 0.012)
        return smooth_min(smooth_min(torso(points), arms(points), 0.05), legs, 0.05)
    return distance


def body_shapes(curved: bool) -> list[Shape]:
    """All shapes of the body but hands and feet."""
    return torso_shapes(curved) + arm_shapes() + leg_shapes()


@lru_cache(maxsize=4)
def body_piece(curved: bool, level: int) -> Piece:
    """Skin of trunk and limbs. level 0: near, 1: distant."""
    return cover(body_distance(curved), body_shapes(curved), np.array([-0.25, -0.75, 0.02]),
                 np.array([0.25, 0.75, 1.72]), CELLS["body"][level], BODY_WIDTH, "skin")


def tip_offset(bone: str) -> np.ndarray:
    """Finger tip (3,) by the axes of a finger's end bone."""
    side, finger = bone[0], bone[2:].split("_")[0]
    turn = MIRROR if side == "r" else np.eye(3)
    return JOINTS[INDEX[f"{side}_hand"]] + turn @ HAND_TIPS[finger] - JOINTS[INDEX[bone]]


def _finger(finger: str) -> list[Shape]:
    thick = {"thumb": 1.22, "index": 1.0, "middle": 1.03, "ring": 0.97, "pinky": 0.84}[finger]
    radii = np.array([0.0103, 0.0096, 0.0087, 0.0078]) * thick
    joints = [bound(f"l_{finger}_{part}") for part in ("base", "middle", "end")]
    joints.append(bound(f"l_{finger}_end", tip_offset(f"l_{finger}_end")))
    return [Cone(joints[i], joints[i + 1], radii[i], radii[i + 1], f"l_{finger}_{part}")
            for i, part in enumerate(("base", "middle", "end"))]


def _palm() -> list[Shape]:
    bones: list[Shape] = [
        _cone("l_hand", (0, 0, 0.012), (0, 0, -0.01), 0.0238, 0.0215, (1, 0.88, 1)),
        _cone("l_hand", (0.012, -0.009, -0.018), (0.034, -0.020, -0.044), 0.0165, 0.0150),
        _cone("l_hand", (-0.018, -0.006, -0.02), (-0.027, -0.003, -0.066), 0.0150, 0.0120)]
    for finger, start in (("index", 0.014), ("middle", 0.005), ("ring", -0.006),
                          ("pinky", -0.015)):
        knuckle = JOINTS[INDEX[f"l_{finger}_base"]] - JOINTS[INDEX["l_hand"]]
        bones.append(_cone("l_hand", (start, 0, -0.012), tuple(knuckle), 0.0155, 0.0118))
    return bones


def hand_shapes() -> list[Shape]:
    """Palm and fingers of the left hand."""
    return _palm() + [shape for finger in FINGERS for shape in _finger(finger)]


def hand_distance() -> Distance:
    """The left hand; fingers flow into the palm, not into each other."""
    palm = union(_palm(), 0.012)
    fingers = [union(_finger(finger), 0.0008) for finger in FINGERS]

    def distance(points: np.ndarray) -> np.ndarray:
        hand = palm(points)
        apart = fingers[0](points)
        for finger in fingers[1:]:
            apart = smooth_min(apart, finger(points), 0.0015)
        return smooth_min(hand, apart, 0.008)
    return distance


@lru_cache(maxsize=4)
def hand_piece(side: str, level: int) -> Piece:
    """Skin of a hand, with lighter nails."""
    if side == "r":
        return hand_piece("l", level).mirrored()
    shapes = hand_shapes()
    ends = np.stack([getattr(shape, name) for shape in shapes for name in ("a", "b")])
    piece = cover(hand_distance(), shapes, ends.min(0) - 0.035, ends.max(0) + 0.035,
                  CELLS["hand"][level], HAND_WIDTH, "skin")
    tint = piece.tint
    for finger in FINGERS:
        tint *= _nail(finger, piece.vertices, piece.normals)
    creases = np.abs(piece.normals @ BOUND.rotations[INDEX["l_hand"]][:, 1])
    return replace(piece, tint=tint * (0.97 + 0.03 * creases[:, None]).astype(np.float32))


def _nail(finger: str, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Factor (V, 3) on the skin's colour: pale and reddish on the back of a finger's end."""
    bone = f"l_{finger}_end"
    tip = bound(bone, tip_offset(bone))
    along = tip - bound(bone)
    long = np.linalg.norm(along)
    along /= long
    across = np.array([0.58, 0.6, -0.2]) if finger == "thumb" else np.array([0, 1.0, 0])
    back = BOUND.rotations[INDEX[bone]] @ across
    back -= along * (back @ along)
    back /= np.linalg.norm(back)
    place = (vertices - tip) @ along
    on = ((place > -0.007) & (place < 0.006) & (normals @ back > 0.72)
          & (np.linalg.norm(vertices - tip, axis=1) < 0.02))
    return np.where(on[:, None], [1.14, 1.05, 1.05], 1.0).astype(np.float32)


def _shoe_shapes() -> list[Shape]:
    return [
        _cone("l_foot", (-0.028, 0, -0.052), (0.10, 0.002, -0.056), 0.038, 0.037, (1, 0.95, 1)),
        _cone("l_foot", (0.0, 0, 0.0), (0.06, 0, -0.045), 0.046, 0.034, (1, 0.9, 1)),
        _cone("l_toes", (0.0, -0.012, 0.006), (0.040, -0.012, 0.0), 0.034, 0.026),
        _cone("l_toes", (-0.01, 0.010, 0.004), (0.018, 0.014, -0.002), 0.034, 0.026)]


def shoe_distance(height: float) -> Distance:
    """The left shoe, its shaft ``height`` metres above the ankle, with a flat sole."""
    shoe = union([*_shoe_shapes(), _shaft(height)], 0.035)
    ground = bound("l_foot", (0, 0, SOLE))[2]
    return lambda points: np.maximum(shoe(points), ground - points[:, 2])


def _shaft(height: float) -> Shape:
    return _cone("l_foot", (-0.008, 0, height), (-0.004, 0, -0.04), 0.047, 0.043, (1, 0.9, 1))


@lru_cache(maxsize=16)
def shoe_piece(side: str, boot: bool, level: int) -> Piece:
    """A shoe, or a boot up to the calf; the sole is lighter."""
    if side == "r":
        return shoe_piece("l", boot, level).mirrored()
    height = 0.09 if boot else 0.012
    low, high = (bound("l_foot", at) for at in ((-0.12, -0.10, SOLE), (0.24, 0.11, height + 0.05)))
    piece = cover(shoe_distance(height), [*_shoe_shapes(), _shaft(height)],
                  np.minimum(low, high) - 0.03, np.maximum(low, high) + 0.03,
                  CELLS["shoe"][level], 0.012, "shoe")
    sole = piece.vertices[:, 2] < bound("l_foot", (0, 0, SOLE + 0.022))[2]
    return replace(piece, tint=np.where(sole[:, None], 1.9, 1.0).astype(np.float32)
                   * np.ones(3, np.float32))


@lru_cache(maxsize=1)
def foot_points() -> dict[str, np.ndarray]:
    """Big toe, small toe and heel of the left shoe, bind pose: name -> (3,)."""
    guesses = {"big_toe": ("l_toes", (0.055, -0.020, 0.005)),
               "small_toe": ("l_toes", (0.020, 0.042, 0.0)),
               "heel": ("l_foot", (-0.075, 0, -0.055))}
    points = np.stack([bound(*guess) for guess in guesses.values()])
    return dict(zip(guesses, onto_surface(shoe_distance(0.012), points)))
