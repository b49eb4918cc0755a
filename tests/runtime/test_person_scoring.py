"""kd_pose.person_scoring: values by hand."""

import numpy as np
import pytest

from kd_pose.person_scoring import crop_areas, estimate_oks, oks_nms, rescore
from kd_pose.wholebody_keypoints import COUNT, SIGMAS


def test_suppression_keeps_the_better_of_two_alike():
    rng = np.random.default_rng(1)
    one = rng.random((COUNT, 2)) * 100
    xy = np.stack([one, one + 0.05, one + 60.0])
    areas = np.full(3, 5000.0)
    assert estimate_oks(one, xy[1:], 5000.0, areas[1:])[0] > 0.9
    assert oks_nms(xy, np.array([0.3, 0.8, 0.5]), areas).tolist() == [1, 2]
    assert oks_nms(xy, np.array([0.8, 0.8, 0.9]), areas).tolist() == [2, 0]
    assert oks_nms(xy, np.ones(3), areas, threshold=1.0).tolist() == [0, 1, 2]
    assert len(oks_nms(xy[:0], np.zeros(0), np.zeros(0))) == 0


def test_suppression_takes_the_mean_of_both_areas():
    # distance 1 px everywhere, areas 100 and 300: as OKS with area 200
    xy = np.zeros((2, COUNT, 2))
    xy[1, :, 0] = 1.0
    expected = np.exp(-1.0 / (2 * 200 * (2 * SIGMAS) ** 2)).mean()
    assert estimate_oks(xy[0], xy[1:], 100.0, np.array([300.0])) == pytest.approx(expected)


def test_person_score():
    # 0.5 times the mean of those above 0.2: (0.4 + 0.8) / 2; a score of 0.2 does not count
    scores = np.zeros((2, COUNT))
    scores[0, :3] = 0.4, 0.8, 0.2
    assert rescore(np.array([0.5, 1.0]), scores).tolist() == pytest.approx([0.3, 0.0])


def test_crop_areas_follow_the_input():
    # 100 x 100 in a crop of 3:4: 125 wide, so 166.7 high; 30 x 100: 125 high, so 93.75 wide
    areas = crop_areas([[5, 5, 100, 100], [5, 5, 30, 100]], 0.75)
    assert areas.tolist() == pytest.approx([125 * 125 / 0.75, 93.75 * 125])


def test_points_that_are_not_estimated_do_not_count():
    xy = np.zeros((3, COUNT, 2))
    xy[1, :, 0] = 1.0
    xy[1, 5:] = xy[2] = np.nan
    expected = np.exp(-1.0 / (2 * 200 * (2 * SIGMAS[:5]) ** 2)).mean()
    found = estimate_oks(xy[0], xy[1:], 100.0, np.array([300.0, 300.0]))
    assert found.tolist() == pytest.approx([expected, 0.0])
    assert oks_nms(xy, np.ones(3), np.full(3, 1e9)).tolist() == [0, 2]  # nobody can be anybody
