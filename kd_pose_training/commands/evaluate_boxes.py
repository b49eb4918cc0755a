"""What ``kd-pose-train evaluate`` does with a person detector: boxes on a COCO folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from kd_pose.person_detector import PersonDetector, open_person_detector
from kd_pose_training.config import split_folder
from kd_pose_training.data.coco_people import CocoPeople, PeopleFrame
from kd_pose_training.data.person_box_dataset import known
from kd_pose_training.evaluation.person_boxes import (
    best_threshold,
    calibrate,
    detect_all,
    evaluate,
    overlap,
)

COLUMNS, ROWS, TILE_WIDTH = 5, 4, 384
TRUTH, IGNORED, FOUND = (255, 255, 255), (150, 150, 150), (0, 200, 255)


def evaluate_boxes(options: argparse.Namespace) -> int:
    """Print and write what a detector scores; with ``--calibrate-score`` find its threshold.

    Raises:
        ValueError: model or data cannot be read, or nobody is to be found in them.
    """
    from kd_pose_training.evaluation.report import write_json
    _check(options)
    root, split = split_folder(options.data)
    dataset = CocoPeople(root, split)
    frames = _spread(dataset.frames, options.limit)
    detector = open_person_detector(options.model, backend=options.backend,
                                    device=options.device, threads=options.threads)
    threshold = options.score_threshold
    if threshold is None:
        threshold = detector.manifest.score_threshold
    report: dict[str, Any] = {"model": str(options.model), "data": options.data}
    try:
        if options.calibrate_score:
            scores = calibrate(detector, frames, min_seen=options.min_visib)
            threshold = best_threshold(scores)
            report["calibration"] = {str(t): {"recall_50": s.recall_50, "f1": s.f1,
                                              "precision_50": s.precision_50}
                                     for t, s in scores.items()}
            for value, score in scores.items():
                print(f"threshold {value:4.2f}: recall {score.recall_50:6.1%}, precision "
                      f"{score.precision_50:6.1%}, F1 {score.f1:.3f}")
        score = evaluate(detector, frames, score_threshold=threshold,
                         min_seen=options.min_visib)
        print(score)
        report["summary"] = {"people": {**score.summary(), "data": options.data}}
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(report, options.out / "report.json")
        _write_sheet(detector, frames, threshold, options)
    finally:
        detector.close()
    print(f"{options.out}: report.json, and sheet.jpg with pictures (white: truth)")
    if options.write_metrics:
        from kd_pose_training.export import set_manifest_metrics
        set_manifest_metrics(options.model, report["summary"],
                             score_threshold=threshold if options.calibrate_score else None)
        print(f"{options.model}: written into its manifest")
    return 0


def _check(options: argparse.Namespace) -> None:
    for name in ("detector", "boxes", "targets", "bop_csv", "detector_score_threshold",
                 "calibrate_covariance", "no_flip_test", "box_areas", "raw_weights"):
        if getattr(options, name):
            raise ValueError(f"--{name.replace('_', '-')} is not for person detectors")
    if options.part != "auto":
        raise ValueError("--part is not for person detectors")
    if options.calibrate_score and options.score_threshold is not None:
        raise ValueError("--calibrate-score finds the threshold, --score-threshold gives it")
    if options.limit < 0:
        raise ValueError(f"--limit must be 0 (all) or more, got {options.limit}")
    if not all(split_folder(options.data)):
        raise ValueError(f"--data must be ROOT:SPLIT, got {options.data!r}")


def _spread(frames: Sequence[PeopleFrame], limit: int) -> list[PeopleFrame]:
    from kd_pose_training.evaluation.object_pose import spread
    return spread(frames, limit)


def _write_sheet(detector: PersonDetector, frames: Sequence[PeopleFrame], threshold: float,
                 options: argparse.Namespace) -> None:
    """Pictures with a mistake first, then others."""
    from kd_pose_training.synthetic.bop_writer import write_image
    from kd_pose_training.synthetic.sheet import tiled
    found, _ = detect_all(detector, frames, threshold)
    wrong = []
    for frame, items in zip(frames, found):
        clear = known(frame, options.min_visib)
        overlaps = np.array([overlap(item.box_xywh, frame) for item in items])
        overlaps = overlaps.reshape(len(items), len(clear))
        missed = (overlaps[:, clear].max(axis=0, initial=0) < 0.5).sum()
        wrong.append(missed + (overlaps.max(axis=1, initial=0) < 0.5).sum())
    order = np.argsort(-np.array(wrong), kind="stable")
    half = COLUMNS * ROWS // 2
    rest = order[half:]
    others = rest[np.linspace(0, len(rest) - 1, min(half, len(rest))).astype(int)]
    picked = [*order[:half], *others]
    tiles = []
    for row in picked:
        image = np.ascontiguousarray(frames[row].load_image())
        for box, clear in zip(frames[row].boxes_xywh, known(frames[row], options.min_visib)):
            _draw(image, box, TRUTH if clear else IGNORED, 1)
        for item in found[row]:
            _draw(image, item.box_xywh, FOUND, 2, f"{item.score:.2f}")
        tiles.append(_fitted(image))
    write_image(options.out / "sheet.jpg", tiled(tiles, COLUMNS, TILE_WIDTH),
                [cv2.IMWRITE_JPEG_QUALITY, 88])


def _draw(image: np.ndarray, box: np.ndarray, colour: tuple, width: int, text: str = "") -> None:
    low = np.rint(box[:2]).astype(int)
    high = np.rint(box[:2] + box[2:]).astype(int)
    cv2.rectangle(image, low.tolist(), high.tolist(), colour, width, cv2.LINE_AA)
    if text:
        cv2.putText(image, text, (int(low[0]) + 3, int(max(low[1], 0)) + 14),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def _fitted(image: np.ndarray, size_wh: tuple[int, int] = (512, 384)) -> np.ndarray:
    """Scaled into a frame of one size; real pictures have many."""
    scale = min(size_wh[0] / image.shape[1], size_wh[1] / image.shape[0])
    size = [max(1, round(image.shape[i] * scale)) for i in (1, 0)]
    tile = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    tile[:size[1], :size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return tile
