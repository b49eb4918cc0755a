"""COCO-WholeBody annotations of drawn people, their visibility asked of the drawn depth.

Pixel centres are at whole numbers. v = 2: seen; 1: inside the picture, but hidden by something, be
it the person themselves; 0: outside of the picture, x = y = 0. Points on the skin are seen where
the depth ends at them. Joints lie inside of the body: they are seen where what the picture shows
is the surface, flesh or cloth, of the limbs that meet in them.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from kd_pose.geometry import invert_pose, transform_points
from kd_pose.wholebody_keypoints import PARTS
from kd_pose_training.synthetic.bop_writer import mask_box, mask_rle
from kd_pose_training.synthetic.people.compose import Crowd
from kd_pose_training.synthetic.people.settings import LabelSettings
from kd_pose_training.synthetic.people.skeleton import INDEX
from kd_pose_training.synthetic.render import NEAR_M, Buffers

# Name in the file, part, and by what share of the points' extent its box is wider than they are.
BOXED = (("face", "face", 0.0), ("lefthand", "left_hand", 0.1), ("righthand", "right_hand", 0.1))


def project(points: np.ndarray, T_cam_world: np.ndarray,
            K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points (n, 3) -> pixels (n, 2) and depths (n,); pixels behind the camera are nan."""
    camera = transform_points(T_cam_world, points)
    depth = camera[:, 2]
    pixels = camera @ K.T
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = np.where(depth[:, None] > NEAR_M, pixels[:, :2] / pixels[:, 2:], np.nan)
    return pixels, depth


def visibility(pixels: np.ndarray, depth: np.ndarray, slack: np.ndarray, row: int,
               buffers: Buffers) -> np.ndarray:
    """0, 1 or 2 (n,) for the keypoints of person ``row``.

    pixels (n, 2), depth (n,) and slack (n,) metres. The pixel and its eight neighbours are asked,
    as a point on an outline rounds to either side of it.
    """
    height, width = buffers.depth.shape
    at = np.rint(np.nan_to_num(pixels, nan=-9.0)).astype(int)
    inside = (at >= 0).all(axis=1) & (at[:, 0] < width) & (at[:, 1] < height)
    seen = np.zeros(len(pixels), bool)
    for j in (-1, 0, 1):
        for i in (-1, 0, 1):
            u, v = np.clip(at[:, 0] + i, 0, width - 1), np.clip(at[:, 1] + j, 0, height - 1)
            seen |= (buffers.ids[v, u] == row) & (buffers.depth[v, u] > depth - slack)
    return np.where(inside, np.where(seen, 2, 1), 0)


# Body joints (rows of the 133) and the bones whose surface shows them; * is the joint's side.
_SHOWN_BY = {5: "*_clavicle *_upper_arm chest neck", 7: "*_upper_arm *_forearm",
             9: "*_forearm *_hand *_thumb_base", 11: "pelvis belly *_thigh", 13: "*_thigh *_shin",
             15: "*_shin *_foot"}
JOINTS = {row + shift: np.array([INDEX[name] for name in names.replace("*", side).split()])
          for row, names in _SHOWN_BY.items() for shift, side in ((0, "l"), (1, "r"))}


def joints_shown(pixels: np.ndarray, seen: np.ndarray, row: int, crowd: Crowd,
                 buffers: Buffers) -> np.ndarray:
    """``seen`` (133,) of person ``row`` with 1 for the joints before which there is another limb.

    The surface at the joint's pixel (133, 2) is looked up among the person's vertices: the nearest
    one tells the bone.
    """
    scene, seen = crowd.scene, seen.copy()
    rows = [joint for joint in JOINTS if seen[joint] == 2]
    if not rows:
        return seen
    at = np.stack([_own_pixel(pixels[joint], row, buffers) for joint in rows])
    depth = buffers.depth[at[:, 1], at[:, 0]].astype(np.float64)
    rays = np.column_stack([at, np.ones(len(at))]) @ np.linalg.inv(scene.K).T
    thing = scene.objects[row]
    surface = transform_points(invert_pose(scene.pose(thing)), rays * depth[:, None])
    vertices = thing.mesh.vertices
    for joint, point in zip(rows, surface.astype(np.float32)):
        gap = vertices - point
        nearest = np.einsum("ij,ij->i", gap, gap).argmin()
        if crowd.owners[row][nearest] not in JOINTS[joint]:
            seen[joint] = 1
    return seen


