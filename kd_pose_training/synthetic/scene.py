"""Random scenes: which meshes stand where, what lights them, where the camera is.

A scene is plain numbers, drawn from one generator; the renderers only draw it. World frame: z up,
the table's top is z = 0, metres. ``T_cam_world`` and ``T_cam_obj`` have OpenCV camera axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kd_pose.geometry import make_pose
from kd_pose_training.synthetic.meshes import Mesh
from kd_pose_training.synthetic.settings import CameraSettings, SceneSettings, SynthSettings
from kd_pose_training.trimesh_import import import_trimesh

TABLE, CLUTTER = -2, -3  # what a thing is when it is none of the objects
GRAVITY_TRIES = 40


@dataclass(frozen=True)
class Thing:
    """A mesh in the scene. ``item``: index of the object (or TABLE, CLUTTER). Colours are
    multiplied by ``gain`` (3,) and ``texture`` replaces the mesh's own. shine, gloss: strength and
    exponent of the highlight."""

    mesh: Mesh
    item: int
    T_world: np.ndarray
    gain: np.ndarray
    shine: float
    gloss: float
    texture: np.ndarray | None = None


@dataclass(frozen=True)
class Light:
    """Linear intensities (3,). ``to_sun``: unit vector towards the main light, which throws
    shadows; ``sky`` and ``ground``: light from above and below; ``fill``: a weak second light."""

    to_sun: np.ndarray
    sun: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    to_fill: np.ndarray
    fill: np.ndarray
    softness: float


@dataclass(frozen=True)
class Scene:
    """All that a renderer needs. ``backdrop``: RGB picture of the camera's size."""

    K: np.ndarray
    width: int
    height: int
    T_cam_world: np.ndarray
    things: tuple[Thing, ...]
    light: Light
    backdrop: np.ndarray

    @property
    def objects(self) -> list[Thing]:
        """The things that are objects, in the order of their instances."""
        return [thing for thing in self.things if thing.item >= 0]

    def pose(self, thing: Thing) -> np.ndarray:
        """T_cam_obj (4, 4) of a thing."""
        return self.T_cam_world @ thing.T_world


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniform over all rotations (3, 3): a normal quaternion, normalised."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                     [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                     [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])


def turn_z(angle: float) -> np.ndarray:
    """Rotation (3, 3) about z, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def look_at(eye: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """T_cam_world of a camera at ``eye`` that sees ``target`` in its middle, world z upwards,
    turned by ``roll`` rad about its axis."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    up = np.array([0, 0, 1.0]) if abs(forward[2]) < 0.999 else np.array([0, 1.0, 0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    R = turn_z(roll) @ np.stack([right, np.cross(forward, right), forward])
    return make_pose(R, -R @ eye)


def intrinsics(camera: CameraSettings, rng: np.random.Generator) -> np.ndarray:
    """K (3, 3) of one frame."""
    zoom = 1 + rng.uniform(-camera.focal_jitter, camera.focal_jitter)
    return np.array([[camera.fx * zoom, 0, camera.cx], [0, camera.fy * zoom, camera.cy],
                     [0, 0, 1.0]])


