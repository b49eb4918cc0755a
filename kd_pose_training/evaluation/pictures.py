"""A picture sheet of the worst and the best estimates: truth in white over the estimate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from kd_pose.boxes import xywh_from_xyxy
from kd_pose.camera import Camera
from kd_pose.crop import box_affine, crop_intrinsics, warp
from kd_pose.drawing import draw_objects
from kd_pose.geometry import box_corners, transform_points
from kd_pose.keypoints import BOX_EDGES
from kd_pose.results import ObjectPose, ObjectPoseFrame
from kd_pose_training.data.amodal import amodal_box
from kd_pose_training.evaluation.errors import TruthFinder
from kd_pose_training.evaluation.object_pose import EvaluationResult, InstanceResult

TILE = 256  # pixels
CAPTION = 40
HEADING = 34
PAD = 1.6  # of the box around truth and estimate
LARGEST_SPAN = 3.0  # an estimate far away must not shrink the truth to a dot
FONT = cv2.FONT_HERSHEY_SIMPLEX
PAPER, INK, GREEN, RED = (250, 250, 250), (40, 40, 40), (60, 140, 40), (40, 40, 200)


def ranked(instances: Sequence[InstanceResult]) -> list[InstanceResult]:
    """Worst first: those not found by how visible they are, then by error over diameter."""
    def badness(item: InstanceResult) -> tuple[bool, float]:
        missed = item.error is None
        return missed, item.visib_fract if missed else item.error / item.diameter
    return sorted(instances, key=badness, reverse=True)


def sheet(result: EvaluationResult, dataset: Any, *, worst: int = 12, best: int = 6,
          columns: int = 6) -> np.ndarray | None:
    """The picture, BGR uint8 (H, W, 3); None without any target.

    Of one object at most a third of each part is shown, as far as there are others.
    """
    order = ranked(result.instances)
    if not order:
        return None
    frames = {(frame.scene_id, frame.im_id): frame for frame in dataset.frames}
    specs = {spec.name: spec for spec in result.specs}
    parts = (("worst", _varied(order, worst)),
             ("best", _varied([item for item in reversed(order) if item.error is not None], best)))
    rows: list[np.ndarray] = []
    for title, items in parts:
        tiles = [_tile(item, frames[item.scene_id, item.im_id], specs)
                 for item in items]
        if tiles:
            rows.append(_heading(f"{title}  ({result.boxes} boxes)   white: truth",
                                 columns * TILE))
            rows += _rows(tiles, columns)
    return np.vstack(rows)


def _varied(order: Sequence[InstanceResult], count: int) -> list[InstanceResult]:
    """The first ``count``, but no more than a third of one object while others are left."""
    most = max(1, count // 3)
    used: dict[str, int] = {}
    chosen, rest = [], []
    for item in order:
        used[item.name] = used.get(item.name, 0) + 1
        (chosen if used[item.name] <= most else rest).append(item)
    position = {id(item): place for place, item in enumerate(order)}
    taken = (chosen[:count] + rest)[:count]
    return sorted(taken, key=lambda item: position[id(item)])


def _tile(item: InstanceResult, frame: Any, specs: dict[str, Any]) -> np.ndarray:
    spec = specs[item.name]
    image = frame.load_image()
    M = box_affine(_region(item, spec, frame.K), (TILE, TILE), PAD)
    camera = Camera(crop_intrinsics(frame.K, M), TILE, TILE)
    canvas = warp(image, M, (TILE, TILE))
    corners, T_true = box_corners(spec.box_min, spec.box_max), item.T_true
    if item.T_est is not None:
        # Of poses that look alike, the one that the estimate can be compared with by eye.
        T_true = TruthFinder(spec).nearest(T_true, item.T_est)
        pose = ObjectPose(
            item.name, item.score, item.T_est, None, spec,
            camera.project(transform_points(item.T_est, corners)), np.ones(8), 0.0, 0)
        canvas = draw_objects(canvas, ObjectPoseFrame([pose]), camera, "bgr", tuple(specs))
    _draw_edges(canvas, camera.project(transform_points(T_true, corners)))
    return np.vstack([canvas, _caption(item)])


def _region(item: InstanceResult, spec: Any, K: np.ndarray) -> np.ndarray:
    """Box xywh (4,) of the truth and, where it is not too far, of the estimate."""
    corners = box_corners(spec.box_min, spec.box_max)
    truth = amodal_box(item.T_true, corners, K)
    if truth is None:
        return np.array([0.0, 0.0, 2 * K[0, 2], 2 * K[1, 2]])
    box = truth
    estimate = None if item.T_est is None else amodal_box(item.T_est, corners, K)
    if estimate is not None:
        both = np.concatenate([np.minimum(truth[:2], estimate[:2]),
                               np.maximum(truth[2:], estimate[2:])])
        if (both[2:] - both[:2]).max() <= LARGEST_SPAN * (truth[2:] - truth[:2]).max():
            box = both
    return xywh_from_xyxy(box)


def _draw_edges(canvas: np.ndarray, corners: np.ndarray) -> None:
    """The box of the truth as thin white lines with a dark rim."""
    if not np.isfinite(corners).all():
        return
    fixed = np.rint(np.clip(corners, -2000, 4000) * 16).astype(int)
    for colour, width in ((INK, 3), (PAPER, 1)):
        for a, b in BOX_EDGES:
            cv2.line(canvas, tuple(fixed[a].tolist()), tuple(fixed[b].tolist()), colour, width,
                     cv2.LINE_AA, 4)


def _caption(item: InstanceResult) -> np.ndarray:
    strip = np.full((CAPTION, TILE, 3), PAPER, np.uint8)
    if item.error is None:
        text, colour = f"{item.name}: not found", RED
    else:
        text = f"{item.name}: {1e3 * item.error:.1f} mm, {item.rotation_deg:.1f} deg"
        colour = GREEN if item.correct else RED
    where = f"{item.scene_id}/{item.im_id}  visible {100 * item.visib_fract:.0f} %"
    cv2.putText(strip, text, (8, 16), FONT, 0.45, colour, 1, cv2.LINE_AA)
    cv2.putText(strip, where, (8, 33), FONT, 0.38, INK, 1, cv2.LINE_AA)
    return strip


def _heading(text: str, width: int) -> np.ndarray:
    strip = np.full((HEADING, width, 3), PAPER, np.uint8)
    cv2.putText(strip, text, (8, 23), FONT, 0.6, INK, 1, cv2.LINE_AA)
    return strip


def _rows(tiles: Sequence[np.ndarray], columns: int) -> list[np.ndarray]:
    blank = np.full_like(tiles[0], PAPER[0])
    padded = list(tiles) + [blank] * (-len(tiles) % columns)
    return [np.hstack(padded[i:i + columns]) for i in range(0, len(padded), columns)]
