"""Renderer by ray casting on embreex, for machines without EGL: same scenes, geometry and light.

One ray through every pixel's centre gives ids and depth, so that both renderers agree to the
pixel; colours of pixels on edges are the mean of four more rays. Shadows are hard-edged here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from kd_pose_training.synthetic.render import NEAR_M, Buffers, RendererError, centred_on
from kd_pose_training.synthetic.scene import TABLE, Light, Scene, Thing
from kd_pose_training.synthetic.shading import shade

EDGE_SAMPLES = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
SHADOW_OFFSET_M = 5e-4
EDGE_DEPTH = 0.01  # a relative step in depth that is drawn as an edge


@dataclass(frozen=True)
class _Hits:
    """What rays meet first. thing (n,) int: row of ``scene.things``, -1 for none; triangle (n,);
    weights (n, 3) of the triangle's corners; z (n,) metres along the optical axis."""

    thing: np.ndarray
    triangle: np.ndarray
    weights: np.ndarray
    z: np.ndarray


class RayRenderer:
    """Casts rays on the CPU.

    Raises:
        RendererError: embreex is missing.
    """

    name = "rays"

    def __init__(self) -> None:
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError as error:
            raise RendererError("the rays renderer needs embreex: pip install embreex") from error
        self._scene, self._mesh = rtcore_scene.EmbreeScene, TriangleMesh

    def render(self, scene: Scene, whole: bool = True) -> Buffers:
        """Draw the scene."""
        things = list(scene.things)
        cast = _Caster(self._build(things), scene)
        occluders = self._build([thing for thing in things if thing.item != TABLE])
        u, v = (a.ravel() for a in np.meshgrid(np.arange(scene.width), np.arange(scene.height)))
        hits = cast(u, v)
        colour = _shade(scene, hits, u, v, occluders)
        edge = np.flatnonzero(_edges(scene, hits))
        if len(edge):
            total = np.zeros((len(edge), 3), np.float32)
            for du, dv in EDGE_SAMPLES:
                x, y = u[edge] + du, v[edge] + dv
                total += _shade(scene, cast(x, y), x, y, occluders)
            colour[edge] = total / len(EDGE_SAMPLES)
        shape = (scene.height, scene.width)
        numbers = np.full(len(things) + 1, -1, np.int16)  # the last one is for rays without a hit
        rows = [row for row, thing in enumerate(things) if thing.item >= 0]
        numbers[rows] = np.arange(len(rows))
        alone = np.stack([self._alone(scene, row) for row in range(len(rows))]) \
            if rows and whole else np.zeros((0, *shape), bool)
        return Buffers(np.rint(colour * 255).astype(np.uint8).reshape(*shape, 3),
                       hits.z.reshape(shape).astype(np.float32),
                       numbers[hits.thing].reshape(shape),
                       alone)

    def area(self, scene: Scene, row: int) -> int:
        """Pixels of instance ``row`` alone, those outside the frame included."""
        alone, factor = centred_on(scene, row)
        return round(factor * int(self._alone(alone, 0).sum()))

    def _alone(self, scene: Scene, row: int) -> np.ndarray:
        """Mask (H, W) of one instance without anything in front; rays only where its box is."""
        thing = scene.objects[row]
        low, high = thing.mesh.box
        corners = np.stack(np.meshgrid(*zip(low, high)), -1).reshape(-1, 3)
        T = scene.pose(thing)
        camera = corners @ T[:3, :3].T + T[:3, 3]
        mask = np.zeros((scene.height, scene.width), bool)
        x0, y0, x1, y1 = 0, 0, scene.width, scene.height
        if (camera[:, 2] > NEAR_M).all():
            pixels = camera @ scene.K.T
            pixels = pixels[:, :2] / pixels[:, 2:]
            x0, y0 = np.clip(np.floor(pixels.min(axis=0)).astype(int), 0, mask.shape[::-1])
            x1, y1 = np.clip(np.ceil(pixels.max(axis=0)).astype(int) + 1, 0, mask.shape[::-1])
        if x1 > x0 and y1 > y0:
            u, v = (a.ravel() for a in np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)))
            hits = _Caster(self._build([thing]), scene)(u, v)
            mask[y0:y1, x0:x1] = (hits.thing >= 0).reshape(y1 - y0, x1 - x0)
        return mask

    def _build(self, things: list[Thing]) -> Any:
        """An embree scene of the things in the world's frame; geometry i is thing i."""
        world = self._scene()
        for thing in things:
            points = thing.mesh.vertices @ thing.T_world[:3, :3].T + thing.T_world[:3, 3]
            self._mesh(world, np.ascontiguousarray(points[thing.mesh.faces], np.float32))
        return world


class _Caster:
    """Casts rays of a scene's camera into an embree scene."""

    def __init__(self, world: Any, scene: Scene) -> None:
        self.world = world
        R, t = scene.T_cam_world[:3, :3], scene.T_cam_world[:3, 3]
        self.eye = -R.T @ t
        self.turn = np.linalg.inv(scene.K).T @ R  # pixel (u, v, 1) -> direction with z_cam = 1

    def __call__(self, u: np.ndarray, v: np.ndarray) -> _Hits:
        directions = np.stack([u, v, np.ones(len(u))], 1) @ self.turn
        # Starting at the near plane, as the other renderer does.
        starts = self.eye + NEAR_M * directions
        found = self.world.run(starts.astype(np.float32), directions.astype(np.float32), output=1)
        met = found["primID"] >= 0
        thing = np.where(met, found["geomID"].astype(np.int64), -1)
        b, c = found["u"], found["v"]
        return _Hits(thing, np.where(met, found["primID"], 0).astype(np.int64),
                     np.stack([1 - b - c, b, c], 1),
                     np.where(met, found["tfar"] + NEAR_M, 0.0))


