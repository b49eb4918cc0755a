"""kd_pose.smoothing."""

import math

import numpy as np
import pytest

from kd_pose.results import PersonPose, TrackState
from kd_pose.smoothing import OneEuroFilter, PeopleSmoother, SmoothingOptions
from kd_pose.wholebody_keypoints import COUNT


def run(options, values, times, scale=1.0):
    one_euro = OneEuroFilter(options)
    return np.array([one_euro.filter(value, t, scale) for value, t in zip(values, times)])


def test_by_hand():
    """cutoffs of 1 / (2 pi) make tau 1 s; steps of 1 s make the shares 1/2."""
    hz = 1.0 / (2.0 * math.pi)
    out = run(SmoothingOptions(hz, 0.0, hz), np.array([0.0, 8.0, 8.0, 0.0]), [0, 1, 2, 3])
    np.testing.assert_allclose(out, [0.0, 4.0, 6.0, 3.0])
    # Twice the time: 1 / (1 + 1/2) = 2/3.
    out = run(SmoothingOptions(hz, 0.0, hz), np.array([0.0, 9.0]), [0, 2])
    np.testing.assert_allclose(out, [0.0, 6.0])
    # beta: the speed is 8 / 1 s, averaged with the 0 before: 4; cutoff hz + 4 hz: share 5/6.
    out = run(SmoothingOptions(hz, hz, hz), np.array([0.0, 8.0]), [0, 1])
    np.testing.assert_allclose(out, [0.0, 8.0 * 5 / 6])
    # The same at another scale: with 4 px as unit the speed is 1, the share 2/3.
    out = run(SmoothingOptions(hz, hz, hz), np.array([0.0, 8.0]), [0, 1], scale=4.0)
    np.testing.assert_allclose(out, [0.0, 8.0 * 2 / 3])


def test_what_does_not_move_is_left_alone():
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 30))
    values = np.tile([[3.25, -7.5]], (30, 1))
    np.testing.assert_array_equal(run(SmoothingOptions(), values, times), values)


def test_after_a_step_the_rest_shrinks_geometrically():
    """Without beta: what is missing after n steps is (1 - a)^n, a = 1 / (1 + 1 / (2 pi f dt))."""
    hz, dt = 1.5, 1 / 30
    values = np.array([0.0] + [1.0] * 20)
    out = run(SmoothingOptions(hz, 0.0), values, dt * np.arange(21))
    a = 1.0 / (1.0 + 1.0 / (2.0 * math.pi * hz * dt))
    np.testing.assert_allclose(1.0 - out, (1.0 - a) ** np.arange(21))


def test_equals_the_authors_own():
    """OneEuroFilter of PyPI, number by number, with uneven times."""
    original = pytest.importorskip("OneEuroFilter", reason="pip install OneEuroFilter")
    rng = np.random.default_rng(1)
    times = 1.0 + np.cumsum(rng.uniform(0.01, 0.1, 60))  # to them a time of 0 is none
    values = np.cumsum(rng.normal(0, 1, (60, 3, 2)), axis=0)
    ours = run(SmoothingOptions(0.8, 0.3, 1.2), values, times)
    for index in np.ndindex(3, 2):
        theirs = original.OneEuroFilter(30.0, 0.8, 0.3, 1.2)
        expected = [theirs(x, t) for x, t in zip(values[(slice(None), *index)], times)]
        np.testing.assert_allclose(ours[(slice(None), *index)], expected, rtol=1e-9)


def test_unknown_values_stay_unknown_and_do_no_harm():
    values = np.array([[1.0, np.nan], [1.0, 5.0], [np.nan, np.nan], [2.0, 6.0]])
    times = [0.0, 0.1, 0.2, 0.3]
    out = run(SmoothingOptions(1.0, 0.0), values, times)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(values))
    assert out[1, 1] == 5.0  # the first time that it is known
    # 0.2 s since both were last known: a = 0.2 / (0.2 + 1 / (2 pi))
    a = 0.2 / (0.2 + 1.0 / (2.0 * math.pi))
    np.testing.assert_allclose(out[3], [1.0 + a, 5.0 + a])


def test_after_a_long_time_the_new_value_stands():
    out = run(SmoothingOptions(1.0, 0.0), np.array([0.0, 1.0]), [0.0, 60.0])
    assert out[1] == pytest.approx(1.0, abs=0.003)


def test_the_same_time_again_changes_nothing():
    out = run(SmoothingOptions(), np.array([0.0, 5.0, 9.0]), [0.0, 0.1, 0.1])
    assert out[2] == out[1] and np.isfinite(out).all()


