"""Scores of person detectors: worked out by hand, and COCO's own program on random boxes."""

import contextlib
import io

import numpy as np
import pytest

from helpers.people_folder import person, points, write_people
from kd_pose.results import Detection2D
from kd_pose_training.data.coco_people import CocoPeople
from kd_pose_training.evaluation.person_boxes import (
    average_precision,
    best_threshold,
    calibrate,
    evaluate,
    operating_point,
    overlap,
)


def box(x, y, w, h, score=0.9):
    """A detection of the same pixels as an annotation with these numbers."""
    return Detection2D("person", score, np.array([x - 0.5, y - 0.5, w, h]))


class Fixed:
    """A detector with a list of answers, in turn; keeps the score threshold."""

    def __init__(self, answers):
        self.answers, self.calls = answers, 0

    def detect(self, image, channel_order="bgr", score_threshold=None, max_people=20):
        self.calls += 1
        items = self.answers[(self.calls - 1) % len(self.answers)]
        return [item for item in items if item.score >= score_threshold][:max_people]

    def warm_up(self, n):
        assert n > 0


@pytest.fixture
def frames(tmp_path):
    write_people(tmp_path, [
        [person((10, 10, 20, 40)), person((60, 10, 20, 40))],
        [person((10, 10, 20, 40)), person((80, 10, 40, 40), keypoints=points(0, 3))],
        [person((0, 0, 100, 90), crowd=1)], []])
    return CocoPeople(tmp_path, "train").frames


def test_by_hand(frames):
    found = [
        [box(10, 10, 20, 40, 0.9), box(60, 10, 20, 28, 0.6)],  # right; right to 0.7 overlap
        [box(80, 10, 40, 40, 0.8), box(10, 70, 20, 20, 0.7)],  # on the ignored; false
        [box(5, 5, 30, 30, 0.5)],  # in the crowd
        [box(30, 30, 30, 30, 0.4)]]  # false
    precision, recall = operating_point(found, frames, 0.1)
    assert recall[0] == pytest.approx(2 / 3) and precision[0] == pytest.approx(2 / 4)
    assert recall[4] == pytest.approx(2 / 3)  # 28/40 = 0.7
    assert recall[5] == pytest.approx(1 / 3) and precision[5] == pytest.approx(1 / 4)
    # At 0.5: right 0.9, wrong 0.7, right 0.6, wrong 0.4: precision 1 up to a recall of 1/3, then
    # 2/3 up to 2/3, then 0. Of 101 recalls 0 ... 0.33 are 34 and 0.34 ... 0.66 are 33.
    ap = average_precision(found, frames, 0.1)
    assert ap[0] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert ap[9] == pytest.approx(34 / 101)
    score = evaluate(Fixed(found), frames, score_threshold=0.55)
    assert (score.people, score.ignored, score.pictures) == (3, 2, 4)
    assert score.recall_70 == pytest.approx(2 / 3) and score.precision_50 == pytest.approx(2 / 3)
    assert score.ap_50 == pytest.approx(ap[0]) and score.ap == pytest.approx(ap.mean())
    assert "3 people in 4 pictures (2 more ignored)" in str(score)


def test_the_one_person_is_not_found_twice(frames):
    found = [[box(10, 10, 20, 40, 0.9), box(10, 10, 20, 39, 0.8)], [], [], []]
    precision, recall = operating_point(found, frames, 0.1)
    assert precision[0] == 0.5 and recall[0] == pytest.approx(1 / 3)


def test_no_box_at_all_and_nobody(frames):
    nothing = [[], [], [], []]
    precision, recall = operating_point(nothing, frames, 0.1)
    assert not precision.any() and not recall.any()
    assert not average_precision(nothing, frames, 0.1).any()
    with pytest.raises(ValueError, match="nobody to be found in 2 pictures"):
        operating_point(nothing[:2], frames[2:], 0.1)


def test_overlap_with_a_crowd_is_over_the_box(frames):
    assert overlap(box(5, 5, 30, 30).box_xywh, frames[2]).tolist() == [1.0]
    assert overlap(box(10, 10, 20, 80).box_xywh, frames[0])[0] == pytest.approx(0.5)


def test_the_threshold_with_the_best_balance(frames):
    found = [[box(10, 10, 20, 40, 0.62), box(60, 10, 20, 40, 0.61)],
             [box(10, 10, 20, 40, 0.63), box(30, 60, 20, 20, 0.33)], [], []]
    scores = calibrate(Fixed(found), frames)
    assert [t for t, score in scores.items() if score.f1 == 1.0] == [.35, .4, .45, .5, .55, .6]
    assert best_threshold(scores) == 0.5
    assert scores[0.3].precision_50 == 0.75 and scores[0.8].recall_50 == 0


def test_equals_pycocotools(tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval
    rng = np.random.default_rng(0)
    truth, found = [], []
    for _ in range(60):
        people, items = [], []
        for _ in range(rng.integers(0, 6)):
            w, h = rng.uniform(5, 50, 2)
            x, y = rng.uniform(0, 128 - w), rng.uniform(0, 96 - h)
            people.append(person((x, y, w, h), int(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 3)):
                dx, dy, dw, dh = rng.normal(0, 0.12, 4) * (w, h, w, h)
                items.append(box(x + dx, y + dy, w + abs(dw), h + abs(dh), rng.random()))
        items += [box(*rng.uniform(0, 60, 2), *rng.uniform(5, 40, 2), rng.random())
                  for _ in range(rng.integers(0, 3))]
        truth.append(people)
        found.append(sorted(items, key=lambda item: -item.score)[:20])
    path = write_people(tmp_path, truth)
    frames = CocoPeople(tmp_path, "train").frames
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO(str(path))
        for item in data.anns.values():
            item["area"] = item["bbox"][2] * item["bbox"][3]
        results = [{"image_id": number, "category_id": 1, "score": item.score,
                    "bbox": (item.box_xywh + (0.5, 0.5, 0, 0)).tolist()}
                   for number, items in enumerate(found, 1) for item in items]
        run = COCOeval(data, data.loadRes(results), "bbox")
        run.params.maxDets = [20]
        run.evaluate()
        run.accumulate()
    expected = run.eval["precision"][:, :, 0, 0, 0].mean(axis=1)
    assert 0.05 < expected.mean() < 0.9
    np.testing.assert_allclose(average_precision(found, frames, 0.0), expected, atol=1e-9)
    _, recall = operating_point(found, frames, 0.0)
    np.testing.assert_allclose(recall, run.eval["recall"][:, 0, 0, 0], atol=1e-9)