def _edges(scene: Scene, hits: _Hits) -> np.ndarray:
    """Pixels (H * W,) beside which another thing or surface begins."""
    shape = (scene.height, scene.width)
    thing, z = hits.thing.reshape(shape), hits.z.reshape(shape)
    edge = np.zeros(shape, bool)
    for axis in (0, 1):
        step = np.abs(np.diff(z, axis=axis)) > EDGE_DEPTH * np.minimum(
            np.delete(z, 0, axis), np.delete(z, -1, axis))
        step |= np.diff(thing, axis=axis) != 0
        before = [slice(None)] * 2
        after = [slice(None)] * 2
        before[axis], after[axis] = slice(0, -1), slice(1, None)
        edge[tuple(before)] |= step
        edge[tuple(after)] |= step
    return edge.ravel()


def _shade(scene: Scene, hits: _Hits, u: np.ndarray, v: np.ndarray,
           occluders: Any) -> np.ndarray:
    """Colours (n, 3) in 0..1 of what rays through the pixels met; backdrop where nothing was."""
    rows = np.clip(np.rint(v).astype(int), 0, scene.height - 1)
    columns = np.clip(np.rint(u).astype(int), 0, scene.width - 1)
    colour = scene.backdrop[rows, columns] / np.float32(255)
    light, T = _single(scene.light), scene.T_cam_world
    eye = (-T[:3, :3].T @ T[:3, 3]).astype(np.float32)
    for number in np.unique(hits.thing):
        if number < 0:
            continue
        at = np.flatnonzero(hits.thing == number)
        thing = scene.things[number]
        mesh, weights = thing.mesh, hits.weights[at]
        corners = mesh.faces[hits.triangle[at]]
        R, t = (part.astype(np.float32) for part in (thing.T_world[:3, :3], thing.T_world[:3, 3]))
        position = _blend(mesh.vertices, corners, weights) @ R.T + t
        normal = _blend(mesh.normals, corners, weights) @ R.T
        texture = mesh.texture if thing.texture is None else thing.texture
        level = _mip_level(mesh, texture, hits.triangle[at], hits.z[at], scene.K)
        texel = sample_texture(texture, _blend(mesh.uv, corners, weights), level)
        texel *= _blend(mesh.colours, corners, weights)
        view = eye - position
        view /= np.linalg.norm(view, axis=1, keepdims=True)
        lit = _lit(occluders, position, normal, view, light.to_sun)
        gain, shine, gloss = (np.float32([value]) for value in
                              (thing.gain, thing.shine, thing.gloss))
        colour[at] = shade(texel, normal, view, lit, light, gain, shine, gloss)
    return colour


def _single(light: Light) -> Light:
    """The light in float32: twice as fast, and colours have 8 bits."""
    return Light(*(np.float32(getattr(light, item.name)) for item in fields(light)))


def _blend(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values (V, k) of the corners (n, 3) weighted by (n, 3): (n, k)."""
    return sum(values[corners[:, i]] * weights[:, i:i + 1] for i in range(3))


def _lit(occluders: Any, position: np.ndarray, normal: np.ndarray, view: np.ndarray,
         to_sun: np.ndarray) -> np.ndarray:
    """1 where the sun is seen from a point (n,), else 0."""
    normal = np.where((normal * view).sum(axis=1, keepdims=True) < 0, -normal, normal)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    lit = np.ones(len(position), np.float32)
    facing = np.flatnonzero(normal @ to_sun > 0)
    if len(facing):
        starts = (position + SHADOW_OFFSET_M * (normal + to_sun))[facing]
        rays = np.tile(to_sun, (len(facing), 1))
        lit[facing] = occluders.run(starts, rays) < 0
    return lit


def _mip_level(mesh: Any, texture: np.ndarray, triangle: np.ndarray, z: np.ndarray,
               K: np.ndarray) -> np.ndarray:
    """How often (n,) a texture is to be halved so that a texel is about a pixel."""
    corners, uv = mesh.vertices[mesh.faces], mesh.uv[mesh.faces]
    world = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]),
                           axis=1)
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    texels = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) * texture.shape[0] * texture.shape[1]
    density = np.sqrt(texels / np.maximum(world, 1e-16))[triangle]  # texels per metre
    footprint = density * z / np.sqrt(abs(K[0, 0] * K[1, 1]))
    most = int(np.log2(max(1, min(texture.shape[:2]))))
    return np.clip(np.rint(np.log2(np.maximum(footprint, 1.0))), 0, most).astype(int)


def sample_texture(texture: np.ndarray, uv: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Colours (n, 3) in 0..1 at uv (n, 2), v upwards, repeating, bilinear within a mip level."""
    result = np.empty((len(uv), 3), np.float32)
    for number in range(int(level.max(initial=0)) + 1):
        at = np.flatnonzero(level == number)
        if len(at):
            h, w = texture.shape[:2]
            x = (uv[at, 0] * w - 0.5) % w
            y = ((1 - uv[at, 1]) * h - 0.5) % h
            i, j = np.floor(y).astype(int) % h, np.floor(x).astype(int) % w
            fy, fx = (y % 1)[:, None], (x % 1)[:, None]
            i1, j1 = (i + 1) % h, (j + 1) % w
            result[at] = ((1 - fy) * ((1 - fx) * texture[i, j] + fx * texture[i, j1])
                          + fy * ((1 - fx) * texture[i1, j] + fx * texture[i1, j1])) / 255
        if min(texture.shape[:2]) > 1:
            texture = cv2.resize(texture, (texture.shape[1] // 2, texture.shape[0] // 2),
                                 interpolation=cv2.INTER_AREA)
    return result
