"""``kd-pose-train synth-people``: a COCO-WholeBody training set of people who do not exist."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  kd-pose-train synth-people config/training/synth_people.yaml -o data/people
  kd-pose-train synth-people config/training/synth_people.yaml -o data/some \\
      --set splits.train=200 --set splits.val=20 --set workers=2
  kd-pose-train synth-people config/training/synth_people.yaml -o data/faces \\
      --set crowd.close=0.8 --set crowd.whole=0.1 --set crowd.half=0.1 --set crowd.people=[1,2]

what comes out, in the layout of COCO-WholeBody:
  images/<split>/000000000001.jpg
  annotations/coco_wholebody_<split>_v1.0.json   per person keypoints (17), foot_kpts (6),
                            face_kpts (68), lefthand_kpts, righthand_kpts (21 each), boxes
  sheet.jpg                 look at it: pictures, and the same with their keypoints
  <split>.mp4               of a clip (config/training/people_clip.yaml)
  synth.json                the settings

v of a point: 2 seen, 1 hidden by something, 0 outside of the picture; from the rendered depth.
Ctrl-C at any time; the same command goes on where it was. A folder that holds something else, or
a set of other settings, is refused. docs/synthetic_people.md has every setting.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``synth-people``."""
    parser = subparsers.add_parser(
        "synth-people", help="render people with 133 keypoints into a COCO-WholeBody training set",
        epilog=_EPILOG, description="Render people of all builds in varied clothes and poses, "
        "alone and in groups, near and far, indoors and outdoors, with body, foot, face and hand "
        "keypoints and their visibility.", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path,
                        help="YAML file, see config/training/synth_people.yaml")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER",
                        help="new folder, or one to go on with")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE", help="change one setting, e.g. splits.train=1000")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.synthetic.people.generate import synthesise_people
    from kd_pose_training.synthetic.people.settings import load_settings
    from kd_pose_training.synthetic.people.sheet import write_people_sheet, write_video
    settings = load_settings(options.config, tuple(options.overrides))
    report = synthesise_people(settings, options.output)
    print(report)
    print(write_people_sheet(report.root, next(iter(settings.splits))))
    for split in settings.splits if settings.clip else ():
        print(write_video(report.root, split))
    return 0
