"""Pose estimates as the CSV files of the BOP benchmark, checked when read and when written.

Format: github.com/thodan/bop_toolkit, docs/bop_challenge_2019.md and inout.py. Millimetres in the
file, metres here. ``time`` is that of the whole picture, so all its rows must have the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd_pose_training.data.bop_files import MM, NEAREST_MM, ROTATION_TOLERANCE, BopError

HEADER = "scene_id,im_id,obj_id,score,R,t,time"
TIME_TOLERANCE = 1e-3  # seconds, as in the toolkit's check
# The toolkit takes a name apart at '_', '-' and '.', so none of these can be in a part.
_NAME = re.compile(r"([^_.]+)_([^_.-]+)-([^_.-]+)(?:-([^_.-]+))?(?:_[^.]*)?\.csv")


@dataclass(frozen=True)
class BopEstimate:
    """One row. T_cam_obj: (4, 4), metres. time: seconds for the whole picture, -1: unknown."""

    scene_id: int
    im_id: int
    obj_id: int
    score: float
    T_cam_obj: np.ndarray
    time: float = -1.0


def parse_name(path: str | Path) -> tuple[str, str, str]:
    """Method, data set and split (``test``, or ``test_primesense``) of a results file's name.

    Raises:
        BopError: the name is not METHOD_DATASET-SPLIT[-TYPE][_ID].csv.
    """
    found = _NAME.fullmatch(Path(path).name)
    if not found:
        raise BopError(f"{path}: the name must be METHOD_DATASET-SPLIT.csv, e.g. "
                       "kdpose_lmo-test.csv, with no further '_' or '.' in the method")
    method, dataset, split, kind = found.groups()
    return method, dataset, split if kind is None else f"{split}_{kind}"


def read_results(path: str | Path, allow_empty: bool = False) -> list[BopEstimate]:
    """Rows of a results file, in its order; the header may be absent.

    Args:
        allow_empty: a file of nothing but the header is one in which nothing was found.

    Raises:
        BopError: missing, empty, or a row is wrong: the message names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise BopError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise BopError(f"{path}: cannot be read: {error}") from error
    rows, places = [], []
    for number, line in enumerate(lines, 1):
        if (number == 1 and HEADER in line) or not line.strip():
            continue
        place = f"{path}: line {number}"
        rows.append(_row(line, place))
        places.append(place)
    if not rows and not (allow_empty and lines and HEADER in lines[0]):
        raise BopError(f"{path}: has no rows")
    if rows:
        _check(rows, places)
    return rows


def write_results(path: str | Path, estimates: Sequence[BopEstimate]) -> None:
    """Write a file that the toolkit's check_results_bop19.py accepts, whole or not at all.

    Raises:
        BopError: a wrong name, no rows, or a row that :func:`read_results` would refuse.
    """
    path = Path(path)
    parse_name(path)
    if not estimates:
        raise BopError(f"{path}: there is nothing to be written: no pose was estimated")
    _check(estimates, [f"{path}: estimate {i} (scene {item.scene_id}, image {item.im_id})"
                       for i, item in enumerate(estimates)])
    lines = [HEADER]
    for item in estimates:
        R = " ".join(map(repr, item.T_cam_obj[:3, :3].ravel().tolist()))
        t = " ".join(map(repr, (item.T_cam_obj[:3, 3] / MM).tolist()))
        lines.append(f"{item.scene_id},{item.im_id},{item.obj_id},{float(item.score)!r},{R},{t},"
                     f"{float(item.time)!r}")
    beside = path.with_name(path.name + ".part")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(beside, path)


def missing_images(estimates: Iterable[BopEstimate],
                   wanted: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The wanted (scene, image) pairs for which there is no estimate, in their order."""
    return sorted(set(wanted) - {(item.scene_id, item.im_id) for item in estimates})


def _row(line: str, place: str) -> BopEstimate:
    parts = line.split(",")
    if len(parts) != 7:
        raise BopError(f"{place}: has {len(parts)} parts between commas, must have 7: {HEADER}")
    values = {}
    for name, text, count in zip(HEADER.split(","), parts, (1, 1, 1, 1, 9, 3, 1)):
        try:
            found = [float(word) for word in text.split()]
        except ValueError:
            found = []
        if len(found) != count or not np.isfinite(found).all():
            raise BopError(f"{place}: {name} must be {count} finite number(s), got "
                           f"{text.strip()[:60]!r}")
        values[name] = found
    numbers = [values[name][0] for name in ("scene_id", "im_id", "obj_id")]
    if any(number != int(number) or number < 0 for number in numbers):
        raise BopError(f"{place}: scene_id, im_id and obj_id must be whole numbers from 0, got "
                       f"{', '.join(parts[:3])}")
    T = np.eye(4)
    T[:3, :3] = np.reshape(values["R"], (3, 3))
    T[:3, 3] = MM * np.array(values["t"])
    return BopEstimate(*map(int, numbers), values["score"][0], T, values["time"][0])


def _check(rows: Sequence[BopEstimate], places: Sequence[str]) -> None:
    T = np.stack([item.T_cam_obj for item in rows])
    finite = np.isfinite(T).all(axis=(1, 2)) & np.isfinite([item.score for item in rows])
    R = np.where(finite[:, None, None], T[:, :3, :3], np.eye(3))
    off = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    turned = (off > ROTATION_TOLERANCE) | (np.linalg.det(R) < 0)
    for wrong, what in ((~finite, "pose and score must be finite"),
                        (turned, "R is no rotation (rows, not columns, come first)")):
        if wrong.any():
            raise BopError(f"{places[int(wrong.argmax())]}: {what}")
    farthest = np.linalg.norm(T[:, :3, 3], axis=1).max()
    if farthest < NEAREST_MM * MM:
        raise BopError(f"{places[0]}: t must be in millimetres; all objects are within "
                       f"{farthest / MM:.2g} of the camera: are they metres?")
    times: dict[tuple[int, int], float] = {}
    for item, place in zip(rows, places):
        if not np.isfinite(item.time) or (item.time < 0 and item.time != -1):
            raise BopError(f"{place}: time must be seconds, or -1 where it is not known, got "
                           f"{item.time:g}")
        first = times.setdefault((item.scene_id, item.im_id), item.time)
        if abs(first - item.time) > TIME_TOLERANCE:
            raise BopError(f"{place}: time is {item.time:g}, that of an earlier row of scene "
                           f"{item.scene_id}, image {item.im_id} {first:g}; it is that of the "
                           "whole image and must be the same in all its rows")
