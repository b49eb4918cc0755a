"""BOP sets in memory, drawn with polygons: frames, masks and poses that fit together exactly.

A block without symmetry and a can that turns about its z axis, as convex outlines in plain
colours on a noisy ground, nearer ones over farther ones.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, field

import cv2
import numpy as np

from kd_pose.geometry import make_pose, rotation_from_vector, transform_points
from kd_pose.manifest import ObjectSpec

WIDTH, HEIGHT = 320, 240
K = np.array([[300.0, 0, 158.0], [0, 310.0, 121.0], [0, 0, 1]])
SPECS = {
    3: ObjectSpec("block", 0.14, (-0.02, -0.03, 0.0), (0.06, 0.05, 0.08)),
    7: ObjectSpec("can", 0.125, (-0.03, -0.03, -0.05), (0.03, 0.03, 0.05),
                  symmetries_continuous=(((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),)),
}
COLOURS = {3: (40, 60, 220), 7: (210, 160, 30)}


def vertices(spec: ObjectSpec) -> np.ndarray:
    """Mesh vertices (n, 3): corners of the block, two rims of the can."""
    low, high = np.array(spec.box_min), np.array(spec.box_max)
    if spec.symmetries_continuous:
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        rim = np.stack([high[0] * np.cos(angle), high[1] * np.sin(angle)], axis=1)
        return np.concatenate([np.column_stack([rim, np.full(48, z)]) for z in (low[2], high[2])])
    return np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1])
                     for z in (low[2], high[2])])


@dataclass
class Instance:
    obj_id: int
    T_cam_obj: np.ndarray
    visib_fract: float = 1.0
    bbox_obj: tuple = ()
    bbox_visib: tuple = ()


@dataclass
class Frame:
    scene_id: int
    im_id: int
    instances: list
    K: np.ndarray = field(default_factory=lambda: K.copy())
    image_path: str = "memory.png"
    loads: int = 0

    def __post_init__(self):
        self._draw()

    def _draw(self):
        rng = np.random.default_rng(self.im_id)
        self._image = rng.integers(90, 130, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        self._map = np.full((HEIGHT, WIDTH), -1, dtype=np.int16)
        whole = {}
        for row in sorted(range(len(self.instances)),
                          key=lambda i: -self.instances[i].T_cam_obj[2, 3]):
            item = self.instances[row]
            points = transform_points(item.T_cam_obj, vertices(SPECS[item.obj_id])) @ self.K.T
            hull = cv2.convexHull((points[:, :2] / points[:, 2:]).astype(np.float32))
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.fillConvexPoly(mask, np.rint(16 * hull).astype(np.int32), 1, cv2.LINE_8, 4)
            self._image[mask > 0] = COLOURS[item.obj_id]
            self._map[mask > 0] = row
            whole[row] = int(mask.sum())
        for row, item in enumerate(self.instances):
            item.visib_fract = np.count_nonzero(self._map == row) / max(whole[row], 1)

    def load_image(self):
        self.loads += 1
        return self._image.copy()

    def load_instance_map(self, *args):
        return self._map.copy()


class FakeBop:
    """`count` frames with a block and a can each; every third has a second, overlapping block."""

    def __init__(self, count: int = 4, seed: int = 0, with_poses=None):
        self.models = {number: types.SimpleNamespace(obj_id=number, name=spec.name, spec=spec,
                                                     diameter=spec.diameter)
                       for number, spec in SPECS.items()}
        self.root, self.split = "memory", "test"
        rng = np.random.default_rng(seed)
        self.frames = [self._frame(number, rng) for number in range(count)]
        if with_poses is not None:
            self.frames = [Frame(1, number, [Instance(i, T) for i, T in poses])
                           for number, poses in enumerate(with_poses)]

    def _frame(self, number, rng):
        def pose(x):
            turn = rotation_from_vector(rng.normal(size=3))
            return make_pose(turn, (x + rng.uniform(-0.02, 0.02), rng.uniform(-0.05, 0.05),
                                    rng.uniform(0.5, 0.7)))
        items = [Instance(3, pose(-0.12)), Instance(7, pose(0.12))]
        if number % 3 == 2:
            items.append(Instance(3, pose(-0.05)))
        return Frame(1, number, items)


def load_vertices(model) -> np.ndarray:
    """What the BOP reader does, from memory."""
    return vertices(model.spec)
