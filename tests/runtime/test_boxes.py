"""kd_pose.boxes."""

import numpy as np
import pytest

from kd_pose.boxes import (
    decode_boxes,
    iou,
    nms,
    points_box,
    shows_image,
    xywh_from_xyxy,
    xyxy_from_xywh,
)
from kd_pose.crop import apply_affine
from kd_pose.votes import VoteInstance


def test_conversions_round_trip():
    boxes = np.array([[1.0, 2, 4, 8], [-3, 0, 5, 0.5]])
    assert xywh_from_xyxy(boxes).tolist() == [[1, 2, 3, 6], [-3, 0, 8, 0.5]]
    assert np.allclose(xyxy_from_xywh(xywh_from_xyxy(boxes)), boxes)


def test_iou_by_hand():
    box = np.array([0.0, 0, 2, 2])
    others = [[0, 0, 2, 2], [1, 0, 3, 2], [1, 1, 3, 3], [2, 0, 4, 2], [5, 5, 5, 5], [9, 9, 8, 8]]
    assert np.allclose(iou(box, others), [1, 1 / 3, 1 / 7, 0, 0, 0])


def test_nms_keeps_the_best_of_each_heap():
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 1, 10, 11]]
    assert nms(boxes, [0.5, 0.9, 0.3, 0.6]).tolist() == [1, 2]
    assert nms(boxes, [0.5, 0.9, 0.3, 0.6], threshold=0.99).tolist() == [1, 3, 0, 2]
    assert nms(np.empty((0, 4)), []).tolist() == []


def test_nms_is_greedy():
    """Against the definition, pair by pair; boxes without area overlap nothing."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 30, (200, 2))
    boxes = np.concatenate([low, low + rng.uniform(-1, 20, (200, 2))], axis=1)
    scores = rng.integers(0, 50, 200) / 50  # with ties: the first one is the better
    for threshold in (0.0, 0.3, 0.5, 1.0):
        kept = []
        for row in sorted(range(200), key=lambda row: -scores[row]):
            if not kept or iou(boxes[row], boxes[kept]).max() <= threshold:
                kept.append(row)
        assert nms(boxes, scores, threshold).tolist() == kept


@pytest.mark.parametrize("box, seen", [
    ((10, 10, 1, 1), True), ((10, 10, 0.9, 5), False), ((10, 10, 5, np.nan), False),
    ((-20, 5, 19.5, 5), False), ((-20, 5, 19.6, 5), True), ((159.5, 5, 5, 5), False),
    ((159.4, 5, 5, 5), True), ((5, 119.5, 5, 5), False), ((5, -9, 5, 8.5), False),
    ((-5e8, -5e8, 1e9, 1e9), True), ((-5e299, -5e299, 1e300, 1e300), False), ((1, 2, 3), False)])
def test_what_shows_something_of_an_image(box, seen):
    assert shows_image(box, 160, 120) is seen


def test_points_box():
    points = np.array([[[3.0, 1], [1, 5], [2, 2]]])
    assert points_box(points).tolist() == [[1, 1, 3, 5]]


def instance(points, weights, label=0):
    points = np.asarray(points, float)
    return VoteInstance(label, 0.7, np.zeros(4), np.arange(len(points)), points,
                        np.asarray(weights, float))


def test_decode_boxes_weighs_the_votes_and_maps_them_back():
    M = np.array([[0.5, 0, 10], [0, 0.5, 20]])
    box_image = np.array([[100.0, 60], [180, 100]])
    votes = apply_affine(M, box_image)
    found = decode_boxes(
        [instance([votes + 3, votes - 1], [1, 3])], M, ("cup",)
    )
    assert found[0].class_id == "cup" and found[0].score == 0.7
    assert np.allclose(found[0].box_xywh, [100, 60, 80, 40])


def test_decode_boxes_without_area_are_left_out():
    flat = np.array([[[5.0, 5], [5, 9]]])
    assert decode_boxes([instance(flat, [1])], np.eye(3)[:2]) == []
