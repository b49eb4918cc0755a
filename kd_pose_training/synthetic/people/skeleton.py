"""Bones, joint limits and forward kinematics of a person.

Body frame: x forwards, y to the person's left, z up, metres, mid-hip above the origin. In the zero
pose a person stands with hanging arms, palms towards the thighs; every bone's own axes are then
those of the body, so that a bone's rotation in the body frame is the product of the joints' above
it. Angles are named by anatomy and have one meaning on both sides: the right side's rotation is
the left's, mirrored at the y = 0 plane.

Lengths follow Drillis and Contini's shares of the stature (Winter, "Biomechanics and Motor Control
of Human Movement", table 4.1), joint limits common goniometry (AAOS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STATURE = 1.75  # metres; of the body that the tables below describe
SIDES = ("l", "r")
FINGERS = ("thumb", "index", "middle", "ring", "pinky")

# bone: (parent, its joint in the zero pose of the left side or the middle, metres)
_MIDDLE = {
    "pelvis": (None, (0.0, 0.0, 0.925)),
    "belly": ("pelvis", (-0.010, 0.0, 1.02)),
    "chest": ("belly", (-0.015, 0.0, 1.20)),
    "neck": ("chest", (-0.022, 0.0, 1.475)),
    "head": ("neck", (-0.005, 0.0, 1.578)),
}
_LEFT = {
    "clavicle": ("chest", (0.0, 0.025, 1.425)),
    "upper_arm": ("clavicle", (-0.012, 0.172, 1.425)),
    "forearm": ("upper_arm", (-0.012, 0.172, 1.130)),
    "hand": ("forearm", (-0.012, 0.172, 0.875)),
    "thigh": ("pelvis", (0.0, 0.088, 0.925)),
    "shin": ("thigh", (0.0, 0.088, 0.505)),
    "foot": ("shin", (-0.008, 0.088, 0.085)),
    "toes": ("foot", (0.125, 0.095, 0.022)),
}
# Joints of the left hand from the wrist: base, middle, end, tip.
_HAND = {
    "thumb": ((0.020, -0.010, -0.024), (0.046, -0.027, -0.056), (0.060, -0.036, -0.086),
              (0.069, -0.042, -0.110)),
    "index": ((0.029, 0.002, -0.093), (0.033, 0.001, -0.136), (0.034, 0.0, -0.163),
              (0.035, 0.0, -0.183)),
    "middle": ((0.007, 0.004, -0.096), (0.008, 0.003, -0.143), (0.008, 0.002, -0.174),
               (0.008, 0.001, -0.196)),
    "ring": ((-0.013, 0.003, -0.090), (-0.016, 0.002, -0.133), (-0.017, 0.001, -0.162),
             (-0.018, 0.0, -0.183)),
    "pinky": ((-0.030, 0.0, -0.080), (-0.036, -0.001, -0.114), (-0.039, -0.002, -0.136),
              (-0.041, -0.003, -0.154)),
}
HAND_TIPS = {finger: np.array(points[3]) for finger, points in _HAND.items()}

# angle: (smallest, largest) in degrees
_LIMITS_MIDDLE = {
    "belly_bend": (-20, 40), "belly_side": (-20, 20), "belly_twist": (-20, 20),
    "chest_bend": (-20, 35), "chest_side": (-20, 20), "chest_twist": (-30, 30),
    "neck_bend": (-30, 30), "neck_side": (-20, 20), "neck_twist": (-40, 40),
    "head_bend": (-25, 25), "head_side": (-20, 20), "head_twist": (-40, 40),
}
_LIMITS_SIDE = {
    "clavicle_raise": (-8, 35), "clavicle_forward": (-15, 25),
    "shoulder_flex": (-50, 175), "shoulder_spread": (-45, 175), "shoulder_in": (-80, 90),
    "elbow_flex": (0, 148), "pronation": (-85, 85),
    "wrist_flex": (-65, 75), "wrist_side": (-20, 30),
    "hip_flex": (-20, 125), "hip_spread": (-25, 50), "hip_out": (-35, 50),
    "knee_flex": (0, 148), "ankle_up": (-45, 28), "foot_in": (-15, 15), "toes_up": (-20, 60),
    "thumb_base": (-15, 45), "thumb_spread": (-20, 35), "thumb_middle": (-5, 60),
    "thumb_end": (-10, 80),
    **{f"{finger}_{part}": limits for finger in FINGERS[1:] for part, limits in
       (("base", (-20, 92)), ("middle", (0, 108)), ("end", (0, 80)), ("spread", (-15, 20)))},
}
LIMITS: dict[str, tuple[float, float]] = {
    **_LIMITS_MIDDLE,
    **{f"{side}_{name}": limits for side in SIDES for name, limits in _LIMITS_SIDE.items()}}
# Children stretch along these axes of their parents' bones when a person has longer ones.
MIRROR = np.diag([1.0, -1.0, 1.0])
_THUMB = np.array([0.58, -0.38, -0.72])
_THUMB /= np.linalg.norm(_THUMB)
_CURL = np.cross(_THUMB, [-0.75, -0.60, -0.10])  # the axis about which a thumb closes
_CURL /= np.linalg.norm(_CURL)
_OPPOSE = np.cross(_CURL, _THUMB)

Pose = dict[str, float]  # degrees by name of the angle; those left out are 0


def _bones() -> dict[str, tuple[str | None, np.ndarray]]:
    bones: dict[str, tuple[str | None, np.ndarray]] = {
        name: (parent, np.array(at)) for name, (parent, at) in _MIDDLE.items()}
    for side in SIDES:
        turn = MIRROR if side == "r" else np.eye(3)
        for name, (parent, at) in _LEFT.items():
            full = parent if parent in _MIDDLE else f"{side}_{parent}"
            bones[f"{side}_{name}"] = (full, turn @ at)
        wrist = np.array(_LEFT["hand"][1])
        for finger, points in _HAND.items():
            above = f"{side}_hand"
            for part, at in zip(("base", "middle", "end"), points):
                bones[f"{side}_{finger}_{part}"] = (above, turn @ (wrist + at))
                above = f"{side}_{finger}_{part}"
    return bones


BONES = _bones()  # name: (parent, joint in the zero pose); parents come before their children
NAMES = tuple(BONES)
INDEX = {name: row for row, name in enumerate(NAMES)}
PARENT = np.array([-1 if parent is None else INDEX[parent] for parent, _ in BONES.values()])
JOINTS = np.stack([at for _, at in BONES.values()])


def side_of(bone: str) -> str:
    """``l``, ``r``, or an empty text for bones of the middle."""
    return bone[0] if bone[:2] in ("l_", "r_") else ""


@dataclass(frozen=True)
class Build:
    """How a person differs from the body of the tables: factor (3,) on each bone's own axes, by
    bone; bones left out keep 1. A factor along a bone moves the joints beyond it."""

    scale: dict[str, tuple[float, float, float]]

    def factors(self) -> np.ndarray:
        """(B, 3) in the order of NAMES."""
        return np.array([self.scale.get(name, (1.0, 1.0, 1.0)) for name in NAMES])


AVERAGE = Build({})


@dataclass(frozen=True)
class Placed:
    """Bones of a posed person in the body frame: rotations (B, 3, 3) and joints (B, 3)."""

    rotations: np.ndarray
    joints: np.ndarray

    def at(self, bone: str, offset: np.ndarray | None = None) -> np.ndarray:
        """A bone's joint, or a point by its own axes from there, (3,)."""
        row = INDEX[bone]
        joint = self.joints[row]
        return joint if offset is None else joint + self.rotations[row] @ np.asarray(offset)


