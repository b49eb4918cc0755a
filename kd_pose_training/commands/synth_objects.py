"""``kd-pose-train synth-objects``: meshes become a BOP-format training set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  kd-pose-train make-objects -o data/meshes
  kd-pose-train synth-objects config/training/synth_objects.yaml --meshes data/meshes \\
      -o data/objects
  kd-pose-train synth-objects config/training/synth_objects.yaml --meshes part.obj --scale 0.001 \\
      -o data/part --set splits.train=2000 --set camera.fx=910 --set camera.fy=910

--meshes takes .ply, .obj and .glb files (metres, or --scale), folders of them, or an objects.yaml:

  objects:
    - {name: part, mesh: part.obj, scale: 0.001}
    - name: can
      mesh: can.glb
      symmetries_continuous: [{axis: [0, 0, 1]}]
    - name: brick
      mesh: brick.ply
      symmetries_discrete: [[-1,0,0,0, 0,-1,0,0, 0,0,1,0, 0,0,0,1]]   # 4x4 by rows, metres

Say symmetries where there are any: without them the network is asked for what no picture shows.
Ctrl-C at any time; the same command goes on where it was.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``synth-objects``."""
    parser = subparsers.add_parser(
        "synth-objects", help="render meshes into a BOP-format training set", epilog=_EPILOG,
        description="Render meshes before random backgrounds, in random light, several at a time, "
                    "with depth, masks, poses and visibility, in BOP format.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="YAML file, see config/training/synth_*.yaml")
    parser.add_argument("--meshes", type=Path, nargs="+", required=True, metavar="FILE",
                        help="mesh files, objects.yaml, or folders of them")
    parser.add_argument("--scale", type=float, help="unit of the mesh files in metres "
                        "(0.001: millimetres)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER",
                        help="new folder, or one to go on with")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE", help="change one setting, e.g. splits.train=1000")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.synthetic.generate import synthesise
    from kd_pose_training.synthetic.objects_file import load_objects
    from kd_pose_training.synthetic.settings import load_settings
    from kd_pose_training.synthetic.sheet import write_sheet
    settings = load_settings(options.config, tuple(options.overrides))
    objects = load_objects(options.meshes, options.scale)
    report = synthesise(objects, settings, options.output)
    print(report)
    print(write_sheet(report.root, next(iter(settings.splits))))
    return 0