def resting_rotations(mesh: Mesh, limit: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (n, 3, 3) in which the mesh can stand on a table, and how likely each is (n,).

    The faces of its convex hull that lie below the centre of the hull's volume, weighted by their
    area: a body dropped at random comes to rest on a large face more often.
    """
    trimesh = import_trimesh()
    points = np.asarray(mesh.vertices, np.float64)
    middle = points.mean(axis=0)
    _, extents, axes = np.linalg.svd(points - middle, full_matrices=False)
    if extents[2] < 1e-6 * extents[0]:  # a sheet without thickness has no hull: it lies flat
        return np.stack([_turn_down(axes[2]), _turn_down(-axes[2])]), np.full(2, 0.5)
    hull = trimesh.convex.convex_hull(points)
    # trimesh's facets are groups of two triangles and more; one alone is a face as well.
    facets = [np.asarray(facet) for facet in hull.facets]
    alone = np.setdiff1d(np.arange(len(hull.faces)),
                         np.concatenate(facets) if facets else np.empty(0, int))
    triangles, normals, area = hull.triangles, hull.face_normals, hull.area_faces
    stable = [_below(hull.center_mass, triangles[facet].reshape(1, -1, 3), normals[facet[:1]])
              for facet in facets]
    stable = np.concatenate([*stable, _below(hull.center_mass, triangles[alone], normals[alone])])
    areas = np.array([*(area[facet].sum() for facet in facets), *area[alone]])
    downwards = np.array([*(facet[0] for facet in facets), *alone], int)[stable]
    if len(downwards) == 0:
        return np.eye(3)[None], np.ones(1)
    order = np.argsort(areas[stable])[::-1][:limit]
    chosen = areas[stable][order]
    return (np.stack([_turn_down(normals[row]) for row in downwards[order]]),
            chosen / chosen.sum())


def _below(point: np.ndarray, corners: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Whether a point (3,) is vertically above faces: (n,). corners (n, k, 3), normals (n, 3)."""
    height = ((corners.mean(axis=1) - point) * normals).sum(axis=1, keepdims=True)
    foot = point + height * normals
    u = np.cross(normals, np.eye(3)[np.abs(normals).argmin(axis=1)])
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    plane = (corners - foot[:, None]) @ np.stack([u, np.cross(normals, u)], axis=2)
    # Seen from within, the corners leave no gap of half a turn.
    angles = np.sort(np.arctan2(plane[..., 1], plane[..., 0]), axis=1)
    gaps = np.diff(np.concatenate([angles, angles[:, :1] + 2 * np.pi], axis=1), axis=1)
    return gaps.max(axis=1) < np.pi - 0.02


def _turn_down(normal: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) that takes the normal to -z."""
    target = np.array([0, 0, -1.0])
    axis, cosine = np.cross(normal, target), float(normal @ target)
    if np.linalg.norm(axis) < 1e-9:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


@dataclass(frozen=True)
class Body:
    """A mesh with what placing it needs: its resting rotations and their shares."""

    mesh: Mesh
    rotations: np.ndarray
    shares: np.ndarray

    @property
    def stands(self) -> bool:
        """Whether it can stand on a table as its mesh does, z up."""
        return bool((self.rotations[:, 2, 2] > 0.9999).any())

    @classmethod
    def of(cls, mesh: Mesh) -> Body:
        """Body of a mesh (computes the hull)."""
        return cls(mesh, *resting_rotations(mesh))


def rest(bodies: list[Body], spread: float, rng: np.random.Generator,
         upright: float = 0.0) -> list[np.ndarray]:
    """Put bodies onto the table without touching: T_world for each, z such that it stands on 0.

    ``upright``: share of bodies that stand as their meshes do, where they can. The ground circle
    about each is kept free; where no place is found the table grows.
    """
    placed: list[tuple[np.ndarray, float]] = []
    poses = []
    for body in bodies:
        side = body.rotations[rng.choice(len(body.shares), p=body.shares)]
        if upright > 0 and rng.random() < upright and body.stands:
            side = np.eye(3)
        R = turn_z(rng.uniform(0, 2 * np.pi)) @ side
        points = body.mesh.vertices @ R.T
        low, high = points.min(axis=0), points.max(axis=0)
        middle = (low + high)[:2] / 2
        radius = float(np.linalg.norm(points[:, :2] - middle, axis=1).max())
        reach = spread
        for _ in range(GRAVITY_TRIES):
            place = reach * np.sqrt(rng.random()) * turn_z(rng.uniform(0, 2 * np.pi))[:2, 0]
            if all(np.linalg.norm(place - other) > 0.93 * (radius + r) for other, r in placed):
                break
            reach *= 1.06
        else:
            place = place + (2.0 * spread + radius) * np.sign(place)
        placed.append((place, radius))
        poses.append(make_pose(R, np.append(place - middle, -low[2])))
    return poses


def float_around(bodies: list[Body], K: np.ndarray, settings: SynthSettings,
                 rng: np.random.Generator) -> list[np.ndarray]:
    """T_cam_obj for each body, anywhere in the picture and in any orientation, not touching."""
    camera, scene = settings.camera, settings.scene
    placed: list[tuple[np.ndarray, float]] = []
    poses = []
    for body in bodies:
        low, high = body.mesh.box
        for _ in range(GRAVITY_TRIES):
            z = rng.uniform(*scene.distance)
            pixel = rng.uniform(0.03, 0.97, 2) * (camera.width, camera.height)
            centre = z * np.linalg.solve(K, np.append(pixel, 1.0))
            if all(np.linalg.norm(centre - other) > 0.85 * (body.mesh.radius + r)
                   for other, r in placed):
                break
        R = random_rotation(rng)
        placed.append((centre, body.mesh.radius))
        poses.append(make_pose(R, centre - R @ ((low + high) / 2)))
    return poses


def random_light(strength: float, rng: np.random.Generator) -> Light:
    """A lamp or a window somewhere above, the room's light, and a weak second lamp."""
    def tint(amount: float) -> np.ndarray:
        warm = rng.uniform(-1, 1) * amount
        return np.array([1 + warm, 1 + 0.2 * rng.uniform(-1, 1) * amount, 1 - warm])

    level = np.exp(rng.uniform(-0.7, 0.5) * strength)
    share = 0.5 + rng.uniform(-0.5, 0.5) * strength  # of direct light
    angle, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(30, 85))
    to_sun = np.array([np.cos(angle) * np.cos(height), np.sin(angle) * np.cos(height),
                       np.sin(height)])
    second = rng.uniform(0, 2 * np.pi)
    sky = 0.55 * level * (1.3 - share)
    return Light(to_sun, 0.95 * level * share * tint(0.25 * strength), sky * tint(0.2 * strength),
                 0.55 * sky * tint(0.2 * strength),
                 np.array([0.8 * np.cos(second), 0.8 * np.sin(second), 0.6]),
                 0.25 * level * rng.uniform(0, strength) * tint(0.3 * strength),
                 rng.uniform(0.6, 3.0))


def camera_pose(scene: SceneSettings, rng: np.random.Generator, phase: float | None = None,
                spread: float = 0.0) -> np.ndarray:
    """T_cam_world of a look at the table; with ``phase`` (0..1) on a smooth way around it."""
    if phase is None:
        target = np.append(rng.uniform(-spread, spread, 2) * 0.6, rng.uniform(0, 0.06))
        distance = rng.uniform(*scene.distance)
        azimuth = rng.uniform(0, 2 * np.pi)
        elevation = np.radians(rng.uniform(*scene.elevation))
        roll = np.radians(rng.uniform(-scene.roll, scene.roll))
    else:
        turn = 2 * np.pi * phase
        target = np.array([0.03 * np.sin(2 * turn), 0.03 * np.cos(turn), 0.03])
        middle = np.mean(scene.distance)
        distance = middle + np.ptp(scene.distance) / 2 * np.sin(turn + 0.6)
        azimuth = turn + 0.3 * np.sin(turn)
        low, high = scene.elevation
        elevation = np.radians((low + high) / 2 + (high - low) / 2 * np.sin(2 * turn))
        roll = np.radians(scene.roll) * np.sin(3 * turn)
    flat = np.cos(elevation)
    eye = target + distance * np.array([flat * np.cos(azimuth), flat * np.sin(azimuth),
                                        np.sin(elevation)])
    return look_at(eye, target, roll)

