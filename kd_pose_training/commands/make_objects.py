"""``kd-pose-train make-objects``: the meshes of the shipped model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``make-objects``."""
    parser = subparsers.add_parser(
        "make-objects", help="write the meshes of this project's own objects",
        description="Write carton, can, mug, brick and bracket as .glb (metres, textured) with "
                    "objects.yaml, which names them and tells their symmetries.",
        epilog="example:\n  kd-pose-train make-objects -o data/meshes\n"
               "  kd-pose-train synth-objects config/training/synth_objects.yaml "
               "--meshes data/meshes -o data/objects",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER",
                        help="new folder")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.synthetic.shipped_objects import write_shipped_objects
    print(write_shipped_objects(options.output))
    return 0
