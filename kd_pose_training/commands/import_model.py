"""``kd-pose-train import``: a published ONNX file becomes one that the nodes run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_pose_training.import_model import Imported

_EPILOG = """\
examples:
  kd-pose-train import dw-ll_ucoco_384.onnx -o models/dwpose_l_384.onnx
  kd-pose-train import yolox_l.onnx -o models/yolox_l.onnx
  kd-pose-train import end2end.onnx -o models/rtmdet_nano.onnx --kind rtmdet --input-size 320x192

what it knows:
  rtmpose  RTMPose and DWPose with 133 keypoints (outputs simcc_x and simcc_y)
  rtmw     the same outputs of RTMW, whose scores are ten times as large
  yolox    its own export (one output), or mmdeploy's with (dets, labels) or without (boxes,
           scores) non-maximum suppression inside
  rtmdet   mmdeploy's, with or without suppression inside, or the six maps of mmdet's head

The file is not trained, changed or downloaded: the copy is the source byte by byte, followed by a
manifest that says how pictures go in and what comes out. It is written only after the runtime has
opened and run it. Sizes, names and layout are read from the graph; the normalisation is the
family's (RTMPose: RGB, ImageNet's mean and standard deviation; YOLOX: BGR, bytes as they are;
RTMDet: BGR, normalised) unless --mean, --std and --channel-order say otherwise. Where files come
from and how the nodes run them: docs/public_models.md.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``import``."""
    parser = subparsers.add_parser(
        "import", help="make a published ONNX file ready for the nodes", epilog=_EPILOG,
        description="Give a published RTMPose, DWPose, RTMW, YOLOX or RTMDet file the manifest "
                    "that the nodes need.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="FILE.onnx", help="as it was downloaded")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.onnx",
                        help="the copy to write; an earlier one is replaced on success only")
    parser.add_argument("--kind", metavar="KIND",
                        help="rtmpose, rtmw, yolox or rtmdet, where the file does not tell")
    parser.add_argument("--input-size", type=_size, metavar="WxH",
                        help="width and height of the input, where the file leaves them open; a "
                        "detector with the camera's shape, e.g. 640x384 for 16:9, is quicker "
                        "than with a square")
    parser.add_argument("--mean", type=float, nargs=3, metavar="M",
                        help="0 to 255, in the channel order, instead of the family's")
    parser.add_argument("--std", type=float, nargs=3, metavar="S", help="the same")
    parser.add_argument("--channel-order", choices=("rgb", "bgr"),
                        help="what the network was trained with, instead of the family's")
    parser.add_argument("--person-class", type=int, metavar="N",
                        help="of a detector (default 0, as in COCO)")
    parser.add_argument("--score-threshold", type=float, metavar="S",
                        help="of a detector: least score of a box (default 0.3)")
    parser.add_argument("--nms-threshold", type=float, metavar="S",
                        help="of a detector without suppression inside: overlap of two boxes "
                        "above which the worse one goes (default: yolox 0.45, rtmdet 0.6)")
    parser.set_defaults(run=_run)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, e.g. 640x640, got {text!r}")
    return int(width), int(height)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.import_model import import_model
    from kd_pose_training.recognise import ImportOptions
    imported = import_model(options.source, options.out, ImportOptions(
        kind=options.kind, input_size=options.input_size,
        mean=options.mean and tuple(options.mean), std=options.std and tuple(options.std),
        channel_order=options.channel_order, person_class=options.person_class,
        score_threshold=options.score_threshold, nms_threshold=options.nms_threshold))
    print("\n".join(report(options.source, imported)))
    return 0


def report(source: Path, imported: Imported) -> list[str]:
    """What was found and what to do next, in lines for people."""
    manifest, notes = imported.manifest, imported.manifest.training
    width, height = manifest.input_size
    plain = manifest.mean == (0.0, 0.0, 0.0) and manifest.std == (1.0, 1.0, 1.0)
    values = "bytes as they are" if plain else (
        f"mean {' '.join(f'{v:g}' for v in manifest.mean)}, "
        f"std {' '.join(f'{v:g}' for v in manifest.std)}")
    batch = "any number at once" if notes["batch"] == "any" else "one at a time"
    lines = [
        f"{source}: {notes['kind']} ({'; '.join(imported.reasons)})",
        f"  opset {notes['opset']}, written by {notes['graph']}",
        f"  input {manifest.input_name!r} {width}x{height}, {manifest.channel_order.upper()}, "
        f"{values}, {batch}",
    ]
    pose = manifest.task == "wholebody"
    if pose:
        lines.append(f"  133 keypoints, {manifest.split_ratio:g} bins a pixel")
    else:
        lines.append(f"  outputs {', '.join(manifest.output_names)} ({manifest.layout}), boxes "
                     f"with a score of {manifest.score_threshold:g} or more")
    lines.append(f"{imported.path}: {imported.path.stat().st_size / 1e6:.1f} MB, task "
                 f"{manifest.task}; the wholebody_pose node takes it as "
                 f"{'model_path' if pose else 'detector_path'}")
    return lines
