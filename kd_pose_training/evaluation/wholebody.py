"""Average precision and recall of whole-body keypoints, as COCO-WholeBody counts them.

Body, feet, face, both hands and all 133 points are scored each by their own OKS with the person's
whole area; one score ranks an estimate in all of them. The figures equal xtcocotools' to rounding
(docs/wholebody_data.md has the measurement). "hand" is the mean of left and right. NaN stands for
"no target", where COCO writes -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd_pose.wholebody_keypoints import PARTS
from kd_pose_training.data.bop_files import column
from kd_pose_training.data.coco_files import (
    WholebodyDataError,
    load_annotated,
    person_columns,
    picture_sizes,
    read_annotations,
    where,
)
from kd_pose_training.evaluation.matching import (
    MAX_ESTIMATES,
    THRESHOLDS,
    match,
    precision_recall,
)
from kd_pose_training.evaluation.oks import SCORED, part_matrix, part_oks
from kd_pose_training.evaluation.wholebody_results import PersonEstimates

# Ranges of a person's area in pixels: all, medium, large.
AREA_RANGES = np.array([[0.0, 1e10], [32.0**2, 96.0**2], [96.0**2, 1e10]])
AREA_OF_BOX = 0.53  # of a person, where it is not given: COCO's mean
STATISTICS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
# How many people a picture has, up to which pictures are matched together: padding costs.
GROUPS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class PersonTruth:
    """G people in I pictures, everything of an annotation file, numbers as they stand in it.

    image_id: (I,) rising. file_name: (I,). size_wh: (I, 2) pixels. image: (G,) row of the
    picture, rising.
    points: (G, 133, 3) x, y, visibility. box_xywh: (G, 4). area: (G,) pixels. crowd: (G,) bool.
    """

    image_id: np.ndarray
    file_name: tuple[str, ...]
    size_wh: np.ndarray
    image: np.ndarray
    points: np.ndarray
    box_xywh: np.ndarray
    area: np.ndarray
    crowd: np.ndarray

    def load_image(self, folder: str | Path, row: int) -> np.ndarray:
        """The picture in a row, uint8 (H, W, 3), BGR; ``folder``: what file names begin from.

        Raises:
            ValueError: missing, not a picture, or of another size than the annotations say.
        """
        return load_annotated(Path(folder, self.file_name[row]), self.size_wh[row])


def read_truth(annotations: str | Path, use_area: bool = True) -> PersonTruth:
    """All people of a COCO-WholeBody file.

    Args:
        use_area: take the annotated areas; else 0.53 of the box (UBody and others without).

    Raises:
        ValueError: see :func:`kd_pose_training.data.coco_files.read_annotations`; or an area
            or the size of a picture is missing.
    """
    path = Path(annotations)
    pictures, people = read_annotations(path)
    pictures = sorted(pictures, key=lambda item: item["id"])
    row_of = {item["id"]: row for row, item in enumerate(pictures)}
    people = sorted(people, key=lambda item: row_of[item["image_id"]])
    points, boxes = person_columns(people, path)
    if use_area:
        area = column(people, "area", 1, lambda row: where(people[row], path))[:, 0]
    else:
        area = boxes[:, 3] * boxes[:, 2] * AREA_OF_BOX
    return PersonTruth(
        np.array([item["id"] for item in pictures], dtype=np.int64),
        tuple(item["file_name"].lstrip("/") for item in pictures), picture_sizes(pictures, path),
        np.array([row_of[item["image_id"]] for item in people], dtype=np.int64), points, boxes,
        area, np.array([bool(item.get("iscrowd", 0)) for item in people], dtype=bool))


def average_precision(truth: PersonTruth,
                      estimates: PersonEstimates) -> dict[str, dict[str, float]]:
    """The ten numbers of COCO by part: body, foot, face, left_hand, right_hand, hand, wholebody.

    An estimate without a keypoint score above 0 in a part does not exist there.

    Raises:
        ValueError: an estimate is of a picture that the truth does not have.
    """
    estimates, image = _sorted(truth, estimates)
    exists = (estimates.keypoint_scores > 0) @ part_matrix() > 0
    exists &= _rank(image, exists) < MAX_ESTIMATES
    used = exists.any(axis=1)
    estimates, image, exists = estimates.select(used), image[used], exists[used]
    matched, ignored, targets = _match_all(truth, estimates, image, exists)
    body = estimates.xy[:, PARTS["body"]]
    area = np.prod(np.ptp(body, axis=1), axis=1) if len(body) else np.zeros(0)
    outside = (area < AREA_RANGES[:, :1]) | (area > AREA_RANGES[:, 1:])
    ignored |= ~matched & outside[None, :, None]
    table = {}
    for row, part in enumerate(SCORED):
        there = exists[:, row]
        table[part] = _statistics([
            precision_recall(estimates.score[there], matched[row, band][:, there],
                             ignored[row, band][:, there], int(targets[row, band]))
            if targets[row, band] else None for band in range(len(AREA_RANGES))])
    hands = [table["left_hand"], table["right_hand"]]
    whole = table.pop("wholebody")
    table["hand"] = {key: float(np.mean([hand[key] for hand in hands])) for key in STATISTICS}
    table["wholebody"] = whole
    return table


def _sorted(truth: PersonTruth,
            estimates: PersonEstimates) -> tuple[PersonEstimates, np.ndarray]:
    """Estimates by picture, the best first, and their pictures' rows (D,)."""
    image = np.searchsorted(truth.image_id, estimates.image_id)
    image = np.minimum(image, max(len(truth.image_id) - 1, 0))
    wrong = (truth.image_id[image] != estimates.image_id if len(truth.image_id)
             else np.ones(len(image), bool))
    if wrong.any():
        raise WholebodyDataError(f"{int(wrong.sum())} estimates are of pictures that the "
                                 "annotations do not have, the first is of image_id "
                                 f"{estimates.image_id[wrong][0]}")
    order = np.lexsort((-estimates.score, image))  # stable
    return estimates.select(order), image[order]


