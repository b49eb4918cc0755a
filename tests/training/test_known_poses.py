"""Training sets of which only some frames have poses, and the teacher's poses in their place."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.fake_objects import FakeBop, load_vertices
from helpers.fake_votes import FakeVotes
from kd_pose.geometry import make_pose, rotation_from_vector, transform_points
from kd_pose.votes import VoteGrid
from kd_pose_training.config import DataConfig, LossConfig, ModelConfig, TrainConfig, from_dict
from kd_pose_training.data.batch import collate
from kd_pose_training.data.known_poses import pose_is_known, posed_first
from kd_pose_training.data.object_dataset import ObjectVoteDataset
from kd_pose_training.distill.config import DistillConfig, NaiveTerm
from kd_pose_training.distill.pseudo_poses import with_teacher_poses
from kd_pose_training.distill.selection import TeacherVotes, select_votes
from kd_pose_training.distill.teacher import Teacher
from kd_pose_training.distill.votes_task import DistilledVotesTask
from kd_pose_training.models import build_model
from kd_pose_training.tasks.object_votes import VotesTask

torch.set_num_threads(1)
SIZE, STRIDES = (64, 64), (16, 32)
GRID = VoteGrid(SIZE, STRIDES)
MODEL = ModelConfig("darknet_tiny_h", STRIDES, head_depth=1, fpn_channels=32, num_classes=2,
                    num_keypoints=8)
BITS = (np.arange(8)[:, None] >> np.arange(3)) & 1
BOX = (BITS - 0.5) * [0.1, 0.08, 0.05]
HALF_TURN = BOX * [-1, -1, 1]  # a second member, of a symmetry about z
TURNED_K = np.array([[60.0, -80.0, 32.0], [80.0, 60.0, 32.0], [0, 0, 1]])  # crop turned by 53°
POSE = make_pose(rotation_from_vector([0.5, -0.4, 0.3]), np.array([0.02, -0.01, 0.5]))


def pixels_of(points):
    pixels = points @ TURNED_K.T
    return pixels[..., :2] / pixels[..., 2:]


# ---- which frames ------------------------------------------------------------------------------

def test_a_share_of_the_frames_for_good_and_small_shares_within_large_ones():
    frames = [SimpleNamespace(scene_id=scene, im_id=image) for scene in range(40)
              for image in range(100)]
    tenth, half = ([pose_is_known(frame, share) for frame in frames] for share in (0.1, 0.5))
    assert np.mean(tenth) == pytest.approx(0.1, abs=0.015)
    assert np.mean(half) == pytest.approx(0.5, abs=0.025)
    assert not (np.array(tenth) & ~np.array(half)).any()
    assert all(pose_is_known(frame, 1.0) for frame in frames)


def test_posed_samples_come_first_and_are_mixed_by_share():
    items, posed = [(0, 0), (1, 0), (1, 1), (2, 0)], [True, False, True]
    assert posed_first(items, posed, 0.25) == (
        [(0, 0), (2, 0), (1, 0), (1, 1)], ((2, 0.75), (2, 0.25)))
    assert posed_first(items, posed, 0.0) == ([(0, 0), (2, 0)], ())
    for known in ([True] * 3, [False] * 3):
        with pytest.raises(ValueError, match="data.pose_share: .* both must be there"):
            posed_first(items, known, 0.5)


def _set(train=True, **data):
    config = TrainConfig(DataConfig(("memory:test",), input_size=SIZE, **data))
    return ObjectVoteDataset([FakeBop(12)], config, GRID, train, load_vertices=load_vertices,
                             progress=False)


def test_a_set_says_which_poses_are_known():
    whole, part = _set(), _set(pose_share=0.5)
    assert whole.mix == () and all(bool(whole[i, 0].posed.all()) for i in range(len(whole)))
    (known, _), (unknown, share) = part.mix
    assert known + unknown == len(whole) == len(part) and share == 0.5
    assert all(bool(part[i, 0].posed.all()) for i in range(known))
    assert not any(bool(part[i, 0].posed.any()) for i in range(known, len(part)))
    assert len(_set(pose_share=0.5, unposed_share=0.0)) == known
    assert _set(False, pose_share=0.5).mix == ()  # validation knows them all
    assert all(bool(batch.posed.all()) for batch in
               (_set(False, pose_share=0.5)[i] for i in range(len(whole))))


@pytest.mark.parametrize("section, message", [
    ({"data": {"pose_share": 0.0}}, "pose_share is 0.0"),
    ({"data": {"unposed_share": 1.0}}, "unposed_share is 1.0"),
    ({"data": {"pose_share": 0.5, "train_shares": [1.0]}}, "train_shares.*pose_share"),
    ({"data": {"pose_share": 0.5}, "task": "object_detector"}, "pose_share.*object_detector"),
    ({"data": {"pose_share": 0.5}, "task": "object_codes", "model": {"size": "dense_tiny"}},
     "pose_share.*object_codes"),
    ({"distill": {"teacher": "t.pt", "max_box_error": -1}}, "max_box_error is -1")])
def test_senseless_settings_are_refused_by_name(section, message):
    data = {**section, "data": {"train": ["a:b"], **section.get("data", {})}}
    with pytest.raises(ValueError, match=message):
        from_dict(data, "recipe.yaml")


# ---- what is learnt ----------------------------------------------------------------------------

def _batch(hidden=(), count=4):
    data = FakeVotes(GRID)
    batch = collate([data[index, index] for index in range(count)])
    batch.posed[list(hidden)] = False
    return batch


def _network():
    torch.manual_seed(0)
    return build_model(MODEL)


def test_votes_for_unknown_poses_cost_nothing():
    task = VotesTask(_network(), SIZE, LossConfig()).eval()  # batch norm would join the images
    whole, part = task(_batch()), task(_batch(hidden=[1, 2]))
    torch.testing.assert_close(part["class"], whole["class"])
    alone = [task(
        collate([FakeVotes(GRID)[index, index]])) for index in (0, 3)]
    # Ten positive cells each: the mean over the posed cells is that of the two posed images.
    torch.testing.assert_close(part["vote"], (alone[0]["vote"] + alone[1]["vote"]) / 2)
    nothing = task(_batch(hidden=range(4)))
    assert nothing["vote"].item() == 0 and nothing["vote_px"].item() == 0
    nothing["vote"].backward()


def _distilled(**settings):
    torch.manual_seed(3)
    teacher = Teacher(build_model(MODEL), [0, 1], SIZE)
    return DistilledVotesTask(_network(), SIZE, LossConfig(), "object_votes", teacher,
                              DistillConfig("t", score_threshold=0.0, max_error=0.0,
                                            max_box_error=0.0, naive=NaiveTerm(), **settings))


def test_no_term_looks_at_an_unknown_pose():
    """The same shape at another pose, far away: every term and gradient stays as it is."""
    results = []
    for moved in (False, True):
        task, batch = _distilled(), _batch(hidden=[0, 1, 3])
        batch.points_cam = torch.tensor(np.stack([BOX, HALF_TURN])[None] @ POSE[:3, :3].T
                                        + POSE[:3, 3]).float().repeat(4, 1, 1, 1)
        if moved:
            far = make_pose(rotation_from_vector([1.0, 2.0, -0.5]), np.array([0.1, 0.2, 0.9]))
            for row in (0, 1, 3):
                batch.points_cam[row] = torch.tensor(
                    transform_points(far, batch.points_cam[row].numpy()))
        terms = task.train()(batch)
        sum(terms[name] * weight for name, weight in task.weights.items()).backward()
        results.append([terms[name].item() for name in task.weights]
                       + [float(p.grad.norm()) for p in task.network.parameters()
                          if p.grad is not None])
    np.testing.assert_allclose(results[0], results[1], rtol=2e-3, atol=1e-6)


# ---- the teacher's poses -----------------------------------------------------------------------

def _answer(points, posed=False, cells=6):
    """A batch of one object with two members, and the teacher's votes (8, 2) for it."""
    batch = _batch(count=1)
    far = make_pose(rotation_from_vector([0, 1.0, 2.0]), np.array([0.0, 0.0, 2.0]))
    batch = dataclasses.replace(
        batch, points_cam=torch.tensor(transform_points(far, np.stack([BOX, HALF_TURN]))[None]),
        points_px=torch.zeros(1, 2, 8, 2, dtype=torch.float64),
        K_crop=torch.tensor(TURNED_K)[None], size_px=torch.tensor([40.0]),
        posed=torch.tensor([posed]))
    votes = TeacherVotes(np.repeat(points[None], cells, 0), np.full(cells, 0.8),
                         np.zeros(cells, np.int64), np.arange(cells), np.array([1]),
                         np.array([0.05]), np.array([True]))
    return batch, votes


