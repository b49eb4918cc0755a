"""``kd-pose-train export``: a checkpoint becomes one .onnx file with everything a node needs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  kd-pose-train export runs/student --out models/student.onnx
  kd-pose-train export runs/student/last.pt --out student.onnx --raw-weights
  kd-pose-train export runs/student --out models/student.onnx --metrics runs/report/report.json
  kd-pose-train export runs/people/rtmpose_t/stage2 --out models/people.onnx
  kd-pose-train export dw-ll_ucoco_384.pth --out dwpose_l_384.onnx

RUN is a run of objects or of whole bodies, or a checkpoint of MMPose's RTMPose and DWPose networks
for 133 keypoints (--part where it holds several). The file is compared with torch on noise and on
pictures of the run's data before it appears under its name; one that computes something else is
refused and an earlier file stays as it was.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``export``."""
    parser = subparsers.add_parser(
        "export", help="write the .onnx file of a run", epilog=_EPILOG,
        description="Write a trained network as an ONNX file with its manifest inside.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="RUN",
                        help="folder of a run (its best.pt, else last.pt), or a checkpoint")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--raw-weights", action="store_true",
                        help="take the last weights instead of the averaged ones")
    parser.add_argument("--score-threshold", type=float, metavar="S",
                        help="objects: default threshold on cell or mask scores, 0 to 1")
    parser.add_argument("--part", default="auto", metavar="NAME",
                        help="MMPose files: plain, student, teacher or second_stage")
    parser.add_argument("--metrics", type=Path, metavar="REPORT.json",
                        help="report of kd-pose-train evaluate whose summary goes into the file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose.manifest import read_manifest
    from kd_pose_training.recipe import task_of
    metrics = read_summary(options.metrics) if options.metrics else None
    use_ema = not options.raw_weights
    if task_of(options.checkpoint) == "wholebody":
        from kd_pose_training.export_wholebody_run import export_wholebody_run
        if options.score_threshold is not None:
            raise ValueError("--score-threshold is for networks of objects")
        path = export_wholebody_run(options.checkpoint, options.out, use_ema=use_ema,
                                    part=options.part, metrics=metrics)
    else:
        from kd_pose_training.export import export
        if options.part != "auto":
            raise ValueError("--part is for checkpoints of MMPose")
        path = export(options.checkpoint, options.out, use_ema=use_ema,
                      score_threshold=options.score_threshold, metrics=metrics)
    print(_describe(path, read_manifest(path)))
    return 0


def _describe(path: Path, manifest: Any) -> str:
    training = manifest.training
    what = [f"{path.stat().st_size / 1e6:.1f} MB", manifest.task]
    if hasattr(manifest, "objects"):
        what.append(f"{len(manifest.objects)} objects")
    if "size" in training:
        what.append("{} for {}x{} pixels".format(training["size"], *manifest.input_size))
    if "iteration" in training:
        what.append(f"iteration {training['iteration']}")
    parity = ", ".join(f"{value:.1e} ({name})" for name, value in training["parity"].items()
                       if name != "pictures")
    return f"{path}: {', '.join(what)}; agrees with torch to {parity}"


def read_summary(path: Path) -> dict[str, Any]:
    """The ``summary`` of a report.

    Raises:
        ValueError: not a report. OSError: cannot be read.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("summary"), dict):
        raise ValueError(f"{path}: has no 'summary'; it is not a report of kd-pose-train evaluate")
    return report["summary"]
