"""The time of images whose stamps go on, stand still or go back, worked out by hand."""

import pytest

from kd_pose.nodes.stamps import StampClock

SECOND = 1_000_000_000


class Wall:
    """A clock that is set."""

    def __init__(self):
        self.now = 500.0

    def __call__(self):
        return self.now


def times(images):
    """images: (stamp in s, time of arrival in s) -> their times."""
    wall = Wall()
    clock = StampClock(wall)
    found = []
    for stamp_s, wall.now in images:
        found.append(clock.seconds(round(stamp_s * SECOND)))
    return found


def test_stamps_that_go_on_are_the_time():
    assert times([(7.0, 1.0), (7.1, 1.5), (9.0, 1.6)]) == pytest.approx([7.0, 7.1, 9.0])


def test_where_stamps_stand_still_arrivals_count():
    assert times([(0.0, 5.0), (0.0, 5.1), (0.0, 5.7)]) == pytest.approx([0.0, 0.1, 0.7])


def test_stamps_of_whole_seconds_never_go_back():
    # The camera's second is a little shorter than ours.
    found = times([(7, 1.0), (7, 1.6), (7, 2.05), (8, 2.06), (8, 2.5)])
    assert found == pytest.approx([7.0, 7.6, 8.05, 8.05, 8.44])


def test_a_stamp_that_goes_back_takes_the_time_back():
    assert times([(7.0, 1.0), (7.0, 2.0), (3.0, 2.1), (3.5, 2.2)]) == pytest.approx(
        [7.0, 8.0, 3.0, 3.5])
