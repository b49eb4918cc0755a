"""What an experiment with objects says: one table, curves, votes, the raw numbers as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose_training.evaluation.report import write_json
from kd_pose_training.experiments.config import START, ExperimentConfig
from kd_pose_training.experiments.curves import draw_curves
from kd_pose_training.experiments.jobs import RESULT, TEACHER, job_folder, logged
from kd_pose_training.experiments.pictures import draw_votes
from kd_pose_training.experiments.tables import Figure, Runs, collect, make_table, write_text

AUC = Figure("add_auc", "AUC to 0.5d %")
COLUMNS = (
    Figure("add_01", "ADD(-S)-0.1d %"),
    Figure("add_02", "ADD(-S)-0.2d %"),
    AUC,
    Figure("median", "median ADD(-S) % of d"),
    Figure("vote_relative", "vote error % of size", digits=2),
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
    names = [column.key for column in COLUMNS[:-1]]
    return {**{name: float(value) for name, value in zip(names, np.mean(rows, 0))},
            "vote_relative": float(result["validation"].get("vote_relative", np.nan))}


def collect_runs(config: ExperimentConfig, folder: Path) -> Runs:
    """Finished runs: the teacher's last stage, what the students start from, and all arms."""
    jobs = [(TEACHER, len(config.teacher) - 1), *((START, seed) for seed in config.seeds),
            *((name, seed) for name in config.arms for seed in config.seeds)]
    return collect(folder, jobs, figures)


def table(config: ExperimentConfig, runs: Runs) -> str:
    """Markdown: a row per arm, and the paired difference of the AUC."""
    labels = {**config.labels, START: "student before"}
    return make_table(runs, labels, COLUMNS, config.baseline, AUC, "AUC")


def notes(config: ExperimentConfig, folder: Path, runs: Runs) -> str:
    """A sentence for below the table on every arm whose teacher taught nothing; mostly empty."""
    from kd_pose_training.distill.watch import taught_nothing
    lines = []
    for name in config.arms.keys() & runs.keys():
        seeds = [str(seed) for seed in runs[name]
                 if taught_nothing(logged(job_folder(folder, name, seed), "train"))]
        if seeds:
            lines.append(f"\n{config.arms[name].label} (seed {', '.join(seeds)}): no object "
                         "passed the teacher's gate (distill.score_threshold, distill.max_error), "
                         "so its terms but those of features taught nothing.\n")
    return "".join(sorted(lines))


def write_summary(config: ExperimentConfig, folder: Path) -> None:
    """table.md, result.json, curves.png and votes.png of what is finished."""
    runs = collect_runs(config, folder)
    plain = {name: {str(seed): {key: run[key] for key in ("figures", "seconds", "metrics")}
                    for seed, run in seeds.items()} for name, seeds in runs.items()}
    write_json({"arms": config.labels, "runs": plain}, folder / RESULT)
    write_text(table(config, runs) + notes(config, folder, runs), folder / "table.md")
    arms = {name: seeds for name, seeds in runs.items() if name != START}
    draw_curves(folder, arms, config.labels, config.baseline,
                Figure("vote_relative", "vote error while learning, % of object size"), AUC)
    draw_votes(config, folder, runs)
