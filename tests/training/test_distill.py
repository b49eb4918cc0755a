"""Teacher and student in one run: nothing of the teacher moves, its weight may fall over the run,
the align term falls; bad teachers stop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from helpers.fake_votes import FakeVotes
from kd_pose.votes import VoteGrid
from kd_pose_training.config import LossConfig, ModelConfig, OptimConfig, TrainerConfig, from_dict
from kd_pose_training.data.batch import collate
from kd_pose_training.distill.config import AlignTerm, DistillConfig, NaiveTerm
from kd_pose_training.distill.teacher import Teacher, TeacherError, load_teacher
from kd_pose_training.distill.votes_task import DistilledVotesTask
from kd_pose_training.distill.watch import TeacherWatch
from kd_pose_training.engine.checkpoint import CheckpointError, save_checkpoint
from kd_pose_training.engine.trainer import Trainer
from kd_pose_training.losses.alignment_config import AlignmentConfig, balanced, robust, unbalanced
from kd_pose_training.models import build_model
from kd_pose_training.tasks.object_votes import Answers, Positives

torch.set_num_threads(1)
SIZE = (64, 64)
STRIDES = (16, 32)
MODEL = ModelConfig("darknet_tiny_h", STRIDES, head_depth=1, num_classes=2, num_keypoints=8)


class Oracle(nn.Module):
    """A network in shape that answers with the first member's truth of the batches it was told."""

    def __init__(self, batches, error_px=0.0, classes=2) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.answers = {float(b.images.sum()): self._answer(b, error_px, classes) for b in batches}

    def grid(self, input_size):
        return VoteGrid(tuple(input_size), STRIDES)

    def _answer(self, batch, error_px, classes):
        grid = self.grid(SIZE)
        centers, anchors = torch.tensor(grid.centers), torch.tensor(grid.anchors)
        logits = torch.full((len(batch.images), grid.num_cells, classes), -6.0)
        offsets = torch.zeros(*logits.shape, 8, 2)
        for image, cell in (batch.cell_instance >= 0).nonzero().tolist():
            row, label = int(batch.cell_instance[image, cell]), int(batch.cell_class[image, cell])
            logits[image, cell, label] = 2.0
            offset = batch.points_px[row, 0] + error_px - centers[cell]
            offsets[image, cell, label] = (offset / anchors[cell]).float()
        return logits, offsets

    def forward(self, images):
        self.layer(images)  # moves its statistics if anything ever puts it into train mode
        return self.answers[float(images.sum())]


def _batch(seed=0, count=4):
    data = FakeVotes(VoteGrid(SIZE, STRIDES))
    return collate([data[index, seed + index] for index in range(count)])


def _task(teacher_network, weights=None, **settings) -> DistilledVotesTask:
    torch.manual_seed(0)
    teacher = Teacher(teacher_network, [0, 1], SIZE)
    task = DistilledVotesTask(build_model(MODEL), SIZE, LossConfig(), "object_votes", teacher,
                            DistillConfig("teacher.pt", **settings))
    task.weights = weights or task.weights
    return task


# ---- the teacher stays as it is --------------------------------------------------------------

def test_teacher_is_frozen_whatever_is_asked_of_it():
    teacher = Teacher(build_model(MODEL), [0, 1], SIZE)
    nn.ModuleList([teacher]).train().requires_grad_(True)
    teacher.network.zero_grad()
    assert not any(module.training for module in teacher.modules())
    teacher.requires_grad_(True)
    assert not any(p.requires_grad for p in teacher.parameters())
    scores, offsets = teacher(torch.zeros(1, 3, 64, 64, requires_grad=True))
    assert not scores.requires_grad and not offsets.requires_grad


def test_training_moves_the_student_and_nothing_of_the_teacher(tmp_path):
    data = FakeVotes(VoteGrid(SIZE, STRIDES), length=8)
    task = _task(build_model(MODEL), score_threshold=0.0, max_error=0.0)
    before = {k: v.clone() for k, v in task.teacher.state_dict().items()}
    mine = {k: v.clone() for k, v in task.network.state_dict().items()}
    config = TrainerConfig(iterations=3, batch_size=4, precision="fp32", device="cpu", log_every=1,
                           validate_every=0, progress_bar=False, tensorboard=False)
    Trainer(task, data, collate, config, OptimConfig(), tmp_path).run()
    after = task.teacher.state_dict()
    assert before.keys() == after.keys() and len(before) > 50
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.grad is None for p in task.teacher.parameters())
    moved = [not torch.equal(mine[k], v) for k, v in task.network.state_dict().items()]
    assert sum(moved) > 0.9 * len(moved)
    log = (tmp_path / "log.jsonl").read_text()
    assert '"align"' in log and '"teacher_used"' in log


