"""``kd-pose-train evaluate``: how good are the poses of objects, or the keypoints of people?

An exported object model is scored by ADD, ADD-S and reprojection error, a whole-body network by
the AP and AR of COCO-WholeBody (``evaluate_people.py``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_pose_training.evaluation.object_pose import EvaluationResult

_EPILOG = """\
examples:
  kd-pose-train evaluate student.onnx --data data/objects:test --out runs/report
  kd-pose-train evaluate student.onnx --detector detector.onnx --boxes both \\
      --data data/objects:test --out runs/report --write-metrics
  kd-pose-train evaluate student.onnx --data data/objects:val --out runs/report \\
      --calibrate-covariance --write-metrics
  kd-pose-train evaluate student.onnx --boxes detections.json --data data/bop/lmo:test \\
      --out runs/report --bop-csv runs/report/kdpose_lmo-test.csv
  kd-pose-train evaluate person_detector.onnx --data data/person_boxes:val --out runs/report
  kd-pose-train evaluate person_detector.onnx --data data/person_boxes:calib --out runs/calib \\
      --calibrate-score --write-metrics
  kd-pose-train evaluate runs/people --data coco:val --out runs/report
  kd-pose-train evaluate people.onnx --data coco:val --detector person.onnx --out runs/report
  kd-pose-train evaluate dw-ll_ucoco_384.pth --data coco:val --out runs/report \\
      --boxes COCO_val2017_detections_AP_H_56_person.json
  kd-pose-train evaluate runs/people --data UBody:test --out runs/report

objects: OUT holds report.json with every single target, and sheet_oracle.jpg / sheet_detected.jpg
with the worst and the best estimates. Recalls count every instance that is visible enough
(--min-visib); one that is not found is a failure. (S) in the table: symmetric, measured by ADD-S.
In a test split that has BOP's test_targets_bop19.json, only its images and instances count.

