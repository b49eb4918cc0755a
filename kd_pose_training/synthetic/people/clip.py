"""A clip: the same people, clothes, place and camera in every frame, and smooth movement.

Frames of a set are independent of each other; a node with tracks wants to be shown a video. Some
people stand and go from one gesture to the next, others walk around them, so that they pass behind
and before. The last frame leads back to the first: a clip can be played in a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kd_pose.geometry import make_pose, transform_points
from kd_pose_training.synthetic.people.compose import (
    Crowd,
    PeopleComposer,
    frame_generator,
)
from kd_pose_training.synthetic.people.figure import (
    Figure,
    Person,
    draw_features,
    draw_person,
    make_figure,
)
from kd_pose_training.synthetic.people.head import Features
from kd_pose_training.synthetic.people.poses import Stance, draw_stance
from kd_pose_training.synthetic.people.settings import PeopleSettings
from kd_pose_training.synthetic.people.skeleton import SIDES, Pose, within_limits
from kd_pose_training.synthetic.scene import Scene, look_at, turn_z

GESTURES = ("act", "gestures", "arms_up", "stand")
_LEG = tuple(f"{side}_{name}" for side in SIDES for name in (
    "hip_flex", "hip_spread", "hip_out", "knee_flex", "ankle_up", "foot_in", "toes_up"))
LEG_M = 0.84  # from the hip to the sole of a person of average build
SPACE = 0.85  # metres between those who stand
MARGIN = 0.75  # metres from them to the path around them


@dataclass(frozen=True)
class Actor:
    """One of the people. seed: of what is drawn anew in every frame, always the same."""

    person: Person
    features: Features
    seed: int

    def figure(self, phase: float) -> tuple[Figure, np.ndarray]:
        """The person at a phase (0 to 1) of the clip, and its T_world (4, 4)."""
        pose, at, yaw = self.state(phase)
        figure = make_figure(self.person, Stance(within_limits(pose)), self.features)
        return figure, make_pose(turn_z(yaw), np.array([*at, 0.0]))

    def state(self, phase: float) -> tuple[Pose, np.ndarray, float]:
        """Angles, place (2,) on the ground and yaw (radians)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Standing(Actor):
    """Stands at a place and goes through some gestures, each held for a moment."""

    keys: tuple[Pose, ...]
    at: tuple[float, float]
    yaw: float

    def state(self, phase: float) -> tuple[Pose, np.ndarray, float]:
        return between(self.keys, phase), np.array(self.at), self.yaw


@dataclass(frozen=True)
class Walking(Actor):
    """Walks once along an ellipse with half axes ``radii`` about ``centre``."""

    centre: tuple[float, float]
    radii: tuple[float, float]
    turned: float  # of the first axis, radians
    start: float  # share of the way

    def state(self, phase: float) -> tuple[Pose, np.ndarray, float]:
        ways = ellipse_by_length(self.radii)
        angle = np.interp((self.start + phase) % 1.0, ways[0], ways[1])
        R = turn_z(self.turned)[:2, :2]
        at = np.array(self.centre) + R @ (np.array(self.radii) * (np.cos(angle), np.sin(angle)))
        ahead = R @ (np.array(self.radii) * (-np.sin(angle), np.cos(angle)))
        steps = max(1, round(ways[2] / (2 * 0.55)))  # whole cycles of two steps
        reach = np.degrees(np.arcsin(min(0.5, ways[2] / steps / 4 / LEG_M)))
        return (walk(phase * steps, float(reach)), at, float(np.arctan2(ahead[1], ahead[0])))


def between(keys: tuple[Pose, ...], phase: float) -> Pose:
    """A pose on the way through ``keys`` and back to the first, phase 0 to 1."""
    place = (phase % 1.0) * len(keys)
    row, share = int(place), place % 1.0
    share = np.clip((share - 0.25) / 0.75, 0, 1)  # held for a quarter of the time
    share = share * share * (3 - 2 * share)
    now, then = keys[row % len(keys)], keys[(row + 1) % len(keys)]
    return {name: (1 - share) * now.get(name, 0.0) + share * then.get(name, 0.0)
            for name in (*now, *(name for name in then if name not in now))}


def walk(cycles: float, reach: float) -> Pose:
    """Angles after so many cycles of two steps, the legs swinging by ``reach`` degrees."""
    pose: Pose = {"chest_twist": 5 * np.cos(2 * np.pi * cycles), "belly_bend": 2.0,
                  "neck_bend": 3.0}
    for side, shift in zip(SIDES, (0.0, 0.5)):
        angle = 2 * np.pi * (cycles + shift)
        swing, lift = np.cos(angle), max(0.0, -np.sin(angle))  # the foot is up while it goes ahead
        hip, knee = 0.15 * reach + reach * swing, 5 + 48 * lift ** 1.5
        flat = knee - hip
        up = (1 - lift) * flat - 8 * lift
        pose.update({f"{side}_hip_flex": hip, f"{side}_hip_spread": 2.0, f"{side}_hip_out": 5.0,
                     f"{side}_knee_flex": knee, f"{side}_ankle_up": up,
                     f"{side}_toes_up": max(0.0, -up - 15)})
        arm = -swing * reach
        pose.update({f"{side}_shoulder_flex": arm, f"{side}_shoulder_spread": 8.0,
                     f"{side}_shoulder_in": 10.0, f"{side}_elbow_flex": 22 + 0.5 * max(0.0, arm),
                     f"{side}_pronation": 12.0})
        pose.update({f"{side}_{finger}_{part}": value for finger in
                     ("index", "middle", "ring", "pinky")
                     for part, value in (("base", 20.0), ("middle", 26.0), ("end", 15.0))})
    return pose


