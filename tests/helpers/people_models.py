"""A whole-body model and a person detector for one picture, both files with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import published_models as published
from helpers.tiny_people import GAIN, write_people_model
from kd_pose.manifest import PersonDetectorManifest
from kd_pose.wholebody_keypoints import COUNT

SIZE = (128, 96)  # of the picture, which is the detector's input as it is
# Padded by 1.25 it is the 48 x 64 pixels of the network's input from (30, 20) on.
BOX = (34.3, 25.9, 38.4, 51.2)
DOTS = ((50, 40), (60, 50), (41, 71))  # where keypoints 0, 3, .. and 1, 4, .. and 2, 5, .. are


def picture():
    """BGR with a dot for each channel of RGB."""
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for channel, (x, y) in enumerate(DOTS):
        image[y, x, 2 - channel] = 255
    return image


def true_keypoints():
    """(133, 2) pixels and (133,) scores; what has the score 0 is nowhere."""
    xy = np.array([DOTS[i % 3] for i in range(COUNT)], dtype=float)
    xy[GAIN <= 0] = np.nan
    return xy, GAIN


def make_people_models(folder: Path) -> dict:
    """Parameters of the node."""
    corners = np.array([[BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + BOX[3]]]) + 0.5
    rows = published.yolox_rows(corners, np.array([0.9]), SIZE, classes=3, labels=0)
    manifest = PersonDetectorManifest(
        task="person_detector", architecture="yolox", layout="yolox_grid", input_size=SIZE,
        mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr", output_names=("output",),
        input_name="images")
    detector = published.embed(published.yolox(folder / "yolox.onnx", rows, SIZE), manifest)
    return {"model_path": str(write_people_model(folder / "people.onnx")),
            "detector_path": str(detector), "warmup_iterations": 1, "threads": 1}
