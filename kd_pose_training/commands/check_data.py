"""``kd-pose-train check-data``: is a download of a public set complete, and what is missing?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_pose_training.data.check_bop import Part
    from kd_pose_training.data.public_sets import PublicSet

_EPILOG = """\
examples:
  kd-pose-train check-data lm                     LINEMOD in data/bop/lm
  kd-pose-train check-data /data/ycbv --splits test
  kd-pose-train check-data data/objects           any folder in BOP format
  kd-pose-train check-data data/coco              COCO-WholeBody: annotations, train2017, val2017
  kd-pose-train check-data data/UBody --splits Movie,Speech
  kd-pose-train check-data data/people            people in that layout, such as synth-people's

For lm, lmo and ycbv it names the archives of huggingface.co/datasets/bop-benchmark that hold what
is missing, for COCO-WholeBody and UBody where they are to be had. The recipes of lmo learn from
lm, which is checked beside it; --splits test checks what an evaluation needs. Nothing is
downloaded. Exit status 2: something is missing or broken.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand ``check-data``."""
    parser = subparsers.add_parser(
        "check-data", help="check a download of LINEMOD, LM-O, YCB-V, COCO-WholeBody or UBody",
        epilog=_EPILOG, description="Check a folder in BOP's, COCO-WholeBody's or UBody's format "
        "and say what is missing.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="NAME|ROOT", help="lm, lmo or ycbv, or a folder")
    parser.add_argument("--root", type=Path, default=Path("data/bop"), metavar="FOLDER",
                        help="where the folders lm, lmo and ycbv are (default %(default)s)")
    parser.add_argument("--splits", metavar="A,B",
                        help="only these splits (UBody: scenes), e.g. test,train_pbr")
    parser.add_argument("--samples", type=int, default=10, metavar="N",
                        help="pictures of each kind and split to be decoded (default %(default)s)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from kd_pose_training.data.check_bop import check_set
    from kd_pose_training.data.public_sets import PUBLIC_SETS
    if options.samples < 0:
        raise ValueError(f"--samples must be 0 or more, got {options.samples}")
    from kd_pose_training.data.check_people import TITLES, check_people, kind_of_people
    named = options.data in PUBLIC_SETS
    root = options.root / options.data if named else Path(options.data)
    public = PUBLIC_SETS.get(root.resolve().name)
    splits = [name for name in (options.splits or "").split(",") if name]
    kind = None if named else kind_of_people(root)
    if kind is not None:
        parts = check_people(root, kind, splits=splits, samples=options.samples)
        print(report_people(root, TITLES[kind], parts))
        return 2 if any(part.problems for part in parts) else 0
    found = [(root, public, check_set(root, public, splits=splits, samples=options.samples))]
    if public and public.learns_from and not splits:
        other = PUBLIC_SETS[public.learns_from]
        beside = root.resolve().parent / other.name
        found.append((beside, other, check_set(beside, other, samples=options.samples)))
    print(report(found))
    return 2 if any(part.problems for _, _, parts in found for part in parts) else 0


def report(found: Sequence[tuple[Path, PublicSet | None, Sequence[Part]]]) -> str:
    """What was found in folders, part by part, and where to get what is missing.

    Args:
        found: a set, and what its recipes need besides; folder, what it is, its parts.
    """
    from kd_pose_training.data.check_bop import archives_of
    lines = []
    for number, (root, public, parts) in enumerate(found):
        title = public.title if public else "BOP folder"
        lines += _part_lines(root, f"{title}, which is learnt from" if number else title, parts)
    for root, public, parts in found:
        groups = archives_of(parts)
        if groups and public:
            lines.append(f"missing; to be unpacked into {root} ({public.base}: beside it):")
            for group in groups:
                lines.append("  " + " or ".join(group))
                lines += [f"    {public.url(archive)}" for archive in group]
    if not any(part.problems for _, _, parts in found for part in parts):
        lines.append("complete")
    return "\n".join(lines)


def report_people(root: Path, title: str, parts: Sequence[Part]) -> str:
    """The same of a set of people, whose parts are at web pages, not in archives of one page."""
    from kd_pose_training.data.check_bop import archives_of
    lines = _part_lines(root, title, parts)
    groups = archives_of(parts)
    if not groups:
        return "\n".join([*lines, "complete"])
    return "\n".join([*lines, "missing; to be had at:", *(f"  {page}" for (page,) in groups)])


def _part_lines(root: Path, title: str, parts: Sequence[Part]) -> list[str]:
    lines = [f"{root}: {title}"]
    width = max(len(part.name) for part in parts)
    for part in parts:
        lines.append(f"  {part.name.ljust(width)}  {part.state.ljust(7)}  {part.summary}".rstrip())
        lines += [f"      {problem.text}" for problem in part.problems]
    return lines
