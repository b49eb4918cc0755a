"""What teacher and students vote for on the same crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kd_pose.keypoints import BOX_EDGES
from kd_pose.votes import decode
from kd_pose_training.experiments.config import START, ExperimentConfig
from kd_pose_training.experiments.jobs import job_folder
from kd_pose_training.experiments.object_distillation import teacher_folder
from kd_pose_training.experiments.tables import Runs

TILE = 360  # pixels of a drawn crop
CROPS = 4
CAPTION = 26  # pixels
TRUTH, VOTE = (90, 230, 90), (60, 140, 255)  # BGR


def draw_votes(config: ExperimentConfig, folder: Path, runs: Runs) -> None:
    """votes.png: the votes for the corners on some crops of the validation set, a row for the
    teacher, the common start and each of ``config.votes_of``; true boxes green."""
    seed = config.seeds[0]
    rows = [("teacher", teacher_folder(config, folder))]
    if config.start_iterations:
        rows.append(("student before", job_folder(folder, START, seed)))
    rows += [(config.arms[name].label, job_folder(folder, name, seed))
             for name in config.votes_of if seed in runs.get(name, {})]
    rows = [(label, where) for label, where in rows if (where / "last.pt").exists()]
    if not rows:
        return
    samples = _samples(rows[0][1])
    picture = [np.concatenate([_tile(label, *sample, answer)
                               for sample, answer in zip(samples, _answers(where, samples))], 1)
               for label, where in rows]
    cv2.imwrite(str(folder / "votes.png"), np.concatenate(picture))


def _samples(run: Path) -> list[tuple[Any, np.ndarray]]:
    """(batch of one image, BGR picture) spread over the validation set."""
    from kd_pose_training.data.object_dataset import ObjectVoteDataset
    from kd_pose_training.training.objects import load_network, open_datasets
    network, config, _ = load_network(run / "last.pt")
    data = ObjectVoteDataset(open_datasets(config.data.val, config.data.objects), config,
                             network.grid(config.data.input_size), False, progress=False)
    chosen = [data[(2 * i + 1) * len(data) // (2 * CROPS), 0] for i in range(CROPS)]
    mean, std = (np.array(part) for part in (config.data.mean, config.data.std))
    pictures = [(sample.images[0].numpy().transpose(1, 2, 0) * std + mean)[..., ::-1]
                for sample in chosen]
    return [(sample, np.clip(picture, 0, 255).astype(np.uint8))
            for sample, picture in zip(chosen, pictures)]


def _answers(run: Path, samples: list[tuple[Any, np.ndarray]]) -> list[list]:
    """Decoded objects of each sample, as the runtime would answer."""
    import torch

    from kd_pose_training.training.objects import load_network
    network, config, _ = load_network(run / "last.pt")
    grid = network.grid(config.data.input_size)
    found = []
    for sample, _ in samples:
        with torch.no_grad():
            logits, offsets = network(sample.images)
        found.append(decode(grid, logits[0].sigmoid().numpy(), offsets[0].numpy(),
                            score_threshold=0.3))
    return found


def _tile(label: str, sample: Any, picture: np.ndarray, found: list) -> np.ndarray:
    scale = TILE / picture.shape[0]
    canvas = cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_CUBIC)

    def place(point: np.ndarray) -> tuple[int, int]:
        return tuple(int(value) for value in np.rint((np.asarray(point) + 0.5) * scale - 0.5))

    for row in range(len(sample.instance_class)):
        box = _member(sample, row, found)
        for a, b in BOX_EDGES:
            cv2.line(canvas, place(box[a]), place(box[b]), TRUTH, 1, cv2.LINE_AA)
    for votes in found:
        for points in votes.points:
            for point in points:
                cv2.circle(canvas, place(point), 3, VOTE, -1, cv2.LINE_AA)
    canvas[:CAPTION] = canvas[:CAPTION] // 3
    cv2.putText(canvas, label, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255,) * 3, 1, cv2.LINE_AA)
    return canvas


def _member(sample: Any, row: int, found: list) -> np.ndarray:
    """Corners (8, 2) of the symmetry member that the votes of this class are nearest to."""
    members = sample.points_px[row].numpy()
    means = [votes.points.mean(0) for votes in found
             if votes.class_index == int(sample.instance_class[row])]
    errors = [np.linalg.norm(members - mean, axis=-1).mean(-1) for mean in means]
    return members[int(np.min(errors, axis=0).argmin())] if errors else members[0]
