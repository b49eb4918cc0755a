"""What a checkpoint of a whole-body network is worth on a set of people, with true boxes.

AP counts people whose similarity passes thresholds, so it says nothing of a network that is still
far off, and jumps with few people. Beside it stand two means that do not: similarity (OKS) and
distance of the keypoints.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kd_pose_training.data.people_sets import find_files, open_people
from kd_pose_training.evaluation.oks import SCORED, part_oks
from kd_pose_training.evaluation.wholebody import PersonTruth, average_precision, read_truth
from kd_pose_training.evaluation.wholebody_run import (
    Predict,
    estimate_people,
    simcc_predictor,
    true_boxes,
)
from kd_pose_training.training.wholebody import load_network

SEEN = 2  # visibility of a keypoint that nothing hides


def checkpoint_predictor(checkpoint: str | Path) -> tuple[Predict, float]:
    """A checkpoint's averaged network as a predictor of people in pictures, without flip test,
    and the aspect of its input."""
    network, config, _ = load_network(checkpoint)

    def logits(crops: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return tuple(axis.numpy() for axis in network(torch.from_numpy(crops)))

    width, height = config.data.input_size
    return simcc_predictor(logits, network.codec, config.data.mean, config.data.std, False,
                           config.data.crop_pad), width / height


def score_checkpoint(checkpoint: str | Path, people: str) -> dict[str, dict[str, float]]:
    """Figures by part (body, foot, face, left_hand, right_hand, hand, wholebody): see
    :func:`score`.

    Args:
        people: a set, ``folder:split``.
    """
    predict, aspect = checkpoint_predictor(checkpoint)
    return score(predict, aspect, people)


def score(predict: Predict, aspect: float, people: str) -> dict[str, dict[str, float]]:
    """``ap``: average precision. ``oks``: mean similarity of the people who have a labelled point
    in a part. ``nme``: mean distance of the visible points in parts of the person's box (root of
    its area)."""
    files = find_files(people)
    truth, boxes = read_truth(files.annotations), true_boxes(open_people([people]))
    answers: list[np.ndarray] = []

    def recorded(image: np.ndarray, boxes_xywh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        xy, scores = predict(image, boxes_xywh)
        answers.append(xy)
        return xy, scores

    estimates = estimate_people(recorded, truth, files.images, boxes, aspect, progress=False)
    ap = {part: row["AP"] for part, row in average_precision(truth, estimates).items()}
    # All answers, also those that suppression takes out, belong to one true person each.
    order = np.argsort(boxes.image_id, kind="stable")
    person = _people_of(truth, boxes.image_id[order], boxes.box_xywh[order])
    return {"ap": ap, **_means(truth, np.concatenate(answers), person)}


def _people_of(truth: PersonTruth, image_id: np.ndarray, box_xywh: np.ndarray) -> np.ndarray:
    """Rows (N,) of the truth to which boxes of true people belong: same picture, nearest box."""
    distance = np.abs(truth.box_xywh[None] - (0.5, 0.5, 0, 0) - box_xywh[:, None]).sum(2)
    distance[truth.image_id[truth.image][None] != image_id[:, None]] = np.inf
    return distance.argmin(1)


def _means(truth: PersonTruth, xy: np.ndarray, person: np.ndarray) -> dict[str, dict[str, float]]:
    points = truth.points[person]
    similarity = part_oks(xy, np.arange(len(xy)), truth.points, person, truth.box_xywh, truth.area)
    size = np.sqrt(truth.box_xywh[person, 2] * truth.box_xywh[person, 3])
    distance = np.linalg.norm(xy - points[..., :2], axis=2) / size[:, None]
    labelled, seen = points[..., 2] > 0, points[..., 2] == SEEN
    oks = {part: _mean(similarity[labelled[:, columns].any(1), row])
           for row, (part, columns) in enumerate(SCORED.items())}
    nme = {part: _mean(distance[:, columns][seen[:, columns]])
           for part, columns in SCORED.items()}
    return {"oks": _with_hands(oks), "nme": _with_hands(nme)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _with_hands(values: dict[str, float]) -> dict[str, float]:
    return {**values, "hand": (values["left_hand"] + values["right_hand"]) / 2}
