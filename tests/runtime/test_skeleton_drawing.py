"""kd_pose.skeleton_drawing."""

import numpy as np
import pytest

from kd_pose.results import PeopleFrame, PersonPose, TrackState
from kd_pose.skeleton_drawing import STROKES, draw_frame, draw_people
from kd_pose.wholebody_keypoints import COUNT, FLIP, PARTS


def person(x=100.0, y=20.0, height=200.0):
    """Points of a standing person, spread over a box of half its height: (1, 133, 2)."""
    rng = np.random.default_rng(3)
    points = np.array([x, y]) + rng.random((COUNT, 2)) * (0.5 * height, height)
    return points[None]


def grey(height=260, width=320):
    return np.full((height, width, 3), 90, np.uint8)


def changed(drawn):
    return (drawn != 90).any(axis=2)


def test_every_shown_point_is_on_a_line():
    xy = person()
    drawn = changed(draw_people(grey(), xy, np.ones((1, COUNT))))
    drawn_points = {index for stroke in STROKES for index in (stroke.a, stroke.b)}
    assert drawn_points == set(range(COUNT))
    for x, y in np.rint(xy[0]).astype(int):
        assert drawn[y - 1:y + 2, x - 1:x + 2].any()


def test_only_points_above_the_threshold_are_drawn():
    xy, scores = person(), np.zeros((1, COUNT))
    assert not changed(draw_people(grey(), xy, scores)).any()
    scores[0, [5, 7]] = 0.9  # left shoulder and elbow
    drawn = changed(draw_people(grey(), xy, scores))
    for index in (5, 7):
        x, y = np.rint(xy[0, index]).astype(int)
        assert drawn[y, x]
    low, high = xy[0, [5, 7]].min(axis=0) - 5, xy[0, [5, 7]].max(axis=0) + 5
    rows, columns = np.nonzero(drawn)
    assert (columns >= low[0]).all() and (columns <= high[0]).all()
    assert (rows >= low[1]).all() and (rows <= high[1]).all()


def test_unsure_lines_are_fainter():
    xy, scores = person(), np.zeros((1, COUNT))
    difference = []
    for score in (0.35, 0.5, 0.9):
        scores[0, [5, 7]] = score
        difference.append(np.abs(draw_people(grey(), xy, scores).astype(int) - 90).sum())
    assert difference[0] < difference[1] < difference[2]


def test_lines_grow_with_the_person():
    areas = [changed(draw_people(grey(1300, 1000), person(height=h), np.ones((1, COUNT)))).sum()
             for h in (120.0, 1200.0)]
    assert areas[1] > 20 * areas[0]  # 100 times the area, and a tenth of it would be thin lines


def test_channel_order_and_the_callers_image():
    image, xy, scores = grey(), person(), np.ones((1, COUNT))
    bgr = draw_people(image, xy, scores, "bgr")
    assert (image == 90).all()
    rgb = draw_people(image, xy, scores, "rgb")
    assert np.array_equal(bgr[..., ::-1], rgb) and not np.array_equal(bgr, rgb)


def test_left_and_right_differ_in_colour_but_not_in_shape():
    by_points = {(stroke.a, stroke.b): stroke for stroke in STROKES}
    for stroke in STROKES:
        a, b = int(FLIP[stroke.a]), int(FLIP[stroke.b])
        twin = by_points.get((a, b)) or by_points[b, a]
        assert twin.width == stroke.width and twin.rim == stroke.rim
    hands = [[stroke.rgb for stroke in STROKES if stroke.part == hand]
             for hand in ("left_hand", "right_hand")]
    assert hands[0] == hands[1] and len(set(hands[0])) == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e9, -1e9])
def test_points_outside_and_without_a_number_do_not_raise(bad):
    xy = person()
    xy[0, 3:60] = bad
    drawn = draw_people(grey(), xy, np.ones((1, COUNT)))
    assert drawn.shape == (260, 320, 3)


def test_nobody_and_a_person_of_one_point():
    assert np.array_equal(draw_people(grey(), np.zeros((0, COUNT, 2)), np.zeros((0, COUNT))),
                          grey())
    scores = np.zeros((1, COUNT))
    scores[0, 5] = 1.0
    assert draw_people(grey(), person(), scores).shape == (260, 320, 3)
    hands = np.zeros((1, COUNT))
    hands[0, PARTS["left_hand"]] = 1.0
    assert changed(draw_people(grey(), person(), hands)).any()


def test_bad_arguments():
    xy, scores = person(), np.ones((1, COUNT))
    with pytest.raises(ValueError, match=r"xy must be \(N, 133, 2\)"):
        draw_people(grey(), xy[0], scores)
    with pytest.raises(ValueError, match=r"got \(1, 133, 2\) and \(1, 132\)"):
        draw_people(grey(), xy, scores[:, 1:])
    with pytest.raises(ValueError, match="channel_order"):
        draw_people(grey(), xy, scores, "xyz")
    with pytest.raises(ValueError, match="uint8"):
        draw_people(grey().astype(float), xy, scores)


def frame_of(*people):
    """People (x, id, state) of one posture, 200 px high."""
    return PeopleFrame([
        PersonPose(np.array([x, 40, 100, 200.0]), 0.9, person(x, 40.0)[0], np.ones(COUNT), id=name,
                   track_state=state) for x, name, state in people])


def test_a_frame_shows_those_who_are_seen():
    seen = frame_of((20.0, "", TrackState.TENTATIVE), (180.0, "", TrackState.TRACKED))
    xy = np.stack([item.keypoints_xy for item in seen.people])
    np.testing.assert_array_equal(draw_frame(grey(), seen), draw_people(grey(), xy, np.ones(
        (2, COUNT))))
    unseen = frame_of((20.0, "1", TrackState.COASTING), (180.0, "2", TrackState.LOST))
    assert not changed(draw_frame(grey(), unseen)).any()
    assert not changed(draw_frame(grey(), PeopleFrame())).any()


def test_ids_stand_over_the_head_inside_the_picture():
    one = frame_of((20.0, "7", TrackState.TRACKED))
    plain = draw_frame(grey(), one, labels=False)
    text = (draw_frame(grey(), one) != plain).any(axis=2)
    rows, columns = np.nonzero(text)
    assert len(rows) and rows.max() < one.people[0].keypoints_xy[:, 1].min() + 20
    assert 10 < columns.mean() < 130
    unsure = draw_frame(grey(), frame_of((20.0, "7", TrackState.TENTATIVE)))
    assert (unsure != plain).any(axis=2).sum() > text.sum()  # a question mark more
    for x in (-60.0, 290.0):  # half out of the picture
        outside = frame_of((x, "12345", TrackState.TRACKED))
        drawn = draw_frame(grey(), outside) != draw_frame(grey(), outside, labels=False)
        columns = np.nonzero(drawn.any(axis=2))[1]
        assert len(columns) and columns.min() > 0 and columns.max() < 319
