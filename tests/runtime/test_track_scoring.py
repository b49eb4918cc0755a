"""People who are tracked against true people, with values worked out by hand."""

import numpy as np
import pytest

from kd_pose.sources.base import TruePerson
from kd_pose.track_scoring import TrueTracks, describe
from kd_pose.wholebody_keypoints import COUNT


def points(x):
    """All at x, 50."""
    return np.tile([float(x), 50.0], (COUNT, 1))


def there(name, x):
    """In a box of 100 x 100 pixels."""
    return TruePerson(name, (x - 50.0, 0.0, 100.0, 100.0), points(x))


def estimates(*places):
    return np.array([points(x) for x in places]).reshape(-1, COUNT, 2)


def test_four_frames_by_hand():
    tracks, truths = TrueTracks(), [there("a", 100), there("b", 300)]
    assert tracks.update(["7", "3", "8"], estimates(302, 104, 900), truths) == {
        0: pytest.approx(0.02), 1: pytest.approx(0.04)}
    assert tracks.update([], estimates(), truths) == {}
    tracks.update(["3", "7"], estimates(300, 100), truths)  # both are somebody else now
    tracks.update(["3"], estimates(300), truths)
    assert tracks.summary() == {
        "people": 8, "found": 5, "recall": 5 / 8, "false_per_frame": 1 / 4, "id_changes": 2,
        "median_error_of_size": 0.0}
    assert tracks.people_of == {"a": 4, "b": 4} and tracks.found_of == {"a": 2, "b": 3}
    assert describe(tracks.summary()) == (
        "5 of 8 true people tracked (62.5%; body OKS 0.5 or more), 0.25 false ones a frame, "
        "2 id changes, body points off by 0.0% of the person's size (median)")


def test_without_names_nobody_can_be_taken_for_another():
    for ids, name in ((["1"], ""), ([""], "a")):
        tracks = TrueTracks()
        tracks.update(ids, estimates(100), [there(name, 100)])
        assert tracks.summary()["id_changes"] is None and tracks.summary()["recall"] == 1.0


def test_who_is_not_labelled_is_neither_missed_nor_false():
    unlabelled = there("b", 300)
    unlabelled.keypoints_xy[:17] = np.nan  # the face is labelled: not enough
    tracks = TrueTracks()
    assert tracks.update(["1", "2", "3"], estimates(100, 310, 500),
                         [there("a", 100), unlabelled]) == {0: 0.0}
    assert tracks.summary()["people"] == 1 and tracks.summary()["false_per_frame"] == 1.0
    assert tracks.people_of == {"a": 1}
    partly = estimates(310)
    partly[0, :9] = [600.0, 50.0]  # 9 of 17 elsewhere
    tracks.update(["2"], partly, [unlabelled])
    assert tracks.false == 2
    tracks.update(["2"], np.full((1, COUNT, 2), np.nan), [unlabelled])
    assert tracks.false == 3


def test_nobody_there():
    tracks = TrueTracks()
    assert tracks.summary()["false_per_frame"] is None  # no frame
    tracks.update(["1"], estimates(100), [])
    assert tracks.summary()["recall"] is None
    assert describe(tracks.summary()) == "nobody there by the truth, 1.00 false people a frame"