@pytest.mark.parametrize("gate, warnings", [({"score_threshold": 1.0}, 1),
                                            ({"score_threshold": 0.0, "max_error": 0.0}, 0)])
def test_a_teacher_that_never_teaches_is_told_once(tmp_path, capsys, gate, warnings):
    data = FakeVotes(VoteGrid(SIZE, STRIDES), length=8)
    config = TrainerConfig(iterations=4, batch_size=2, precision="fp32", device="cpu",
                           validate_every=2, progress_bar=False, tensorboard=False)
    Trainer(_task(build_model(MODEL), **gate), data, collate, config, OptimConfig(), tmp_path,
            validate=lambda network: {"total": 1.0}).run()
    said = capsys.readouterr().err
    assert said.count("warning: in 4 iterations no object passed the teacher's gate") == warnings
    assert said.count("distill.score_threshold is 1, distill.max_error 0.1,") == warnings


def test_a_stretch_without_an_accepted_object_is_told_of():
    watch = TeacherWatch(DistillConfig("teacher.pt"))
    nothing, something = ({"teacher_used": torch.tensor(used), "align": torch.tensor(used)}
                          for used in (0.0, 0.5))
    watch.hear(nothing)  # one bad batch
    assert not watch.remark(1000)
    for _ in range(30):
        watch.hear(something)
    assert not watch.remark(1000)
    for _ in range(30):
        watch.hear(nothing)
    assert watch.remark(1000).startswith("in 30 iterations no object")
    for _ in range(30):
        watch.hear(nothing)
    assert not watch.remark(1000)  # said already


def test_weights_of_the_teacher_fall_to_nothing():
    batch = _batch()
    task = _task(Oracle([batch]), naive=NaiveTerm(2.0, 3.0), align=AlignTerm(weight=8.0),
                 decay=True)
    own = dict(LossConfig().weights)
    full = {**own, "align": 8.0, "naive_votes": 2.0, "naive_scores": 3.0}
    assert task.weights == full
    task.begin(3, 4)
    assert task.weights == {**own, "align": 2.0, "naive_votes": 0.5, "naive_scores": 0.75}
    task.begin(0, 4)
    assert task.weights == full
    constant = _task(Oracle([batch]), align=AlignTerm(weight=8.0))
    constant.begin(3, 4)
    assert constant.weights == {**own, "align": 8.0}


def test_the_trainer_asks_for_the_weights_of_every_iteration(tmp_path, monkeypatch):
    data = FakeVotes(VoteGrid(SIZE, STRIDES), length=8)
    task = _task(build_model(MODEL), decay=True, score_threshold=0.0, max_error=0.0)
    seen, begin = [], task.begin
    monkeypatch.setattr(task, "begin", lambda *of: (begin(*of), seen.append(task.weights))[0])
    config = TrainerConfig(iterations=4, batch_size=2, precision="fp32", device="cpu",
                           validate_every=0, progress_bar=False, tensorboard=False)
    Trainer(task, data, collate, config, OptimConfig(), tmp_path).run()
    assert [weights["align"] / 400 for weights in seen] == [1.0, 0.75, 0.5, 0.25]


def test_the_teacher_answers_in_the_students_classes():
    batch = _batch(count=2)
    network = Oracle([batch])
    straight, turned = (Teacher(network, order, SIZE)(batch.images) for order in ([0, 1], [1, 0]))
    torch.testing.assert_close(straight[0], turned[0].flip(-1))
    torch.testing.assert_close(straight[1], turned[1].flip(2))


# ---- learning --------------------------------------------------------------------------------

