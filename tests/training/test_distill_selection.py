"""The teacher's votes: chosen as at inference, gated by the truth, brought to the student's
symmetry branch."""

from __future__ import annotations

import numpy as np
import torch

from helpers.fake_votes import FakeVotes
from kd_pose.votes import VoteGrid
from kd_pose_training.data.batch import collate
from kd_pose_training.distill.align import bring_to_members, frame_size
from kd_pose_training.distill.selection import box_weights, change_branch, select_votes

SIZE = (64, 64)
STRIDES = (16, 32)
BITS = (np.arange(8)[:, None] >> np.arange(3)) & 1


# ---- selection -------------------------------------------------------------------------------

def _scene(error=(0.0, 0.0)):
    """Two objects of class 0 and one of class 1 in one image of 256 px, 6 cells each."""
    grid = VoteGrid((256, 256), (16, 32))
    scores, offsets = np.zeros((1, grid.num_cells, 2)), np.zeros((1, grid.num_cells, 2, 8, 2))
    truth = np.stack([BITS[:, :2] * 40.0 + BITS[:, 2:] * 8 + place
                      for place in ([20, 20], [180, 30], [40, 180])])
    for row, label in enumerate((0, 0, 1)):
        middle = truth[row].mean(0)
        cells = np.argsort(np.linalg.norm(grid.centers - middle, axis=1))[:6]
        scores[0, cells, label] = 0.9 - 0.1 * row
        offsets[0, cells, label] = ((truth[row] + error - grid.centers[cells][:, None])
                                    / grid.anchors[cells][:, None, None])
    return grid, scores, offsets, truth


def _select(truth, labels, error=(0.0, 0.0), **settings):
    grid, scores, offsets, _ = _scene(error)
    return select_votes(grid, scores, offsets, np.zeros(len(truth), np.int64), np.array(labels),
                        truth[:, None], np.full(len(truth), 48.0), **settings)


def test_found_objects_go_to_the_true_ones_they_fit():
    truth = _scene()[3]
    order = [2, 0, 1]
    votes = _select(truth[order], [1, 0, 0])
    assert votes.used.all() and votes.error.max() < 1e-9
    assert np.bincount(votes.instance).tolist() == [6, 6, 6]
    np.testing.assert_allclose(votes.points, truth[order][votes.instance])
    np.testing.assert_allclose(votes.scores, np.array([0.7, 0.9, 0.8])[votes.instance])


def test_what_was_not_found_or_is_another_class_is_not_used():
    truth = _scene()[3]
    votes = _select(np.concatenate([truth, truth[:1]]), [0, 0, 0, 0])
    assert votes.used.tolist() == [True, True, False, False]  # found once, taught once
    assert np.isinf(votes.error[2:]).all()
    assert _select(truth, [1, 1, 0], (0.5, 0.0), max_error=0.1).used.tolist() == [False] * 3


def test_cells_follow_the_size_of_the_object():
    """Twelve good cells, four wanted: as many as inference keeps."""
    grid, scores, offsets, truth = _scene()
    votes = select_votes(grid, scores, offsets, np.zeros(1, np.int64), np.zeros(1, np.int64),
                         truth[:1, None], np.array([48.0]), cells_per_instance=4)
    assert len(votes.points) == 4


# ---- symmetry branches -----------------------------------------------------------------------

def _box(turn_deg=0.0, size=(0.1, 0.1, 0.05)):
    angle = np.deg2rad(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]])
    return (np.array(size) * (BITS - 0.5)) @ turn.T @ tilt.T + [0, 0, 1.0]


def _project(points):
    return 500 * points[..., :2] / points[..., 2:]


def test_weights_at_the_corners_and_in_the_middle():
    np.testing.assert_allclose(box_weights(_box(), _box()), np.eye(8), atol=1e-12)
    np.testing.assert_allclose(box_weights(_box(), _box().mean(0)[None]), np.full((1, 8), 1 / 8))
    np.testing.assert_allclose(box_weights(_box(), _box(30)).sum(1), 1)


def test_a_half_turn_permutes_the_votes():
    old, new = _box(), _box(180)
    order = np.abs(new[:, None] - old).sum(-1).argmin(1)
    assert sorted(order) == list(range(8)) and (order != np.arange(8)).all()
    votes = _project(old) + np.random.default_rng(0).normal(size=(5, 8, 2))
    np.testing.assert_allclose(change_branch(votes, old, new, _project(old), _project(new)),
                               votes[:, order], atol=1e-9)


def test_a_wrong_pose_is_the_same_wrong_pose_on_another_branch():
    """Votes of a slightly moved and turned object, read on a branch 40 degrees further."""
    small = np.array([[1, -0.02, 0.01], [0.02, 1, 0], [-0.01, 0, 1]])

    def moved(points):
        return (points - [0, 0, 1]) @ small.T + [0.002, -0.001, 1.01]

    old, new = _box(), _box(40)
    want = _project(moved(new))
    found = change_branch(_project(moved(old))[None], old, new, _project(old), _project(new))[0]
    assert np.abs(want - _project(new)).max() > 1.0  # pixels: what is at stake
    assert np.abs(found - want).max() < 0.05


def test_votes_are_brought_to_the_students_member():
    batch = collate([FakeVotes(VoteGrid(SIZE, STRIDES))[0, 0]])
    old, new = _box(), _box(90)
    batch.points_cam = torch.tensor(np.stack([old, new]))[None].float()
    batch.points_px = torch.tensor(_project(np.stack([old, new])))[None].float()
    votes = select_votes(*_answer_of(_project(new)), np.zeros(1, np.int64), np.zeros(1, np.int64),
                         batch.points_px.numpy(), np.array([80.0]))
    assert votes.member.tolist() == [1] and votes.used.all()
    for member, corners in ((0, old), (1, new)):
        points = bring_to_members(votes, batch, torch.tensor([member]))
        np.testing.assert_allclose(points, np.broadcast_to(_project(corners), points.shape),
                                   atol=1e-3)


def _answer_of(points):
    """Grid, scores and offsets of one image in which five cells vote for points (8, 2)."""
    grid = VoteGrid(SIZE, STRIDES)
    scores, offsets = np.zeros((1, grid.num_cells, 1)), np.zeros((1, grid.num_cells, 1, 8, 2))
    cells = np.arange(5)
    scores[0, cells] = 0.8
    offsets[0, cells, 0] = ((points - grid.centers[cells][:, None])
                            / grid.anchors[cells][:, None, None])
    return grid, scores, offsets


def test_frame_is_640x480_for_a_linemod_camera():
    K = torch.tensor([[[572.4, 0, 0], [0, 573.6, 0], [0, 0, 1]]])
    torch.testing.assert_close(frame_size(K), torch.tensor([[640.0, 480.0]]))
