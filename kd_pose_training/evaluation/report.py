"""What an evaluation says: numbers per object, a table, a JSON file.

Recalls count every target, medians only the targets that were found.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose_training.evaluation.errors import is_symmetric
from kd_pose_training.evaluation.object_pose import (
    DETECTION_IOU,
    EvaluationResult,
    InstanceResult,
)

# key in the summary, heading, format
COLUMNS = (
    ("targets", "n", "{:d}"),
    ("found", "found", "{:.1%}"),
    ("add_recall", "ADD(-S)-0.1d", "{:.1%}"),
    ("add_mm", "ADD(-S) mm", "{:.2f}"),
    ("reprojection_px", "reproj. px", "{:.2f}"),
    ("rotation_deg", "rot. deg", "{:.2f}"),
    ("translation_mm", "trans. mm", "{:.2f}"),
    ("box_recall", "box recall", "{:.1%}"),
    ("false_positives", "false", "{:d}"),
)
_SUMS = ("targets", "false_positives")


def summarise(result: EvaluationResult) -> dict[str, Any]:
    """Numbers per object and their mean over the objects, as plain data (None = no value)."""
    rows = {}
    for spec in result.specs:
        items = [item for item in result.instances if item.name == spec.name]
        wrong = result.false_positives.get(spec.name, 0)
        if items or wrong:
            rows[spec.name] = {"measure": "ADD-S" if is_symmetric(spec) else "ADD",
                               **_figures(items, wrong)}
    return {
        "objects": rows,
        "mean": _mean(list(rows.values())),
        "boxes": result.boxes,
        "data": result.data,
        "frames": result.frames,
        "timing_ms": {stage: round(value, 3) for stage, value in result.timing_ms.items()},
        "engine": result.engine,
    }


def _figures(items: Sequence[InstanceResult], false_positives: int) -> dict[str, Any]:
    found = [item for item in items if item.error is not None]
    boxes = [item.box_iou for item in items if item.box_iou is not None]
    return {
        "targets": len(items),
        "found": _share([item.error is not None for item in items]),
        "add_recall": _share([item.correct for item in items]),
        "add_mm": _median([1e3 * item.error for item in found]),
        "reprojection_px": _median([item.reprojection_px for item in found]),
        "rotation_deg": _median([item.rotation_deg for item in found]),
        "translation_mm": _median([1e3 * item.translation for item in found]),
        "box_recall": _share([overlap >= DETECTION_IOU for overlap in boxes]),
        "box_iou": None if not boxes else round(float(np.mean(boxes)), 4),
        "false_positives": false_positives,
    }


def _share(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 6) if len(values) else None


def _median(values: Sequence[float]) -> float | None:
    value = float(np.median(values)) if len(values) else float("nan")
    return round(value, 6) if np.isfinite(value) else None


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over objects of every number; counts are summed."""
    mean: dict[str, Any] = {}
    for key in (rows[0] if rows else ()):
        values = [row[key] for row in rows if isinstance(row[key], (int, float))]
        if key in _SUMS:
            mean[key] = int(sum(values))
        elif key != "measure":
            mean[key] = round(float(np.mean(values)), 6) if values else None
    return mean


def table(summary: Mapping[str, Any]) -> str:
    """A summary as text, one line per object and one for the mean."""
    timing = summary["timing_ms"].get("total", 0.0)
    head = (f"{summary['boxes']} boxes, {summary['data']}, {summary['frames']} frames, "
            f"{timing:.1f} ms a frame ({summary['engine']})")
    return f"{head}\n{lay_out(summary['objects'], {'mean': summary['mean']}, COLUMNS)}"


def lay_out(objects: Mapping[str, Mapping[str, Any]], below: Mapping[str, Mapping[str, Any]],
            columns: Sequence[tuple[str, str, str]]) -> str:
    """Rows by name, and further ones below a rule, as a table; columns: key, heading, format.

    A column without any value is left out; "(S)" marks objects measured by ADD-S.
    """
    rows = {**objects, **below}
    columns = [column for column in columns
               if any(row.get(column[0]) is not None for row in rows.values())]
    lines = [["object", *(heading for _, heading, _ in columns)]]
    for name, row in rows.items():
        label = f"{name} (S)" if row.get("measure") == "ADD-S" else name
        lines.append([label, *(_cell(row.get(key), form) for key, _, form in columns)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
    text = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                      for i, (cell, w) in enumerate(zip(line, widths))) for line in lines]
    rule = "-" * len(text[0])
    end = len(text) - len(below)
    return "\n".join([text[0], rule, *text[1:end], rule, *text[end:]])


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def write_report(results: Mapping[str, EvaluationResult], path: str | Path,
                 notes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write summaries and every single target as JSON; returns the whole report.

    results: by kind of boxes. The file is replaced whole or not at all.
    """
    report: dict[str, Any] = {"summary": {kind: summarise(result)
                                          for kind, result in results.items()}}
    for kind, result in results.items():
        report.setdefault("model", result.model)
        if result.detector:
            report["detector"] = result.detector
        report.setdefault("targets", {})[kind] = [_plain(item) for item in result.instances]
    report.update(notes or {})
    write_json(report, path)
    return report


def prepare_output(path: str | Path) -> None:
    """Make the folder of a file that a long computation is going to write.

    Raises:
        ValueError: the folder cannot be made or written into, or the path is a folder.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{path}: cannot be written into {path.parent}: "
                         f"{error.strerror}") from error
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, must be the name of a file")


def write_json(data: Mapping[str, Any], path: str | Path) -> None:
    """Write plain data as JSON, whole or not at all."""
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def _plain(item: InstanceResult) -> dict[str, Any]:
    values: dict[str, Any] = {"correct": item.correct}
    for key, value in vars(item).items():
        if isinstance(value, np.ndarray):
            value = np.round(value, 9).tolist()
        elif isinstance(value, (float, np.floating)):
            value = round(float(value), 9) if np.isfinite(value) else None
        values[key] = value
    return values
