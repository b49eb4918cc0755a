"""Puts scenes together: objects, clutter, table, light and camera, all from one seed."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from kd_pose.geometry import invert_pose
from kd_pose_training.synthetic import patterns
from kd_pose_training.synthetic.meshes import Mesh, ObjectMesh
from kd_pose_training.synthetic.scene import (
    CLUTTER,
    TABLE,
    Body,
    Scene,
    Thing,
    camera_pose,
    float_around,
    intrinsics,
    random_light,
    rest,
)
from kd_pose_training.synthetic.settings import SynthSettings

TABLE_SIZE = 3.0
TABLE_TEXELS = 768
CLUTTER_KINDS = 40


class Composer:
    """Draws scenes of the given objects.

    Frame ``number`` of split ``split`` is a function of the settings' seed and those two, however
    the frames are shared out among processes.
    """

    def __init__(self, objects: list[ObjectMesh], settings: SynthSettings) -> None:
        self.settings = settings
        self.bodies = [Body.of(item.mesh) for item in objects]
        self._pool = self._make_clutter()
        self._orbits: dict[str, Scene] = {}

    def generator(self, split: str, number: int) -> np.random.Generator:
        """Generator of one frame."""
        word = int.from_bytes(split.encode(), "little")
        return np.random.default_rng([self.settings.seed, word, number])

    def scene(self, split: str, number: int, rng: np.random.Generator) -> Scene:
        """Scene of one frame, ``rng`` being the frame's generator."""
        if self.settings.scene.path == "orbit":
            return self._orbit_scene(split, number)
        resting = rng.random() < self.settings.scene.resting
        return self._table(rng) if resting else self._floating(rng)

    def _orbit_scene(self, split: str, number: int) -> Scene:
        """The split's one scene from a camera that goes around it once."""
        if split not in self._orbits:
            self._orbits[split] = self._table(self.generator(split, 10**9), every_object=True)
        phase = number / self.settings.splits[split]
        T = camera_pose(self.settings.scene, self.generator(split, 0), phase)
        return replace(self._orbits[split], T_cam_world=T)

    def _choose(self, rng: np.random.Generator, every: bool = False) -> list[int]:
        low, high = self.settings.scene.instances
        count = int(rng.integers(low, high + 1))
        if every or count >= len(self.bodies):  # all of them, then more at random
            rows = list(rng.permutation(len(self.bodies)))
            return rows + list(rng.integers(len(self.bodies), size=max(0, count - len(rows))))
        return list(rng.integers(len(self.bodies), size=count))

    def _table(self, rng: np.random.Generator, every_object: bool = False) -> Scene:
        settings = self.settings
        rows = self._choose(rng, every_object)
        clutter = self._clutter(rng)
        bodies = [self.bodies[row] for row in rows] + clutter
        order = rng.permutation(len(bodies))
        poses: list = [None] * len(bodies)
        spread = settings.scene.spread * rng.uniform(0.6, 1.1)
        for slot, T in zip(order, rest([bodies[i] for i in order], spread, rng,
                                      settings.scene.upright)):
            poses[slot] = T
        things = [self._object(row, T, rng) for row, T in zip(rows, poses)]
        things += [self._clutter_thing(body.mesh, T, rng)
                   for body, T in zip(clutter, poses[len(rows):])]
        things.append(self._table_thing(rng))
        return self._finish(things, camera_pose(settings.scene, rng, spread=spread), rng,
                            sharp=False)

    def _floating(self, rng: np.random.Generator) -> Scene:
        K = intrinsics(self.settings.camera, rng)
        rows, clutter = self._choose(rng), self._clutter(rng)
        bodies = [self.bodies[row] for row in rows]
        # Clutter floats as objects do and hides some of them.
        poses = float_around(bodies + clutter, K, self.settings, rng)
        T_cam_world = camera_pose(self.settings.scene, rng)
        T_world_cam = invert_pose(T_cam_world)
        things = [self._object(row, T_world_cam @ T, rng) for row, T in zip(rows, poses)]
        things += [self._clutter_thing(body.mesh, T_world_cam @ T, rng)
                   for body, T in zip(clutter, poses[len(rows):])]
        return replace(self._finish(things, T_cam_world, rng, sharp=True), K=K)

    def _finish(self, things: list[Thing], T_cam_world: np.ndarray, rng: np.random.Generator,
                sharp: bool) -> Scene:
        camera = self.settings.camera
        image = patterns.backdrop(camera.height, camera.width, rng,
                                  self.settings.look.backgrounds)
        if not sharp:  # a room behind the table, out of focus
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(2, 12))
        return Scene(intrinsics(camera, rng), camera.width, camera.height, T_cam_world,
                     tuple(things), random_light(self.settings.look.light, rng), image)

    def _object(self, row: int, T: np.ndarray, rng: np.random.Generator) -> Thing:
        look = self.settings.look
        gain = (1 + rng.uniform(-1, 1) * look.colour) * (
            1 + rng.uniform(-1, 1, 3) * look.colour / 2)
        return Thing(self.bodies[row].mesh, int(row), T, gain,
                     rng.uniform(0, look.shine) ** 2, float(np.exp(rng.uniform(2.0, 5.0))))

    def _make_clutter(self) -> list[Body]:
        """Shapes that all scenes share; sizes go with those of the objects."""
        rng = np.random.default_rng([self.settings.seed, CLUTTER_KINDS])
        sizes = [2 * body.mesh.radius for body in self.bodies]
        return [Body.of(patterns.clutter_mesh(rng, float(rng.choice(sizes))
                                              * rng.uniform(0.4, 1.3)))
                for _ in range(CLUTTER_KINDS if self.settings.scene.clutter[1] else 0)]

    def _clutter(self, rng: np.random.Generator) -> list[Body]:
        low, high = self.settings.scene.clutter
        rows = rng.integers(CLUTTER_KINDS, size=rng.integers(low, high + 1))
        return [self._pool[row] for row in rows]

    def _clutter_thing(self, mesh: Mesh, T: np.ndarray, rng: np.random.Generator) -> Thing:
        texture = (patterns.picture(128, 128, rng) if rng.random() < 0.6 else
                   np.full((1, 1, 3), patterns.colour(rng, 1.4), np.uint8))
        return Thing(mesh, CLUTTER, T, np.ones(3), rng.uniform(0, self.settings.look.shine) ** 2,
                     float(np.exp(rng.uniform(2.0, 5.0))), texture)

    def _table_thing(self, rng: np.random.Generator) -> Thing:
        texture = patterns.backdrop(TABLE_TEXELS, TABLE_TEXELS, rng,
                                    self.settings.look.backgrounds)
        T = np.eye(4)
        turn = rng.uniform(0, 2 * np.pi)
        T[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        return Thing(patterns.table_mesh(TABLE_SIZE), TABLE, T, np.full(3, rng.uniform(0.7, 1.0)),
                     rng.uniform(0, 0.3) * self.settings.look.shine, 30.0, texture)
