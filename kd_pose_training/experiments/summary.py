"""What an experiment says: one table with means and spreads, curves, the raw numbers as JSON.

Differences to the baseline are taken seed by seed: students of a seed share their start, so most
of what a seed does to the result cancels out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose_training.evaluation.report import write_json
from kd_pose_training.experiments.config import ExperimentConfig
from kd_pose_training.experiments.object_distillation import RESULT, TEACHER, job_folder

# key, heading, factor, digits; larger is better but for the last two
FIGURES = (
    ("add_01", "ADD(-S)-0.1d %", 100, 1),
    ("add_02", "ADD(-S)-0.2d %", 100, 1),
    ("add_auc", "AUC to 0.5d %", 100, 1),
    ("median", "median ADD(-S) % of d", 100, 1),
    ("vote_relative", "vote error % of size", 100, 2),
)
AUC_LIMIT = 0.5  # diameters


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one run: means over the objects, so that each object counts the same.

    A target that was not found counts as an infinite error.
    """
    rows = []
    for values in result["errors"].values():
        error = np.array([np.inf if value is None else value for value in values])
        rows.append((np.mean(error < 0.1), np.mean(error < 0.2),
                     np.clip(1 - error / AUC_LIMIT, 0, None).mean(),
                     min(float(np.median(error)), 1.0)))
    names = [name for name, *_ in FIGURES[:-1]]
    return {**{name: float(value) for name, value in zip(names, np.mean(rows, 0))},
            "vote_relative": float(result["validation"].get("vote_relative", np.nan))}


def collect(config: ExperimentConfig, folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Finished runs: arm -> seed -> result with ``figures``."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for name in (TEACHER, *config.arms):
        for seed in (len(config.teacher) - 1,) if name == TEACHER else config.seeds:
            path = job_folder(folder, name, seed) / RESULT
            if path.exists():
                result = json.loads(path.read_text(encoding="utf-8"))
                runs.setdefault(name, {})[seed] = {**result, "figures": figures(result)}
    return runs


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample; 0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def table(config: ExperimentConfig, runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """Markdown: a row per arm with mean ± standard deviation, and the paired difference."""
    base = runs.get(config.baseline, {})
    lines = ["| | seeds | " + " | ".join(heading for _, heading, *_ in FIGURES)
             + f" | AUC against {config.arms[config.baseline].label}, seed by seed |",
             "|---|---|" + "---|" * (len(FIGURES) + 1)]
    for name, seeds in runs.items():
        label = "teacher" if name == TEACHER else config.arms[name].label
        cells = [_cell([run["figures"][key] for run in seeds.values()], factor, digits)
                 for key, _, factor, digits in FIGURES]
        shared = sorted(seeds.keys() & base.keys())
        change = ""
        if name not in (TEACHER, config.baseline) and shared:
            gains = [100 * (seeds[seed]["figures"]["add_auc"] - base[seed]["figures"]["add_auc"])
                     for seed in shared]
            change = f"{np.mean(gains):+.1f} ({', '.join(f'{gain:+.1f}' for gain in gains)})"
        lines.append(f"| {label} | {len(seeds)} | {' | '.join(cells)} | {change} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float], factor: float, digits: int) -> str:
    mean, deviation = spread([factor * value for value in values])
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(values) > 1 else "")


def write_summary(config: ExperimentConfig, folder: Path) -> None:
    """table.md, result.json, curves.png and votes.png of what is finished."""
    runs = collect(config, folder)
    plain = {name: {str(seed): {key: run[key] for key in ("figures", "seconds", "metrics")}
                    for seed, run in seeds.items()} for name, seeds in runs.items()}
    write_json({"arms": {name: arm.label for name, arm in config.arms.items()}, "runs": plain},
               folder / RESULT)
    path = folder / "table.md"
    beside = path.with_suffix(".part")
    beside.write_text(table(config, runs), encoding="utf-8")
    beside.replace(path)
    from kd_pose_training.experiments.pictures import draw_curves, draw_votes
    draw_curves(config, folder, runs)
    draw_votes(config, folder, runs)
