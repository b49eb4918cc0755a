"""Learning curves of an experiment's arms, and beside them where each run ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kd_pose_training.experiments.jobs import TEACHER, job_folder, logged
from kd_pose_training.experiments.tables import Figure, Runs

SMOOTH = 5  # logged values in one point of a curve, fewer where there are few


def curve(folder: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and logged values of a run while it learns, at most ``SMOOTH`` a point."""
    rows = [(row["iteration"], row[key]) for row in logged(folder, "train")]
    smooth = min(SMOOTH, len(rows) // 8 or 1)
    points = [np.mean(rows[i:i + smooth], axis=0) for i in range(0, len(rows), smooth)]
    return tuple(np.array(points).T)


def draw_curves(folder: Path, runs: Runs, labels: Mapping[str, str], baseline: str,
                learning: Figure, final: Figure) -> None:
    """curves.png: ``learning`` while the arms learn, mean over the seeds; beside it the figure
    ``final`` of every run on the validation set."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5.5), layout="constrained")
    names = [name for name in runs if name != TEACHER]
    for place, name in enumerate(names):
        colour = plt.get_cmap("tab20")(place % 20)
        found = [curve(job_folder(folder, name, seed), learning.key) for seed in runs[name]]
        length = min(len(x) for x, _ in found)
        left.plot(found[0][0][:length],
                  learning.factor * np.mean([y[:length] for _, y in found], 0), color=colour,
                  linewidth=2.5 if name == baseline else 1.2)
        points = [final.factor * run["figures"][final.key] for run in runs[name].values()]
        right.plot(points, [-place] * len(points), "o", color=colour, alpha=0.6)
        right.plot(np.mean(points), -place, "|", color="black", markersize=18)
    left.set(xlabel="iteration", ylabel=learning.heading,
             title="colours as on the right; thick: baseline")
    right.set_yticks([-place for place in range(len(names))], [labels[name] for name in names])
    taught = [final.factor * run["figures"][final.key] for run in runs.get(TEACHER, {}).values()]
    right.set(xlabel=f"{final.heading}: seeds and mean", title="teacher: " + (
        f"{np.mean(taught):.1f}" if taught else "not finished"))
    right.grid(axis="x", alpha=0.3)
    figure.savefig(folder / "curves.png", dpi=110)
    plt.close(figure)
