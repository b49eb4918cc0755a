"""Scores of a whole-body network on an annotation file, and the pictures that explain them.

    OUT/report.json                AP and AR of every part by kind of boxes, and the settings
    OUT/results_<boxes>.json       all estimates in COCO-WholeBody's format
    OUT/people_<boxes>.jpg         the worst and the best pictures, with what was estimated
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kd_pose.person_detector import PersonDetector
from kd_pose.skeleton_drawing import draw_people
from kd_pose_training.evaluation.oks import SCORED, WHOLE, part_oks
from kd_pose_training.evaluation.report import write_json
from kd_pose_training.evaluation.wholebody import (
    PersonTruth,
    average_precision,
    format_table,
)
from kd_pose_training.evaluation.wholebody_model import ScoredModel
from kd_pose_training.evaluation.wholebody_results import (
    PersonBoxes,
    PersonEstimates,
    write_results,
)
from kd_pose_training.evaluation.wholebody_run import estimate_people

WORST, BEST, COLUMNS = 8, 4, 4
TILE_WH, STRIP = (420, 315), 24  # pixels
PAPER, INK = (250, 250, 250), (40, 40, 40)
DETECTED_PEOPLE = 20  # in a picture; COCO counts no more


@dataclasses.dataclass(frozen=True)
class PeopleResult:
    """What was estimated in one kind of boxes, and its table (:func:`average_precision`)."""

    boxes: PersonBoxes
    estimates: PersonEstimates
    table: Mapping[str, Mapping[str, float]]
    seconds: float


def score(model: ScoredModel, truth: PersonTruth, images: Path, boxes: PersonBoxes,
          flip_test: bool) -> PeopleResult:
    """Estimate the people in some boxes and score them.

    Raises:
        ValueError: a picture is missing, cannot be decoded, or has another size than annotated; a
            box is of an unknown picture.
    """
    started = time.perf_counter()
    found = estimate_people(model.predictor(flip_test), truth, images, boxes, model.aspect)
    seconds = time.perf_counter() - started
    return PeopleResult(boxes, found, average_precision(truth, found), seconds)


def detected_boxes(detector: PersonDetector, truth: PersonTruth, images: Path,
                   score_threshold: float | None = None) -> PersonBoxes:
    """A detector's boxes in all pictures of ``truth``.

    Raises:
        ValueError: a picture is missing, cannot be decoded, or has another size than annotated.
    """
    from tqdm import tqdm
    ids, boxes, scores = [], [], []
    for row, image_id in enumerate(tqdm(truth.image_id.tolist(), "detecting", leave=False,
                                        disable=None)):
        picture = truth.load_image(images, row)
        for found in detector.detect(picture, score_threshold=score_threshold,
                                     max_people=DETECTED_PEOPLE):
            ids.append(image_id)
            boxes.append(found.box_xywh)
            scores.append(found.score)
    return PersonBoxes(np.array(ids, np.int64), np.array(boxes, float).reshape(-1, 4),
                       np.array(scores, float))


def summarise(truth: PersonTruth, result: PeopleResult) -> dict[str, Any]:
    """The table as plain data (null where there is no target), and how much it is of."""
    parts = {part: {name: round(value, 6) if value == value else None
                    for name, value in row.items()} for part, row in result.table.items()}
    pictures = len(np.unique(result.boxes.image_id))
    return {**parts, "pictures": len(truth.image_id), "people": int((~truth.crowd).sum()),
            "boxes": len(result.boxes.image_id),
            "boxes_left_out": sum(result.boxes.left_out.values()),
            "estimates": len(result.estimates),
            "ms_per_picture": round(1e3 * result.seconds / max(pictures, 1), 2)}


def describe(kind: str, truth: PersonTruth, result: PeopleResult) -> str:
    """What was scored, and the table."""
    values = summarise(truth, result)
    reasons = ", ".join(f"{count} {why}" for why, count in result.boxes.left_out.items() if count)
    left_out = f" (left out: {reasons})" if reasons else ""
    return (f"{kind} boxes: {values['boxes']} in {values['pictures']} pictures{left_out}, "
            f"{values['estimates']} estimates, {values['ms_per_picture']:.1f} ms a picture\n"
            f"{format_table(result.table)}")


def write_report(folder: Path, truth: PersonTruth, results: Mapping[str, PeopleResult],
                 notes: Mapping[str, Any]) -> dict[str, Any]:
    """Write the tables of all kinds of boxes scored so far; returns the report."""
    report = {"summary": {kind: summarise(truth, result) for kind, result in results.items()},
              **notes}
    write_json(report, folder / "report.json")
    return report


def write_estimates(folder: Path, truth: PersonTruth, images: Path, kind: str,
                    result: PeopleResult) -> None:
    """Write all estimates in one kind of boxes and the pictures of the worst and best.

    Raises:
        ValueError: a picture cannot be read or written.
    """
    write_results(result.estimates, folder / f"results_{kind}.json")
    picture = sheet(truth, images, result.estimates)
    path = folder / f"people_{kind}.jpg"
    if picture is not None and not cv2.imwrite(str(path), picture,
                                               (cv2.IMWRITE_JPEG_QUALITY, 90)):
        raise ValueError(f"{path}: the picture cannot be written")


def picture_oks(truth: PersonTruth, estimates: PersonEstimates) -> np.ndarray:
    """(I,) mean over a picture's people of the best OKS of all keypoints that any estimate has
    with them, 0 for a person without one; NaN where nobody is labelled."""
    best = np.zeros(len(truth.image))
    labelled = ~truth.crowd & (truth.points[..., 2] > 0).any(axis=1)
    for person in np.flatnonzero(labelled):
        rows = np.flatnonzero(estimates.image_id == truth.image_id[truth.image[person]])
        if len(rows):
            oks = part_oks(estimates.xy, rows, truth.points, np.full(len(rows), person),
                           truth.box_xywh, truth.area)
            best[person] = oks[:, list(SCORED).index(WHOLE)].max()
    count = np.bincount(truth.image[labelled], minlength=len(truth.image_id))
    total = np.bincount(truth.image[labelled], best[labelled], len(truth.image_id))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def sheet(truth: PersonTruth, images: Path, estimates: PersonEstimates) -> np.ndarray | None:
    """The pictures with the lowest and the highest OKS, as estimated; None without any."""
    oks = picture_oks(truth, estimates)
    order = [int(row) for row in np.argsort(oks, kind="stable") if oks[row] == oks[row]]
    chosen = order[:WORST] + order[WORST:][-BEST:]
    if not chosen:
        return None
    tiles = [_tile(truth, images, estimates, row, f"OKS {oks[row]:.2f}") for row in chosen]
    tiles += [np.full_like(tiles[0], PAPER[0])] * (-len(tiles) % COLUMNS)
    return np.vstack([np.hstack(tiles[i:i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)])


def _tile(truth: PersonTruth, images: Path, estimates: PersonEstimates, row: int,
          caption: str) -> np.ndarray:
    name, picture = truth.file_name[row], truth.load_image(images, row)
    found = estimates.select(estimates.image_id == truth.image_id[row])
    drawn = fitted(draw_people(picture, found.xy, found.keypoint_scores), TILE_WH)
    strip = np.full((STRIP, TILE_WH[0], 3), PAPER, np.uint8)
    cv2.putText(strip, f"{caption}  {name[-40:]}", (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1,
                cv2.LINE_AA)
    return np.vstack([strip, drawn])


def fitted(picture: np.ndarray, size_wh: Sequence[int]) -> np.ndarray:
    """The whole picture in the middle of a tile (width, height)."""
    width, height = size_wh
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    inner = inner[:height, :width]
    tile = np.full((height, width, 3), PAPER, np.uint8)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    tile[top:top + inner.shape[0], left:left + inner.shape[1]] = inner
    return tile
