"""kd_pose_training.evaluation.oks and matching: values by hand, and the rules of COCO in loops."""

import math

import numpy as np
import pytest

from kd_pose.wholebody_keypoints import COUNT, PARTS, SIGMAS
from kd_pose_training.evaluation.matching import RECALLS, THRESHOLDS, match, precision_recall
from kd_pose_training.evaluation.oks import SCORED, part_oks

ZERO = np.zeros(1, np.int64)


def pair(estimated, true, box=(0, 0, 10, 10), area=100.0):
    """OKS of one pair by part."""
    values = part_oks(estimated[None], ZERO, true[None], ZERO, np.array([box], float),
                      np.array([area]))
    return dict(zip(SCORED, values[0]))


def labelled(*indices):
    points = np.zeros((COUNT, 3))
    points[list(indices), 2] = 2.0
    return points


def test_one_point_at_the_distance_of_one_half():
    # exp(-d^2 / (2 A (2 sigma)^2)) = 1/2  at  d = 2 sigma sqrt(2 A ln 2); nose, A = 100 px:
    # d = 2 * 0.026 * sqrt(200 * 0.6931) = 0.6122 px
    d = 2 * 0.026 * math.sqrt(200 * math.log(2))
    assert d == pytest.approx(0.6122, abs=1e-4)
    estimated = np.zeros((COUNT, 2))
    estimated[0] = (0.6 * d, 0.8 * d)
    value = pair(estimated, labelled(0))
    assert value["body"] == pytest.approx(0.5, abs=1e-12)
    assert value["wholebody"] == pytest.approx(0.5, abs=1e-12)


def test_parts_are_means_over_their_labelled_points():
    # The nose exact, the left eye far away: 1/2. A toe exact: 1. All three together: 2/3.
    estimated = np.zeros((COUNT, 2))
    estimated[1] = 1e4
    true = labelled(0, 1, 17)
    true[5:8, :2] = 77.0  # not labelled, so wherever
    value = pair(estimated, true)
    assert value["body"] == pytest.approx(0.5) and value["foot"] == pytest.approx(1.0)
    assert value["wholebody"] == pytest.approx(2 / 3)


def test_visibility_is_a_number_above_zero():
    true = labelled(0)
    true[0, 2] = 0.01
    assert pair(np.zeros((COUNT, 2)), true)["body"] == 1.0


def test_without_labels_the_distance_is_that_to_three_boxes():
    # Box 10 .. 20, so 0 .. 30 counts as inside; one pixel beyond is one pixel away.
    estimated = np.full((COUNT, 2), 29.0)
    box, area = (10, 10, 10, 10), 100.0
    assert pair(estimated, labelled(17), box, area)["body"] == 1.0
    estimated[PARTS["body"]] = (31.0, 15.0)
    expected = np.exp(-1.0 / (2 * area * (2 * SIGMAS[PARTS["body"]]) ** 2)).mean()
    assert pair(estimated, labelled(17), box, area)["body"] == pytest.approx(expected, abs=1e-12)


def test_larger_people_and_smaller_errors_score_higher():
    rng = np.random.default_rng(0)
    true = np.concatenate([rng.random((COUNT, 2)) * 50, np.ones((COUNT, 1))], axis=1)
    noise = rng.standard_normal((COUNT, 2))
    values = [pair(true[:, :2] + scale * noise, true, area=area)["wholebody"]
              for scale, area in ((0.0, 500.0), (0.1, 500.0), (1.0, 500.0), (1.0, 5000.0))]
    assert values[0] == 1.0 and values[0] > values[1] > values[2] and values[3] > values[2]
    moved = true + (13.0, -4.0, 0.0)
    assert pair(moved[:, :2] + noise, moved)["face"] == pytest.approx(
        pair(true[:, :2] + noise, true)["face"], abs=1e-9)


def match_in_loops(oks, ignored, crowd):
    """One case as cocodataset.org/#keypoints-eval and COCOeval describe it."""
    estimates, people = oks.shape
    matched = np.zeros((len(THRESHOLDS), estimates), bool)
    spent = np.zeros_like(matched)
    order = np.argsort(ignored, kind="stable")  # targets first
    for row, threshold in enumerate(THRESHOLDS):
        taken = set()
        for d in range(estimates):
            best, chosen = min(threshold, 1 - 1e-10), None
            for g in order:
                if g in taken and not crowd[g]:
                    continue
                if chosen is not None and not ignored[chosen] and ignored[g]:
                    break
                if oks[d, g] < best:
                    continue
                best, chosen = oks[d, g], g
            if chosen is not None:
                taken.add(chosen)
                matched[row, d], spent[row, d] = True, ignored[chosen]
    return matched, spent


@pytest.mark.parametrize("seed", range(4))
def test_matching_equals_the_loops(seed):
    rng = np.random.default_rng(seed)
    cases = 60
    # coarse numbers, so that many are equal and many lie on a threshold
    oks = np.round(rng.random((cases, 6, 5)) * 20) / 20
    ignored, crowd = rng.random((cases, 5)) < 0.4, rng.random((cases, 5)) < 0.2
    ignored |= crowd
    matched, spent = match(oks, ignored, crowd)
    for case in range(cases):
        expected = match_in_loops(oks[case], ignored[case], crowd[case])
        assert np.array_equal(matched[case], expected[0])
        assert np.array_equal(spent[case], expected[1])


def test_precision_over_recall_by_hand():
    # Best first: right, wrong, right, of 4 people. Recall 1/4, 1/4, 2/4; precision 1, 1/2, 2/3.
    # Precision at recall <= 1/4 is 1, up to 2/4 it is 2/3, beyond it is 0.
    scores = np.array([0.5, 0.9, 0.7])
    matched = np.array([[True, True, False]])
    curve, reached = precision_recall(scores, matched, np.zeros_like(matched), 4)
    assert reached == [0.5]
    assert np.allclose(curve[0, RECALLS <= 0.25], 1.0)
    assert np.allclose(curve[0, (RECALLS > 0.25) & (RECALLS <= 0.5)], 2 / 3)
    assert np.all(curve[0, RECALLS > 0.5] == 0)
    # An ignored estimate is neither right nor wrong.
    ignored = np.array([[False, False, True]])
    assert precision_recall(scores, matched, ignored, 4)[0][0, 50] == pytest.approx(1.0)


def test_no_estimates_reach_nothing():
    curve, reached = precision_recall(np.zeros(0), np.zeros((2, 0), bool), np.zeros((2, 0), bool),
                                      3)
    assert not curve.any() and reached.tolist() == [0, 0]