def _rank(image: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """Place of every row within its picture, counting only those that exist: (D, columns)."""
    total = np.cumsum(exists, axis=0) - exists
    first = np.searchsorted(image, image)
    return total - total[first] if len(image) else total


def _match_all(truth: PersonTruth, estimates: PersonEstimates, image: np.ndarray,
               exists: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matched and ignored (parts, ranges, thresholds, D) bool, and targets (parts, ranges)."""
    shape = (len(SCORED), len(AREA_RANGES), len(THRESHOLDS), len(image))
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    unlabelled = (truth.points[..., 2] > 0) @ part_matrix() == 0
    outside = ((truth.area[:, None] < AREA_RANGES[:, 0])
               | (truth.area[:, None] > AREA_RANGES[:, 1]))
    no_target = unlabelled.T[:, None] | truth.crowd | outside.T[None]  # (parts, ranges, G)
    first = np.searchsorted(truth.image, np.arange(len(truth.image_id) + 1))
    people = np.diff(first)
    for low, high in zip((0, *GROUPS), (*GROUPS, np.inf)):
        rows = np.flatnonzero((people[image] > low) & (people[image] <= high))
        if len(rows):
            _match_group(truth, estimates, image, exists, rows, no_target, first, matched, ignored)
    return matched, ignored, (~no_target).sum(axis=2)


def _match_group(truth: PersonTruth, estimates: PersonEstimates, image: np.ndarray,
                 exists: np.ndarray, rows: np.ndarray, no_target: np.ndarray, first: np.ndarray,
                 matched: np.ndarray, ignored: np.ndarray) -> None:
    """Match the estimates ``rows``, whose pictures have similarly many people; writes results."""
    people = first[image[rows] + 1] - first[image[rows]]
    most = int(people.max())
    # every estimate with every person of its picture; places beyond the last person stay empty
    slots = np.arange(most)
    real = slots < people[:, None]
    person = np.where(real, first[image[rows]][:, None] + slots, 0)
    oks = np.full((len(rows), most, len(SCORED)), -1.0)
    pair_estimate, pair_slot = np.nonzero(real)
    oks[pair_estimate, pair_slot] = part_oks(
        estimates.xy, rows[pair_estimate], truth.points, person[pair_estimate, pair_slot],
        truth.box_xywh, truth.area)
    for part in range(len(SCORED)):
        # Estimates near nobody match nobody: the others close ranks.
        near = exists[rows, part] & (oks[..., part].max(axis=1) >= THRESHOLDS[0])
        chosen, values = rows[near], oks[near][..., part]
        if not len(chosen):
            continue
        pictures, case = np.unique(image[chosen], return_inverse=True)
        rank = _rank(image[chosen], np.ones((len(chosen), 1), bool))[:, 0]
        cube = np.full((len(pictures), int(rank.max()) + 1, most), -1.0)
        cube[case, rank] = values
        crowd = truth.crowd[_people_of(pictures, first, most)]
        skip = no_target[part][:, _people_of(pictures, first, most)]
        bands = len(AREA_RANGES)
        found, spent = match(np.tile(cube, (bands, 1, 1)), skip.reshape(-1, most),
                             np.tile(crowd, (bands, 1)))
        found, spent = (result.reshape(bands, len(pictures), len(THRESHOLDS), -1)
                        for result in (found, spent))
        matched[part][..., chosen] = found[:, case, :, rank].transpose(1, 2, 0)
        ignored[part][..., chosen] = spent[:, case, :, rank].transpose(1, 2, 0)


def _people_of(pictures: np.ndarray, first: np.ndarray, most: int) -> np.ndarray:
    """Rows of the truth of pictures, (pictures, most); those beyond the last repeat it."""
    return np.minimum(first[pictures][:, None] + np.arange(most), first[pictures + 1][:, None] - 1)


def _statistics(bands: list[tuple[np.ndarray, np.ndarray] | None]) -> dict[str, float]:
    """The ten numbers of (precision, recall) of all, medium and large people."""
    def mean(band: int, kind: int, threshold: float | None = None) -> float:
        if bands[band] is None:
            return float("nan")
        values = bands[band][kind]
        if threshold is not None:
            values = values[np.isclose(THRESHOLDS, threshold)]
        return float(np.mean(values))

    values = [value for kind in (0, 1)
              for value in (mean(0, kind), mean(0, kind, 0.5), mean(0, kind, 0.75),
                            mean(1, kind), mean(2, kind))]
    return dict(zip(STATISTICS, values))


def format_table(table: Mapping[str, Mapping[str, float]]) -> str:
    """The numbers in percent as text, one line a part."""
    lines = ["part        " + "".join(f"{name:>7}" for name in STATISTICS)]
    for part, row in table.items():
        numbers = (f"{100 * row[name]:7.2f}" if row[name] == row[name] else "      -"
                   for name in STATISTICS)
        lines.append(f"{part:12}" + "".join(numbers))
    return "\n".join(lines)
