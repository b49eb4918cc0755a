"""Symmetry-aware errors and matching, with values worked out by hand."""

import numpy as np
import pytest

from kd_pose.geometry import make_pose
from kd_pose.scoring import match, match_people, match_poses, pose_error
from kd_pose.wholebody_keypoints import COUNT, SIGMAS

BOX = (np.array([-0.1, -0.1, -0.1]), np.array([0.1, 0.1, 0.1]))
IDENTITY = np.eye(4)[None]


def rotation_z(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def test_pure_translation():
    truth = make_pose(np.eye(3), [0, 0, 1.0])
    error = pose_error(make_pose(np.eye(3), [0.003, 0, 1.004]), truth, *BOX, IDENTITY)
    assert error.translation == pytest.approx(0.005)
    assert error.rotation_deg == pytest.approx(0.0, abs=1e-5)
    assert error.corners == pytest.approx(0.005)


def test_rotation_about_z_moves_each_corner_by_the_chord():
    truth = make_pose(np.eye(3), [0, 0, 1.0])
    error = pose_error(make_pose(rotation_z(60), [0, 0, 1.0]), truth, *BOX, IDENTITY)
    # a corner is sqrt(2)*0.1 m from the axis; the chord of 60 degrees equals the radius
    assert error.corners == pytest.approx(np.sqrt(2) * 0.1)
    assert error.rotation_deg == pytest.approx(60.0)


def test_the_best_symmetry_member_counts():
    truth = make_pose(np.eye(3), [0, 0, 1.0])
    half_turn = np.stack([np.eye(4), make_pose(rotation_z(180), [0, 0, 0])])
    error = pose_error(make_pose(rotation_z(175), [0, 0, 1.0]), truth, *BOX, half_turn)
    assert error.rotation_deg == pytest.approx(5.0, abs=1e-6)


def test_match_is_one_to_one_and_limited():
    cost = np.array([[0.01, 0.02], [0.011, 0.5], [0.9, 0.9]])
    assert match(cost, 0.1) == [(0, 0)]
    assert match(np.array([[0.02, 0.01], [0.011, 0.5]]), 0.1) == [(0, 1), (1, 0)]
    assert match(np.zeros((0, 3)), 1.0) == []


def test_match_poses_keeps_classes_apart():
    at = lambda x: make_pose(np.eye(3), [x, 0, 1.0])  # noqa: E731
    pairs = match_poses([("a", at(0)), ("b", at(0.01))], [("b", at(0)), ("a", at(0.02))])
    assert sorted(pairs) == [(0, 1), (1, 0)]
    assert match_poses([("a", at(0))], [("a", at(0.5))]) == []
    assert match_poses([], [("a", at(0))]) == []


def standing(x, y=0.0):
    """Everything of a person at one place: (133, 2) pixels."""
    return np.tile([float(x), float(y)], (COUNT, 1))


def test_people_are_paired_by_their_bodies():
    area = 100.0 * 100.0
    # Two true people, three estimates: 3 and 4 pixels from the second, 2 from the first, far away.
    found = match_people(np.stack([standing(303, 4), standing(102), standing(900)]),
                         np.stack([standing(100), standing(300)]), np.array([area, area]))
    assert sorted((item.estimate, item.truth) for item in found) == [(0, 1), (1, 0)]
    by_truth = {item.truth: item for item in found}
    assert by_truth[1].error == pytest.approx(0.05)  # 5 pixels of 100
    expected = np.exp(-(2.0 ** 2) / (2 * (2 * SIGMAS[:17]) ** 2 * area)).mean()
    assert by_truth[0].oks == pytest.approx(expected)


def test_hands_and_face_do_not_say_who_is_whose():
    truth, hand_off = standing(100), standing(100)
    hand_off[17:] += 500
    assert match_people(hand_off[None], truth[None], np.array([100.0]))[0].oks == pytest.approx(1)
    body_off = standing(100)
    body_off[:17] += 500
    assert match_people(body_off[None], truth[None], np.array([100.0])) == []


def test_nobody_is_found_twice_and_nobody_without_a_body():
    truth = standing(100)
    same = np.stack([standing(100), standing(100)])
    assert len(match_people(same, truth[None], np.array([1e4]))) == 1
    truth[:17] = np.nan  # not labelled
    assert match_people(same, truth[None], np.array([1e4])) == []
    none = np.zeros((0, COUNT, 2))
    assert match_people(none, truth[None], np.array([1e4])) == []
    assert match_people(same, none, np.zeros(0)) == []
