"""A small folder in COCO-WholeBody's layout, and a recipe that trains on it in a second."""

from __future__ import annotations

import json

import cv2
import numpy as np

from helpers.wholebody_files import annotation
from kd_pose.wholebody_keypoints import COUNT

SIZE_WH = (90, 120)
BOX = (15.0, 15.0, 60.0, 90.0)
RECIPE = """
task: wholebody
data: {{train: ['{people}:train'], val: ['{people}:val'], input_size: [32, 64], num_workers: 0}}
model: {{size: rtmpose_n}}
trainer: {{iterations: 4, batch_size: 4, precision: fp32, device: cpu, validate_every: 2,
          checkpoint_every: 2, log_every: 1, progress_bar: false, tensorboard: false, threads: 1}}
"""


def annotation_path(root, split="train"):
    return root / f"annotations/coco_wholebody_{split}_v1.0.json"


def write_people(root, train=6, val=3):
    """Noise pictures with one person each, in ``images/<split>``."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        data = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
        for number in range(1, count + 1):
            name = f"{number:012d}.jpg"
            cv2.imwrite(str(folder / name), rng.integers(0, 256, (*SIZE_WH[::-1], 3), np.uint8))
            points = np.ones((COUNT, 3))
            points[:, :2] = np.add(BOX[:2], rng.uniform(0, 1, (COUNT, 2)) * BOX[2:])
            data["images"].append({"id": number, "file_name": name, "width": SIZE_WH[0],
                                   "height": SIZE_WH[1]})
            data["annotations"].append(annotation(number, number, points, BOX, 3000.0))
        annotation_path(root, split).write_text(json.dumps(data))
    return root


def change_annotations(root, change, split="train"):
    """Let ``change`` work on every annotation of a split."""
    data = json.loads(annotation_path(root, split).read_text())
    for item in data["annotations"]:
        change(item)
    annotation_path(root, split).write_text(json.dumps(data))


def write_recipe(folder, people):
    path = folder / "people.yaml"
    path.write_text(RECIPE.format(people=people))
    return path
