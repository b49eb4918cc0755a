"""A person detector on the pictures of a COCO folder: recall, precision, average precision.

Runs the detector as the node does. Matching, precision over recall and AP are COCO's (and equal
pycocotools' to rounding) with at most 20 boxes a picture. Crowds and people of whom too little is
seen are ignored: neither missed, nor is a box on them false.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_pose.boxes import iou, xyxy_from_xywh
from kd_pose.person_detector import PersonDetector
from kd_pose.results import Detection2D
from kd_pose_training.data.coco_people import PeopleFrame
from kd_pose_training.data.person_box_dataset import known
from kd_pose_training.evaluation.matching import MAX_ESTIMATES, match, precision_recall

ALL_BOXES = 0.02  # score threshold under which boxes no longer count for AP
CANDIDATES = tuple(np.round(np.arange(0.1, 0.81, 0.05), 2).tolist())
AT = {"50": 0, "70": 4, "75": 5}  # rows of matching.THRESHOLDS


@dataclass(frozen=True)
class PersonBoxScore:
    """Recall and precision at overlaps of 0.5 and 0.7 at the score threshold used; AP (mean over
    overlaps 0.5 to 0.95), AP50 and AP75 over all scores; median milliseconds a picture; counts."""

    recall_50: float
    precision_50: float
    recall_70: float
    precision_70: float
    ap: float
    ap_50: float
    ap_75: float
    ms: float
    people: int
    ignored: int
    pictures: int
    score_threshold: float

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision at 0.5."""
        return 2 * self.recall_50 * self.precision_50 / max(
            self.recall_50 + self.precision_50, 1e-9)

    def summary(self) -> dict[str, Any]:
        """Plain data for reports and manifests."""
        return {name: round(value, 4) if isinstance(value, float) else value
                for name, value in vars(self).items()}

    def __str__(self) -> str:
        return (f"{self.people} people in {self.pictures} pictures ({self.ignored} more ignored), "
                f"score threshold {self.score_threshold:g}\n"
                f"recall     {self.recall_50:6.1%} (IoU 0.5) {self.recall_70:6.1%} (0.7)\n"
                f"precision  {self.precision_50:6.1%} (IoU 0.5) {self.precision_70:6.1%} (0.7)\n"
                f"AP         {self.ap:6.1%}, AP50 {self.ap_50:.1%}, AP75 {self.ap_75:.1%}; "
                f"{self.ms:.1f} ms a picture")


def detect_all(detector: PersonDetector, frames: Sequence[PeopleFrame],
               score_threshold: float) -> tuple[list[list[Detection2D]], float]:
    """Boxes of every picture, and the median milliseconds that the detector took.

    Raises:
        ValueError: a picture cannot be read.
    """
    found, times = [], []
    detector.warm_up(2)
    for frame in frames:
        image = frame.load_image()
        started = time.perf_counter()
        found.append(detector.detect(image, score_threshold=score_threshold,
                                     max_people=MAX_ESTIMATES))
        times.append(time.perf_counter() - started)
    return found, 1e3 * float(np.median(times)) if times else 0.0


def evaluate(detector: PersonDetector, frames: Sequence[PeopleFrame], *,
             score_threshold: float, min_seen: float = 0.1) -> PersonBoxScore:
    """Score a detector.

    Args:
        score_threshold: for recall and precision. min_seen: people of whose labelled body points
            a smaller share is seen are ignored.

    Raises:
        ValueError: there is nobody to be found, or a picture cannot be read.
    """
    kept, ms = detect_all(detector, frames, score_threshold)
    everything, _ = detect_all(detector, frames, ALL_BOXES)
    precision, recall = operating_point(kept, frames, min_seen)
    ap = average_precision(everything, frames, min_seen)
    clear = [known(frame, min_seen) for frame in frames]
    return PersonBoxScore(
        *(float(value[AT[at]]) for at in ("50", "70") for value in (recall, precision)),
        float(ap.mean()), float(ap[AT["50"]]), float(ap[AT["75"]]), ms,
        int(sum(c.sum() for c in clear)), int(sum((~c).sum() for c in clear)), len(frames),
        score_threshold)