def turn(axis: str | np.ndarray, degrees: float) -> np.ndarray:
    """Rotation (3, 3) about x, y, z or a unit vector."""
    a = {"x": np.array([1.0, 0, 0]), "y": np.array([0, 1.0, 0]),
         "z": np.array([0, 0, 1.0])}[axis] if isinstance(axis, str) else axis
    radians = np.radians(degrees)
    skew = np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])
    return np.eye(3) + np.sin(radians) * skew + (1 - np.cos(radians)) * skew @ skew


def check_limits(pose: Pose) -> None:
    """Refuse a pose that no joint allows.

    Raises:
        ValueError: an unknown angle, or one outside of its limits.
    """
    for name, value in pose.items():
        if name not in LIMITS:
            raise ValueError(f"unknown angle {name!r}; allowed: {', '.join(LIMITS)}")
        low, high = LIMITS[name]
        if not low <= value <= high:
            raise ValueError(f"{name} is {value:.1f} degrees; allowed: {low} to {high}")


def within_limits(pose: Pose) -> Pose:
    """The pose with every angle moved to the nearest allowed one."""
    return {name: float(np.clip(value, *LIMITS[name])) for name, value in pose.items()}


def mirrored(pose: Pose) -> Pose:
    """The pose as a mirror shows it: sides exchanged, turns to the side reversed."""
    result = {}
    for name, value in pose.items():
        if side_of(name):
            result[("r" if name[0] == "l" else "l") + name[1:]] = value
        else:
            result[name] = -value if name.endswith(("_side", "_twist")) else value
    return result


