"""Local keypoint votes: every cell of a feature pyramid scores each class and votes for K points.

The shape of WDRNet (Hu et al., CVPR 2021, "Wide-Depth-Range 6D Object Pose Estimation in Space"):
cells of several strides, votes relative to the cell's centre and size, and a number of cells per
level that depends on the size of the object. With K = 8 box corners the votes go to PnP, with
K = 2 corners of the image box the same network is a detector. Training encodes its targets here
and the runtime decodes here, so the two cannot drift apart.

Cells of all levels form one list, fine to coarse, row-major inside a level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kd_pose.boxes import iou as box_iou
from kd_pose.boxes import points_box

BACKGROUND = -1  # a cell that must score 0 for every class
IGNORE = -2  # a cell on an object that was not drawn as positive: no loss

# Seeds tried per class for every instance wanted: bounds the work on a useless score map.
SEEDS_PER_INSTANCE = 4


@dataclass(frozen=True)
class VoteGrid:
    """The cells of an input. input_size_wh: pixels. strides: fine to coarse, pixels per cell.

    A cell of stride s has its centre at (i + 0.5) * s - 0.5 and votes in units of its anchor size
    anchor_scale * s.
    """

    input_size_wh: tuple[int, int]
    strides: tuple[int, ...]
    anchor_scale: float = 4.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size_wh", tuple(int(v) for v in self.input_size_wh))
        object.__setattr__(self, "strides", tuple(int(v) for v in self.strides))
        if len(self.input_size_wh) != 2 or min(self.input_size_wh) < 1:
            raise ValueError(f"input_size_wh must be two positive, got {self.input_size_wh}")
        if not self.strides or min(self.strides) < 1:
            raise ValueError(f"strides must be positive, got {self.strides}")
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides must increase, got {self.strides}")
        if not self.anchor_scale > 0:
            raise ValueError(f"anchor_scale must be positive, got {self.anchor_scale}")

    @property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of every level."""
        w, h = self.input_size_wh
        return tuple((math.ceil(h / s), math.ceil(w / s)) for s in self.strides)

    @property
    def num_cells(self) -> int:
        return sum(rows * columns for rows, columns in self.level_shapes)

    @cached_property
    def centers(self) -> np.ndarray:
        """(N, 2) float64, x and y in input pixels."""
        parts = []
        for stride, (rows, columns) in zip(self.strides, self.level_shapes):
            y, x = np.mgrid[0:rows, 0:columns].reshape(2, -1)
            parts.append((np.stack([x, y], axis=1) + 0.5) * stride - 0.5)
        return _constant(np.concatenate(parts))

    @cached_property
    def levels(self) -> np.ndarray:
        """(N,) int64, index into `strides`."""
        sizes = [rows * columns for rows, columns in self.level_shapes]
        return _constant(np.repeat(np.arange(len(self.strides)), sizes))

    @cached_property
    def anchors(self) -> np.ndarray:
        """(N,) float64, anchor size of every cell in pixels."""
        return _constant(self.anchor_scale * np.array(self.strides, float)[self.levels])

    @cached_property
    def center_pixels(self) -> np.ndarray:
        """(N, 2) int64, the pixel (x, y) that holds each centre, limited to the input."""
        limit = np.array(self.input_size_wh) - 1
        return _constant(np.minimum(np.floor(self.centers + 0.5).astype(np.int64), limit))