def test_steps_on_the_align_term_bring_the_votes_to_the_teacher():
    batch = _batch()
    task = _task(Oracle([batch]), align=AlignTerm(
        preset="custom", alignment=AlignmentConfig(detach_student_masses=True)))
    optimizer = torch.optim.Adam(task.network.parameters(), 1e-3)
    task.train()
    history = []
    for _ in range(12):
        terms = task(batch)
        history.append((terms["align"].item(), terms["vote_px"].item()))
        optimizer.zero_grad()
        terms["align"].backward()
        optimizer.step()
    assert terms["teacher_used"] == 1.0 and terms["teacher_relative"] < 1e-5
    assert history[1][0] < history[0][0] and history[-1][0] < 0.5 * history[0][0]
    assert history[-1][1] < history[0][1]  # nearer to the truth, which only the teacher told


def test_a_perfect_student_has_nothing_to_learn():
    batch = _batch()
    oracle = Oracle([batch])
    task = DistilledVotesTask(oracle, SIZE, LossConfig(), "object_votes",
                            Teacher(oracle, [0, 1], SIZE), DistillConfig("teacher.pt"))
    for preset in ("balanced", "released", "robust", "unbalanced"):
        task.align.loss.config = AlignTerm(preset=preset).resolve("robust")[0]
        assert abs(task(batch)["align"].item()) < 1e-6


@pytest.mark.parametrize("error_px, threshold, max_error, used", [
    (3.0, 0.3, 0.1, 1.0), (9.0, 0.3, 0.1, 0.0), (9.0, 0.3, 0.0, 1.0), (0.0, 0.95, 0.1, 0.0)])
def test_gates(error_px, threshold, max_error, used):
    """Objects of 60 px: an error of 3 px on both axes is 0.07, one of 9 px is 0.21."""
    batch = _batch()
    task = _task(Oracle([batch], error_px), score_threshold=threshold, max_error=max_error)
    terms = task(batch)
    assert terms["teacher_used"].item() == used and terms["align"].isfinite()
    sum(terms[name] * weight for name, weight in task.weights.items()).backward()
    if used:
        assert terms["teacher_relative"].item() == pytest.approx(2**0.5 * error_px / 60, rel=1e-3)
    else:
        assert terms["align"].item() == 0.0


def test_a_batch_without_instances():
    batch = _batch(count=1)
    none = dataclasses.replace(
        batch, cell_class=torch.full_like(batch.cell_class, -1),
        cell_instance=torch.full_like(batch.cell_instance, -1),
        **{name: getattr(batch, name)[:0] for name in (
            "instance_image", "instance_class", "points_cam", "points_px", "diameter", "size_px",
            "posed")})
    terms = _task(Oracle([batch]))(none)
    terms["align"].backward()
    assert terms["align"].item() == 0 and terms["teacher_used"].item() == 0


# ---- loading ---------------------------------------------------------------------------------

def _config(**changes):
    data = {"data": {"train": ["a:b"], "objects": ["mug", "cube"], "input_size": [64, 64]},
            "model": {"strides": [16, 32], "head_depth": 1, "num_classes": 2}}
    for key, value in changes.items():
        section, name = key.split("__")
        data.setdefault(section, {})[name] = value
    return from_dict(data)


def _spec(name, size=0.05):
    return {"name": name, "diameter": 0.17, "box_min": [-size] * 3, "box_max": [size] * 3}


def _save(path, config, **changes):
    from kd_pose_training.config import to_dict
    state = {"config": to_dict(config), "average": None,
             "network": build_model(config.model).state_dict(),
             "objects": [_spec(name) for name in config.data.objects], **changes}
    save_checkpoint(state, path)
    return path


def test_loading_maps_the_classes(tmp_path):
    path = _save(tmp_path / "t.pt", _config(data__objects=["can", "cube", "mug"],
                                            model__num_classes=3))
    teacher = load_teacher(path, _config(), [_spec("mug"), _spec("cube")])
    assert teacher.classes.tolist() == [2, 1] and teacher.grid.input_size_wh == (64, 64)
    scores, offsets = teacher(torch.zeros(1, 3, 64, 64))
    assert scores.shape[-1] == 2 and offsets.shape[2:] == (2, 8, 2)


@pytest.mark.parametrize("change, message", [
    ({"data__objects": ["mug", "can"]}, "does not know cube.*knows mug, can"),
    ({"data__mean": [0, 0, 0]}, "data.mean")])
def test_another_teacher_is_refused(tmp_path, change, message):
    path = _save(tmp_path / "t.pt", _config(**change))
    with pytest.raises(TeacherError, match=f"t.pt.*{message}"):
        load_teacher(path, _config())


