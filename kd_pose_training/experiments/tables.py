"""Tables of an experiment: means and spreads over the seeds, differences taken seed by seed.

Runs of a seed share their start or their initial weights and the order of the data, so most of
what a seed does to the result cancels out in the difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose_training.experiments.config import START
from kd_pose_training.experiments.jobs import RESULT, TEACHER, Job, job_folder

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]  # name -> seed -> result with "figures"


@dataclass(frozen=True)
class Figure:
    """A column. ``key``: in the figures of a run. ``factor``, ``digits``: how it is written."""

    key: str
    heading: str
    factor: float = 100.0
    digits: int = 1


def collect(folder: Path, jobs: Sequence[Job],
            figures: Callable[[Mapping[str, Any]], dict[str, float]]) -> Runs:
    """Finished runs among the jobs: name -> seed -> result with ``figures``."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for name, seed in jobs:
        path = job_folder(folder, name, seed) / RESULT
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            runs.setdefault(name, {})[seed] = {**result, "figures": figures(result)}
    return runs


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample; 0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def make_table(runs: Runs, labels: Mapping[str, str], columns: Sequence[Figure], baseline: str,
               compared: Figure, called: str) -> str:
    """Markdown: a row per arm with mean ± standard deviation, and the paired difference.

    Args:
        labels: names of the arms in the table. baseline: the arm that the others are compared
            with. compared: what is compared, ``called`` so in the heading.
    """
    base = runs.get(baseline, {})
    lines = ["| | seeds | " + " | ".join(column.heading for column in columns)
             + f" | {called} against {labels[baseline]}, seed by seed |",
             "|---|---|" + "---|" * (len(columns) + 1)]
    for name, seeds in runs.items():
        cells = [_cell([run["figures"][column.key] for run in seeds.values()], column)
                 for column in columns]
        shared = sorted(seeds.keys() & base.keys())
        change = ""
        if name not in (TEACHER, START, baseline) and shared:
            change = _change([compared.factor * (seeds[seed]["figures"][compared.key]
                                                 - base[seed]["figures"][compared.key])
                              for seed in shared], compared.digits)
        lines.append(f"| {labels.get(name, name)} | {len(seeds)} | {' | '.join(cells)} | "
                     f"{change} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float], column: Figure) -> str:
    mean, deviation = spread([column.factor * value for value in values])
    text = f"{mean:.{column.digits}f}"
    return f"{text} ± {deviation:.{column.digits}f}" if len(set(values)) > 1 else text


def _change(gains: Sequence[float], digits: int) -> str:
    each = ", ".join(f"{gain:+.{digits}f}" for gain in gains)
    return f"{np.mean(gains):+.{digits}f} ({each})"


def write_text(text: str, path: Path) -> None:
    """Write beside, then rename."""
    beside = path.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