def operating_point(found: Sequence[Sequence[Detection2D]], frames: Sequence[PeopleFrame],
                    min_seen: float) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall (10,) of the boxes as they are, by overlap (``matching.THRESHOLDS``).

    Raises:
        ValueError: there is nobody to be found.
    """
    _, matched, ignored, targets = _matched(found, frames, min_seen)
    true = (matched & ~ignored).sum(axis=1)
    counted = (~ignored).sum(axis=1)
    return true / np.maximum(counted, 1), true / targets


def average_precision(found: Sequence[Sequence[Detection2D]], frames: Sequence[PeopleFrame],
                      min_seen: float) -> np.ndarray:
    """AP (10,) by overlap (``matching.THRESHOLDS``): mean precision at 101 recalls.

    Raises:
        ValueError: there is nobody to be found.
    """
    scores, matched, ignored, targets = _matched(found, frames, min_seen)
    return precision_recall(scores, matched, ignored, targets)[0].mean(axis=1)


def calibrate(detector: PersonDetector, frames: Sequence[PeopleFrame], *,
              min_seen: float = 0.1) -> dict[float, PersonBoxScore]:
    """Scores by threshold, for every one of ``CANDIDATES``; without AP (zeros)."""
    result = {}
    for threshold in CANDIDATES:
        found, ms = detect_all(detector, frames, threshold)
        precision, recall = operating_point(found, frames, min_seen)
        values = [float(value[AT[at]]) for at in ("50", "70") for value in (recall, precision)]
        result[threshold] = PersonBoxScore(*values, 0.0, 0.0, 0.0, ms, 0, 0, len(frames),
                                           threshold)
    return result


def best_threshold(scores: Mapping[float, PersonBoxScore]) -> float:
    """The threshold with the best F1; of equals the middle one, which is the safest."""
    best = max(score.f1 for score in scores.values())
    equal = sorted(t for t, score in scores.items() if score.f1 >= best - 1e-9)
    return equal[len(equal) // 2]


def _matched(found: Sequence[Sequence[Detection2D]], frames: Sequence[PeopleFrame],
             min_seen: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Scores (N,) of all boxes, matched and ignored (10, N), and the number of targets."""
    clear = [known(frame, min_seen) for frame in frames]
    targets = int(sum(c.sum() for c in clear))
    if not targets:
        raise ValueError(f"there is nobody to be found in {len(frames)} pictures")
    cases, ranks = len(frames), max(1, max(map(len, found)))
    people = max(1, max(len(c) for c in clear))
    overlaps = np.full((cases, ranks, people), -1.0)
    ignored, crowd = np.ones((2, cases, people), dtype=bool)
    scores = np.full((cases, ranks), -np.inf)
    for case, (items, frame) in enumerate(zip(found, frames)):
        items = sorted(items, key=lambda item: -item.score)
        count = len(frame.boxes_xywh)
        ignored[case, :count], crowd[case, :count] = ~clear[case], frame.crowd
        scores[case, :len(items)] = [item.score for item in items]
        for rank, item in enumerate(items):
            overlaps[case, rank, :count] = overlap(item.box_xywh, frame)
    matched, on_ignored = match(overlaps, ignored, crowd)
    there = np.isfinite(scores)
    matched, on_ignored = (value.transpose(1, 0, 2)[:, there] for value in (matched, on_ignored))
    return scores[there], matched, on_ignored, targets


def overlap(box_xywh: np.ndarray, frame: PeopleFrame) -> np.ndarray:
    """Intersection over union with every person (n,); with a crowd over the box alone."""
    box, people = xyxy_from_xywh(box_xywh), xyxy_from_xywh(frame.boxes_xywh)
    result = iou(box, people)
    if frame.crowd.any():
        sides = np.minimum(box[2:], people[:, 2:]) - np.maximum(box[:2], people[:, :2])
        inside = np.maximum(sides, 0).prod(axis=1) / max(float(np.prod(box_xywh[2:])), 1e-9)
        result = np.where(frame.crowd, inside, result)
    return result
