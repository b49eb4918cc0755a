"""Puts scenes of people together: who stands where, what is around, how the camera looks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from kd_pose.geometry import invert_pose, make_pose, transform_points
from kd_pose.wholebody_keypoints import PARTS
from kd_pose_training.synthetic import patterns
from kd_pose_training.synthetic.people import places
from kd_pose_training.synthetic.people.figure import (
    Figure,
    draw_features,
    draw_person,
    make_figure,
    mesh_of_figure,
)
from kd_pose_training.synthetic.people.poses import Stance, draw_stance
from kd_pose_training.synthetic.people.settings import PeopleSettings
from kd_pose_training.synthetic.scene import (
    CLUTTER,
    Light,
    Scene,
    Thing,
    look_at,
    random_light,
    turn_z,
)

NEAR_HEAD_PX = 55.0  # heads larger than this are drawn in full detail
STANDABLE = ("stand", "act", "arms_up", "arms_wide", "akimbo", "crossed", "carry", "gestures",
             "walk")
ROOM = 0.55  # metres between people's middles
EMPTY = 0.15  # share of frames without anybody, where 0 people are allowed


@dataclass(frozen=True)
class Crowd:
    """A scene with its people. Per person, in the order of ``scene.objects``: keypoints (133, 3)
    in the world, slack (133,) as ``Figure`` has it, and owners (V,): the bone that carries each
    vertex of the mesh. lasting: they are the same people in the same order in other frames."""

    scene: Scene
    keypoints: list[np.ndarray]
    slack: list[np.ndarray]
    owners: list[np.ndarray]
    lasting: bool = False


def frame_generator(seed: int, split: str, number: int) -> np.random.Generator:
    """Generator of one frame: frames do not depend on how they are shared out."""
    word = int.from_bytes(split.encode(), "little")
    return np.random.default_rng([seed, word, number, 133])


class PeopleComposer:
    """Draws scenes; a frame is a function of the settings and its generator."""

    def __init__(self, settings: PeopleSettings) -> None:
        self.settings = settings

    def crowd(self, rng: np.random.Generator) -> Crowd:
        """One frame's scene, ``rng`` being the frame's generator."""
        crowd = self.settings.crowd
        shown = number_of_people(crowd.people, rng)
        count = max(shown, 1)  # an empty place is looked at as if somebody stood there
        outdoors = rng.random() < crowd.outdoors
        azimuth = rng.uniform(-np.pi, np.pi)  # from the people to the camera
        people = [_draw_one(rng, azimuth, crowd.facing) for _ in range(count)]
        spots = _spread(count, azimuth, rng)
        poses = [make_pose(turn_z(yaw), np.array([*at, 0.0]))
                 for at, (_, _, yaw) in zip(spots, people)]
        figures = [figure for figure, _, _ in people]
        world = [transform_points(T, figure.keypoints) for T, figure in zip(poses, figures)]
        K, T_cam_world = self._camera(world, azimuth, rng)
        things, owners = [], []
        for row, figure in enumerate(figures[:shown]):
            thing, owner = self.thing(figure, row, poses[row], K, T_cam_world, rng)
            things.append(thing)
            owners.append(owner)
        extra = self.around(figures, people, poses, spots, azimuth, T_cam_world, outdoors, rng)
        light = self.light(rng)
        backdrop = self.backdrop(K, T_cam_world, outdoors, rng)
        picture = self.settings.picture
        scene = Scene(K, picture.width, picture.height, T_cam_world, (*things, *extra), light,
                      backdrop)
        return Crowd(scene, world[:shown], [figure.slack for figure in figures[:shown]], owners)

    def thing(self, figure: Figure, row: int, T_world: np.ndarray, K: np.ndarray,
              T_cam_world: np.ndarray, rng: np.random.Generator) -> tuple[Thing, np.ndarray]:
        """Person number ``row`` as a thing, and the bone (V,) of each vertex."""
        nose = transform_points(T_world, figure.keypoints[:1])[0]
        depth = (T_cam_world @ [*nose, 1.0])[2]
        level = 0 if K[1, 1] * 0.23 / max(depth, 0.1) > NEAR_HEAD_PX else 1
        mesh, owner = mesh_of_figure(figure, level)
        gain = 1 + rng.uniform(-1, 1) * self.settings.look.colour * np.ones(3)
        shine = rng.uniform(0, self.settings.look.shine) ** 2
        return Thing(mesh, row, T_world, gain, shine, 18.0), owner

    def light(self, rng: np.random.Generator) -> Light:
        """People are looked at in more light than things on a table."""
        light = random_light(self.settings.look.light, rng)
        return replace(light, sun=1.3 * light.sun, sky=1.35 * light.sky,
                       ground=1.35 * light.ground)

    def backdrop(self, K: np.ndarray, T_cam_world: np.ndarray, outdoors: bool,
                 rng: np.random.Generator) -> np.ndarray:
        """What is behind everything."""
        picture, folder = self.settings.picture, self.settings.look.backgrounds
        if outdoors and folder is None:
            return places.sky(K, T_cam_world, picture.width, picture.height, rng)
        plain = patterns.backdrop(picture.height, picture.width, rng, folder)
        return cv2.GaussianBlur(plain, (0, 0), rng.uniform(1, 10))

    def around(self, figures: list[Figure], people: list, poses: list, spots: list,
                azimuth: float, T_cam_world: np.ndarray, outdoors: bool,
                rng: np.random.Generator) -> list[Thing]:
        """Ground, walls, seats, what people carry, furniture."""
        things = [places.ground(rng, outdoors)]
        middle = np.mean(spots, axis=0)
        towards = np.array([np.cos(azimuth), np.sin(azimuth)])
        if not outdoors:
            reach = max(np.linalg.norm(at - middle) for at in spots)
            things += places.room(rng, middle, -towards, reach + rng.uniform(0.7, 3.0),
                                  self.settings.look.backgrounds)
        for figure, T, (_, stance, _) in zip(figures, poses, people):
            yaw = float(np.arctan2(T[1, 0], T[0, 0]))
            if figure.seat > 0.1:
                pelvis = transform_points(T, figure.placed.joints[:1])[0]
                things += places.seat(rng, pelvis[:2], yaw, figure.seat)
            if stance.name == "carry" and rng.random() < 0.6:
                things += _load(figure, T, rng)
        if rng.random() < self.settings.crowd.furniture:
            eye = invert_pose(T_cam_world)[:3, 3]
            for _ in range(int(rng.integers(1, 4))):
                things += self._furniture(spots, eye, rng)
        return things

    def _furniture(self, spots: list, eye: np.ndarray, rng: np.random.Generator) -> list[Thing]:
        """Something around a person, not where anyone stands or the camera is."""
        for _ in range(8):
            spot = spots[rng.integers(len(spots))]
            towards = (eye[:2] - spot) / max(np.linalg.norm(eye[:2] - spot), 1e-6)
            aside = rng.normal(0, 0.5) if rng.random() < 0.5 else rng.uniform(-np.pi, np.pi)
            at = spot + (turn_z(aside)[:2, :2] @ towards) * rng.uniform(0.6, 1.3)
            # Half-way to the camera and nearer, a table would fill the picture.
            clear = max(1.0, 0.5 * np.linalg.norm(eye[:2] - spot))
            if all(np.linalg.norm(at - other) > 0.58 for other in spots) and \
                    np.linalg.norm(at - eye[:2]) > clear:
                yaw = np.arctan2(towards[1], towards[0]) + np.pi / 2 + rng.normal(0, 0.3)
                return places.furniture(rng, at, yaw, tall=abs(aside) > 0.9)
        return []

    def _camera(self, world: list[np.ndarray], azimuth: float,
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """K and T_cam_world of a look at everyone, or at someone's body, face or hand."""
        crowd, picture = self.settings.crowd, self.settings.picture
        view = np.radians(rng.uniform(*picture.field_of_view))
        f = picture.height / 2 / np.tan(view / 2)
        K = np.array([[f, 0, (picture.width - 1) / 2], [0, f, (picture.height - 1) / 2],
                      [0, 0, 1.0]])
        kind = rng.random()
        chosen = world[rng.integers(len(world))]
        elevation = np.radians(np.clip(rng.normal(np.mean(crowd.elevation) * 0.5,
                                                  np.ptp(crowd.elevation) / 4), *crowd.elevation))
        points = np.concatenate(world)
        if kind < crowd.close:
            part = str(rng.choice(["face", "left_hand", "right_hand"], p=[0.5, 0.25, 0.25]))
            points, fill = chosen[PARTS[part]], rng.uniform(0.25, 0.65)
        elif kind < crowd.close + crowd.half:
            points, fill = chosen[[*range(13), *range(91, 133)]], rng.uniform(0.65, 1.15)
        elif kind < crowd.close + crowd.half + crowd.whole:
            points, fill = chosen, rng.uniform(0.6, 1.05)
        else:
            fill = rng.uniform(0.45, 1.0)
        target = (points.min(axis=0) + points.max(axis=0)) / 2
        flat = np.cos(elevation)
        back = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        up = np.cross(back, right)
        shape = picture.height / picture.width
        tall = max(1.12 * np.ptp(points @ up), np.ptp(points @ right) * shape, 0.12)
        distance = max(tall / fill / (2 * np.tan(view / 2)), 0.35) + np.ptp(points @ back) / 2
        shift = (right * rng.normal(0, 0.12) + up * rng.normal(0.02, 0.06)) * tall / fill
        eye = target + shift + distance * back
        eye[2] = max(eye[2], 0.12)
        roll = np.radians(rng.normal(0, crowd.roll / 2)) if crowd.roll else 0.0
        return K, look_at(eye, target + shift, roll)