def _constant(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def level_counts(
    size_px: float, grid: VoteGrid, total: int = 10, lam: float = 1.0
) -> np.ndarray:
    """How many of `total` cells of an object come from each level -> (L,) int64.

    n_k = round(total * w_k / sum w) with w_k = exp(-lam * log2(size / S_k)^2) and S_k the anchor
    size of level k. size_px: longer side of the object in the input. Rounding can make the sum
    differ from `total` by a cell.
    """
    anchors = grid.anchor_scale * np.array(grid.strides, dtype=np.float64)
    distance = lam * np.log2(max(float(size_px), 1.0) / anchors) ** 2
    weights = np.exp(distance.min() - distance)
    return np.rint(total * weights / weights.sum()).astype(np.int64)


def encode(
    grid: VoteGrid,
    instance_map: np.ndarray,
    classes: np.ndarray,
    sizes_px: np.ndarray,
    rng: np.random.Generator,
    cells_per_instance: int = 10,
) -> tuple[np.ndarray, np.ndarray]:
    """Training targets of one input -> cell_class (N,) int64, cell_instance (N,) int64.

    instance_map: (H, W) integers, the instance visible at each pixel, -1 where none.
    classes: (I,) class of every instance; a negative one means "ignore these pixels".
    sizes_px: (I,) longer side of its projected box in input pixels.
    Positive cells are drawn at random among those whose centre the instance is visible at, as many
    per level as `level_counts` says. Their fellows are IGNORE, everything else is BACKGROUND.
    cell_instance is the instance of positive cells and -1 elsewhere. An instance that would get
    no cell at all gets one: the best of those on it, or for one that falls between the centres
    the nearest of its best level.
    """
    w, h = grid.input_size_wh
    instance_map = np.asarray(instance_map)
    if instance_map.shape != (h, w):
        raise ValueError(f"instance_map must be {(h, w)}, got {instance_map.shape}")
    x, y = grid.center_pixels.T
    owner = instance_map[y, x].astype(np.int64)
    cell_class = np.where(owner >= 0, IGNORE, BACKGROUND).astype(np.int64)
    cell_instance = np.full(grid.num_cells, -1, dtype=np.int64)
    for index, class_index in enumerate(np.asarray(classes, dtype=np.int64)):
        if class_index < 0:
            continue
        counts = level_counts(sizes_px[index], grid, cells_per_instance)
        cells = _draw_cells(grid, np.flatnonzero(owner == index), counts, rng)
        if len(cells) == 0:
            cells = _fallback_cell(grid, instance_map == index, counts, owner, index,
                                   cell_instance < 0)
        cell_class[cells] = class_index
        cell_instance[cells] = index
    return cell_class, cell_instance


def _draw_cells(
    grid: VoteGrid, candidates: np.ndarray, counts: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    drawn = []
    for level, count in enumerate(counts):
        cells = candidates[grid.levels[candidates] == level]
        if count > 0 and len(cells):
            drawn.append(rng.permutation(cells)[:count])
    return np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)


def _fallback_cell(
    grid: VoteGrid,
    mask: np.ndarray,
    counts: np.ndarray,
    owner: np.ndarray,
    index: int,
    free: np.ndarray,
) -> np.ndarray:
    """One cell for an instance that the draw left without; none if nothing of it is visible."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return np.empty(0, dtype=np.int64)
    best = int(np.argmax(counts))
    on_it = np.flatnonzero(owner == index)
    if len(on_it):  # visible at cell centres, but only of levels that it has no share in
        away = np.abs(grid.levels[on_it] - best)
        return on_it[[np.argmin(away)]]
    allowed = np.flatnonzero(free & (grid.levels == best))
    if len(allowed) == 0:
        return np.empty(0, dtype=np.int64)
    centre = np.array([columns.mean(), rows.mean()])
    distance = np.linalg.norm(grid.centers[allowed] - centre, axis=1)
    return allowed[[np.argmin(distance)]]


def encode_points(grid: VoteGrid, cells: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """Votes of `cells` (n,) for points (n, K, 2) in input pixels -> offsets (n, K, 2)."""
    return (points_px - grid.centers[cells][:, None]) / grid.anchors[cells][:, None, None]


def decode_points(grid: VoteGrid, cells: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Offsets (n, K, 2) of `cells` (n,) -> points (n, K, 2) in input pixels, float64."""
    return grid.centers[cells][:, None] + offsets * grid.anchors[cells][:, None, None]


@dataclass
class VoteInstance:
    """One object found in one input.

    score: 0..1, the members' scores averaged with themselves as weights, between their mean and
        their maximum: one lucky cell does not beat an object that ten cells agree on.
    box_xyxy: (4,) weighted mean of the boxes of the members' votes, input px.
    cells (n,), points (n, K, 2) input px, weights (n,) = scores, best first.
    """

    class_index: int
    score: float
    box_xyxy: np.ndarray
    cells: np.ndarray
    points: np.ndarray
    weights: np.ndarray


def decode(
    grid: VoteGrid,
    scores: np.ndarray,
    offsets: np.ndarray,
    *,
    score_threshold: float = 0.3,
    cells_per_instance: int = 10,
    max_instances: int = 20,
    iou: float = 0.5,
    classes: Sequence[int] | None = None,
) -> list[VoteInstance]:
    """Network outputs of one input -> instances of all classes, best first.

    scores: (N, C) 0..1. offsets: (N, C, K, 2). classes: the classes looked for, None = all.
    A cell speaks for its best class among those, since it lies on one object. Cells of a class are
    grouped around the best free one by the overlap (`iou`) of the bounding boxes of their votes,
    so two instances side by side are two groups although their cells touch. From each group the
    cells that suit its size are kept (see `_select`). Non-finite cells are dropped.
    """
    scores, offsets = np.asarray(scores), np.asarray(offsets)
    if scores.ndim != 2 or len(scores) != grid.num_cells:
        raise ValueError(f"scores must be ({grid.num_cells}, C), got {scores.shape}")
    if offsets.shape[:2] != scores.shape or offsets.ndim != 4 or offsets.shape[3] != 2:
        raise ValueError(f"offsets must be {(*scores.shape, 'K', 2)}, got {offsets.shape}")
    wanted = np.arange(scores.shape[1]) if classes is None else np.array(classes, dtype=np.int64)
    if len(wanted) == 0:
        return []
    cells, labels, weights = _candidates(scores, wanted, score_threshold)
    points = decode_points(grid, cells, offsets[cells, labels].astype(np.float64))
    finite = np.isfinite(points).all(axis=(1, 2))
    cells, labels, weights, points = (
        array[finite] for array in (cells, labels, weights, points)
    )
    boxes = points_box(points)
    instances = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        for members, box in _group(boxes[rows], weights[rows], iou, max_instances):
            chosen = rows[members]
            size = max(box[2] - box[0], box[3] - box[1])
            chosen = chosen[_select(grid, cells[chosen], size, cells_per_instance)]
            instances.append(
                VoteInstance(
                    class_index=int(label),
                    score=float(np.average(weights[chosen], weights=weights[chosen])),
                    box_xyxy=np.average(boxes[chosen], axis=0, weights=weights[chosen]),
                    cells=cells[chosen],
                    points=points[chosen],
                    weights=weights[chosen],
                )
            )
    instances.sort(key=lambda instance: -instance.score)
    return instances[:max_instances]


def _candidates(
    scores: np.ndarray, wanted: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells above the threshold, their class and their score, best score first."""
    threshold = max(float(threshold), np.finfo(np.float64).tiny)  # a weight of 0 has no say
    some = scores if len(wanted) == scores.shape[1] else scores[:, wanted]
    cells = np.flatnonzero((some >= threshold).any(axis=1))
    rows = np.where(np.isfinite(scores[np.ix_(cells, wanted)]), scores[np.ix_(cells, wanted)], -1)
    best = rows.argmax(axis=1) if len(cells) else np.empty(0, dtype=np.int64)
    weights = rows[np.arange(len(cells)), best].astype(np.float64)
    keep = weights >= threshold  # an infinite score was the only one
    order = np.argsort(-weights[keep], kind="stable")
    return cells[keep][order], wanted[best[keep]][order], weights[keep][order]


def _group(
    boxes: np.ndarray, weights: np.ndarray, threshold: float, max_groups: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of `boxes` (M, 4), best first, into groups -> [(rows, mean box)].

    Each seed's group is taken a second time around its mean box, since one vote is a noisy seed.
    A later group that overlaps an earlier one is made of its stragglers and is dropped.
    """
    free = np.ones(len(boxes), dtype=bool)
    groups: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(SEEDS_PER_INSTANCE * max_groups):
        rows = np.flatnonzero(free)
        if len(rows) == 0 or len(groups) == max_groups:
            break
        seed, box = rows[0], boxes[rows[0]]
        members = rows
        for _ in range(2):
            near = box_iou(box, boxes[rows]) >= threshold
            near[0] = True  # the seed itself, also when its box has no area
            members = rows[near]
            box = np.average(boxes[members], axis=0, weights=weights[members])
        free[members] = False
        free[seed] = False
        earlier = np.array([other for _, other in groups]).reshape(-1, 4)
        if not (box_iou(box, earlier) >= threshold).any():
            groups.append((members, box))
    return groups


def _select(grid: VoteGrid, cells: np.ndarray, size_px: float, total: int) -> np.ndarray:
    """Which of a group's cells, given best first, to keep -> indices, best first.

    From every level the best of its share for an object of `size_px` (`level_counts`); a share
    that a level cannot fill goes to the best of the others. A group of up to `total` is kept.
    """
    if len(cells) <= total:
        return np.arange(len(cells))
    counts = level_counts(size_px, grid, total)
    levels = grid.levels[cells]
    preferred = np.zeros(len(cells), dtype=bool)
    for level, count in enumerate(counts):
        preferred[np.flatnonzero(levels == level)[:count]] = True
    order = np.argsort(~preferred, kind="stable")[:total]
    return np.sort(order)
