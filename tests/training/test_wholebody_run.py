"""kd_pose_training.evaluation.wholebody_run: a fake network on real files, from boxes to AP."""

import json

import cv2
import numpy as np
import pytest

from helpers.wholebody_files import annotation
from kd_pose.simcc import SimccCodec
from kd_pose.wholebody_keypoints import COUNT, FLIP
from kd_pose_training.data.coco_wholebody import read_coco_wholebody
from kd_pose_training.evaluation.wholebody import average_precision, read_truth
from kd_pose_training.evaluation.wholebody_results import PersonBoxes
from kd_pose_training.evaluation.wholebody_run import (
    estimate_people,
    simcc_predictor,
    true_boxes,
)

CODEC = SimccCodec((48, 64))
MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
GREEN, RED = (0, 255, 0), (0, 0, 255)  # BGR
# Where the dots of left and right keypoints are.
LEFT, RIGHT = np.array([60.0, 70.0]), np.array([90.0, 70.0])


def see_dots(crops):
    """A "network": a person from behind, whose left points are at the dot on the left, right ones
    at the other, and those of the middle between them. Crops have RGB planes."""
    logits = [np.zeros((len(crops), COUNT, bins), np.float32) for bins in CODEC.bins]
    for row, crop in enumerate(crops):
        dots = [np.argwhere(crop[channel] > 128).mean(axis=0)[::-1] for channel in (0, 1)]
        dots.sort(key=lambda place: place[0])
        for axis, bins in enumerate(np.rint(2 * places(*dots)).astype(int).T):
            logits[axis][row, np.arange(COUNT), bins] = 1.0
    return logits


def places(left, right):
    """(133, 2): where the points of either side and of the middle are."""
    side = np.sign(FLIP - np.arange(COUNT))[:, None]
    return np.where(side > 0, left, np.where(side < 0, right, (left + right) / 2))


@pytest.fixture
def folder(tmp_path):
    """One picture with a dot for each side, and the person whose points these are."""
    image = np.full((140, 160, 3), 20, np.uint8)
    points = np.ones((COUNT, 3))
    points[:, :2] = places(LEFT, RIGHT)
    for place, colour in ((LEFT, RED), (RIGHT, GREEN)):
        cv2.circle(image, tuple(int(v) for v in place), 5, colour, -1)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    data = {"images": [{"id": 4, "file_name": "a.png", "width": 160, "height": 140}],
            "annotations": [annotation(9, 4, points, (45, 40, 60, 70), 3000.0)]}
    (tmp_path / "truth.json").write_text(json.dumps(data))
    return tmp_path


def run(folder, boxes=None, flip_test=False):
    truth = read_truth(folder / "truth.json")
    if boxes is None:
        boxes = true_boxes(read_coco_wholebody(folder / "truth.json", folder))
    predict = simcc_predictor(see_dots, CODEC, MEAN, STD, flip_test)
    return truth, estimate_people(predict, truth, folder, boxes, 0.75, progress=False)


def test_keypoints_come_back_to_the_picture(folder):
    truth, found = run(folder)
    assert found.image_id.tolist() == [4] and found.score.tolist() == [1.0]
    error = np.linalg.norm(found.xy[0] - truth.points[0, :, :2], axis=1)
    assert error.max() < 0.5 * 87.5 / 64 + 0.5  # half a bin, seen from the picture, and the dot


def test_flip_test_swaps_sides_back(folder):
    # Half a bin to the right of the plain result: what the published flip test does.
    _, plain = run(folder)
    _, both = run(folder, flip_test=True)
    assert both.score[0] >= 0.5
    difference = both.xy[0] - plain.xy[0]
    assert np.abs(difference).max() <= 87.5 / 128 + 1e-6
    sides = np.arange(COUNT) < FLIP
    assert both.xy[0, sides, 0].max() < both.xy[0, ~sides, 0].min()


def test_detected_boxes_are_rescored_and_suppressed(folder):
    box = np.array([45.0, 40.0, 60.0, 70.0])
    boxes = PersonBoxes(np.array([4, 4]), np.stack([box, box]), np.array([0.3, 0.8]))
    truth, found = run(folder, boxes)
    assert found.score.tolist() == [0.8]
    assert average_precision(truth, found)["body"]["AR50"] == 1.0


def test_no_boxes_and_missing_pictures(folder):
    none = PersonBoxes(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
    assert len(run(folder, none)[1]) == 0
    with pytest.raises(ValueError, match="image_id 5, which the annotations do not have"):
        run(folder, PersonBoxes(np.array([5]), np.ones((1, 4)), np.ones(1)))
    boxes = true_boxes(read_coco_wholebody(folder / "truth.json", folder))
    (folder / "a.png").unlink()
    with pytest.raises(ValueError, match="a.png: no such file"):
        run(folder, boxes)