def _joint(bone: str, pose: Pose) -> np.ndarray:
    """Rotation (3, 3) of a bone against its parent."""
    side, name = side_of(bone), bone[2:] if side_of(bone) else bone
    prefix = side + "_" if side else ""

    def angle(key: str) -> float:
        return pose.get(prefix + key, 0.0)

    if not side:
        if name == "pelvis":
            return np.eye(3)
        return (turn("z", angle(f"{name}_twist")) @ turn("y", angle(f"{name}_bend"))
                @ turn("x", angle(f"{name}_side")))
    R = _left_joint(name, angle)
    return MIRROR @ R @ MIRROR if side == "r" else R


def _left_joint(name: str, angle) -> np.ndarray:
    if name == "clavicle":
        return turn("x", angle("clavicle_raise")) @ turn("z", -angle("clavicle_forward"))
    if name == "upper_arm":
        return (turn("y", -angle("shoulder_flex")) @ turn("x", angle("shoulder_spread"))
                @ turn("z", -angle("shoulder_in")))
    if name == "forearm":
        # Half of the turn about the forearm's length is shown by its skin, the rest by the hand.
        return turn("y", -angle("elbow_flex")) @ turn("z", -0.5 * angle("pronation"))
    if name == "hand":
        return (turn("z", -0.5 * angle("pronation")) @ turn("y", -angle("wrist_side"))
                @ turn("x", -angle("wrist_flex")))
    if name == "thigh":
        return (turn("y", -angle("hip_flex")) @ turn("x", angle("hip_spread"))
                @ turn("z", angle("hip_out")))
    if name == "shin":
        return turn("y", angle("knee_flex"))
    if name == "foot":
        return turn("y", -angle("ankle_up")) @ turn("x", angle("foot_in"))
    if name == "toes":
        return turn("y", -angle("toes_up"))
    finger, part = name.split("_")
    if finger == "thumb":
        curl = turn(_CURL, angle(f"thumb_{part}"))
        return turn(_OPPOSE, angle("thumb_spread")) @ curl if part == "base" else curl
    curl = turn("x", -angle(f"{finger}_{part}"))
    return turn("y", -angle(f"{finger}_spread")) @ curl if part == "base" else curl


def place(pose: Pose, build: Build = AVERAGE) -> Placed:
    """Forward kinematics: where the bones of a pose are, the pelvis upright at its height."""
    factors = build.factors()
    rotations, joints = np.empty((len(NAMES), 3, 3)), np.empty((len(NAMES), 3))
    for row, bone in enumerate(NAMES):
        parent = PARENT[row]
        if parent < 0:
            rotations[row], joints[row] = _joint(bone, pose), JOINTS[row] * factors[row]
            continue
        rotations[row] = rotations[parent] @ _joint(bone, pose)
        offset = (JOINTS[row] - JOINTS[parent]) * factors[parent]
        joints[row] = joints[parent] + rotations[parent] @ offset
    return Placed(rotations, joints)


def bone_lengths(placed: Placed) -> np.ndarray:
    """Distance (B - 1,) of every joint from its parent's."""
    rows = np.arange(1, len(NAMES))
    return np.linalg.norm(placed.joints[rows] - placed.joints[PARENT[rows]], axis=1)
