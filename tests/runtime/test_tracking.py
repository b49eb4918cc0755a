"""kd_pose.tracking."""

import numpy as np
import pytest

from kd_pose.results import PersonPose, TrackState
from kd_pose.tracking import PeopleTracker, TrackingOptions
from kd_pose.wholebody_keypoints import COUNT

T, K, C, L = TrackState.TENTATIVE, TrackState.TRACKED, TrackState.COASTING, TrackState.LOST
IMAGE = (1000, 600)
# Where the 133 points of a person are in its box, 0..1; the two differ as two postures do.
POSTURES = np.random.default_rng(3).random((2, COUNT, 2))
POSTURES[:, :2] = [[0.0, 0.0], [1.0, 1.0]]  # the box around the points is the box


def person(x, y=100.0, width=100.0, height=200.0, posture=0, score=0.9, keypoints=0.8):
    points = np.array([x, y]) + POSTURES[posture] * (width, height)
    return PersonPose(np.array([x, y, width, height]), score, points, np.full(COUNT, keypoints))


def tracker(**options):
    return PeopleTracker(TrackingOptions(**options))


def walk(tracker, frames, period=0.1, start=0.0):
    """[(id, state), ...] of every frame."""
    return [[(p.id, p.track_state) for p in tracker.update(people, start + i * period, IMAGE)]
            for i, people in enumerate(frames)]


# --- ids and states ----------------------------------------------------------------------------


def test_states_from_first_sight_to_loss():
    frames = [[person(100)]] * 3 + [[]] * 6 + [[person(100)]]
    seen = walk(tracker(confirm_frames=3, max_coast_s=0.45), frames)
    assert seen == [[("1", T)], [("1", T)], [("1", K)],
                    [("1", C)], [("1", C)], [("1", C)], [("1", C)],  # 0.1 .. 0.4 s unseen
                    [("1", L)], [],  # told once
                    [("2", T)]]  # ids are never used again


def test_a_person_who_is_back_in_time_keeps_the_id():
    frames = [[person(100)]] * 3 + [[]] * 3 + [[person(110)]]
    assert walk(tracker(max_coast_s=0.5), frames)[-1] == [("1", K)]


def test_an_unconfirmed_person_ends_without_a_word():
    assert walk(tracker(confirm_frames=3), [[person(100)]] * 2 + [[]] * 2) == [
        [("1", T)], [("1", T)], [], []]
    assert walk(tracker(confirm_frames=1), [[person(100)]]) == [[("1", K)]]


def test_without_coasting_a_loss_is_told_at_once():
    assert walk(tracker(max_coast_s=0.0), [[person(100)]] * 3 + [[]] * 2)[-2:] == [[("1", L)], []]


def test_the_order_of_people_does_not_matter():
    a, b = person(100), person(400)
    seen = walk(tracker(), [[a, b], [b, a], [a, b], [b, a]])
    assert [[id for id, _ in frame] for frame in seen] == [["1", "2"], ["2", "1"]] * 2


@pytest.mark.parametrize("postures", [(0, 1), (0, 0)], ids=["two postures", "same posture"])
def test_crossing_people_keep_their_ids(postures):
    """They walk through each other, 20 px a frame; in the middle both boxes are the same."""
    frames = [[person(100 + 20 * i, posture=postures[0]), person(500 - 20 * i,
                                                                posture=postures[1])]
              for i in range(21)]
    tracks = tracker()
    for i, people in enumerate(frames):
        if i == 10 and postures[0] == postures[1]:
            people = people[:1]  # one is before the other, and one is what is seen
        seen = {p.id: p for p in tracks.update(people, 0.1 * i, IMAGE)}
        assert set(seen) == {"1", "2"}, i
    assert seen["1"].box_xywh[0] == 500 and seen["2"].box_xywh[0] == 100


def sure_only(item, points):
    """The same with no other keypoints sure than these."""
    item.keypoint_scores = np.full(COUNT, 0.1)
    item.keypoint_scores[points] = 0.8
    return item


def test_someone_whose_keypoints_come_and_go_keeps_the_id():
    """One box that stays, and now these few keypoints are sure, now those, here and there."""
    rng = np.random.default_rng(0)
    tracks = tracker()
    for i in range(60):
        unsure = sure_only(person(100, posture=i % 2), rng.choice(COUNT, 5, replace=False))
        found = tracks.update([unsure], 0.1 * i, IMAGE)
        assert [item.id for item in found] == ["1"], i
    assert found[0].track_state == K