def test_another_shape_is_refused():
    one_euro = OneEuroFilter()
    one_euro.filter(np.zeros((2, 2)), 0.0)
    with pytest.raises(ValueError, match=r"shape \(3, 2\), before it was \(2, 2\)"):
        one_euro.filter(np.zeros((3, 2)), 0.1)


@pytest.mark.parametrize("options, name", [
    ({"min_cutoff_hz": 0.0}, "min_cutoff_hz"), ({"beta": -1.0}, "beta"),
    ({"derivative_cutoff_hz": float("nan")}, "derivative_cutoff_hz")])
def test_wrong_options_are_named(options, name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        SmoothingOptions(**options)


def test_less_trembling_and_little_lag():
    """Defaults at 30 Hz, noise of 1 % of a person's size, positions in sizes.

    Still: less than half the deviation, a quarter of the change from image to image. Moving at
    two sizes a second (an arm): less than 10 ms late; a plain average as calm is about
    70 ms late.
    """
    rng = np.random.default_rng(0)
    times = np.arange(0, 4, 1 / 30)
    noise = rng.normal(0, 0.01, (len(times), 200))
    still = run(SmoothingOptions(), noise, times)[45:]
    assert still.std() < 0.5 * noise.std()
    assert np.diff(still, axis=0).std() < 0.25 * np.diff(noise, axis=0).std()
    moving = run(SmoothingOptions(), 2.0 * times[:, None] + noise, times)[45:]
    lag_ms = 1e3 * (2.0 * times[45:, None] - moving).mean() / 2.0
    assert lag_ms < 10.0


def people(x, xyz=None, id="1", state=TrackState.TRACKED, size=100.0):
    points = np.full((COUNT, 2), float(x))
    return [PersonPose(np.array([0.0, 0.0, size, size]), 0.9, points, np.ones(COUNT),
                       None if xyz is None else np.full((COUNT, 3), xyz), id, state)]


def test_people_are_smoothed_by_their_ids():
    smoother = PeopleSmoother(SmoothingOptions(1.0, 0.0))
    a = 0.1 / (0.1 + 1.0 / (2.0 * math.pi))
    first, = smoother.smooth(people(0, 1.0), 0.0)
    np.testing.assert_array_equal(first.keypoints_xy, 0.0)
    both = smoother.smooth(people(10, 2.0) + people(50, id="2"), 0.1)
    np.testing.assert_allclose(both[0].keypoints_xy, 10 * a)
    np.testing.assert_allclose(both[0].keypoints_xyz, 1 + a)
    np.testing.assert_allclose(both[1].keypoints_xy, 50.0)
    assert both[1].keypoints_xyz is None
    nobody, = smoother.smooth(people(10, id=""), 0.2)  # without a track
    np.testing.assert_array_equal(nobody.keypoints_xy, 10.0)
    back, = smoother.smooth(people(10), 0.3)  # it was gone: from the beginning
    np.testing.assert_array_equal(back.keypoints_xy, 10.0)


def test_people_near_and_far_are_smoothed_alike():
    """Ten times as large and ten times as fast: ten times the result."""
    results = []
    for size in (50.0, 500.0):
        smoother = PeopleSmoother()
        for i in range(5):
            person, = smoother.smooth(people(0.1 * size * i, size=size), 0.1 * i)
        results.append(person.keypoints_xy[0, 0] / size)
    assert results[0] == pytest.approx(results[1])


def test_those_who_are_not_seen_are_left_alone_and_not_forgotten():
    smoother = PeopleSmoother(SmoothingOptions(1.0, 0.0))
    smoother.smooth(people(0), 0.0)
    coasting, = smoother.smooth(people(40, state=TrackState.COASTING), 0.1)
    np.testing.assert_array_equal(coasting.keypoints_xy, 40.0)
    again, = smoother.smooth(people(10), 0.2)
    assert 0 < again.keypoints_xy[0, 0] < 10
    smoother.smooth(people(10, state=TrackState.LOST), 0.3)
    fresh, = smoother.smooth(people(0), 0.4)
    np.testing.assert_array_equal(fresh.keypoints_xy, 0.0)


def test_time_that_goes_back_starts_anew():
    smoother = PeopleSmoother()
    smoother.smooth(people(0), 9.0)
    person, = smoother.smooth(people(10), 1.0)
    np.testing.assert_array_equal(person.keypoints_xy, 10.0)