people: MODEL is a run, a checkpoint (also MMPose's) or an .onnx file for 133 keypoints. AP and AR
of body, feet, face, hands and all points, as COCO-WholeBody counts them. OUT holds report.json,
results_<boxes>.json in COCO-WholeBody's format, and people_<boxes>.jpg with the worst and best.
A person detector, the project's own or an imported one, is scored by its boxes on a folder in
COCO's layout: recall and precision at its score threshold, and AP.
"""

PEOPLE_ONLY = ("no_flip_test", "box_areas", "raw_weights", "part")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate", help="score a model on a BOP folder, or on annotated people", epilog=_EPILOG,
        description="Score an exported object model on a BOP folder with the estimator of the "
        "node, or a whole-body network on people in COCO-WholeBody's format.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL",
                        help=".onnx file; for people also a run's folder, or a checkpoint")
    parser.add_argument("--detector", type=Path, metavar="DETECTOR.onnx")
    parser.add_argument("--data", required=True, metavar="ROOT:SPLIT",
                        help="BOP split folder; people: COCO-WholeBody or UBody folder and "
                        "split, or annotations.json:pictures")
    parser.add_argument("--boxes", metavar="KIND",
                        help="oracle: true boxes, detected: the detector's, both: one after the "
                        "other (default: both with a detector, else oracle), or a FILE.json with "
                        "boxes in BOP's or, for people, COCO's detection format")
    parser.add_argument("--targets", metavar="FILE",
                        help="file in ROOT that names images and instances, or none (default "
                        "test_targets_bop19.json, in test splits where there is one)")
    parser.add_argument("--bop-csv", type=Path, metavar="METHOD_DATASET-SPLIT.csv",
                        help="write the estimates as a BOP results file")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--limit", type=int, default=0, metavar="N",
                        help="at most N frames, spread evenly")
    parser.add_argument("--min-visib", type=float, default=0.1, metavar="SHARE",
                        help="targets are at least this visible (default %(default)s)")
    parser.add_argument("--score-threshold", type=float, metavar="S")
    parser.add_argument("--detector-score-threshold", type=float, metavar="S")
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime or openvino")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:<n>")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--calibrate-covariance", action="store_true",
                        help="find the factor that makes pose covariances fit the errors")
    parser.add_argument("--calibrate-score", action="store_true",
                        help="of a person detector: find the score threshold with the best F1")
    parser.add_argument("--no-flip-test", action="store_true",
                        help="people: do not also run the mirror image of each crop")
    parser.add_argument("--box-areas", action="store_true",
                        help="people: areas are 0.53 of the boxes (always so for UBody)")
    parser.add_argument("--raw-weights", action="store_true",
                        help="people: the last weights of a checkpoint, not the averaged ones")
    parser.add_argument("--part", default="auto", metavar="NAME",
                        help="people: network in an MMPose file (plain, student, teacher, "
                        "second_stage)")
    parser.add_argument("--write-metrics", action="store_true",
                        help="write summary and what was calibrated into MODEL.onnx")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose.manifest import read_manifest
    from kd_pose.person_detector import TASKS as DETECTOR_TASKS
    from kd_pose_training.config import split_folder
    from kd_pose_training.data.bop import BopDataset
    from kd_pose_training.data.bop_targets import targets_file
    manifest = read_manifest(options.model) if options.model.suffix == ".onnx" else None
    if manifest is not None and manifest.task in DETECTOR_TASKS:
        from kd_pose_training.commands.evaluate_boxes import evaluate_boxes
        return evaluate_boxes(options)
    _check(options)
    if manifest is None or manifest.task == "wholebody":
        from kd_pose_training.commands.evaluate_people import evaluate_people
        return evaluate_people(options)
    for name in PEOPLE_ONLY:
        if getattr(options, name) not in (False, "auto"):
            raise ValueError(f"--{name.replace('_', '-')} is for whole-body networks, "
                             f"{options.model} estimates objects")
    names = {spec.name for spec in manifest.objects}
    root, split = split_folder(options.data)
    targets = targets_file(Path(root), split, options.targets)
    dataset = BopDataset(root, split, targets=targets)
    if not names & {model.name for model in dataset.models.values()}:
        there = ", ".join(sorted(model.name for model in dataset.models.values()))
        raise ValueError(f"{options.data}: has {there}; {options.model} knows "
                         f"{', '.join(sorted(names))}")
    report = evaluate_all(options, dataset)
    if options.write_metrics:
        from kd_pose_training.export import set_manifest_metrics
        set_manifest_metrics(options.model, report["summary"], report.get("covariance_scale"))
        print(f"{options.model}: metrics written into its manifest")
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.calibrate_score:
        raise ValueError("--calibrate-score is for person detectors")
    if options.boxes is None:
        options.boxes = "both" if options.detector else "oracle"
    kinds = ("oracle", "detected", "both")
    if options.boxes not in kinds and not options.boxes.endswith(".json"):
        raise ValueError(f"--boxes is {options.boxes!r}; allowed: {', '.join(kinds)}, or the name "
                         "of a .json file")
    if options.boxes in ("detected", "both") and options.detector is None:
        raise ValueError(f"--boxes {options.boxes} needs --detector")
    if options.boxes not in ("detected", "both") and options.detector_score_threshold is not None:
        raise ValueError(f"--detector-score-threshold is for a detector's boxes, --boxes is "
                         f"{options.boxes}")
    if options.bop_csv:
        from kd_pose_training.data.bop_results import parse_name
        parse_name(options.bop_csv)
        if options.boxes == "both" or options.limit:
            raise ValueError("--bop-csv needs one kind of --boxes, and all frames (no --limit)")
    if options.limit < 0:
        raise ValueError(f"--limit must be 0 (all) or more, got {options.limit}")
    root, _, split = options.data.rpartition(":")
    if not (root and split):
        raise ValueError(f"--data must be ROOT:SPLIT, got {options.data!r}")


def evaluate_all(options: argparse.Namespace, dataset: Any) -> dict[str, Any]:
    """Evaluate with each kind of boxes, print the tables, write report and pictures.

    A bad detector or box file is refused before the first kind; each kind is written when it is
    scored.

    Raises:
        ValueError: an option, a model, the boxes or the data set cannot be used.
    """
    from kd_pose.object_pose import ObjectPoseEstimator, ObjectPoseOptions
    from kd_pose_training.evaluation.calibration import calibrate
    from kd_pose_training.evaluation.object_pose import evaluate
    from kd_pose_training.evaluation.report import prepare_output, summarise, table, write_report
    kinds = ("oracle", "detected") if options.boxes == "both" else (options.boxes,)
    detections = None
    if options.boxes.endswith(".json"):
        from kd_pose_training.data.bop_detections import read_detections
        kinds, detections = ("file",), read_detections(options.boxes)
        for text in detections.warnings():
            print(f"warning: {text}", file=sys.stderr)
    thresholds = ObjectPoseOptions(score_threshold=options.score_threshold,
                                   detector_score_threshold=options.detector_score_threshold)
    engine = {"backend": options.backend, "device": options.device, "threads": options.threads}
    settings = {"limit": options.limit, "min_visib": options.min_visib, "options": thresholds,
                "detections": detections, **engine}
    if options.boxes == "both":  # else the detector is opened only after the oracle's boxes
        ObjectPoseEstimator(options.model, options.detector, options=thresholds, **engine).close()
    for path in (options.out / "report.json", *filter(None, [options.bop_csv])):
        prepare_output(path)
    results = {}
    for kind in kinds:
        results[kind] = evaluate(options.model, options.detector, dataset, boxes=kind, **settings)
        print(table(summarise(results[kind])), end="\n\n", flush=True)
        report = write_report(results, options.out / "report.json")
        _write_sheet(results[kind], dataset, options.out / f"sheet_{kind}.jpg")
    if options.bop_csv:
        _write_csv(results[kinds[-1]], dataset, options.bop_csv)
    if options.calibrate_covariance:
        scale = calibrate(options.model, options.detector, dataset, boxes=kinds[-1], **settings)
        print(f"covariance_scale: {scale:.3g}")
        report = write_report(results, options.out / "report.json", {"covariance_scale": scale})
    print(f"{options.out}: report.json and pictures of the worst and best")
    return report


def _write_csv(result: EvaluationResult, dataset: Any, path: Path) -> None:
    from kd_pose_training.data.bop_results import missing_images, write_results
    write_results(path, result.estimates)
    images = [(frame.scene_id, frame.im_id) for frame in dataset.frames]
    missing = len(missing_images(result.estimates, images))
    rest = f"; nothing was found in {missing} of {len(images)} images" if missing else ""
    print(f"{path}: {len(result.estimates)} estimates{rest}")


def _write_sheet(result: EvaluationResult, dataset: Any, path: Path) -> None:
    import cv2

    from kd_pose_training.evaluation.pictures import sheet
    picture = sheet(result, dataset)
    if picture is not None and not cv2.imwrite(str(path), picture,
                                               (cv2.IMWRITE_JPEG_QUALITY, 88)):
        raise ValueError(f"{path}: the picture cannot be written")
