"""``kd-pose-train bop-score``: a BOP results file becomes BOP's AR and ADD(-S)-0.1d."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_pose_training.data.bop import BopDataset
    from kd_pose_training.data.bop_results import BopEstimate
    from kd_pose_training.evaluation.bop_score import Target

_EPILOG = """\
examples:
  kd-pose-train bop-score kdpose_lmo-test.csv --dataset data/bop/lmo --split test
  kd-pose-train bop-score kdpose_lm-test.csv --dataset data/bop/lm --no-vsd --out score.json

What is to be found says test_targets_bop19.json of the set, or --targets; where there is neither,
every instance of which a tenth is visible. "all targets" is the benchmark's own average, "mean"
that of the objects. (S) in the table: ADD-S. Diameters and symmetries are those of
models_info.json.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``bop-score``."""
    parser = subparsers.add_parser(
        "bop-score", help="BOP's average recall and ADD(-S)-0.1d of a results file",
        description="Score a CSV file of pose estimates as the BOP benchmark does.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS.csv")
    parser.add_argument("--dataset", type=Path, required=True, metavar="ROOT")
    parser.add_argument("--split", metavar="SPLIT", help="default: the one of the file's name")
    parser.add_argument("--targets", metavar="FILE",
                        help="targets file in ROOT, or none (default test_targets_bop19.json "
                        "where there is one)")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE.json",
                        help="write the numbers as JSON")
    parser.add_argument("--no-vsd", action="store_true", help="without VSD, and so without AR")
    parser.add_argument("--vsd-delta", type=float, default=15.0, metavar="MM",
                        help="tolerance of VSD's visibility (default %(default)g; ITODD: 5)")
    parser.add_argument("--renderer", choices=("auto", "gl", "rays"), default="auto",
                        help="for VSD")
    parser.add_argument("--allow-missing", action="store_true",
                        help="count targets in images without any row as not found, as the "
                        "benchmark's program does, instead of refusing the file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.data.bop_results import parse_name, read_results
    from kd_pose_training.evaluation.bop_score import table
    from kd_pose_training.evaluation.report import prepare_output, write_json
    if not 0 < options.vsd_delta < 1000:
        raise ValueError(f"--vsd-delta must be above 0 and below 1000 mm, got {options.vsd_delta}")
    split = options.split or parse_name(options.results)[2]
    estimates = read_results(options.results, options.allow_missing)
    dataset = open_dataset(options.dataset, split, options.targets)
    if options.out:
        prepare_output(options.out)
    summary = score(dataset, estimates, options.results, vsd=not options.no_vsd,
                    renderer=options.renderer, delta=1e-3 * options.vsd_delta,
                    allow_missing=options.allow_missing)
    print(table(summary))
    for text in summary["warnings"]:
        print(f"warning: {text}", file=sys.stderr)
    if options.out:
        write_json(summary, options.out)
        print(f"{options.out}: written")
    return 0


def open_dataset(root: Path, split: str, targets: str | None) -> BopDataset:
    """The split with its evaluation models and targets (None: BOP's where there are any)."""
    from kd_pose_training.data.bop import BopDataset
    from kd_pose_training.data.bop_targets import targets_file
    return BopDataset(root, split, targets=targets_file(root, split, targets),
                      models="models_eval")


def score(dataset: BopDataset, estimates: list[BopEstimate], source: Path, *, vsd: bool = True,
          renderer: str = "auto", delta: float = 0.015, allow_missing: bool = False,
          progress: bool = True) -> dict[str, Any]:
    """Summary of a results file. ``warnings``: texts about rows that do not count.

    Raises:
        ValueError: target images without a row (unless allowed), or no targets. BopError: of the
            set's files.
    """
    from kd_pose_training.data.bop_results import missing_images
    from kd_pose_training.data.public_sets import PUBLIC_SETS
    from kd_pose_training.evaluation.bop_score import find_targets, score_targets, summarise
    from kd_pose_training.evaluation.depth_render import open_depth_renderer
    targets = find_targets(dataset, estimates)
    if not targets:
        raise ValueError(f"{dataset.root}: {dataset.split}: has nothing to be found")
    images = {(target.frame.scene_id, target.frame.im_id) for target in targets}
    missing = missing_images(estimates, images)
    if missing and not allow_missing:
        raise ValueError(f"{source}: has no row for {len(missing)} of {len(images)} target "
                         f"images: {_some(missing)}; --allow-missing counts what is in them as "
                         "not found")
    public = PUBLIC_SETS.get(dataset.root.resolve().name)
    scores = score_targets(dataset, targets, delta=delta, progress=progress,
                           renderer=open_depth_renderer(renderer) if vsd else None,
                           add_s=public.add_s if public else None)
    used = sum(len(target.estimates) for target in targets)
    empty = [] if estimates else [f"{source}: has no rows, so nothing counts as found"]
    warnings = [*empty, *_other_set(source, dataset.root),
                *_rows_not_scored(estimates, targets, used)]
    times = {(item.scene_id, item.im_id): item.time for item in estimates}
    known = [value for value in times.values() if value >= 0]
    return {"results": str(source), "data": f"{dataset.root}:{dataset.split}",
            "images": len(images), "images_without_rows": len(missing),
            "rows": len(estimates), "rows_without_target": len(estimates) - used,
            "time_per_image_s": (sum(known) / len(known) if known and len(known) == len(times)
                                 else None),
            "warnings": warnings, **summarise(scores)}


def _other_set(source: Path, root: Path) -> list[str]:
    """Said where name of file or folder is that of a public set, and the other is not."""
    from kd_pose_training.data.bop_results import parse_name
    from kd_pose_training.data.public_sets import PUBLIC_SETS
    try:
        theirs, ours = parse_name(source)[1], root.resolve().name
    except ValueError:  # with --split the name may be any
        return []
    if theirs == ours or not {theirs, ours} & PUBLIC_SETS.keys():
        return []
    return [f"{source}: is of the data set {theirs!r} by its name, scored against {root}"]


def _rows_not_scored(estimates: Sequence[BopEstimate], targets: Sequence[Target],
                     used: int) -> list[str]:
    """How many rows are of no target, or more than a target has instances."""
    places = {(target.frame.scene_id, target.frame.im_id, target.obj_id) for target in targets}
    strays = [item for item in estimates
              if (item.scene_id, item.im_id, item.obj_id) not in places]
    surplus, why = len(estimates) - used - len(strays), []
    if strays:
        why.append(f"{len(strays)} of scenes, images or objects that are no target (the first: "
                   f"scene {strays[0].scene_id} image {strays[0].im_id} object "
                   f"{strays[0].obj_id})")
    if surplus:
        why.append(f"{surplus} more than there are instances to be found")
    total = len(strays) + surplus
    return [f"{total} of {len(estimates)} rows do not count: {', '.join(why)}"] if why else []


def _some(images: list[tuple[int, int]], count: int = 5) -> str:
    """The first few in words."""
    shown = ", ".join(f"scene {scene} image {image}" for scene, image in images[:count])
    return shown + (" ..." if len(images) > count else "")