def _own_pixel(pixel: np.ndarray, row: int, buffers: Buffers) -> np.ndarray:
    """The pixel (u, v) next to a place that shows person ``row``; the place's own if it does."""
    height, width = buffers.ids.shape
    u, v = np.rint(pixel).astype(int)
    steps = sorted(itertools.product((-1, 0, 1), repeat=2), key=lambda s: s[0] ** 2 + s[1] ** 2)
    around = [(np.clip(u + i, 0, width - 1), np.clip(v + j, 0, height - 1)) for i, j in steps]
    return np.array(next(((x, y) for x, y in around if buffers.ids[y, x] == row), around[0]))


def annotate(crowd: Crowd, buffers: Buffers, settings: LabelSettings) -> list[dict[str, Any]]:
    """One annotation per person of whom enough is seen, without `id`.

    In a clip it has `track_id`, the same in all frames: counted from 1.
    """
    found = []
    for row, (points, slack) in enumerate(zip(crowd.keypoints, crowd.slack)):
        mask = buffers.ids == row
        track = {"track_id": row + 1} if crowd.lasting else {}
        if int(mask.sum()) < settings.smallest:
            continue
        pixels, depth = project(points, crowd.scene.T_cam_world, crowd.scene.K)
        seen = visibility(pixels, depth, slack, row, buffers)
        seen = joints_shown(pixels, seen, row, crowd, buffers)
        rows = np.column_stack([np.where(seen[:, None] > 0, pixels, 0.0), seen])
        found.append({**_annotation(rows, mask, settings), **track})
    return found


def _annotation(rows: np.ndarray, mask: np.ndarray, settings: LabelSettings) -> dict[str, Any]:
    """rows (133, 3): x, y, v."""
    height, width = mask.shape
    body, feet = rows[PARTS["body"]], rows[PARTS["foot"]]
    item: dict[str, Any] = {
        "category_id": 1, "iscrowd": 0, "area": int(mask.sum()),
        "bbox": [float(v) for v in mask_box(mask)], "segmentation": mask_rle(mask),
        "num_keypoints": int((body[:, 2] > 0).sum()), "keypoints": _flat(body),
        "foot_kpts": _flat(feet), "foot_valid": bool((feet[:, 2] > 0).any())}
    for name, part, margin in BOXED:
        points = rows[PARTS[part]]
        valid = (points[:, 2] == 2).mean() >= max(settings.part_seen, 1e-9)
        item[f"{name}_valid"] = bool(valid)
        item[f"{name}_kpts"] = _flat(points if valid else np.zeros_like(points))
        item[f"{name}_box"] = _box(points, margin, width, height) if valid else \
            [0.0, 0.0, 0.0, 0.0]
    return item


def _flat(rows: np.ndarray) -> list:
    """x, y, v of every point after each other, pixels to a hundredth."""
    return [value for x, y, v in rows for value in (round(float(x), 2), round(float(y), 2),
                                                    int(v))]


def _box(rows: np.ndarray, margin: float, width: int, height: int) -> list[float]:
    """x, y, w, h around the labelled points, inside of the picture. COCO's boxes have their edges,
    not pixel centres, at whole numbers."""
    points = rows[rows[:, 2] > 0, :2] + 0.5
    low, high = points.min(axis=0), points.max(axis=0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    low, high = np.maximum(low, 0), np.minimum(high, [width, height])
    return [round(float(v), 2) for v in (*low, *(high - low))]