def test_who_stays_in_the_box_gives_way_to_who_fits_better():
    tracks = tracker()
    walk(tracks, [[person(100, posture=0), person(112, posture=1)]] * 4)
    # They change their boxes, as crops of each other do, and not their postures.
    moved = [person(100, posture=0), person(112, posture=1)]
    moved[0].box_xywh, moved[1].box_xywh = moved[1].box_xywh, moved[0].box_xywh
    assert [item.id for item in tracks.update(moved, 0.4, IMAGE)] == ["1", "2"]


def test_a_hand_is_not_where_the_person_is_looked_for():
    tracks = tracker()
    hand = sure_only(person(100), slice(91, 112))
    hand.keypoints_xy[91:112] = [150.0, 250.0] + 20.0 * POSTURES[0, :21]
    tracks.update([hand], 0.0, IMAGE)
    looked_for, = tracks.boxes(0.1, IMAGE)
    np.testing.assert_array_equal(looked_for.box_xywh, [100, 100, 100, 200])
    hand.keypoints_xy[91:112] += (60.0, 0.0)  # stretched out: it has to stay in the box
    tracks.update([hand], 0.1, IMAGE)
    high = tracks.boxes(0.1, IMAGE)[0].box_xywh
    reach = hand.keypoints_xy[91:112]
    assert high[0] + high[2] >= reach[:, 0].max() and high[2] == 100
    half = person(100)  # sitting behind a desk: the upper 60 percent, which is a person
    half.keypoints_xy[:, 1] = 100 + 0.6 * (half.keypoints_xy[:, 1] - 100)
    tracks.update([half], 0.2, IMAGE)
    assert tracks.boxes(0.3, IMAGE)[0].box_xywh[3] == pytest.approx(1.15 * 120)


def test_a_box_follows_who_shows_less_and_who_lowers_the_arms():
    """Much of the body is sure, so the box is the one around it, however small it has become."""
    tracks = tracker()
    for i in range(12):
        item = person(100 + 20 * i, width=170.0)
        if i >= 4:  # arms down, and the legs behind a counter
            item.keypoints_xy[:, 0] = 150 + 20 * i + 0.4 * (item.keypoints_xy[:, 0] - 100 - 20 * i)
            item.keypoints_xy[:, 1] = 100 + 0.5 * (item.keypoints_xy[:, 1] - 100)
        tracks.update([item], 0.1 * i, IMAGE)
    box = tracks.boxes(1.1, IMAGE)[0].box_xywh
    np.testing.assert_allclose(box[2:], [1.15 * 68, 1.15 * 100])
    assert box[0] == pytest.approx(150 + 20 * 11 - 0.075 * 68)


def test_boxes_mean_the_same_whether_somebody_is_seen_or_not():
    tracks = tracker(confirm_frames=1)
    seen, = tracks.update([sure_only(person(100), slice(0, 60))], 0.0, IMAGE)
    coasting, = tracks.update([], 0.1, IMAGE)
    assert coasting.track_state == C
    np.testing.assert_array_equal(coasting.box_xywh, seen.box_xywh)


def test_someone_hidden_while_walking_is_expected_further_on():
    tracks = tracker(max_coast_s=1.0)
    for i in range(5):
        tracks.update([person(100 + 30 * i)], 0.1 * i, IMAGE)
    coasting, = tracks.update([], 0.6, IMAGE)
    # 300 px/s for 0.2 s, slowing down with 0.4 s: 300 * 0.4 * (1 - exp(-1/2)) = 47.2 px
    assert coasting.track_state == C
    assert coasting.box_xywh[0] == pytest.approx(220 + 47.2, abs=0.1)
    np.testing.assert_allclose(coasting.keypoints_xy - person(220).keypoints_xy,
                               [[47.2, 0.0]] * COUNT, atol=0.1)
    assert coasting.score == 0 and not coasting.keypoint_scores.any()
    seen, = tracks.update([person(100 + 30 * 7)], 0.7, IMAGE)
    assert (seen.id, seen.track_state) == ("1", K)


def test_two_who_swap_places_between_images_are_told_apart_by_how_they_stand():
    """Boxes say that nobody moved, postures that both did; boxes alone would swap the ids."""
    a, b = person(300, posture=0), person(330, posture=1)
    a2, b2 = person(330, posture=0), person(300, posture=1)
    tracks = tracker()
    for i in range(3):
        tracks.update([a, b], 0.1 * i, IMAGE)
    first, second = tracks.update([a2, b2], 0.3, IMAGE)
    assert (first.id, second.id) == ("1", "2")


