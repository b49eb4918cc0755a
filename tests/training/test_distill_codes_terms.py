"""Naive and feature distillation of dense networks, and their teacher's answers on disk."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from helpers.fake_codes import FakeCodes
from kd_pose_training.config import CodesConfig, ModelConfig, from_dict
from kd_pose_training.data.code_batch import collate
from kd_pose_training.data.fixed_set import FixedAugmentationSet
from kd_pose_training.data.teacher_cache import CacheError
from kd_pose_training.distill.cached_teacher import fill_cache
from kd_pose_training.distill.code_teacher import CodeTeacher, deep_levels
from kd_pose_training.distill.codes_task import DistilledCodesTask, paired_maps
from kd_pose_training.distill.config import DistillConfig, FeatureTerm, NaiveTerm
from kd_pose_training.losses.naive_codes import code_divergence, mask_difference
from kd_pose_training.models import build_model

torch.set_num_threads(1)
BITS = 4
STUDENT = ModelConfig("dense_tiny_h", num_classes=2, code_bits=BITS)
FINE = ModelConfig("dense_tiny", num_classes=2, code_bits=BITS)  # wider, half the stride
OPEN = {"score_threshold": 0.0, "max_error": 0.0}  # every teacher is heard
ALL = DistillConfig("t", naive=NaiveTerm(), features=FeatureTerm(), **OPEN)
NAIVE = DistillConfig("t", align=None, naive=NaiveTerm(), **OPEN)
EVERYWHERE = torch.ones(1, 1, 2, dtype=torch.bool)


def _teacher(model=FINE):
    torch.manual_seed(5)
    network = build_model(model)
    return CodeTeacher(network, [0, 1], STUDENT.strides[0] // network.strides[0])


def _task(distill, teacher=None):
    torch.manual_seed(0)
    task = DistilledCodesTask(build_model(STUDENT), CodesConfig(), teacher or _teacher(), distill)
    return task.train()


def _batch(count=4):
    data = FakeCodes()
    return collate([data[index, index] for index in range(count)])


# ---- values ------------------------------------------------------------------------------------

def test_divergence_by_hand():
    """One bit at two pixels: the teacher says ¾ and ½, the student ½ and ½."""
    theirs = torch.tensor([[[[0.75, 0.5]]]])
    logits = torch.zeros(1, 1, 1, 2, requires_grad=True)
    value = code_divergence(logits, theirs, EVERYWHERE, torch.ones(1))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert value.item() == pytest.approx(expected / 2, abs=1e-6)
    value.backward()
    assert logits.grad.flatten().tolist() == pytest.approx([-0.25 / 2, 0.0])


def test_bits_count_by_their_weights_and_pixels_where_they_are_asked_for():
    theirs = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]])
    logits = torch.tensor([[[[9.0, 9.0]], [[0.0, 0.0]]]])
    first = torch.tensor([[[True, False]]])
    only = code_divergence(logits, theirs, first, torch.tensor([1.0, 3.0]))
    assert only.item() == pytest.approx(0.75 * math.log(2), abs=1e-3)
    assert code_divergence(logits, theirs, EVERYWHERE, torch.tensor([1.0, 0.0])).item() \
        == pytest.approx(4.5, abs=1e-3)
    nowhere = code_divergence(logits.requires_grad_(), theirs, ~EVERYWHERE, torch.ones(2))
    assert nowhere.item() == 0 and nowhere.requires_grad


def test_a_sure_teacher_that_is_equalled_costs_nothing():
    theirs = torch.tensor([[[[0.0, 1.0]], [[0.3, 1e-9]]]])
    value = code_divergence(torch.logit(theirs, 1e-6), theirs, EVERYWHERE, torch.ones(2))
    assert abs(value.item()) < 1e-6


def test_mask_difference_by_hand():
    logits, theirs = torch.zeros(2, 1, 2), torch.tensor([[[1.0, 0.5]], [[0.0, 0.0]]])
    both, one, none = (torch.tensor(used) for used in ([True, True], [True, False], [False] * 2))
    assert mask_difference(logits, theirs, both).item() == pytest.approx((0.125 + 0.25) / 2)
    assert mask_difference(logits, theirs, one).item() == pytest.approx(0.125)
    assert mask_difference(logits, theirs, none).item() == 0


# ---- the task --------------------------------------------------------------------------------

def test_all_terms_together_reach_the_student_and_the_adapters_only():
    task, batch = _task(ALL), _batch()
    before = {name: value.clone() for name, value in task.teacher.state_dict().items()}
    terms = task(batch)
    assert set(terms) - {"mask", "code", "mask_iou", "bit_error", "coarse_error"} == {
        "align", "naive_votes", "naive_scores", "fkd_attention", "fkd_masked", "fkd_relation",
        "teacher_used", "teacher_error"}
    assert set(task.weights) <= set(terms)
    sum(terms[name] * weight for name, weight in task.weights.items()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.network.parameters())
    assert all(p.grad.abs().max() > 0 for p in task.extras.parameters())
    assert all(p.grad is None for p in task.teacher.parameters())
    for name, value in task.teacher.state_dict().items():
        assert torch.equal(value, before[name])
    quiet = task.eval().terms(task.network, batch)
    assert not {"align", "naive_votes", "fkd_masked", "teacher_used"} & set(quiet)


def test_a_student_that_is_its_teacher_copies_for_nothing():
    teacher = _teacher(STUDENT)
    task = DistilledCodesTask(teacher.network, CodesConfig(), teacher, NAIVE)
    task.train()
    task.network.eval()  # the same batch statistics
    terms = task(_batch())
    assert abs(terms["naive_votes"].item()) < 1e-5 and terms["naive_scores"].item() < 1e-9
    assert "align" not in terms


def test_naive_learning_copies_the_teacher():
    """From the teacher alone; it is far from the truth of the batch."""
    task, batch = _task(NAIVE), _batch(2)
    optimizer, values = torch.optim.AdamW(task.network.parameters(), 5e-3), []
    for _ in range(8):
        terms = task(batch)
        values.append(terms["naive_votes"].item() + terms["naive_scores"].item())
        optimizer.zero_grad()
        (terms["naive_votes"] + terms["naive_scores"]).backward()
        optimizer.step()
    assert values[-1] < 0.5 * values[0]


def test_a_teacher_that_fails_the_gate_is_copied_nowhere():
    """Random weights have half of the bits wrong: nothing passes 0.1, all pass 0.9."""
    batch = _batch()
    task = _task(dataclasses.replace(NAIVE, max_error=0.1))
    strict = task(batch)
    assert "distill.max_error 0.1" in task.remark(1)
    assert strict["teacher_used"].item() == 0
    assert strict["naive_votes"].item() == 0 and strict["naive_scores"].item() == 0
    assert strict["naive_votes"].requires_grad
    batch.mask[0], batch.codes[0] = False, -1  # a crop without its object says nothing either
    loose = _task(dataclasses.replace(NAIVE, max_error=0.9))(batch)
    assert loose["teacher_used"].item() == 0.75 and loose["naive_votes"].item() > 0


def test_a_mask_that_no_cell_has_enough_of_is_a_shut_gate_as_well():
    task = _task(dataclasses.replace(ALL, score_threshold=1.0, max_error=0.0, naive=None))
    terms = task(_batch())
    assert terms["teacher_used"].item() == 1 and terms["align"].item() == 0
    assert "distill.score_threshold is 1," in task.remark(1)
    task = _task(dataclasses.replace(ALL, max_error=0.0))
    task(_batch())
    assert not task.remark(1)


def test_maps_of_equal_stride_are_paired_the_fine_ones_left_out():
    assert deep_levels((2, 4, 8, 16)) == [2, 3]
    assert paired_maps((4, 8, 16), (2, 4, 8, 16)) == ([1, 2], [0, 1])
    assert paired_maps((4, 8, 16), (2, 4, 8)) == ([1], [0])  # a ResNet ends at 8
    task = _task(ALL)
    shapes = [tuple(adapter.weight.shape) for adapter in task.extras.adapters]
    assert shapes == [(128, 64, 1, 1), (128, 64, 1, 1)]


# ---- the cache -------------------------------------------------------------------------------

def _config(tmp_path):
    (tmp_path / "teacher.pt").write_bytes(b"weights")
    return from_dict({
        "task": "object_codes",
        "data": {"train": ["a:b"], "input_size": [64, 64], "objects": ["x", "y"], "variants": 2},
        "model": {"size": "dense_tiny_h", "code_bits": BITS},
        "trainer": {"device": "cpu", "precision": "fp32"},
        "distill": {"teacher": str(tmp_path / "teacher.pt"), "cache": str(tmp_path / "cache")}})


@pytest.mark.parametrize("distill", [ALL, NAIVE])
def test_cached_and_live_runs_give_the_same_loss(tmp_path, distill):
    fixed = FixedAugmentationSet(FakeCodes(), 2)
    batch = collate([fixed[index, seed] for index, seed in ((0, 0), (5, 1), (2, 7))])
    assert batch.sample.tolist() == [0, 11, 5]
    totals = []
    for cached in (False, True):
        task = _task(distill)
        if cached:
            task.cache = fill_cache(task.teacher, fixed, _config(tmp_path),
                                    task.extras is not None, progress=False, join=collate)
            assert task.cache.complete
            task.teacher.network = None  # nobody asks it any more
        terms = task(batch)
        totals.append([terms[name].item() for name in sorted(task.weights)])
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-5, atol=1e-7)


def test_a_cache_for_another_output_is_refused(tmp_path):
    """The answers are kept at the student's pixels: a finer student wants others."""
    fixed, config = FixedAugmentationSet(FakeCodes(), 2), _config(tmp_path)
    fill_cache(_teacher(), fixed, config, False, progress=False, join=collate)
    finer = CodeTeacher(build_model(FINE), [0, 1])
    with pytest.raises(CacheError, match="augmentation or data: shapes.codes was"):
        fill_cache(finer, fixed, config, False, progress=False, join=collate)
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_pad=1.3))
    with pytest.raises(CacheError, match="data.crop_pad was 1.5, now 1.3"):
        fill_cache(_teacher(), fixed, other, False, progress=False, join=collate)
