"""``kd-pose-train``: one command with a subcommand for every step from meshes to a model.

Mistakes of the user (a wrong key, a missing file, a full disk) and a lack of memory end in one
clear line and exit status 2; ``--debug`` shows where they came from. A subcommand's module is
imported only to add its options and imports its heavy parts when it runs, so that ``--help`` is
quick.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from kd_pose_training.engine.signals import is_of_killed_process, terminate_like_interrupt

COMMAND_MODULES = ("make_objects", "synth_objects", "synth_people", "train", "distill_chain",
                   "export", "evaluate", "evaluate_clip", "experiment", "bop_score", "check_data",
                   "import_model")

_EPILOG = """\
from meshes to a model on a robot:
  kd-pose-train make-objects --help           meshes of this project's own objects
  kd-pose-train synth-objects --help          render meshes into a BOP-format training set
  kd-pose-train train config/training/object_student.yaml -o runs/student
  kd-pose-train evaluate --help               ADD, ADD-S and reprojection error on a BOP folder
  kd-pose-train export --help                 one .onnx file with everything a node needs inside

people with 133 keypoints:
  kd-pose-train synth-people --help           render them into a COCO-WholeBody training set
  kd-pose-train train config/training/wholebody_people.yaml -o runs/people
  kd-pose-train distill-chain --help          a large network teaches smaller ones, in two stages
  kd-pose-train evaluate --help               AP and AR of body, feet, face and hands
  kd-pose-train evaluate-clip --help          who is tracked through a recording, and who is not
  kd-pose-train import --help                 make published RTMPose, DWPose, YOLOX files ready

public data sets (LINEMOD, LM-O, YCB-V):
  kd-pose-train check-data lm                 is the download complete?
  kd-pose-train bop-score --help              BOP's average recall beside ADD(-S)-0.1d

Every subcommand has its own --help with examples.
"""


def build_parser() -> argparse.ArgumentParser:
    """Parser with all subcommands; a chosen one sets ``run``, called with the arguments."""
    parser = argparse.ArgumentParser(
        prog="kd-pose-train", epilog=_EPILOG,
        description="Train, check and export compact pose networks: 6D objects, whole bodies.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debug", action="store_true",
                        help="show the full traceback of an error")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND",
                                       required=True)
    for name in COMMAND_MODULES:
        importlib.import_module(f"kd_pose_training.commands.{name}").add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0, 2 user error, 130 interrupted)."""
    options = argparse.Namespace(command="", debug=False)
    try:
        options = build_parser().parse_args(arguments)
        with terminate_like_interrupt():
            return int(options.run(options) or 0)
    except (ValueError, OSError, ImportError) as error:
        if options.debug:
            raise
        print(f"kd-pose-train {options.command}: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        text = _one_line(error) if _is_of_engine(error) else _shortage(error)
        if options.debug or text is None:
            raise
        print(f"kd-pose-train {options.command}: error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _is_of_engine(error: BaseException) -> bool:
    """Whether an engine, device or precision that was asked for is not available."""
    backends = sys.modules.get("kd_pose.backends")
    return backends is not None and isinstance(error, backends.BackendError)


def _shortage(error: BaseException) -> str | None:
    """What to do about an error that tells of too little memory; None for any other."""
    text = _one_line(error).rstrip(".")
    again = "the same command goes on where it was, train with --resume"
    if is_of_killed_process(error):
        return (f"a process was killed ({text}); not enough memory? Take fewer workers or jobs; "
                f"{again}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"not enough memory ({text}); take smaller batches, fewer workers or jobs; {again}"
    return None


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    return text or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
