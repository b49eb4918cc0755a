"""``kd-pose-train experiment``: many trainings that answer one question."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  kd-pose-train experiment object-distillation \\
      config/training/experiments/object_distillation_small.yaml -o runs/object_distillation
  kd-pose-train experiment wholebody-distillation \\
      config/training/experiments/wholebody_distillation_small.yaml -o runs/wholebody_distillation
  kd-pose-train experiment object-distillation CONFIG -o FOLDER --only alone align
  kd-pose-train experiment object-distillation CONFIG -o FOLDER --set seeds=[0] --set jobs=1

A teacher, a student alone, and students that learn from the teacher in several ways, on a rendered
set, with the same budget and several seeds: object-distillation of vote networks,
wholebody-distillation of networks for 133 keypoints, in two stages. FOLDER holds every run, and in
the end table.md, result.json, curves.png, and votes.png or people.png.

Ctrl-C at any time; the same command goes on where it was.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``experiment``."""
    parser = subparsers.add_parser(
        "experiment", help="compare ways of training with several seeds", epilog=_EPILOG,
        description="Run many trainings that answer one question, and write one table.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("object-distillation", "wholebody-distillation"))
    parser.add_argument("config", type=Path, help="YAML file, see config/training/experiments/")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER",
                        help="new folder, or one to go on with")
    parser.add_argument("--only", nargs="+", default=[], metavar="ARM", help="these arms only")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE", help="change one setting, e.g. iterations=500")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.experiments import config as plans
    if options.name == "object-distillation":
        from kd_pose_training.experiments.object_distillation import run_experiment
        kind = plans.ExperimentConfig
    else:
        from kd_pose_training.experiments.wholebody_distillation import run_experiment
        kind = plans.PeopleExperiment
    config = plans.load_experiment(options.config, tuple(options.overrides), kind)
    unknown = [name for name in options.only if name not in config.arms]
    if unknown:
        raise ValueError(f"--only names {', '.join(unknown)}; {options.config} has "
                         f"{', '.join(config.arms)}")
    folder = run_experiment(config, options.output, options.only)
    print((folder / "table.md").read_text(encoding="utf-8"))
    return 0