def test_a_detector_is_no_teacher_of_poses(tmp_path):
    detector = dataclasses.replace(
        _config(), task="object_detector",
        model=dataclasses.replace(_config().model, num_keypoints=2))
    with pytest.raises(TeacherError, match="t.pt.*task"):
        load_teacher(_save(tmp_path / "t.pt", detector), _config())


def test_an_object_with_another_box_is_refused(tmp_path):
    path = _save(tmp_path / "t.pt", _config())
    with pytest.raises(TeacherError, match="t.pt.*cube.*box_min"):
        load_teacher(path, _config(), [_spec("mug"), _spec("cube", 0.06)])


def test_missing_damaged_and_partial_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nothing.pt"):
        load_teacher(tmp_path / "nothing.pt", _config())
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match="text.pt"):
        load_teacher(tmp_path / "text.pt", _config())
    weights = build_model(_config().model).state_dict()
    weights.pop(next(iter(weights)))
    with pytest.raises(TeacherError, match="half.pt"):
        load_teacher(_save(tmp_path / "half.pt", _config(), network=weights), _config())


@pytest.mark.parametrize("change, message", [
    ({"teacher": ""}, "teacher"), ({"align": {"weight": -1.0}}, "weight"),
    ({"max_error": -1.0}, "max_error"), ({"score_threshold": 2.0}, "score_threshold"),
    ({"align": {"preset": "custom"}}, "custom"),
    ({"align": {"alignment": {"blur": 0.1}}}, "custom"), ({"align": {"preset": "best"}}, "preset"),
    ({"align": None}, "at least one"),
    ({"naive": {"vote_weight": -1.0}}, "vote_weight"), ({"cache": "there"}, "data.variants"),
    ({"features": {"temperature": 0.0}}, "temperature")])
def test_bad_sections_are_refused(change, message):
    section = {"teacher": "t.pt", **change}
    with pytest.raises(ValueError, match=message):
        from_dict({"data": {"train": ["a:b"]}, "distill": section})


def test_section_by_default_absent_and_otherwise_kept():
    assert _config().distill is None
    auto = DistillConfig("t").align
    assert auto.resolve("robust") == (robust(), 400.0)
    assert auto.resolve("unbalanced") == (unbalanced(), 400.0)
    assert auto.resolve("balanced") == (balanced(), 5.0)
    assert AlignTerm(preset="robust", weight=7.0).resolve("balanced") == (robust(), 7.0)
    custom = from_dict({"data": {"train": ["a:b"]}, "distill": {
        "teacher": "t.pt", "align": {"preset": "custom", "alignment": {"reach": 0.2}}}})
    settings, weight = custom.distill.align.resolve("robust")
    assert settings.reach == 0.2 and weight == 5.0


def test_the_students_answers_are_the_cells_of_inference():
    """With ``student: answers`` the set is what the runtime would decode from the student."""
    batch = _batch()
    task = _task(Oracle([batch]), align=AlignTerm(student="answers"), score_threshold=0.3)
    student = Oracle([batch], error_px=2.0)
    logits, offsets = student(batch.images)
    some = batch.cell_class.clone()
    some[0, (some[0] >= 0).nonzero()[3:, 0]] = -1  # three of its ten positives answer
    logits = torch.where((some >= 0)[..., None], logits, torch.full_like(logits, -6.0))
    logits[1] = -6.0  # finds nothing here
    image, cell = (batch.cell_class >= 0).nonzero(as_tuple=True)
    label, instance = batch.cell_class[image, cell], batch.cell_instance[image, cell]
    points = (task.centers[cell][:, None]
              + offsets[image, cell, label] * task.anchors[cell][:, None, None])
    positives = Positives(points, logits[image, cell, label], instance,
                          torch.zeros_like(instance), image, cell)
    logits.requires_grad_(), offsets.requires_grad_()
    answers = Answers(logits, offsets, [], positives)
    mine = task._answered(batch, answers)
    assert np.bincount(mine.instance.numpy()).tolist() == [3, 10, 10, 10]
    torch.testing.assert_close(mine.points.detach(), batch.points_px[mine.instance, 0] + 2.0,
                               atol=1e-3, rtol=0)
    mine.points.sum().backward()
    assert offsets.grad.abs().sum() > 0
