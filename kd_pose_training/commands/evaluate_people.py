"""The part of ``kd-pose-train evaluate`` for whole-body networks: AP and AR by body part."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_pose_training.evaluation.people_truth import ScoredPeople
    from kd_pose_training.evaluation.wholebody_results import PersonBoxes

CHECKPOINTS_ONLY = {"part": "auto", "raw_weights": False}
OBJECTS_ONLY = ("targets", "bop_csv", "score_threshold", "calibrate_covariance")


def evaluate_people(options: argparse.Namespace) -> int:
    """Evaluate with each kind of boxes, print the tables, write report, estimates and pictures.

    All that is needed is opened before the first kind, and each kind is written when it is scored.

    Raises:
        ValueError: an option, a model, the boxes or the annotations cannot be used.
    """
    from kd_pose_training.evaluation.people_truth import open_scored_people
    from kd_pose_training.evaluation.wholebody_model import open_scored
    from kd_pose_training.evaluation.wholebody_score import (
        describe,
        score,
        write_estimates,
        write_report,
    )
    _check(options)
    people = open_scored_people(options.data, not options.box_areas).some(options.limit)
    truth = people.truth
    model = open_scored(options.model, part=options.part, averaged=not options.raw_weights,
                        backend=options.backend, device=options.device, threads=options.threads)
    print(f"{model.description}, flip test {'off' if options.no_flip_test else 'on'}", flush=True)
    notes, results = _notes(options, model.description), {}
    with ExitStack() as opened:
        kinds = _kinds(options, people, opened)
        options.out.mkdir(parents=True, exist_ok=True)
        for kind, boxes in kinds.items():
            results[kind] = score(model, truth, people.images, boxes(), not options.no_flip_test)
            print(describe(kind, truth, results[kind]), end="\n\n", flush=True)
            report = write_report(options.out, truth, results, notes)
            write_estimates(options.out, truth, people.images, kind, results[kind])
    print(f"{options.out}: report.json, all estimates, and pictures of the worst and best")
    if options.write_metrics:
        from kd_pose_training.export import set_manifest_metrics
        set_manifest_metrics(options.model, report["summary"])
        print(f"{options.model}: metrics written into its manifest")
    return 0


def _notes(options: argparse.Namespace, model: str) -> dict[str, Any]:
    notes = {"model": model, "data": options.data, "flip_test": not options.no_flip_test,
             "areas": "box" if options.box_areas else "file"}
    if options.detector:
        notes["detector"] = str(options.detector)
    if options.boxes.endswith(".json"):
        notes["boxes"] = options.boxes
    return notes


def _check(options: argparse.Namespace) -> None:
    if options.model.suffix != ".onnx":
        from kd_pose_training.recipe import task_of
        task = task_of(options.model)
        if task != "wholebody":
            raise ValueError(f"{options.model}: is a checkpoint of the task {task}; networks of "
                             "objects are scored as the node runs them: kd-pose-train export it "
                             "first")
    else:
        for name, default in CHECKPOINTS_ONLY.items():
            if getattr(options, name) != default:
                raise ValueError(f"--{name.replace('_', '-')} is for checkpoints, {options.model} "
                                 "is an .onnx file")
    for name in OBJECTS_ONLY:
        if getattr(options, name):
            raise ValueError(f"--{name.replace('_', '-')} is for networks of objects, "
                             f"{options.model} estimates people")
    if options.write_metrics and options.model.suffix != ".onnx":
        raise ValueError(f"--write-metrics needs an .onnx file, {options.model} is a checkpoint; "
                         "kd-pose-train export has --metrics")
    threshold = options.detector_score_threshold
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise ValueError(f"--detector-score-threshold must be 0 to 1, got {threshold}")


def _kinds(options: argparse.Namespace, people: ScoredPeople,
           opened: ExitStack) -> dict[str, Callable[[], PersonBoxes]]:
    """The boxes of every kind, by its name, to be had when it is its turn."""
    if options.boxes.endswith(".json"):
        boxes = people.read_boxes(options.boxes)
        return {"file": lambda: boxes}
    kinds: dict[str, Callable[[], PersonBoxes]] = {}
    if options.boxes in ("oracle", "both"):
        kinds["oracle"] = lambda: people.boxes
    if options.boxes in ("detected", "both"):
        from kd_pose.person_detector import open_person_detector
        from kd_pose_training.evaluation.wholebody_score import detected_boxes
        detector = open_person_detector(options.detector, backend=options.backend,
                                        device=options.device, threads=options.threads)
        opened.callback(detector.close)
        kinds["detected"] = lambda: detected_boxes(detector, people.truth, people.images,
                                                   options.detector_score_threshold)
    return kinds
