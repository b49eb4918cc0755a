"""What the whole-body experiment says: table, curves, raw numbers, the same people by several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kd_pose.crop import apply_affine, box_affine
from kd_pose.skeleton_drawing import draw_people
from kd_pose_training.data.people_sets import open_people
from kd_pose_training.evaluation.report import write_json
from kd_pose_training.experiments.config import START, PeopleExperiment
from kd_pose_training.experiments.curves import draw_curves
from kd_pose_training.experiments.jobs import RESULT, TEACHER, job_folder
from kd_pose_training.experiments.tables import Figure, Runs, collect, make_table, write_text
from kd_pose_training.experiments.wholebody_distillation import recipe, teacher_checkpoint
from kd_pose_training.experiments.wholebody_scores import checkpoint_predictor

AP_PARTS = ("wholebody", "body", "foot", "face", "hand")
OKS = Figure("oks_wholebody", "mean OKS %")
COLUMNS = (*(Figure(f"ap_{part}", "AP whole %" if part == "wholebody" else f"AP {part} %")
             for part in AP_PARTS),
           OKS, Figure("nme_wholebody", "error of seen points, % of person", 100.0, 2),
           Figure("iterations", "iterations", 1.0, 0), Figure("seconds", "seconds", 1.0, 0))
SURE = 0.1  # score from which a keypoint is drawn: short trainings are sure of little
TILE_HEIGHT, CAPTION, SHOWN = 260, 24, 7  # pixels, pixels, people


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one run by column."""
    named = {f"{kind}_{part}": value for kind in ("ap", "oks", "nme")
             for part, value in result[kind].items()}
    return {**named, "iterations": result["iterations"], "seconds": result["seconds"]}


def collect_runs(config: PeopleExperiment, folder: Path) -> Runs:
    """Finished runs: the teacher's last stage, the common starts, all arms."""
    jobs = [(TEACHER, len(config.teacher) - 1), *((START, seed) for seed in config.seeds),
            *((name, seed) for name in config.arms for seed in config.seeds)]
    return collect(folder, jobs, figures)


def table(config: PeopleExperiment, runs: Runs) -> str:
    """Markdown: a row per arm, and the paired difference of the mean OKS."""
    labels = {**config.labels, START: "student before"}
    return make_table(runs, labels, COLUMNS, config.baseline, OKS, "OKS")


def write_summary(config: PeopleExperiment, folder: Path) -> None:
    """table.md, result.json, curves.png and people.png of what is finished."""
    runs = collect_runs(config, folder)
    plain = {name: {str(seed): run["figures"] for seed, run in seeds.items()}
             for name, seeds in runs.items()}
    write_json({"arms": config.labels, "runs": plain}, folder / RESULT)
    write_text(table(config, runs), folder / "table.md")
    arms = {name: seeds for name, seeds in runs.items() if name != START}
    draw_curves(folder, arms, config.labels, config.baseline,
                Figure("error_px", "error while learning, input pixels", 1.0), OKS)
    draw_same_people(config, folder, runs)


def draw_same_people(config: PeopleExperiment, folder: Path, runs: Runs) -> None:
    """people.png: some people of the validation set, a row for the truth, each of
    ``config.shown`` and the teacher."""
    seed = config.seeds[0]
    rows = [(config.arms[name].label, job_folder(folder, name, seed) / "last.pt")
            for name in config.shown if seed in runs.get(name, {})]
    rows.append(("teacher", teacher_checkpoint(config, folder)))
    rows = [(label, path) for label, path in rows if path.exists()]
    people = open_people([recipe(config, folder, TEACHER, 0).data.val[0]])
    chosen = _large(people)
    tiles = {"truth": [_tile(people, row, people.xy[row], people.visibility[row] > 0)
                       for row in chosen]}
    for label, checkpoint in rows:
        predict, _ = checkpoint_predictor(checkpoint)
        tiles[label] = []
        for row in chosen:
            xy, scores = predict(people.load_image(int(people.image[row])),
                                 people.box_xywh[row:row + 1].astype(np.float64))
            tiles[label].append(_tile(people, row, xy[0], scores[0]))
    picture = np.concatenate([_row(label, row) for label, row in tiles.items()])
    cv2.imwrite(str(folder / "people.png"), picture)


def _large(people: Any) -> np.ndarray:
    """Rows of some people who are large in their pictures, spread over the set."""
    size = people.box_xywh[:, 2] * people.box_xywh[:, 3]
    rows = np.flatnonzero(size >= np.median(size))
    return rows[np.linspace(0, len(rows) - 1, SHOWN + 2).astype(int)[1:-1]]


def _tile(people: Any, row: int, xy: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """A person cut out and enlarged, with keypoints (133, 2) of the picture and scores (133,)."""
    x, y, w, h = people.box_xywh[row].astype(np.float64)
    width = 3 * TILE_HEIGHT // 4
    M = box_affine((x, y, w, h), (width, TILE_HEIGHT), 1.25)
    picture = cv2.warpAffine(people.load_image(int(people.image[row])), M, (width, TILE_HEIGHT),
                             flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return draw_people(picture, apply_affine(M, xy)[None], np.asarray(scores, float)[None],
                       threshold=SURE)


def _row(label: str, tiles: list[np.ndarray]) -> np.ndarray:
    row = np.concatenate(tiles, axis=1)
    strip = np.full((CAPTION, row.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, label, (8, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30,) * 3, 1, cv2.LINE_AA)
    return np.concatenate([strip, row])
