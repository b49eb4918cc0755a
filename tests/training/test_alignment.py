"""Alignment loss: values by hand, the released loss, grouping, invariants, bad inputs."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from kd_pose_training.losses.alignment import (
    AlignmentLoss,
    LocalPredictions,
    alignment_values,
    group_predictions,
)
from kd_pose_training.losses.alignment_config import AlignmentConfig, balanced, preset, released

torch.set_num_threads(1)


def _predictions(seed, sizes, keypoints=8, dims=2, scale=120.0, dtype=torch.float64):
    """Votes of len(sizes) objects around common corners, pixels."""
    corners = torch.rand(len(sizes), keypoints, dims, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(0)) * scale + 200
    rng = torch.Generator().manual_seed(seed)
    group = torch.repeat_interleave(torch.arange(len(sizes)),
                                    torch.tensor(sizes, dtype=torch.long))
    noise = torch.randn(len(group), keypoints, dims, generator=rng, dtype=torch.float64)
    points = corners[group] + 4 * noise
    scores = torch.rand(len(group), generator=rng, dtype=torch.float64) * 0.8 + 0.1
    return points.to(dtype).requires_grad_(), scores.to(dtype).requires_grad_(), group


def _sets(seed, sizes, **settings) -> LocalPredictions:
    points, scores, group = _predictions(seed, sizes, **settings)
    return group_predictions(points, scores, group, len(sizes))


def _one(points, scores) -> LocalPredictions:
    """One group of predictions of one keypoint."""
    points = torch.tensor(points, dtype=torch.float64)[None, :, None].requires_grad_()
    scores = torch.tensor(scores, dtype=torch.float64)[None].requires_grad_()
    return LocalPredictions(points, scores, torch.ones_like(scores, dtype=torch.bool))


# ---- by hand ---------------------------------------------------------------------------------

@pytest.mark.parametrize("change, expected", [
    ({}, 0.005), ({"coordinates": "none"}, 50.0), ({"coordinates": "frame"}, 0.5 * 0.05**2),
    ({"masses": "uniform"}, 0.005)])
def test_one_vote_ten_pixels_off_an_object_of_100(change, expected):
    """½ (10 / 100)², whatever the scores; the frame is 200 wide."""
    student, teacher = _one([[10.0, 0.0]], [0.3]), _one([[0.0, 0.0]], [0.9])
    values, counted = alignment_values(
        student, teacher, dataclasses.replace(balanced(), **change),
        size=torch.tensor([100.0]), frame=torch.tensor([200.0, 50.0]))
    assert values.tolist() == pytest.approx([expected], rel=1e-6) and counted.tolist() == [True]


def test_keypoints_are_summed_or_averaged_or_one_point():
    """Errors of 3 and 4 px: ½9 and ½16; jointly ½25 as well, but one transport."""
    student = LocalPredictions(torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]]), torch.ones(1, 1) / 2,
                               torch.ones(1, 1, dtype=torch.bool))
    teacher = dataclasses.replace(student, points=torch.zeros(1, 1, 2, 2))
    for change, expected in (({"keypoints": "sum"}, 12.5), ({"keypoints": "mean"}, 6.25),
                             ({"points": "joint"}, 12.5)):
        config = dataclasses.replace(balanced(), coordinates="none", **change)
        assert alignment_values(student, teacher, config)[0].item() == pytest.approx(expected)


def test_joint_points_do_not_mix_the_corners_of_two_votes():
    """Two votes that swapped one corner: no difference per corner, but as wholes."""
    student = LocalPredictions(torch.tensor([[[[0.0], [0.0]], [[1.0], [1.0]]]]),
                               torch.ones(1, 2) / 2, torch.ones(1, 2, dtype=torch.bool))
    teacher = dataclasses.replace(student,
                                  points=torch.tensor([[[[0.0], [1.0]], [[1.0], [0.0]]]]))
    config = dataclasses.replace(balanced(), coordinates="none")
    assert alignment_values(student, teacher, config)[0].item() == pytest.approx(0, abs=1e-6)
    joint = dataclasses.replace(config, points="joint")
    assert alignment_values(student, teacher, joint)[0].item() == pytest.approx(0.5, rel=1e-3)


def test_exact_unbalanced_masses_cost_by_their_roots():
    """Votes in one place, 0.81 against 0.25: rho (0.9 - 0.5)²."""
    config = dataclasses.replace(released(), exact=True, coordinates="none", min_score=0.0)
    values, _ = alignment_values(_one([[1.0, 1.0]], [0.81]), _one([[1.0, 1.0]], [0.25]), config)
    assert values.item() == pytest.approx(0.25 * 0.16, rel=1e-4)


# ---- the released loss -----------------------------------------------------------------------

@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-3)])
def test_released_preset_equals_a_loop_of_geomloss(dtype, tolerance):
    """As published: per image, corners as the batch, raw scores, frame 640x480, summed."""
    geomloss = pytest.importorskip("geomloss")
    loss = geomloss.SamplesLoss("sinkhorn", p=2, blur=0.001, scaling=0.5, reach=0.5)
    sizes, others = [10, 3, 1, 7, 0, 5], [10, 9, 4, 1, 6, 0]
    points, scores, group = _predictions(1, sizes, dtype=dtype)
    their_points, their_scores, their_group = (t.detach() for t in _predictions(2, others,
                                                                               dtype=dtype))
    ours = AlignmentLoss(released())(
        group_predictions(points, scores, group, 6),
        group_predictions(their_points, their_scores, their_group, 6),
        frame=torch.tensor([640.0, 480.0]))
    found = [ours.detach(), *torch.autograd.grad(ours, (points, scores))]
    double = [t.detach().double().requires_grad_() for t in (points, scores)]
    images = []
    for image in range(4):  # the last two have an empty side and are skipped
        mine, theirs = group == image, their_group == image
        x = (double[0][mine] / torch.tensor([640.0, 480.0])).transpose(0, 1).contiguous()
        y = their_points[theirs].double() / torch.tensor([640.0, 480.0])
        a = double[1][mine].clamp(1e-3, 1 - 1e-3).expand(8, -1).contiguous()
        b = their_scores[theirs].double().expand(8, -1).contiguous()
        images.append(loss(a, x, b, y.transpose(0, 1).contiguous()).sum())
    total = sum(images) / 4
    expected = [total.detach(), *torch.autograd.grad(total, double)]
    for mine, theirs in zip(found, expected):
        assert float((mine.double() - theirs).norm() / theirs.norm()) < tolerance


# ---- grouping and invariants -----------------------------------------------------------------

def test_grouping_by_hand():
    points = torch.arange(8.0).reshape(4, 1, 2).requires_grad_()
    sets = group_predictions(points, torch.tensor([0.1, 0.2, 0.3, 0.4]),
                             torch.tensor([2, 0, 2, 2]), 3)
    assert sets.valid.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    torch.testing.assert_close(sets.scores, torch.tensor([[0.2, 0, 0], [0, 0, 0],
                                                          [0.1, 0.3, 0.4]]))
    assert sets.points[2, :, 0].tolist() == [[0, 1], [4, 5], [6, 7]]
    sets.points.sum().backward()
    assert (points.grad == 1).all()


@pytest.mark.parametrize("config", [released(), balanced(), AlignmentConfig(points="joint"),
                                    AlignmentConfig(reach=0.2, normalise_masses=False)])
def test_order_of_votes_groups_and_padding_do_not_matter(config):
    """Groups are objects of any class: renaming classes or images only moves their values."""
    sizes, others = [10, 3, 1, 7], [4, 10, 2, 6]
    size, frame = torch.tensor([100.0, 80, 60, 150]), torch.tensor([640.0, 480.0])
    student, teacher = _predictions(1, sizes), _predictions(2, others)

    def values(renamed=slice(None), shuffle=False):
        names = torch.arange(4)[renamed].argsort()
        sets = []
        for points, scores, group in (student, teacher):
            order = torch.randperm(len(group)) if shuffle else torch.arange(len(group))
            sets.append(group_predictions(points[order], scores[order], names[group[order]], 4))
        return alignment_values(*sets, config, size=size[renamed], frame=frame)[0]

    want = values()
    assert (want > 0).all()
    torch.testing.assert_close(values(shuffle=True), want)
    renamed = [2, 0, 3, 1]
    torch.testing.assert_close(values(renamed, shuffle=True), want[renamed])
    for group in range(4):  # alone, without any padding
        parts = [_sets_of(side, group) for side in (student, teacher)]
        alone, _ = alignment_values(*parts, config, size=size[group:group + 1], frame=frame)
        torch.testing.assert_close(alone, want[group:group + 1])


def _sets_of(side, group) -> LocalPredictions:
    points, scores, groups = side
    mine = groups == group
    return group_predictions(points[mine], scores[mine], torch.zeros(int(mine.sum())).long(), 1)


def test_only_the_student_learns_and_masses_can_be_detached():
    student, teacher = _predictions(1, [5, 4]), _predictions(2, [6, 3])
    for config, scores_learn in ((released(), True), (balanced(), True),
                                 (preset("positions"), False), (preset("unbalanced"), False),
                                 (dataclasses.replace(balanced(), masses="uniform"), False)):
        loss = AlignmentLoss(config)(
            group_predictions(*student, 2), group_predictions(*teacher, 2),
            size=torch.tensor([100.0, 100.0]), frame=torch.tensor([640.0, 480.0]))
        grads = torch.autograd.grad(loss, [*student[:2], *teacher[:2]], allow_unused=True,
                                    materialize_grads=True)
        assert (grads[0] != 0).all() and bool((grads[1] != 0).any()) == scores_learn
        assert (grads[2] == 0).all() and (grads[3] == 0).all()


def test_normalised_masses_ignore_the_teacher_being_surer():
    student, teacher = _sets(1, [8]), _sets(2, [9])
    surer = dataclasses.replace(teacher, scores=teacher.scores * 0.5)
    size = torch.tensor([100.0])
    torch.testing.assert_close(alignment_values(student, surer, balanced(), size=size)[0],
                               alignment_values(student, teacher, balanced(), size=size)[0])


def test_gradient_in_double():
    points, scores, group = _predictions(1, [3, 2], keypoints=2)
    teacher = _sets(2, [2, 4], keypoints=2)
    config = AlignmentConfig(blur=0.3, scaling=0.97)

    def loss(points, scores):
        return AlignmentLoss(config)(group_predictions(points, scores, group, 2), teacher,
                                     size=torch.tensor([100.0, 90.0]))

    assert torch.autograd.gradcheck(loss, (points, scores), eps=1e-5, atol=1e-6, rtol=1e-3)


def test_any_dimension():
    """Code vectors: one keypoint of 16 numbers."""
    student, teacher = (_sets(seed, [20, 30], keypoints=1, dims=16) for seed in (1, 2))
    config = dataclasses.replace(balanced(), coordinates="none", blur=1.0)
    assert (alignment_values(student, teacher, config)[0] > 0).all()


# ---- empty, broken and half inputs -----------------------------------------------------------

@pytest.mark.parametrize("sizes, others", [([0, 0], [3, 2]), ([3, 2], [0, 0]), ([0, 2], [3, 0]),
                                           ([], [])])
@pytest.mark.parametrize("config", [released(), balanced()])
def test_nothing_found_is_zero_with_a_graph(config, sizes, others):
    points, scores, group = _predictions(1, sizes)
    loss = AlignmentLoss(config)(
        group_predictions(points, scores, group, len(sizes)), _sets(2, others),
        size=torch.full((len(sizes),), 100.0), frame=torch.tensor([640.0, 480.0]))
    loss.backward()
    assert loss.item() == 0 and (points.grad == 0).all() and (scores.grad == 0).all()


@pytest.mark.parametrize("config", [released(), balanced()])
def test_scores_at_the_ends_are_finite(config):
    points, _, group = _predictions(1, [4])
    scores = torch.tensor([0.0, 1.0, 1e-30, 0.5], dtype=torch.float64, requires_grad=True)
    teacher = _sets(2, [3])
    loss = AlignmentLoss(config)(group_predictions(points, scores, group, 1), teacher,
                                 size=torch.tensor([0.0]), frame=torch.tensor([640.0, 480.0]))
    loss.backward()
    assert loss.isfinite() and points.grad.isfinite().all() and scores.grad.isfinite().all()


def test_half_precision():
    half = [t.detach().bfloat16().requires_grad_() for t in _predictions(1, [6])[:2]]
    group, teacher = torch.zeros(6).long(), _sets(2, [6], dtype=torch.float32)
    size = torch.tensor([100.0])
    loss = AlignmentLoss(balanced())(group_predictions(*half, group, 1), teacher, size=size)
    loss.backward()
    single = AlignmentLoss(balanced())(
        group_predictions(*(t.detach().float() for t in half), group, 1), teacher, size=size)
    assert loss.dtype == torch.float32 and half[0].grad.isfinite().all()
    torch.testing.assert_close(loss, single)


def test_one_step_along_the_gradient_decreases_it():
    points, scores, group = _predictions(1, [10, 10])
    teacher, size = _sets(2, [10, 10]), torch.tensor([100.0, 100.0])
    step = {"released": 1e3, "balanced": 1e3}
    for name in step:
        loss = lambda p: AlignmentLoss(preset(name))(  # noqa: E731, B023
            group_predictions(p, scores.detach(), group, 2), teacher, size=size,
            frame=torch.tensor([640.0, 480.0]))
        before = loss(points)
        gradient, = torch.autograd.grad(before, points)
        assert loss(points - step[name] * gradient) < before


@pytest.mark.parametrize("change, message", [
    ({"normalise_masses": False}, "normalise_masses"), ({"blur": 0.0}, "blur"),
    ({"reach": 0.0}, "reach"), ({"scaling": 1.5}, "scaling"), ({"mass_weight": -1}, "mass_weight"),
    ({"min_score": 0.5}, "min_score")])
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        AlignmentConfig(**change)


def test_bad_inputs():
    student, teacher = _sets(1, [2, 3]), _sets(2, [2, 3])
    with pytest.raises(ValueError, match="size"):
        alignment_values(student, teacher, balanced())
    with pytest.raises(ValueError, match="frame must be"):
        alignment_values(student, teacher, released(), frame=torch.ones(3))
    with pytest.raises(ValueError, match="same groups"):
        alignment_values(student, _sets(2, [2, 3], keypoints=2), balanced())
    with pytest.raises(ValueError, match="points must be"):
        LocalPredictions(torch.zeros(2, 3, 2), torch.zeros(2, 3), torch.zeros(2, 3).bool())
    with pytest.raises(ValueError, match="preset"):
        preset("unheard of")


@pytest.mark.parametrize("name", ["released", "balanced", "positions", "robust", "unbalanced"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("far", [3e4, 1e30, math.inf])
def test_far_away_the_divergence_is_not_negative_and_gradients_are_finite(name, dtype, far):
    """Object sizes as in pixels: an infinite vote beside others, and sets that are far apart."""
    config, generator = preset(name), torch.Generator().manual_seed(0)
    far = min(far, torch.finfo(dtype).max) if math.isfinite(far) else far
    size = torch.tensor([100.0, 80, 30, 50])
    for n, m in ((1, 1), (1, 7), (33, 9)):
        mine, theirs = (LocalPredictions(
            (100 * torch.randn(4, count, 8, 2, generator=generator)).to(dtype),
            torch.rand(4, count, generator=generator).to(dtype),
            torch.rand(4, count, generator=generator) > 0.3) for count in (n, m))
        for everything in (False, True):
            mine.points[:, :None if everything else 1] = far
            theirs.points[:, :None if everything else 1] = -far
            points, scores = (t.clone().requires_grad_() for t in (mine.points, mine.scores))
            values, _ = alignment_values(
                LocalPredictions(points, scores, mine.valid), theirs, config, size=size,
                frame=torch.tensor([640.0, 480]))
            assert values.isfinite().all() and (values >= 0).all()
            if config.reach is not None:  # no more than all mass let go, of eight keypoints
                assert (values <= 1.1 * 8 * config.reach**2 * (n + m)).all()
            gradients = torch.autograd.grad(values.sum(), [points, scores], allow_unused=True)
            assert all(g is None or g.isfinite().all() for g in gradients)