def number_of_people(people: tuple[int, int], rng: np.random.Generator) -> int:
    """How many people: [fewest, most], fewer is likelier, but empty places are rare."""
    low, high = people
    if low == 0 and rng.random() < EMPTY:
        return 0
    return min(max(low, 1) + int(rng.geometric(0.42)) - 1, high)


def _draw_one(rng: np.random.Generator, azimuth: float,
              facing: float) -> tuple[Figure, Stance, float]:
    """Someone, how they hold themselves, and their yaw."""
    person = draw_person(rng)
    stance = draw_stance(rng, person.build)
    if person.bottom == "long_skirt" and stance.name not in STANDABLE:
        stance = draw_stance(rng, person.build, str(rng.choice(STANDABLE)))
    aside = np.radians(np.clip(rng.normal(0, 35), -70, 70)) if rng.random() < facing else \
        rng.uniform(-np.pi, np.pi)
    return make_figure(person, stance, draw_features(rng)), stance, azimuth + aside


def _spread(count: int, azimuth: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Places (2,) on the ground, now and then in a row before the camera."""
    across = np.array([-np.sin(azimuth), np.cos(azimuth)])
    along = np.array([np.cos(azimuth), np.sin(azimuth)])
    spots: list[np.ndarray] = []
    wide, deep = 0.35 + 0.35 * count, 0.25 + 0.4 * count * rng.random()
    for _ in range(count):
        for _ in range(60):
            spot = across * rng.uniform(-wide, wide) + along * rng.uniform(-deep, deep)
            if all(np.linalg.norm(spot - other) > ROOM for other in spots):
                break
            wide *= 1.05
        spots.append(spot)
    return spots


def _load(figure: Figure, T: np.ndarray, rng: np.random.Generator) -> list[Thing]:
    """A box between two hands that carry it."""
    left, right = (figure.placed.at(f"{side}_middle_base") for side in "lr")
    width = np.linalg.norm(left - right) - 0.05
    if not 0.12 < width < 0.7:
        return []
    middle = (left + right) / 2 + figure.placed.rotations[0] @ np.array([0.05, 0, 0])
    height, depth = rng.uniform(0.10, 0.35), rng.uniform(0.15, 0.30)
    mesh = places.box_mesh((depth, width, height), 0.4)
    at = make_pose(np.eye(3), middle - (0, 0, height / 2))
    return [Thing(mesh, CLUTTER, T @ at, np.ones(3), 0.05, 20.0,
                  patterns.picture(128, 128, rng))]
