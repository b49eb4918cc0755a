"""``kd-pose-train train``: a recipe and its data become a trained network.

The output folder holds config.yaml, last.pt, best.pt, log.jsonl and tensorboard events. Every
checkpoint carries the recipe and what the network's outputs mean, so that evaluation and export
need nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  kd-pose-train train config/training/object_student.yaml -o runs/student
  kd-pose-train train config/training/object_detector.yaml -o runs/detector \\
      --set trainer.iterations=5000 --set optim.lr=5e-4
  kd-pose-train train config/training/object_student.yaml -o runs/student --resume
  kd-pose-train train config/training/object_student.yaml -o runs/part \\
      --set model.weights=models/objects_teacher.onnx        # a trained backbone to start from
  kd-pose-train train config/training/wholebody_people.yaml -o runs/people
  kd-pose-train train config/training/wholebody_stage1.yaml -o runs/stage1 \\
      --set distill.teacher=rtmpose-x.pth --set model.size=rtmpose_m
  kd-pose-train train config/training/wholebody_stage2.yaml -o runs/stage2 \\
      --set distill.teacher=runs/stage1/last.pt --set model.size=rtmpose_m
  torchrun --nproc-per-node 2 -m kd_pose_training.cli train config/... -o runs/two
  tensorboard --logdir runs

The recipe's key `task` says what is trained: object_votes, object_codes and object_detector learn
from BOP folders, wholebody from people in COCO-WholeBody's or UBody's layout (docs/wholebody.md).
Ctrl-C saves a checkpoint and stops; --resume goes on exactly where it was.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``train``."""
    parser = subparsers.add_parser(
        "train", help="train a network on BOP folders or annotated people", epilog=_EPILOG,
        description="Train a network (poses, detector or whole body) as a recipe says.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="YAML file, see config/training/")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER",
                        help="new folder for checkpoints and logs")
    parser.add_argument("--set", dest="overrides", action="append", default=[],
                        metavar="KEY=VALUE", help="change one setting, e.g. trainer.seed=1")
    parser.add_argument("--resume", action="store_true",
                        help="continue the run in FOLDER from its last checkpoint")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.recipe import load_recipe
    from kd_pose_training.training.run import train
    path = train(load_recipe(options.config, options.overrides), options.output, options.resume)
    print(path)
    return 0
