"""Estimated people of a set of pictures: columns, and COCO-WholeBody's result and box files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from kd_pose.crop import SIDES_PX
from kd_pose.wholebody_keypoints import COUNT, PARTS
from kd_pose_training.data.bop_files import column, read_json
from kd_pose_training.data.coco_files import PART_KEYS, PERSON, WholebodyDataError


@dataclass(frozen=True)
class PersonEstimates:
    """D estimated people.

    image_id: (D,) of their pictures. xy: (D, 133, 2) pixels. keypoint_scores: (D, 133).
    score: (D,) of the person.

    Raises:
        ValueError: columns of different lengths, or numbers that are not finite.
    """

    image_id: np.ndarray
    xy: np.ndarray
    keypoint_scores: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        for item in fields(self):
            kind = np.int64 if item.name == "image_id" else np.float64
            object.__setattr__(self, item.name, np.asarray(getattr(self, item.name), dtype=kind))
        count = len(self.image_id)
        shapes = {"xy": (count, COUNT, 2), "keypoint_scores": (count, COUNT), "score": (count,)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {value.shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite")

    def __len__(self) -> int:
        return len(self.image_id)

    def select(self, rows: np.ndarray) -> PersonEstimates:
        """Some of them, by index or mask."""
        return PersonEstimates(*(getattr(self, item.name)[rows] for item in fields(self)))


@dataclass(frozen=True)
class PersonBoxes:
    """N boxes to estimate people in. image_id: (N,). box_xywh: (N, 4) continuous edges, pixels
    (half a pixel before those of the file, see ``kd_pose_training.data.coco_wholebody``).
    score: (N,). left_out: how many others of these pictures there were, by reason."""

    image_id: np.ndarray
    box_xywh: np.ndarray
    score: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_boxes(path: str | Path, image_ids: np.ndarray, size_wh: np.ndarray) -> PersonBoxes:
    """A detector's file: a list of ``image_id``, ``category_id``, ``bbox`` (xywh), ``score``.

    Other categories and other pictures are left out; and, counted, boxes of which nothing is in
    their picture or that are too large to be cut out.

    Args:
        image_ids: (I,) rising, of the pictures that are evaluated. size_wh: (I, 2) pixels.

    Raises:
        ValueError: not such a file, or no box is of these pictures.
    """
    path = Path(path)
    items = [item for item in read_json(path, list)]
    if not items:
        return PersonBoxes(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
    ids, kinds, boxes, scores = (
        column(items, key, count, lambda row: f"{path}: entry {row}")
        for key, count in (("image_id", 1), ("category_id", 1), ("bbox", 4), ("score", 1)))
    ids = ids[:, 0].astype(np.int64)
    of_these = (kinds[:, 0] == PERSON) & np.isin(ids, image_ids)
    if not of_these.any():
        raise WholebodyDataError(f"{path}: none of its {len(items)} boxes is of a person in one "
                                 "of the annotated pictures")
    ids, boxes, scores = ids[of_these], boxes[of_these], scores[of_these, 0]
    size = size_wh[np.searchsorted(image_ids, ids)]
    seen = np.clip(boxes[:, :2] + boxes[:, 2:], 0, size) - np.clip(boxes[:, :2], 0, size)
    sides = boxes[:, 2:].max(axis=1)
    large = sides > SIDES_PX[1]
    flat = ~large & ((seen <= 0).any(axis=1) | (sides < SIDES_PX[0]))
    kept = ~(large | flat)
    return PersonBoxes(ids[kept], boxes[kept] - (0.5, 0.5, 0.0, 0.0), scores[kept],
                       {"without an area in their picture": int(flat.sum()),
                        "too large": int(large.sum())})


def write_results(estimates: PersonEstimates, path: str | Path) -> None:
    """COCO-WholeBody's result file, which its own evaluation and xtcocotools read."""
    triples = np.concatenate([estimates.xy, estimates.keypoint_scores[..., None]], axis=2)
    items = [{"image_id": int(image_id), "category_id": PERSON, "score": float(score),
              **{key: points[part].ravel().tolist()
                 for key, part in zip(PART_KEYS, PARTS.values())}}
             for image_id, score, points in zip(estimates.image_id, estimates.score, triples)]
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(items), encoding="utf-8")
    os.replace(beside, path)


def read_results(path: str | Path) -> PersonEstimates:
    """Estimates from a COCO-WholeBody result file.

    Raises:
        ValueError: not such a file; entry and key are named.
    """
    path = Path(path)
    items = read_json(path, list)

    def numbers(key: str, count: int) -> np.ndarray:
        if not items:
            return np.zeros((0, count))
        return column(items, key, count, lambda row: f"{path}: entry {row}")

    triples = np.concatenate([numbers(key, 3 * count) for key, count in PART_KEYS.items()],
                             axis=1).reshape(-1, COUNT, 3)
    return PersonEstimates(numbers("image_id", 1)[:, 0], triples[..., :2], triples[..., 2],
                           numbers("score", 1)[:, 0])