def ellipse_by_length(radii: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, float]:
    """Shares of the way (n,), the angles (n,) there, and the whole way in metres."""
    angles = np.linspace(0, 2 * np.pi, 361)
    points = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    ways = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return ways / ways[-1], angles, float(ways[-1])


class ClipComposer:
    """Scenes of one clip; frame ``number`` of ``frames`` is a function of settings and split."""

    def __init__(self, settings: PeopleSettings, split: str) -> None:
        if settings.clip is None:
            raise ValueError("clip is null; allowed: settings of a clip")
        self.settings, self.frames = settings, settings.splits[split]
        self.composer = PeopleComposer(settings)
        rng = frame_generator(settings.seed, split, 0)
        azimuth = rng.uniform(-np.pi, np.pi)  # from the people to the camera
        across = np.array([-np.sin(azimuth), np.cos(azimuth)])
        reach = SPACE * (settings.clip.standing - 1) / 2
        self.actors: list[Actor] = [
            _standing(rng, across * (SPACE * row - reach), azimuth)
            for row in range(settings.clip.standing)]
        radii = (reach + MARGIN + 0.25, MARGIN + 0.15)
        count = settings.clip.walking
        self.actors += [Walking(draw_person(rng), draw_features(rng), int(rng.integers(2**31)),
                                (0.0, 0.0), radii, azimuth + np.pi / 2, row / count)
                        for row in range(count)]
        self.K, self.T_cam_world = _camera(settings, radii if count else (reach, 0.3), azimuth,
                                           rng)
        outdoors = bool(rng.random() < settings.crowd.outdoors)
        path = [across * radii[0], -across * radii[0], *(actor.state(0.0)[1]
                                                         for actor in self.actors)]
        self.things = self.composer.around([], [], [], path, azimuth, self.T_cam_world, outdoors,
                                           rng)
        self.light = self.composer.light(rng)
        self.backdrop = self.composer.backdrop(self.K, self.T_cam_world, outdoors, rng)

    def crowd(self, number: int) -> Crowd:
        """The scene of a frame."""
        things, world, slack, owners = [], [], [], []
        for row, actor in enumerate(self.actors):
            figure, T_world = actor.figure(number / self.frames)
            thing, owner = self.composer.thing(figure, row, T_world, self.K, self.T_cam_world,
                                               np.random.default_rng(actor.seed))
            things.append(thing)
            world.append(transform_points(T_world, figure.keypoints))
            slack.append(figure.slack)
            owners.append(owner)
        picture = self.settings.picture
        scene = Scene(self.K, picture.width, picture.height, self.T_cam_world,
                      (*things, *self.things), self.light, self.backdrop)
        return Crowd(scene, world, slack, owners, lasting=True)


def _standing(rng: np.random.Generator, at: np.ndarray, azimuth: float) -> Standing:
    person = draw_person(rng)
    keys = [draw_stance(rng, person.build, str(name)).pose for name in rng.permutation(GESTURES)]
    legs = {name: keys[0].get(name, 0.0) for name in _LEG}  # feet stay where they are
    yaw = azimuth + np.radians(np.clip(rng.normal(0, 15), -30, 30))
    return Standing(person, draw_features(rng), int(rng.integers(2**31)),
                    tuple({**key, **legs} for key in keys), tuple(at.tolist()), float(yaw))


def _camera(settings: PeopleSettings, radii: tuple[float, float], azimuth: float,
            rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """K and T_cam_world of a look at the whole path and the tallest person on it."""
    picture = settings.picture
    half = np.radians(np.mean(settings.picture.field_of_view)) / 2
    f = picture.height / 2 / np.tan(half)
    K = np.array([[f, 0, (picture.width - 1) / 2], [0, f, (picture.height - 1) / 2], [0, 0, 1.0]])
    wide = np.arctan(np.tan(half) * picture.width / picture.height)
    # The nearest point of the path must show a whole person, its ends the arms of one.
    distance = max(1.25 / np.tan(half) + radii[1], (radii[0] + 0.55) / np.tan(wide))
    raised = np.radians(rng.uniform(*np.clip(settings.crowd.elevation, 2.0, 14.0)))
    back = np.array([np.cos(raised) * np.cos(azimuth), np.cos(raised) * np.sin(azimuth),
                     np.sin(raised)])
    middle = np.array([0.0, 0.0, 0.95])
    return K, look_at(middle + distance * back, middle, 0.0)
