"""Aligning surface codes with a teacher's: code space, pooling, gates, unfit teachers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from kd_pose.codes import CodeTable, code_table_to_text, codes_to_bits
from kd_pose_training.config import CodesConfig, DataConfig, ModelConfig, TrainConfig, to_dict
from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.distill.align_codes import bit_shares, code_errors, pool_codes
from kd_pose_training.distill.code_teacher import (
    CodeTeacher,
    coarsened,
    load_code_teacher,
    same_codes,
)
from kd_pose_training.distill.codes_task import DistilledCodesTask
from kd_pose_training.distill.config import AlignTerm, DistillConfig, NaiveTerm
from kd_pose_training.distill.teacher import TeacherError
from kd_pose_training.engine.checkpoint import save_checkpoint
from kd_pose_training.models import build_model
from kd_pose_training.tasks.object_codes import CodeAnswers

torch.set_num_threads(1)
BITS, SIDE = 4, 16


class Fixed(nn.Module):
    """A "network" of one class that answers with given logits."""

    def __init__(self, masks, codes):
        super().__init__()
        self.masks, self.codes = nn.Parameter(masks[:, None]), nn.Parameter(codes[:, None])
        self.register_buffer("bit_error", torch.full((codes.shape[1],), 0.5))

    def forward(self, images):
        return self.masks, self.codes


def make_batch(count=2, seed=0):
    """Objects of 16 patches in the middle, each one cell of the grid with a code of its own."""
    rng = np.random.default_rng(seed)
    codes = torch.full((count, SIDE, SIDE), -1, dtype=torch.int32)
    patches = np.stack([rng.permutation(2**BITS).reshape(4, 4) for _ in range(count)])
    patches = patches.repeat(2, 1).repeat(2, 2)
    codes[:, 4:12, 4:12] = torch.tensor(patches, dtype=torch.int32)
    return CodeBatch(torch.zeros(count, 3, 2 * SIDE, 2 * SIDE), torch.zeros(count).long(),
                     codes >= 0, codes, torch.full((count,), -1))


def logits(batch, strength=12.0):
    bits = torch.tensor(codes_to_bits(batch.codes.clamp(min=0).numpy(), BITS))
    return (strength * (2.0 * batch.mask - 1),
            strength * (2.0 * bits.permute(0, 3, 1, 2).float() - 1))


def make_task(student, teacher, **changes):
    settings = {"teacher": "x", "max_error": 0.0, **changes}
    return DistilledCodesTask(student, CodesConfig(), CodeTeacher(teacher, [0]),
                              DistillConfig(**settings))


def test_code_space_is_like_space_on_the_object():
    shares = bit_shares(16)
    assert float(shares.sum()) == pytest.approx(1)  # a code and its complement are 1 apart
    assert float(shares[0]) == pytest.approx(0.5, rel=1e-4)
    assert shares[3] / shares[4] == pytest.approx(2.0)  # half the surface, 1 / sqrt(2) the length


def test_pooling_by_hand():
    """One cell of four pixels: masks 1, ½, ½, 0; first bit 1, 0, 1, 1; second 0, 1, 1, 0."""
    masks = torch.tensor([[[1.0, 0.5], [0.5, 0.0]]], requires_grad=True)
    codes = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]],
                         requires_grad=True)
    mass, points = pool_codes(masks, codes, 1)
    assert mass.tolist() == [[0.5]]
    expected = [0.75 * math.sqrt(2 / 3), 0.5 * math.sqrt(1 / 3)]
    assert points[0, 0].tolist() == pytest.approx(expected)
    points.sum().backward()
    assert masks.grad is None and codes.grad[0, 0, 0, 0] == pytest.approx(0.5 * math.sqrt(2 / 3))
    empty = pool_codes(torch.zeros(1, 4, 4), torch.ones(1, 2, 4, 4), 2)
    assert not empty[0].any() and not empty[1].any()


def test_cells_lie_in_rows():
    masks = torch.zeros(1, 4, 6)
    masks[0, 0, 5] = 1.0
    mass, _ = pool_codes(masks, torch.zeros(1, 1, 4, 6), 2)
    assert mass[0].argmax() == 1


def test_a_student_like_its_teacher_has_nothing_to_learn():
    batch = make_batch()
    task = make_task(Fixed(*logits(batch)), Fixed(*logits(batch)))
    terms = task(batch)
    assert abs(terms["align"].item()) < 1e-6 and terms["teacher_used"].item() == 1
    assert terms["teacher_error"].item() == 0
    assert task.weights == {"mask": 1.0, "code": 3.0, "align": 5.0}
    assert "align" not in task.eval().terms(task.network, batch)


def test_coarse_bits_matter_more_and_the_student_moves_to_the_teacher():
    """A student only a little sure of one bit: the loss falls with the bit's level, and descent
    turns the bit to what the teacher says at every pixel."""
    batch = make_batch()
    teacher, values = Fixed(*logits(batch)), []
    for bit in range(BITS):
        masks, codes = logits(batch)
        codes[:, bit] /= 30
        student = Fixed(masks, codes)
        task = make_task(student, teacher)
        loss = task(batch)["align"]
        values.append(loss.item())
        loss.backward()
        slope = student.codes.grad[:, 0, bit]
        wanted = (teacher.codes[:, 0, bit] > 0) & batch.mask
        assert (slope[wanted] < 0).all() and (slope[~wanted & batch.mask] > 0).all()
        assert teacher.codes.grad is None
    assert values == sorted(values, reverse=True) and values[3] > 0


def test_weights_of_the_teacher_fall_to_nothing():
    batch = make_batch()
    task = make_task(Fixed(*logits(batch)), Fixed(*logits(batch)), align=AlignTerm(weight=8.0),
                     naive=NaiveTerm(2.0, 3.0), decay=True)
    task.begin(3, 4)
    assert task.weights == {"mask": 1.0, "code": 3.0, "align": 2.0, "naive_votes": 0.5,
                            "naive_scores": 0.75}


def test_masses_teach_the_mask():
    """The student is unsure of half of the object: its mask grows there, against the rest."""
    batch = make_batch()
    masks, codes = logits(batch)
    masks[:, 4:8] = 0.0
    student = Fixed(masks, codes)
    task = make_task(student, Fixed(*logits(batch)))
    task(batch)["align"].backward()
    slope = student.masks.grad[:, 0] * batch.mask
    assert slope[:, 4:8].sum() < 0 <= slope[:, 8:].sum()


def test_errors_and_gate():
    """Teacher that says 1 for the coarsest bit (8/15) everywhere in the second crop: wrong in
    half of it, left out above 0.2."""
    batch = make_batch()
    masks, codes = logits(batch)
    codes[1, 0] = 12.0
    bits = torch.tensor(codes_to_bits(batch.codes.clamp(min=0).numpy(), BITS)).permute(0, 3, 1, 2)
    answers = CodeAnswers(masks, codes, bits, batch.codes >= 0)
    errors = code_errors(codes.sigmoid(), answers)
    assert errors.tolist() == pytest.approx([0.0, 4 / 15])
    with torch.autocast("cpu", torch.bfloat16):  # which would round the weights of the bits
        assert torch.equal(code_errors(codes.sigmoid(), answers), errors)
    nothing = dataclasses.replace(answers, coded=torch.zeros_like(answers.coded))
    assert torch.isinf(code_errors(codes.sigmoid(), nothing)).all()
    right = make_task(Fixed(*logits(batch)), Fixed(masks, codes), max_error=0.2)(batch)
    assert right["teacher_used"].item() == 0.5 and abs(right["align"].item()) < 1e-6
    open_gate = make_task(Fixed(*logits(batch)), Fixed(masks, codes))(batch)
    assert open_gate["teacher_used"].item() == 1 and open_gate["align"].item() > 0.01
    assert open_gate["teacher_error"].item() == pytest.approx(2 / 15)


@pytest.mark.parametrize("preset", ["auto", "released", "balanced", "positions", "robust",
                                    "unbalanced"])
def test_nothing_to_align_costs_nothing(preset):
    """A teacher that sees no object, and a crop without one: finite, zero, with a graph."""
    batch = make_batch()
    batch.mask[1], batch.codes[1] = False, -1
    blind = Fixed(torch.full((2, SIDE, SIDE), -30.0), torch.zeros(2, BITS, SIDE, SIDE))
    student = Fixed(torch.zeros(2, SIDE, SIDE), torch.zeros(2, BITS, SIDE, SIDE))
    task = make_task(student, blind, align=AlignTerm(preset=preset))
    loss = task(batch)["align"]
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(student.codes.grad).all()


# --- teachers from checkpoints -----------------------------------------------------------------

SPEC = {"name": "", "diameter": 0.2, "box_min": (-0.1,) * 3, "box_max": (0.1,) * 3,
        "symmetries_discrete": (), "symmetries_continuous": (), "mesh_uri": ""}


def table(seed):
    points = np.random.default_rng(seed).uniform(-0.1, 0.1, (2**BITS, 3))
    return code_table_to_text(CodeTable(points))


def config(objects, bits=BITS, **changes):
    values = {"data": DataConfig(("a:b",), objects=objects, input_size=(32, 32)),
              "model": ModelConfig("dense_tiny", num_classes=len(objects), code_bits=bits)}
    return TrainConfig(task="object_codes", **{**values, **changes})


def save(path, run, tables, **changes):
    torch.manual_seed(1)
    network = build_model(run.model)
    objects = [{**SPEC, "name": name} for name in run.data.objects]
    save_checkpoint({"config": to_dict(run), "objects": objects, "code_tables": list(tables),
                     "iteration": 1, "iterations": 1, "network": network.state_dict(),
                     "average": None, **changes}, path)
    return network.eval()


def load(path, run, tables):
    return load_code_teacher(path, run, [{**SPEC, "name": n} for n in run.data.objects], tables)


def test_teacher_is_frozen_and_answers_in_the_students_classes(tmp_path):
    network = save(tmp_path / "t.pt", config(("cup", "can", "box")), [table(i) for i in range(3)])
    teacher = load(tmp_path / "t.pt", config(("box", "cup")), [table(2), table(0)])
    teacher.train()
    assert not teacher.network.training
    assert not any(p.requires_grad for p in teacher.parameters())
    images = torch.randn(2, 3, 32, 32)
    masks, codes = teacher(images, torch.tensor([0, 1]))
    with torch.no_grad():
        all_masks, all_codes = network(images)
    assert torch.allclose(masks[0], all_masks[0, 2].sigmoid(), atol=1e-6)
    assert torch.allclose(codes[1], all_codes[1, 0].sigmoid(), atol=1e-6)


@pytest.mark.parametrize("run, tables, part", [
    (config(("cup", "can"), bits=5), (), "model.code_bits 5, the student 4"),
    (config(("can",)), (1,), "does not know cup"),
    (config(("cup", "can")), (2, 1), "codes of cup mean other places"),
    (config(("cup", "can")), (), "codes of cup mean other places"),
    (TrainConfig(DataConfig(("a:b",), objects=("cup",)), model=ModelConfig(num_classes=1)), (),
     "task object_votes, the student object_codes"),
])
def test_teachers_that_do_not_fit(tmp_path, run, tables, part):
    save(tmp_path / "t.pt", run, [table(i) for i in tables])
    with pytest.raises(TeacherError, match=f"t.pt.*{part}"):
        load(tmp_path / "t.pt", config(("cup",)), [table(0)])


def test_a_teacher_that_cannot_be_read_stops_the_run(tmp_path):
    with pytest.raises(ValueError, match="nothing.pt"):
        load(tmp_path / "nothing.pt", config(("cup",)), [table(0)])
    save(tmp_path / "t.pt", config(("cup",)), [table(0)], network={})
    with pytest.raises(TeacherError, match="no usable teacher"):
        load(tmp_path / "t.pt", config(("cup",)), [table(0)])


def test_tables_equal_up_to_rounding():
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (2**BITS, 3))
    text = code_table_to_text(CodeTable(points))
    assert same_codes(text, code_table_to_text(CodeTable(points + 1e-6)))
    assert not same_codes(text, code_table_to_text(CodeTable(points[::-1])))
    assert not same_codes(text, code_table_to_text(CodeTable(points[:8])))


def test_trust_is_for_vote_networks():
    with pytest.raises(ValueError, match="distill.align.trust is 0.1.*has a single answer"):
        config(("cup",), distill=DistillConfig("t.pt", align=AlignTerm(trust=0.1)))


def test_coarsening_by_hand():
    """Four pixels with masks 1, ½, ½, 0: the code's last pixel is background."""
    masks = torch.tensor([[[1.0, 0.5], [0.5, 0.0]]])
    codes = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    mask, code = coarsened(masks, codes, 2)
    assert mask.tolist() == [[[0.5]]] and code.item() == pytest.approx(0.75, abs=1e-5)
    same = torch.rand(2, 4, 6)
    torch.testing.assert_close(coarsened(same, torch.full((2, 3, 4, 6), 0.3), 2)[1],
                               torch.full((2, 3, 2, 3), 0.3))


def test_a_finer_teacher_answers_at_the_students_pixels(tmp_path):
    network = save(tmp_path / "t.pt", config(("cup",)), [table(0)])
    narrow = ModelConfig("dense_tiny_h", num_classes=1, code_bits=BITS)
    teacher = load(tmp_path / "t.pt", config(("cup",), model=narrow), [table(0)])
    images = torch.randn(2, 3, 32, 32)
    masks, codes = teacher(images, torch.zeros(2).long())
    assert masks.shape == (2, 8, 8) and codes.shape == (2, BITS, 8, 8)
    with torch.no_grad():
        fine = network(images)[0][:, 0].sigmoid()
    assert masks[1, 2, 3].item() == pytest.approx(fine[1, 4:6, 6:8].mean().item(), abs=1e-6)


def test_a_coarser_teacher_is_refused(tmp_path):
    coarse = config(("cup",), model=ModelConfig("dense_tiny_h", num_classes=1, code_bits=BITS))
    save(tmp_path / "t.pt", coarse, [table(0)])
    with pytest.raises(TeacherError, match="t.pt.*every 4 pixels, the student every 2"):
        load(tmp_path / "t.pt", config(("cup",)), [table(0)])
