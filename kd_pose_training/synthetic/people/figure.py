"""A person: how they are built, what they wear, and the posed mesh with its 133 keypoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from kd_pose_training.synthetic import patterns
from kd_pose_training.synthetic.meshes import Mesh
from kd_pose_training.synthetic.people import hair, wardrobe
from kd_pose_training.synthetic.people.body import (
    SOLE,
    body_piece,
    foot_points,
    hand_piece,
    shoe_piece,
    tip_offset,
)
from kd_pose_training.synthetic.people.face_paint import Paint, paint_face
from kd_pose_training.synthetic.people.head import (
    Features,
    HeadForm,
    head_piece,
    head_points,
    landmarks,
)
from kd_pose_training.synthetic.people.poses import Stance
from kd_pose_training.synthetic.people.skeleton import (
    FINGERS,
    INDEX,
    MIRROR,
    Build,
    Placed,
    place,
    turn,
)
from kd_pose_training.synthetic.people.skin import BOUND, Piece, join, move, move_point, owners
from kd_pose_training.synthetic.people.texture import atlas, atlas_uv, cloth, hair_picture

_SKINS = np.array([(252, 222, 200), (240, 200, 172), (226, 178, 146), (205, 152, 118),
                   (170, 118, 86), (128, 84, 60), (92, 60, 45), (66, 44, 35)], float)
_HAIRS = np.array([(24, 19, 17), (45, 30, 22), (78, 52, 33), (110, 74, 44), (165, 122, 70),
                   (205, 170, 110), (130, 62, 30), (150, 148, 146), (210, 208, 204)], float)
_IRISES = np.array([(62, 40, 24), (88, 60, 34), (110, 98, 52), (84, 120, 80), (78, 118, 150),
                    (112, 130, 140)], float)


@dataclass(frozen=True)
class Person:
    """Everything about a person but the pose."""

    build: Build
    form: HeadForm
    curved: bool
    top: str
    bottom: str
    boots: bool
    style: str
    hat: str
    glasses: int  # 0 none, 1 square, 2 round
    paint: Paint
    colours: dict[str, np.ndarray]
    cloths: dict[str, np.ndarray]
    seed: int


def draw_person(rng: np.random.Generator) -> Person:
    """Anyone: children to tall adults, slim to stout."""
    curved = bool(rng.random() < 0.5)
    child = bool(rng.random() < 0.12)
    build = _draw_build(rng, curved and not child, child)
    form = HeadForm(depth=rng.uniform(0.95, 1.05), width=rng.uniform(0.93, 1.06),
                    height=rng.uniform(0.95, 1.06), jaw=rng.uniform(0.86, 1.03 if curved else 1.1),
                    nose=0.0 if child else rng.uniform(-0.004, 0.006),
                    chin=rng.uniform(-0.003, 0.005))
    bottoms, shares = wardrobe.BOTTOMS, [0.55, 0.22, 0.0, 0.0, 0.23]
    if curved:
        shares = [0.42, 0.12, 0.16, 0.08, 0.22]
    style = str(rng.choice(hair.STYLES, p=[0.02, 0.10, 0.05, 0.26, 0.25, 0.10, 0.16, 0.06]
                           if curved else [0.10, 0.40, 0.32, 0.04, 0.03, 0.01, 0.01, 0.09]))
    hat = str(rng.choice(hair.HATS, p=[0.82, 0.11, 0.07])) if style not in ("bun", "curls") \
        else "none"
    paint = _draw_paint(rng, curved, child)
    cloths = {"top": cloth("top", rng), "bottom": cloth("bottom", rng),
              "hair": hair_picture(paint.hair, rng)}
    colours = {"skin": paint.skin, "shoe": _cloth_colour(rng) * 0.7, "sock": _cloth_colour(rng),
               "hat": _cloth_colour(rng), "frame": _cloth_colour(rng) * 0.4}
    return Person(build, form, curved and not child, str(rng.choice(wardrobe.TOPS,
                                                                    p=[.3, .28, .12, .18, .12])),
                  str(rng.choice(bottoms, p=shares)), bool(rng.random() < 0.25), style, hat,
                  int(rng.choice(3, p=[0.78, 0.13, 0.09])), paint, colours, cloths,
                  int(rng.integers(2**31)))


def _cloth_colour(rng: np.random.Generator) -> np.ndarray:
    return patterns.colour(rng, 1.2)


def _draw_build(rng: np.random.Generator, curved: bool, child: bool) -> Build:
    stature = rng.normal(1.65 if curved else 1.77, 0.07) / 1.75
    head = rng.normal(1.0, 0.025) * (0.97 if curved else 1.0)
    if child:
        stature = rng.uniform(0.62, 0.85)
        head = 0.92
    trunk, leg, arm = stature * rng.normal(1, 0.025), stature * rng.normal(1, 0.025), \
        stature * rng.normal(1, 0.025)
    stout = np.clip(rng.normal(0, 1), -1.6, 2.2)
    broad = stature * (0.92 if curved else 1.0) * rng.normal(1, 0.03) * (1 + 0.015 * stout)
    girth = stature * (1 + 0.065 * stout) * (0.93 if curved else 1.0)
    belly = girth * (1 + 0.06 * max(0.0, stout))
    limb = stature * (1 + 0.055 * stout) * (0.90 if curved else 1.0) * rng.normal(1, 0.03)
    hip = stature * (1.0 + 0.03 * stout)
    scale: dict[str, tuple[float, float, float]] = {
        "pelvis": (girth, hip, trunk), "belly": (belly, belly, trunk),
        "chest": (girth, broad, trunk), "neck": (limb, limb, trunk), "head": (head, head, head)}
    hand = stature ** 0.8 * (0.94 if curved else 1.0) * rng.normal(1, 0.03)
    for side in "lr":
        scale[f"{side}_clavicle"] = (girth, broad, stature)
        scale[f"{side}_upper_arm"] = (limb, limb, arm)
        scale[f"{side}_forearm"] = (limb, limb, arm)
        scale[f"{side}_thigh"] = (limb, limb, leg)
        scale[f"{side}_shin"] = (limb, limb, leg)
        foot = stature ** 0.9 * (0.94 if curved else 1.0)
        for part in ("foot", "toes"):
            scale[f"{side}_{part}"] = (foot, foot, foot)
        for part in ("hand", *(f"{f}_{p}" for f in FINGERS for p in ("base", "middle", "end"))):
            scale[f"{side}_{part}"] = (hand, hand, hand)
    return Build({name: tuple(map(float, value)) for name, value in scale.items()})


def _draw_paint(rng: np.random.Generator, curved: bool, child: bool) -> Paint:
    tone = rng.uniform(0, len(_SKINS) - 1)
    low = int(min(tone, len(_SKINS) - 2))
    skin = _SKINS[low] + (tone - low) * (_SKINS[low + 1] - _SKINS[low])
    skin = np.clip(skin * rng.normal(1, 0.02, 3), 20, 255)
    dark = tone > 3.5
    hair_colour = _HAIRS[rng.integers(3 if dark else len(_HAIRS) - (2 if child else 0))]
    if rng.random() < 0.03:
        hair_colour = _cloth_colour(rng)
    iris = _IRISES[rng.integers(2 if dark else len(_IRISES))]
    rouge = rng.uniform(0.25, 0.9) if curved else rng.uniform(0, 0.3)
    lips = skin * (0.93, 0.70, 0.69) * (1 - rouge) + np.array([178, 52, 66]) * rouge * (
        0.6 + 0.4 * skin.mean() / 220)
    beard = 0.0 if curved or child else float(rng.choice([0, 0.2, 0.45, 0.85],
                                                         p=[0.5, 0.2, 0.15, 0.15]))
    return Paint(skin, np.clip(hair_colour * rng.normal(1, 0.06), 8, 255), iris, lips, beard,
                 rng.uniform(0.5, 0.95), rng.uniform(0.1, 0.5),
                 rng.uniform(0.4, 1.0) if curved else rng.uniform(0, 0.4),
                 0.0 if child else rng.beta(1.2, 2.5))


def draw_features(rng: np.random.Generator) -> Features:
    """An expression."""
    speaks = rng.random()
    opened = 0.0 if speaks < 0.55 else rng.uniform(0.001, 0.008)
    return Features(opened, rng.uniform(0, 0.012) if speaks > 0.75 else 0.0,
                    float(np.clip(rng.normal(0.0012, 0.0022), -0.003, 0.006)),
                    float(np.clip(rng.normal(0.0005, 0.002), -0.004, 0.006)),
                    float(rng.choice([1.0, 0.8, 0.5, 0.0], p=[0.6, 0.25, 0.1, 0.05])),
                    float(rng.uniform(0.88, 1.12)), float(rng.uniform(0.75, 1.3)),
                    float(rng.uniform(0.9, 1.12)),
                    (float(rng.uniform(-0.8, 0.8)), float(rng.uniform(-0.6, 0.6))))


@dataclass(frozen=True)
class Figure:
    """A posed person who stands on z = 0 and faces along x. keypoints (133, 3); slack (133,):
    metres by which the person's own surface may lie before each (before joints of the body, that
    of the limbs which meet there); seat: height of what is sat on, 0 for none."""

    person: Person
    features: Features
    placed: Placed
    keypoints: np.ndarray
    slack: np.ndarray
    seat: float


def make_figure(person: Person, stance: Stance, features: Features) -> Figure:
    """Pose a person."""
    placed = _grounded(place(stance.pose, person.build), stance, person.build)
    points, slack = _keypoints(placed, person, features)
    seat = placed.at("pelvis")[2] - 0.115 * person.build.factors()[0, 2] if stance.seated else 0.0
    return Figure(person, features, placed, points, slack, float(seat))


def mesh_of_figure(figure: Figure, level: int) -> tuple[Mesh, np.ndarray]:
    """The surface, same frame as the figure's, and the bone (V,) that carries each vertex most.
    level 0: near, 1: distant."""
    person = figure.person
    pieces = [_on_head(piece, person, figure.features)
              if piece.zone in ("face", "hair", "hat", "frame") else piece
              for piece in pieces_of(person, level)]
    whole = join(pieces)
    vertices, normals = move(whole, figure.placed, person.build)
    uv = np.concatenate([atlas_uv(piece.zone, piece.uv) for piece in pieces])
    rng = np.random.default_rng(person.seed)
    pictures = {**person.cloths, "face": paint_face(person.paint, figure.features, rng)}
    mesh = Mesh(vertices.astype(np.float32), whole.faces.astype(np.int32),
                normals.astype(np.float32), uv, whole.tint,
                atlas(pictures, person.colours, level))
    return mesh, owners(whole)


def pieces_of(person: Person, level: int) -> list[Piece]:
    """What a person is drawn from, bind pose; skin below cloth is left out."""
    top = wardrobe.top_piece(person.top, person.curved, level)
    skin, bottom = _showing(person.curved, person.top, person.bottom, level)
    pieces = [skin, top, bottom, head_piece(level)]
    for side in "lr":
        pieces += [hand_piece(side, level), shoe_piece(side, person.boots, level)]
    if person.style != "bald":
        pieces.append(hair.hair_piece(person.style, level))
    if person.hat != "none":
        pieces.append(hair.hat_piece(person.hat, level))
    if person.glasses:
        pieces.append(hair.glasses_piece(person.glasses == 2))
    return pieces


@lru_cache(maxsize=100)
def _showing(curved: bool, top: str, bottom: str, level: int) -> tuple[Piece, Piece]:
    """Skin and trousers or skirt, without what the cloth above them hides."""
    body = body_piece(curved, level)
    above = wardrobe.top_distance(top, curved)
    depth = np.minimum(above(body.vertices),
                       wardrobe.bottom_distance(bottom, curved)(body.vertices))
    lower = wardrobe.bottom_piece(bottom, curved, level)
    return (body.without(depth < -wardrobe.HIDDEN_DEPTH),
            lower.without(above(lower.vertices) < -0.002))


def _on_head(piece: Piece, person: Person, features: Features) -> Piece:
    joint = BOUND.joints[INDEX["head"]]
    drop = features.jaw_drop if piece.zone == "face" else 0.0
    moved = person.form.apply(piece.vertices - joint, drop) + joint
    return replace(piece, vertices=moved.astype(np.float32))


def _grounded(placed: Placed, stance: Stance, build: Build) -> Placed:
    """Tilt about the pelvis, and lower so that the lowest sole, or knee, is on the ground."""
    R = turn("y", stance.pitch) @ turn("x", stance.roll)
    pelvis = placed.joints[0]
    placed = Placed(R @ placed.rotations, (placed.joints - pelvis) @ R.T)
    factors = build.factors()
    low = []
    for side in "lr":
        for bone, spots in (("foot", ((-0.07, 0, SOLE), (0.10, 0.03, SOLE), (0.10, -0.03, SOLE))),
                            ("toes", ((0.06, -0.01, SOLE + 0.063),)), ("shin", ((0.06, 0, 0),))):
            scale = factors[INDEX[f"{side}_{bone}"]]
            low += [placed.at(f"{side}_{bone}", scale * np.array(spot))[2] for spot in spots]
    return Placed(placed.rotations, placed.joints - (0, 0, min(low)))


_BODY_JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_JOINT_BONE = {"shoulder": "upper_arm", "elbow": "forearm", "wrist": "hand", "hip": "thigh",
               "knee": "shin", "ankle": "foot"}
# Cloth and flesh before a joint are at most so thick, metres.
_JOINT_SLACK = {"shoulder": 0.22, "elbow": 0.12, "wrist": 0.08, "hip": 0.32, "knee": 0.16,
                "ankle": 0.14}


def _keypoints(placed: Placed, person: Person,
               features: Features) -> tuple[np.ndarray, np.ndarray]:
    """(133, 3) by the frame of ``placed`` and slack (133,), COCO-WholeBody's order."""
    row = INDEX["head"]
    factor = person.build.factors()[row]

    def on_head(points: np.ndarray) -> np.ndarray:
        return placed.joints[row] + (points * factor) @ placed.rotations[row].T

    spots = head_points(person.form)
    points = [on_head(spots[name]) for name in
              ("nose", "left_eye", "right_eye", "left_ear", "right_ear")]
    slack = [0.012, 0.012, 0.012, 0.022, 0.022]
    for name in _BODY_JOINTS:
        for side in "lr":
            points.append(placed.at(f"{side}_{_JOINT_BONE[name]}"))
            slack.append(_JOINT_SLACK[name] * float(person.build.factors()[0, 0]))
    for side in "lr":
        for name, at in foot_points().items():
            bone = f"{side}_toes" if name.endswith("toe") else f"{side}_foot"
            at = MIRROR @ at if side == "r" else at
            points.append(move_point(at, bone, placed, person.build))
            slack.append(0.02)
    points += list(on_head(landmarks(person.form, features)))
    slack += [0.016] * 17 + [0.011] * 51
    for side in "lr":
        hand, thick = _hand_points(placed, person.build, side)
        points += hand
        slack += thick
    return np.stack(points), np.array(slack)


def _hand_points(placed: Placed, build: Build, side: str) -> tuple[list, list]:
    points, slack = [placed.at(f"{side}_hand", (0, 0, -0.006))], [0.034]
    for finger in FINGERS:
        for part in ("base", "middle", "end"):
            points.append(placed.at(f"{side}_{finger}_{part}"))
            slack.append(0.024 if (finger, part) == ("thumb", "base") else 0.018)
        bone = f"{side}_{finger}_end"
        points.append(placed.at(bone, build.factors()[INDEX[bone]] * tip_offset(bone)))
        slack.append(0.013)
    return points, slack
