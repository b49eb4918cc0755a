"""kd_pose.pose_overlap."""

import numpy as np
import pytest

from kd_pose.pose_overlap import looks_like, pose_overlaps, without_twins
from kd_pose.results import PersonPose
from kd_pose.wholebody_keypoints import COUNT

# Where the 133 points of a person are in its box, 0..1; the two differ as two postures do.
POSTURES = np.random.default_rng(3).random((2, COUNT, 2))


def person(x, posture=0, score=0.9, sure=slice(None)):
    points = np.array([x, 100.0]) + POSTURES[posture] * (100.0, 200.0)
    scores = np.zeros(COUNT)
    scores[sure] = 0.8
    return PersonPose(np.array([x, 100.0, 100.0, 200.0]), score, points, scores)


def test_pose_overlap_by_hand():
    """10 px apart, area 10000, tolerance 0.1: exp(-100 / (2 * 10000 * 0.01)) = exp(-1/2)."""
    a = np.zeros((1, COUNT, 2))
    sure = np.ones((1, COUNT), bool)
    overlap = pose_overlaps(a, a + [10.0, 0.0], sure, sure, np.array([1e4]), 0.1)
    assert overlap[0, 0] == pytest.approx(np.exp(-0.5))
    far = a.copy()
    far[0, 17:] = 1e6  # face and hands do not count while the body is known
    assert pose_overlaps(a, far, sure, sure, np.array([1e4]), 0.1)[0, 0] == 1.0
    face_only = sure.copy()
    face_only[0, :17] = False
    overlap = pose_overlaps(a, a, face_only, sure, np.array([1e4]), 0.1)
    assert overlap[0, 0] == 1.0
    few = np.zeros((1, COUNT), bool)
    few[0, :3] = True
    assert np.isnan(pose_overlaps(a, a, few, sure, np.array([1e4]), 0.1)).all()


def test_one_person_estimated_twice():
    a, b = person(100, score=0.5), person(103, score=0.9)
    assert without_twins([a, b], 0.3) == [1]
    assert without_twins([a, person(130)], 0.3) == [0, 1]
    assert without_twins([a, person(103, posture=1)], 0.3) == [0, 1]
    assert without_twins([], 0.3) == []


def test_a_part_of_somebody_looks_like_that_one():
    arms = person(101, sure=[5, 7, 9, 91, 92, 93])  # too few of the body: all of them count
    assert not looks_like(arms, [], 0.3)
    assert looks_like(arms, [person(400), person(100)], 0.3)
    assert not looks_like(arms, [person(400), person(100, posture=1)], 0.3)
