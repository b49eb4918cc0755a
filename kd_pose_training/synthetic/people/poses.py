"""Poses that people take: a mixture of activities, each with its own spread of joint angles.

Angles drawn one by one make puppets; here an activity sets all joints together and varies about
it. Hands are drawn from a few grips. A pose is tried again when an arm would be inside the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kd_pose_training.synthetic.people.body import leg_shapes, torso_shapes
from kd_pose_training.synthetic.people.sdf import Ellipsoid
from kd_pose_training.synthetic.people.skeleton import (
    FINGERS,
    INDEX,
    Build,
    Placed,
    Pose,
    mirrored,
    place,
    within_limits,
)
from kd_pose_training.synthetic.people.skin import BOUND, bound

TRIES = 12
Rng = np.random.Generator


@dataclass(frozen=True)
class Stance:
    """A pose and how the pelvis is tilted forwards and to the side (degrees). ``seated``: it needs
    something below the pelvis."""

    pose: Pose
    pitch: float = 0.0
    roll: float = 0.0
    seated: bool = False
    name: str = ""


def _n(rng: Rng, mean: float, spread: float) -> float:
    return float(rng.normal(mean, spread))


# share, curl of index, middle, ring, pinky; thumb's base, spread and curl
_GRIPS: dict[str, tuple] = {
    "loose": (0.30, (18, 26, 32, 36), (8, 8, 15)), "open": (0.20, (0, 0, 0, 0), (-8, 15, 0)),
    "fist": (0.10, (88, 92, 92, 92), (32, 18, 55)),
    "point": (0.08, (2, 88, 92, 92), (32, 15, 50)),
    "grip": (0.14, (45, 50, 52, 54), (22, 28, 20)),
    "thumb": (0.04, (88, 92, 92, 92), (-12, -5, 0)),
    "two": (0.06, (0, 0, 90, 90), (34, 12, 55)), "pinch": (0.08, (52, 20, 14, 10), (22, 30, 28))}


def hand_pose(kind: str | None, rng: Rng) -> Pose:
    """Angles of one hand, without the side in their names. kind: one of the grips, None for any.

    Raises:
        ValueError: there is no such grip.
    """
    if kind is None:
        shares = np.array([grip[0] for grip in _GRIPS.values()])
        kind = str(rng.choice(list(_GRIPS), p=shares / shares.sum()))
    if kind not in _GRIPS:
        raise ValueError(f"there is no grip {kind!r}; allowed: {', '.join(_GRIPS)}")
    _, curls, (base, spread, end) = _GRIPS[kind]
    fan = abs(_n(rng, 7 if kind in ("open", "two") else 2, 3))
    shared = _n(rng, 0, 5)
    pose = {"thumb_base": _n(rng, base, 5), "thumb_spread": _n(rng, spread, 6),
            "thumb_middle": _n(rng, 0.6 * end, 5), "thumb_end": _n(rng, end, 7)}
    for number, (finger, curl) in enumerate(zip(FINGERS[1:], curls)):
        curl = curl + shared + _n(rng, 0, 4)
        pose[f"{finger}_base"] = 0.9 * curl
        pose[f"{finger}_middle"] = 1.05 * curl + 3
        pose[f"{finger}_end"] = 0.65 * curl + 2
        pose[f"{finger}_spread"] = fan * (1 - number) * (0.9 if curl < 50 else 0.2)
    return pose


def _arm(side: str, rng: Rng, flex: float, spread: float, inward: float, elbow: float,
         pronation: float = 0.0, loose: float = 7.0, grip: str | None = None) -> Pose:
    pose = {"shoulder_flex": _n(rng, flex, loose), "shoulder_spread": _n(rng, spread, loose),
            "shoulder_in": _n(rng, inward, loose), "elbow_flex": _n(rng, elbow, loose),
            "pronation": _n(rng, pronation, 20), "wrist_flex": _n(rng, 0, 14),
            "wrist_side": _n(rng, 3, 8)}
    lift = max(abs(pose["shoulder_flex"]), abs(pose["shoulder_spread"]))
    pose["clavicle_raise"] = 0.18 * max(0.0, lift - 45) + _n(rng, -3, 2)
    pose["clavicle_forward"] = 0.1 * max(0.0, pose["shoulder_flex"]) + _n(rng, 0, 3)
    pose.update(hand_pose(grip, rng))
    return {f"{side}_{name}": value for name, value in pose.items()}


def _leg(side: str, rng: Rng, hip: float, spread: float, knee: float, out: float = 6.0,
         pitch: float = 0.0, flat: bool = True, loose: float = 4.0) -> Pose:
    """``flat``: the sole is turned towards the ground as far as the ankle allows."""
    hip, knee = _n(rng, hip, loose), max(0.0, _n(rng, knee, loose))
    up = knee - hip + pitch if flat else _n(rng, -15, 8)
    pose = {"hip_flex": hip, "hip_spread": _n(rng, spread, 3), "hip_out": _n(rng, out, 5),
            "knee_flex": knee, "ankle_up": up, "toes_up": max(0.0, -up - 20)}
    return {f"{side}_{name}": value for name, value in pose.items()}


def _trunk(rng: Rng, bend: float = 0.0, spread: float = 5.0, look: float = 20.0) -> Pose:
    twist = _n(rng, 0, spread)
    return {"belly_bend": _n(rng, 0.55 * bend, spread), "belly_side": _n(rng, 0, 0.6 * spread),
            "belly_twist": twist, "chest_bend": _n(rng, 0.45 * bend, spread),
            "chest_side": _n(rng, 0, 0.6 * spread), "chest_twist": twist + _n(rng, 0, spread),
            "neck_bend": _n(rng, 4 - 0.25 * bend, 7), "neck_twist": _n(rng, 0, 0.6 * look),
            "neck_side": _n(rng, 0, 5), "head_bend": _n(rng, 2, 7),
            "head_twist": _n(rng, 0, 0.6 * look), "head_side": _n(rng, 0, 6)}


def _hanging(side: str, rng: Rng, grip: str | None = "loose") -> Pose:
    return _arm(side, rng, _n(rng, 2, 10), 9 + abs(_n(rng, 0, 7)), 10, 12 + abs(_n(rng, 0, 12)),
                15, 3, grip)


def _standing_legs(rng: Rng) -> Pose:
    """Weight on one leg, now and then on both."""
    bent = abs(_n(rng, 0, 12))
    return {**_leg("l", rng, 0.0, 3, 2, loose=1.5),
            **_leg("r", rng, 0.55 * bent, 4 + abs(_n(rng, 0, 4)), bent, loose=1.5)}


def _any_arm(side: str, rng: Rng) -> Pose:
    """What an arm does while the other is busy."""
    return _arms_doing(side, rng) if rng.random() < 0.35 else _hanging(side, rng)


def _arms_doing(side: str, rng: Rng) -> Pose:
    kind = rng.integers(9)
    if kind == 0:  # at the hip
        return _arm(side, rng, -18, 42, 78, 92, -20, 5, "loose")
    if kind == 1:  # a telephone at the ear
        return _arm(side, rng, 52, 38, 12, 138, 10, 4, "grip")
    if kind == 2:  # waving
        return _arm(side, rng, 8, 75, -70, 85, 20, 9, "open")
    if kind == 3:  # pointing
        return _arm(side, rng, _n(rng, 78, 18), _n(rng, 12, 20), 10, 14, 20, 6, "point")
    if kind == 4:  # holding something before the chest
        return _arm(side, rng, 28, 12, 25, 98, 10, 8, str(rng.choice(["grip", "pinch", "loose"])))
    if kind == 5:  # reaching forwards
        return _arm(side, rng, _n(rng, 70, 18), 8, 5, 25, 15, 9)
    if kind == 6:  # reaching up
        return _arm(side, rng, _n(rng, 150, 14), 15, 5, 22, 0, 8)
    if kind == 7:  # showing the hand
        return _arm(side, rng, 38, 22, -12, 122, -35, 9, str(rng.choice(["open", "two", "thumb"])))
    return _arm(side, rng, 40, 22, 42, 136, 10, 5, None)  # at the chin


def _stand(rng: Rng) -> Stance:
    pose = {**_trunk(rng), **_standing_legs(rng), **_hanging("l", rng), **_hanging("r", rng)}
    return Stance(pose)


def _act(rng: Rng) -> Stance:
    """Standing, one arm or both busy."""
    pose = {**_trunk(rng, 4, 6), **_standing_legs(rng), **_arms_doing("r", rng),
            **_any_arm("l", rng)}
    return Stance(pose)


def _arms_up(rng: Rng) -> Stance:
    wide = rng.random() < 0.5
    arms = {side: _arm(side, rng, 0 if wide else 155, _n(rng, 125, 18) if wide else 15, 0,
                       abs(_n(rng, 20, 15)), 0, 8) for side in "lr"}
    return Stance({**_trunk(rng, -5), **_standing_legs(rng), **arms["l"], **arms["r"]})


def _arms_wide(rng: Rng) -> Stance:
    arms = {side: _arm(side, rng, 15, _n(rng, 75, 14), 0, abs(_n(rng, 15, 15)), 10, 8)
            for side in "lr"}
    return Stance({**_trunk(rng), **_standing_legs(rng), **arms["l"], **arms["r"]})


def _akimbo(rng: Rng) -> Stance:
    arms = {side: _arm(side, rng, -18, 42, 80, 92, -20, 4, "loose") for side in "lr"}
    return Stance({**_trunk(rng), **_standing_legs(rng), **arms["l"], **arms["r"]})


def _crossed(rng: Rng) -> Stance:
    pose = {**_trunk(rng), **_standing_legs(rng),
            **_arm("l", rng, 36, 12, 68, 100, 20, 3, "loose"),
            **_arm("r", rng, 24, 10, 62, 92, 20, 3, "grip")}
    return Stance(pose)


def _carry(rng: Rng) -> Stance:
    lift = rng.uniform(10, 45)
    arms = {side: _arm(side, rng, lift, 6, 10, 85 - 0.6 * lift, -10, 4, "grip") for side in "lr"}
    return Stance({**_trunk(rng, -4), **_standing_legs(rng), **arms["l"], **arms["r"]})


def _gestures(rng: Rng) -> Stance:
    """Both hands before the body, talking or working."""
    arms = {side: _arm(side, rng, _n(rng, 35, 12), 15, _n(rng, 22, 12), _n(rng, 95, 20), 0, 8)
            for side in "lr"}
    return Stance({**_trunk(rng, 6, 5), **_standing_legs(rng), **arms["l"], **arms["r"]})


def _stride(rng: Rng, reach: float, knee: float, arm: float, elbow: float, lean: float) -> Stance:
    phase = rng.uniform(0, 2 * np.pi)
    pose = _trunk(rng, lean)
    for side, shift in (("l", 0.0), ("r", np.pi)):
        swing = np.cos(phase + shift)
        lifted = max(0.0, np.sin(phase + shift))
        pose.update(_leg(side, rng, 0.2 * reach + reach * swing, 2, 5 + knee * lifted,
                         flat=lifted < 0.3, loose=3))
        pose.update(_arm(side, rng, -arm * swing, 9, 10, elbow + 0.4 * arm * max(0.0, -swing), 10,
                         4, "loose" if elbow < 50 else "fist"))
    return Stance(pose, pitch=lean * 0.4)


def _walk(rng: Rng) -> Stance:
    return _stride(rng, rng.uniform(16, 28), 45, 24, 14, 3)


def _run(rng: Rng) -> Stance:
    return _stride(rng, rng.uniform(35, 48), 95, 42, 85, 14)


def _sit(rng: Rng) -> Stance:
    lean = _n(rng, -2, 8)
    pose = _trunk(rng, 6, 6)
    for side in "lr":
        pose.update(_leg(side, rng, 84 + lean, 8, 84, pitch=lean))
        if rng.random() < 0.5:  # on the thigh
            pose.update(_arm(side, rng, 24, 8, 20, 52, 60, 4, "loose"))
        else:
            pose.update(_any_arm(side, rng))
    return Stance(pose, pitch=lean, seated=True)


def _crouch(rng: Rng) -> Stance:
    pitch, depth = rng.uniform(12, 30), rng.uniform(0.6, 1.0)
    pose = _trunk(rng, 25, 5)
    for side in "lr":
        pose.update(_leg(side, rng, 112 * depth, 16, 135 * depth, 14, pitch))
        pose.update(_arm(side, rng, 62, 12, 12, 45, 20, 10))
    return Stance(pose, pitch=pitch)


def _kneel(rng: Rng) -> Stance:
    pose = {**_trunk(rng, 10), **_leg("l", rng, 88, 6, 92), **_leg("r", rng, 2, 4, 92, flat=False),
            **_any_arm("l", rng), **_any_arm("r", rng)}
    pose["r_ankle_up"], pose["r_toes_up"] = -5.0, 45.0
    return Stance(pose)


def _bow(rng: Rng) -> Stance:
    """Bending down to something."""
    pitch = rng.uniform(25, 55)
    pose = _trunk(rng, 35, 5)
    for side in "lr":
        bent = abs(_n(rng, 18, 12))
        pose.update(_leg(side, rng, pitch + 0.5 * bent, 5, bent, pitch=pitch))
        pose.update(_arm(side, rng, _n(rng, 55, 12), 10, 5, 22, 10, 8))
    return Stance(pose, pitch=pitch)


def _kick(rng: Rng) -> Stance:
    pose = {**_trunk(rng, -8), **_leg("l", rng, 2, 6, 8),
            **_leg("r", rng, rng.uniform(35, 85), 6, rng.uniform(5, 70), flat=False)}
    for side in "lr":
        pose.update(_arm(side, rng, _n(rng, 0, 25), 45, 0, 35, 10, 12))
    return Stance(pose, pitch=-6)


_MIXTURE: tuple[tuple[float, Callable[[Rng], Stance]], ...] = (
    (0.13, _stand), (0.20, _act), (0.05, _arms_up), (0.05, _arms_wide), (0.04, _akimbo),
    (0.03, _crossed), (0.05, _carry), (0.09, _gestures), (0.11, _walk), (0.05, _run),
    (0.09, _sit), (0.05, _crouch), (0.02, _kneel), (0.04, _bow), (0.02, _kick))
ACTIVITIES = tuple(draw.__name__.lstrip("_") for _, draw in _MIXTURE)


def draw_stance(rng: Rng, build: Build, activity: str | None = None) -> Stance:
    """A stance of one of ACTIVITIES, None for any; within all limits, arms outside of the body as
    far as ``TRIES`` allow.

    Raises:
        ValueError: there is no such activity.
    """
    if activity is not None and activity not in ACTIVITIES:
        raise ValueError(f"there is no activity {activity!r}; allowed: {', '.join(ACTIVITIES)}")
    shares = np.array([share for share, _ in _MIXTURE])
    row = rng.choice(len(_MIXTURE), p=shares / shares.sum()) if activity is None else \
        ACTIVITIES.index(activity)
    best, best_depth = None, np.inf
    for _ in range(TRIES):
        drawn = _MIXTURE[row][1](rng)
        pose = within_limits(mirrored(drawn.pose) if rng.random() < 0.5 else drawn.pose)
        depth = sunk(place(pose, build), build)
        if depth < best_depth:
            best = Stance(pose, drawn.pitch, drawn.roll, drawn.seated, ACTIVITIES[row])
            best_depth = depth
        if depth <= 0:
            break
    assert best is not None
    return best


def sunk(placed: Placed, build: Build) -> float:
    """Metres by which the deepest point of forearms and hands is too near to trunk, head, thighs
    or the other hand; 0 or less where they keep clear."""
    clearance = 0.022
    points = []
    for side in "lr":
        elbow, wrist = placed.at(f"{side}_forearm"), placed.at(f"{side}_hand")
        points += [elbow + t * (wrist - elbow) for t in (0.45, 0.75, 1.0)]
        points += [placed.at(f"{side}_{finger}_{part}") for finger in FINGERS
                   for part in ("base", "end")]
    points = np.stack(points)
    half = len(points) // 2
    gap = np.linalg.norm(points[:half, None] - points[None, half:], axis=2).min() - 0.05
    factors = build.factors()
    deepest = -float(gap)
    for shape in _obstacles():
        row = INDEX[shape.bone]
        local = (points - placed.joints[row]) @ placed.rotations[row] / factors[row]
        there = local @ BOUND.rotations[row].T + BOUND.joints[row]
        deepest = max(deepest, clearance - float(shape(there.astype(np.float32)).min()))
    return deepest


def _obstacles() -> list:
    skull = Ellipsoid(bound("head", (0.0, 0.0, 0.06)), (0.095, 0.075, 0.105), "head")
    return [*torso_shapes(False), skull,
            *(shape for shape in leg_shapes() if shape.bone.endswith("thigh"))]