def test_far_away_is_somebody_else():
    seen = walk(tracker(), [[person(100)]] * 3 + [[person(500)]])
    assert seen[-1] == [("2", T), ("1", C)]


def test_one_person_estimated_twice_is_one():
    a, b = person(100, score=0.5), person(103, score=0.9)
    assert [p.score for p in tracker().update([a, b], 0.0, IMAGE)] == [0.9]


def test_people_are_not_changed():
    a = person(100)
    tracker().update([a], 0.0, IMAGE)
    assert a.id == "" and a.track_state == T


# --- time ----------------------------------------------------------------------------------------


def test_time_that_goes_back_forgets_everybody():
    tracks = tracker()
    assert walk(tracks, [[person(100)]] * 3, start=50.0)[-1] == [("1", K)]
    assert walk(tracks, [[person(100)]], start=10.0) == [[("2", T)]]
    tracks.begin(5.0)
    assert tracks.tracks == []


def test_the_same_stamp_again_and_long_gaps():
    tracks = tracker()
    tracks.update([person(100)], 1.0, IMAGE)
    assert tracks.update([person(105)], 1.0, IMAGE)[0].id == "1"
    assert np.isfinite(tracks.tracks[0].speed).all()
    assert tracks.update([person(105)], 4.0, IMAGE)[0].id == "1"  # a slow network
    assert tracks.boxes(60.0, IMAGE) == []
    assert [p.id for p in tracks.update([person(105)], 60.0, IMAGE)] == ["2", "1"]


def test_reset_goes_on_with_new_ids():
    tracks = tracker()
    tracks.update([person(100)], 1.0, IMAGE)
    tracks.reset()
    assert tracks.update([person(100)], 1.1, IMAGE)[0].id == "2"


@pytest.mark.parametrize("stamp", [np.nan, np.inf])
def test_a_stamp_must_be_a_time(stamp):
    with pytest.raises(ValueError, match="stamp_s must be a finite"):
        tracker().update([], stamp, IMAGE)


# --- boxes ---------------------------------------------------------------------------------------


def test_boxes_are_those_of_the_sure_keypoints_padded_and_moved_on():
    tracks = tracker(box_pad=1.2)
    a = person(100)
    a.keypoint_scores[5] = 0.1
    a.keypoints_xy[5] = [900, 900]  # unsure: it must not pull the box
    a.keypoints_xy[6] = np.nan
    tracks.update([a], 0.0, IMAGE, [0.7])
    box, = tracks.boxes(0.1, IMAGE)
    np.testing.assert_allclose(box.box_xywh, [90, 80, 120, 240])
    assert (box.class_id, box.score) == ("person", 0.7)
    tracks.update([person(140)], 0.1, IMAGE)  # 400 px/s
    box, = tracks.boxes(0.2, IMAGE)
    assert box.box_xywh[0] == pytest.approx(130 + 400 * 0.4 * (1 - np.exp(-0.25)))


def test_without_sure_keypoints_the_given_box_stays():
    tracks = tracker()
    tracks.update([person(100, keypoints=0.1)], 0.0, IMAGE)
    np.testing.assert_allclose(tracks.boxes(0.0, IMAGE)[0].box_xywh, [100, 100, 100, 200])


def test_who_has_left_the_image_is_lost_and_not_looked_for():
    tracks = tracker(max_coast_s=9.0)
    for i in range(4):
        tracks.update([person(800 + 60 * i)], 0.1 * i, IMAGE)
    assert len(tracks.boxes(0.31, IMAGE)) == 1
    assert tracks.boxes(0.5, IMAGE) == []  # the left edge is at 970, 600 px/s
    assert [p.track_state for p in tracks.update([], 0.5, IMAGE)] == [L]


@pytest.mark.parametrize("options, text", [
    ({"min_overlap": 1.5}, "min_overlap must be 0 to 1, got 1.5"),
    ({"confirm_frames": 0}, "confirm_frames must be 1 to 1000"),
    ({"max_coast_s": -1.0}, "max_coast_s must be 0 to 60"),
    ({"box_pad": 0.5}, "box_pad must be 1 to 3"),
])
def test_wrong_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        TrackingOptions(**options)
