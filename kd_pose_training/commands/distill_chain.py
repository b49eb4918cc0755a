"""``kd-pose-train distill-chain``: x teaches l, l teaches m, and so on, as one resumable run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  kd-pose-train distill-chain config/training/wholebody_chain.yaml -o runs/chain
  kd-pose-train distill-chain config/training/wholebody_people_chain.yaml -o runs/people
  kd-pose-train distill-chain config/training/wholebody_chain.yaml -o runs/chain \\
      --set set=[trainer.batch_size=64,optim.lr=5e-4]
  kd-pose-train evaluate runs/chain/rtmpose_t/stage2 --data coco:val -o runs/report

The first network learns from the labels alone (or is there already: links[0].weights), every other
one from its teacher (stage 1), then its own head teaches a fresh one (stage 2). Runs are
FOLDER/<size>/plain, stage1 and stage2, each as `kd-pose-train train` makes it.

Ctrl-C at any time; the same command goes on where it was. --dry-run tells what is left to do.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``distill-chain``."""
    parser = subparsers.add_parser(
        "distill-chain", help="distil whole-body networks, each from the one before",
        epilog=_EPILOG, description="Train a chain of whole-body networks: teacher, then for "
        "every smaller size DWPose's stages 1 and 2.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="YAML file, see config/training/*_chain.yaml")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER",
                        help="new folder, or one to go on with")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE", help="change one setting of the chain; its own list "
                        "'set' holds changes to all recipes")
    parser.add_argument("--dry-run", action="store_true",
                        help="check all recipes and list the runs")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.training.chain import load_chain, plan, run_chain, step_finished, table
    chain = load_chain(options.config, options.overrides)
    if options.dry_run:
        for step in plan(chain, options.output):
            done = step_finished(step, options.output)
            print(f"{step.name:20} {'finished' if done else 'to do':9} learns from "
                  f"{step.teacher or 'the labels'}")
        return 0
    print(table(run_chain(chain, options.output), options.output))
    return 0