def test_points_are_those_of_the_teachers_pose():
    truth = transform_points(POSE, np.stack([BOX, HALF_TURN]))
    batch, votes = with_teacher_poses(*_answer(pixels_of(truth[0])))
    np.testing.assert_allclose(batch.points_cam[0], truth, atol=1e-6)
    np.testing.assert_allclose(batch.points_px[0], pixels_of(truth), atol=1e-4)
    assert votes.member.tolist() == [0] and votes.used.all() and len(votes.points) == 6


def test_known_poses_stay_and_votes_without_a_pose_are_dropped():
    points = pixels_of(transform_points(POSE, BOX))
    batch, votes = _answer(points, posed=True)
    same, kept = with_teacher_poses(batch, votes)
    assert same is batch and kept is votes
    noise = np.random.default_rng(0).uniform(0, 64, (8, 2))
    _, dropped = with_teacher_poses(*_answer(noise))
    assert not dropped.used.any() and len(dropped.points) == len(dropped.scores) == 0


@pytest.mark.parametrize("shift, limit, used", [(3.0, 0.1, True), (3.0, 0.05, False),
                                               (50.0, 0.0, True)])
def test_without_a_pose_the_box_is_the_gate(shift, limit, used):
    """Votes moved by (shift, 0): their box is shift / 48 object sizes off, whatever the order of
    the corners in the truth, of which only the box may count."""
    truth = BITS[:, :2] * 30.0 + BITS[:, 2:] * 8 + 10.0
    scores, offsets = np.zeros((1, GRID.num_cells, 1)), np.zeros((1, GRID.num_cells, 1, 8, 2))
    scores[0, :5] = 0.8
    offsets[0, :5, 0] = ((truth + [shift, 0] - GRID.centers[:5, None])
                         / GRID.anchors[:5, None, None])
    votes = select_votes(GRID, scores, offsets, np.zeros(1, np.int64), np.zeros(1, np.int64),
                         truth[::-1][None, None], np.array([48.0]), max_error=1e-9,
                         posed=np.array([False]), max_box_error=limit)
    assert votes.used.tolist() == [used] and votes.member.tolist() == [0]
    assert votes.error[0] == pytest.approx(shift / 48)
