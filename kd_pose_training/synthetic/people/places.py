"""Where people are: rooms with walls and furniture, streets and meadows under a sky."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from kd_pose.geometry import make_pose
from kd_pose_training.synthetic import patterns
from kd_pose_training.synthetic.meshes import Mesh, flat_mesh
from kd_pose_training.synthetic.scene import CLUTTER, TABLE, Thing, turn_z

GROUND = 36.0  # metres along a side


def box_mesh(size: tuple[float, float, float], tile: float = 1.0) -> Mesh:
    """A box that stands on z = 0 about the z axis; its texture repeats every ``tile`` metres."""
    x, y, z = size
    points, uv, faces = [], [], []
    for axis in range(3):
        for sign in (-1, 1):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            corner = np.full((4, 3), 0.5 * sign)
            corner[:, u] = np.array([-0.5, 0.5, 0.5, -0.5]) * sign
            corner[:, v] = [-0.5, -0.5, 0.5, 0.5]
            corner = corner * (x, y, z)
            start = len(points) * 4
            faces += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
            points.append(corner + (0, 0, z / 2))
            uv.append(corner[:, [u, v] if axis != 1 else [v, u]] / tile)
    return flat_mesh(np.concatenate(points), np.array(faces), uv=np.concatenate(uv))


def quad(width: float, height: float, repeat: tuple[float, float]) -> Mesh:
    """A sheet in the plane y = 0, from z = 0 up, seen from both sides."""
    w = width / 2
    return flat_mesh(np.array([[-w, 0, 0], [w, 0, 0], [w, 0, height], [-w, 0, height]]),
                     np.array([[0, 1, 2], [0, 2, 3]]),
                     uv=np.array([[0, 0], [repeat[0], 0], [repeat[0], repeat[1]],
                                  [0, repeat[1]]]))


def _thing(mesh: Mesh, item: int, at: np.ndarray, yaw: float, texture: np.ndarray,
           shine: float = 0.0) -> Thing:
    T = make_pose(turn_z(yaw), np.asarray(at, float))
    return Thing(mesh, item, T, np.ones(3), shine, 30.0, texture)


def ground(rng: np.random.Generator, outdoors: bool) -> Thing:
    """Floor, or grass, sand, asphalt or paving."""
    side = 512
    if not outdoors:
        texture = patterns.picture(side, side, rng)
        if rng.random() < 0.6:  # floors are calmer than tables
            texture = cv2.addWeighted(texture, 0.35, np.full_like(texture, 1) * np.uint8(
                np.clip(patterns.colour(rng, 0.7), 30, 220)), 0.65, 0)
        tile = rng.uniform(1.5, 4)
    else:
        base = np.array([(86, 112, 52), (176, 156, 118), (96, 96, 98), (140, 132, 122),
                         (70, 96, 44)], float)[rng.integers(5)] * rng.uniform(0.7, 1.25)
        grain = rng.normal(size=(side, side)).astype(np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.7, 2.5))
        grain *= 1 / max(float(grain.std()), 1e-6)
        image = base * (1 + 0.10 * grain + 0.12 * patterns.noise(side, side, 120, rng))[..., None]
        if rng.random() < 0.3:
            step = int(rng.integers(40, 130))
            image[np.arange(side) % step < 3] *= 0.7
            image[:, np.arange(side) % step < 3] *= 0.7
        texture = np.clip(image, 0, 255).astype(np.uint8)
        tile = rng.uniform(1.5, 3.5)
    s, n = GROUND / 2, GROUND / tile
    mesh = flat_mesh(np.array([[-s, -s, 0], [s, -s, 0], [s, s, 0], [-s, s, 0]]),
                     np.array([[0, 1, 2], [0, 2, 3]]),
                     uv=np.array([[0, 0], [n, 0], [n, n], [0, n]]))
    return _thing(mesh, TABLE, np.zeros(3), rng.uniform(0, 2 * np.pi), texture)


def wall_picture(rng: np.random.Generator, folder: Path | None) -> np.ndarray:
    """A wall of 6 by 3 metres: paint or paper, with windows, doors, pictures, shelves."""
    height, width = 384, 768
    if folder is not None:
        return patterns.backdrop(height, width, rng, folder)
    if rng.random() < 0.25:
        image = patterns.picture(height, width, rng).astype(np.float32)
    else:
        base = np.clip(patterns.colour(rng, 0.6) * 0.5 + rng.uniform(60, 130), 30, 250)
        image = base + (patterns.noise(height, width, 150, rng) * 7)[..., None]
    image = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(0, 6))):
        w, h = int(rng.integers(40, 200)), int(rng.integers(40, 170))
        x, y = int(rng.integers(0, width - 20)), int(rng.integers(20, 200))
        x1, y1 = min(width, x + w), min(height, y + h)
        kind = rng.random()
        frame = tuple(int(v) for v in patterns.colour(rng))
        if kind < 0.4:
            inner = patterns.picture(max(2, y1 - y), max(2, x1 - x), rng)
            image[y:y1, x:x1] = inner[:y1 - y, :x1 - x]
        elif kind < 0.65:  # window
            image[y:y1, x:x1] = np.uint8(np.clip(rng.uniform(150, 250, 3), 0, 255))
            cv2.line(image, ((x + x1) // 2, y), ((x + x1) // 2, y1), frame, 5)
        else:  # a door or a cupboard down to the floor
            y, y1 = int(rng.integers(60, 240)), height - 8
            image[y:y1, x:x1] = np.uint8(patterns.colour(rng))
        cv2.rectangle(image, (x, y), (x1, y1), frame, int(rng.integers(2, 8)))
    image[height - int(rng.integers(4, 16)):] = np.uint8(patterns.colour(rng))
    return image


def room(rng: np.random.Generator, middle: np.ndarray, away: np.ndarray, behind: float,
         folder: Path | None) -> list[Thing]:
    """Two walls and now and then a ceiling. away: unit vector (2,) from the camera to the people;
    behind: metres from ``middle`` to the wall."""
    high = rng.uniform(2.5, 3.4)
    things = []
    yaw = np.arctan2(away[1], away[0]) - np.pi / 2 + rng.uniform(-0.5, 0.5)
    texture = wall_picture(rng, folder)
    mesh = quad(18.0, high, (3.0, 1.0))
    things.append(_thing(mesh, TABLE, [*(middle[:2] + behind * away), 0], yaw, texture))
    side = rng.choice([-1, 1])
    right = np.array([away[1], -away[0]]) * side
    at = middle[:2] + right * rng.uniform(2.2, 4.5)
    other = texture if rng.random() < 0.5 else wall_picture(rng, folder)
    things.append(_thing(mesh, TABLE, [*at, 0], yaw + np.pi / 2, other))
    if rng.random() < 0.7:
        s = 9.0
        ceiling = flat_mesh(np.array([[-s, -s, 0], [s, -s, 0], [s, s, 0], [-s, s, 0]]),
                            np.array([[0, 1, 2], [0, 2, 3]]))
        colour = np.full((1, 1, 3), np.uint8(rng.uniform(150, 245)), np.uint8)
        things.append(_thing(ceiling, TABLE, [*middle[:2], high], yaw, colour))
    return things


def _surface(rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        return np.full((1, 1, 3), patterns.colour(rng), np.uint8)
    return patterns.picture(128, 128, rng)


def furniture(rng: np.random.Generator, at: np.ndarray, yaw: float,
              tall: bool = True) -> list[Thing]:
    """A table, a crate, a counter, a post or, if ``tall``, a shelf standing at a place (2,)."""
    kind, texture = rng.integers(5 if tall else 4), _surface(rng)
    place = np.array([at[0], at[1], 0.0])
    if kind == 0:
        w, d, h = rng.uniform(0.7, 1.6), rng.uniform(0.5, 0.9), rng.uniform(0.45, 0.95)
        things = [_thing(box_mesh((w, d, 0.04)), CLUTTER, place + (0, 0, h - 0.04), yaw, texture)]
        leg = box_mesh((0.05, 0.05, h - 0.04))
        for sx in (-1, 1):
            for sy in (-1, 1):
                corner = turn_z(yaw) @ np.array([sx * (w / 2 - 0.05), sy * (d / 2 - 0.05), 0])
                things.append(_thing(leg, CLUTTER, place + corner, yaw, texture))
        if rng.random() < 0.6:
            size = tuple(rng.uniform(0.08, 0.35, 3))
            things.append(_thing(box_mesh(size, 0.4), CLUTTER, place + (0, 0, h), yaw,
                                 _surface(rng)))
        return things
    size = {1: (rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.8)),
            2: (rng.uniform(1.0, 2.2), rng.uniform(0.4, 0.6), rng.uniform(0.8, 1.1)),
            3: (rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.3), rng.uniform(1.0, 2.6)),
            4: (rng.uniform(0.6, 1.2), 0.35, rng.uniform(1.2, 2.1))}[int(kind)]
    return [_thing(box_mesh(size), CLUTTER, place, yaw, texture, rng.uniform(0, 0.2))]


def seat(rng: np.random.Generator, at: np.ndarray, yaw: float, height: float) -> list[Thing]:
    """A stool, box or chair whose top is ``height`` metres up; it faces along yaw."""
    texture, place = _surface(rng), np.array([at[0], at[1], 0.0])
    width, depth = rng.uniform(0.36, 0.6), 0.40
    back = turn_z(yaw) @ np.array([-0.06, 0, 0])
    if rng.random() < 0.4:
        return [_thing(box_mesh((depth, width, height)), CLUTTER, place + back, yaw, texture)]
    things = [_thing(box_mesh((depth, width, 0.05)), CLUTTER, place + back + (0, 0, height - 0.05),
                     yaw, texture)]
    leg = box_mesh((0.04, 0.04, max(0.05, height - 0.05)))
    for sx in (-1, 1):
        for sy in (-1, 1):
            corner = turn_z(yaw) @ np.array([sx * (depth / 2 - 0.03) - 0.06,
                                             sy * (width / 2 - 0.03), 0])
            things.append(_thing(leg, CLUTTER, place + corner, yaw, texture))
    if rng.random() < 0.6:
        rest = turn_z(yaw) @ np.array([-depth / 2 - 0.08, 0, 0])
        things.append(_thing(box_mesh((0.04, width, rng.uniform(0.35, 0.55))), CLUTTER,
                             place + rest + (0, 0, height - 0.02), yaw, texture))
    return things


def sky(K: np.ndarray, T_cam_world: np.ndarray, width: int, height: int,
        rng: np.random.Generator) -> np.ndarray:
    """RGB (H, W, 3): a sky with hills, houses and trees along the horizon of this camera."""
    v, u = np.mgrid[0:height:2, 0:width:2].astype(np.float64)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T @ T_cam_world[:3, :3]
    up = np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1]))
    around = np.arctan2(rays[..., 1], rays[..., 0])
    top = np.array([(90, 140, 215), (150, 170, 195), (70, 105, 170), (190, 170, 150)],
                   float)[rng.integers(4)] * rng.uniform(0.7, 1.1)
    low = np.clip(top * 0.4 + 150, 0, 255)
    share = np.clip(up / 0.9, 0, 1)[..., None]
    image = low + (top - low) * share
    clouds = patterns.noise(*up.shape, rng.uniform(30, 120), rng)
    image += (np.clip(clouds - rng.uniform(0, 0.4), 0, 1) * 70)[..., None]
    image = np.where(up[..., None] < 0, np.array([110, 112, 96]) * rng.uniform(0.6, 1.1), image)
    for _ in range(int(rng.integers(1, 4))):
        colour = np.array([(88, 104, 84), (120, 116, 112), (64, 82, 54), (150, 128, 110)],
                          float)[rng.integers(4)] * rng.uniform(0.6, 1.2)
        knots = int(rng.integers(20, 90))
        heights = rng.uniform(0.0, rng.uniform(0.06, 0.45), knots)
        place = (around + np.pi) / (2 * np.pi) * knots
        if rng.random() < 0.5:  # houses with windows
            edge = heights[place.astype(int) % knots]
            windows = (np.sin(place * 40) > 0.3) & (np.sin(up * 160) > 0.2)
            paint = np.where(windows[..., None], colour * 0.6, colour)
        else:  # trees and hills
            edge = np.interp(place, np.arange(knots + 1), np.append(heights, heights[0]))
            edge = edge + 0.03 * patterns.noise(*up.shape, 12, rng)
            paint = colour * (1 + 0.25 * patterns.noise(*up.shape, 8, rng)[..., None])
        image = np.where(((up > -0.01) & (up < edge))[..., None], paint, image)
    image = cv2.resize(np.clip(image, 0, 255).astype(np.float32), (width, height))
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 5)).astype(np.uint8)
