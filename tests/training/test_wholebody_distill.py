"""Both stages of DWPose: weights over a run, ratios and batch sizes, one backbone, still norms."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from helpers.tiny_simcc import KEYPOINTS, random_batch, tiny_net
from kd_pose_training.config import OptimConfig, TrainerConfig
from kd_pose_training.data.simcc_batch import SimccBatch, collate
from kd_pose_training.distill.teacher import TeacherError
from kd_pose_training.distill.wholebody_config import (
    WholebodyDistillConfig,
    decay,
    epoch_at,
    paper,
    preset,
    released,
)
from kd_pose_training.distill.wholebody_stage1 import StageOneTask
from kd_pose_training.distill.wholebody_stage2 import StageTwoTask
from kd_pose_training.engine.checkpoint import load_checkpoint
from kd_pose_training.engine.trainer import Trainer
from kd_pose_training.tasks.wholebody import LabelLoss, SimccTask

torch.set_num_threads(1)
RUN = TrainerConfig(iterations=3, batch_size=2, precision="fp32", device="cpu", log_every=1,
                    validate_every=0, progress_bar=False, tensorboard=False)


class Crops(Dataset):
    """Crops of a network's size with different noise."""

    def __init__(self, network, count=6):
        self.samples = [random_batch(network, 1, seed) for seed in range(count)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        return self.samples[key[0]]


def stage_one(config=None, teacher_width=24, **settings):
    config = config or WholebodyDistillConfig(**settings)
    return StageOneTask(tiny_net(), tiny_net(teacher_width, seed=1), config)


def total(task, terms):
    return sum(terms[name] * weight for name, weight in task.weights.items())


def snapshot(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(before, module):
    after = module.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def repeated(batch: SimccBatch, times: int) -> SimccBatch:
    return collate([batch] * times)


# ---- settings ----------------------------------------------------------------------------------

def test_decay_by_hand():
    assert [decay(t, 4) for t in (1, 2, 3, 4)] == [1.0, 0.75, 0.5, 0.25]
    assert [epoch_at(i, 12, 4) for i in range(12)] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert [epoch_at(i, 3, 270) for i in range(3)] == [1, 91, 181]
    for t in (0, 5):
        with pytest.raises(ValueError, match=f"t is {t}; allowed: 1 to 4"):
            decay(t, 4)


def test_presets_where_paper_and_code_differ():
    ours, theirs = dataclasses.asdict(released()), dataclasses.asdict(paper())
    assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {
        "feature_weight": (7e-5, 5e-5), "feature_mean": (False, True),
        "second_labels": (True, False), "keypoint_mean": (True, False), "entropy": (True, False)}
    assert released() == WholebodyDistillConfig() == preset("released")
    assert [preset(name, (288, 384)).reference_batch for name in ("paper", "released")] == [32, 32]
    with pytest.raises(ValueError, match="allowed: released, paper"):
        preset("mine")


@pytest.mark.parametrize("settings", [
    {"feature_weight": -1.0}, {"logit_weight": float("nan")}, {"second_logit_weight": -0.1},
    {"beta": 0.0}, {"reference_batch": 0}, {"epochs": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is .*; allowed: "):
        WholebodyDistillConfig(**settings)


# ---- learning from labels ----------------------------------------------------------------------

def test_the_figures_are_pixels_and_scores():
    task = SimccTask(tiny_net())
    batch = random_batch(task.network, 2)
    points = torch.rand(2, KEYPOINTS, 2).numpy() * 50 + 5
    labelled = batch.weight.numpy()
    truth, moved = (task.network.codec.encode(points + shift, labelled)[:2]
                    for shift in ((0, 0), (1.5, -2.0)))
    batch.target_x, batch.target_y = map(torch.from_numpy, truth)
    terms = task.label_terms(tuple(map(torch.from_numpy, moved)), batch)
    assert terms["error_px"].item() == pytest.approx(2.5)
    assert terms["score"].item() == pytest.approx(1.0)
    assert task.label_terms((batch.target_x, batch.target_y), batch)["keypoints"].item() < 1e-5


def test_nothing_labelled():
    network = tiny_net()
    batch = random_batch(network, 2)
    batch.weight.zero_()
    terms = SimccTask(network)(batch)
    terms["keypoints"].backward()
    assert all(terms[name].item() == 0 for name in ("keypoints", "error_px", "score"))


# ---- stage 1 -----------------------------------------------------------------------------------

def test_weights_fall_once_an_epoch():
    task = stage_one(epochs=4)
    seen = []
    for iteration in range(8):
        task.begin(iteration, 8)
        seen.append((task.weights["keypoints"], task.weights["feature"], task.weights["logit"]))
    shares = torch.tensor([1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25])
    want = torch.stack([torch.ones(8), 7e-5 * shares, 0.1 * shares], 1)
    torch.testing.assert_close(torch.tensor(seen), want)


def test_terms_by_their_formulas():
    task = stage_one()
    batch = random_batch(task.network, 3)
    terms = task.eval()(batch)
    features = task.network.backbone(batch.images)
    teacher = task.teacher.network.backbone(batch.images)
    want = (task.extras(features) - teacher).square().sum() / 3
    torch.testing.assert_close(terms["feature"], want)
    mine, theirs = (net.eval()(batch.images) for net in (task.network, task.teacher.network))
    want = 0
    for a, b in zip(mine, theirs):
        p, q = (torch.softmax(10 * x.double(), -1) for x in (b, a))
        want = want + (p * (p / q).log()).sum() / 3 / KEYPOINTS
    torch.testing.assert_close(terms["logit"].double(), want, rtol=1e-4, atol=1e-9)


def test_hidden_keypoints_are_taught_too():
    """No mask on the logits: the teacher's opinion of unlabelled keypoints pulls."""
    task = stage_one()
    batch = random_batch(task.network, 2)
    batch.weight.zero_()
    terms = task(batch)
    assert terms["keypoints"].item() == 0 and terms["logit"].item() > 0
    other = dataclasses.replace(batch, weight=torch.ones_like(batch.weight))
    torch.testing.assert_close(task.eval()(batch)["logit"], task(other)["logit"])
    gradient = torch.autograd.grad(task(batch)["logit"], task.network.head.final_layer.bias)[0]
    assert gradient.abs().min() > 0  # of every keypoint


@pytest.mark.parametrize("config", [released(), paper()], ids=["released", "paper"])
def test_ratios_do_not_depend_on_the_batch(config):
    """The same crops twice in a batch: every term, and so every ratio, stays."""
    task = stage_one(config).eval()
    batch = random_batch(task.network, 2)
    once, twice = task(batch), task(repeated(batch, 2))
    for name in ("keypoints", "feature", "logit"):
        torch.testing.assert_close(once[name], twice[name])


def test_the_published_ratio_at_the_reference_batch():
    """At 64 crops the label term is the sum over them that mmpose computes, at K-means."""
    task = stage_one(reference_batch=64).eval()
    batch = random_batch(task.network, 2)
    logits = task.network(batch.images)
    want = 0
    for mine, target in zip(logits, (batch.target_x, batch.target_y)):
        p, q = (torch.softmax(10 * x, -1) for x in (target, mine))
        per_keypoint = (p * (p / q).log()).mean(-1) * batch.weight
        want = want + 32 * per_keypoint.sum() / KEYPOINTS  # 64 crops: these two, 32 times
    torch.testing.assert_close(task(batch)["keypoints"], want, rtol=1e-4, atol=1e-7)
    summed = stage_one(reference_batch=64, keypoint_mean=False).eval()
    terms, of_sums = task(batch), summed(batch)
    for name in ("keypoints", "logit"):
        torch.testing.assert_close(of_sums[name], KEYPOINTS * terms[name])


def test_equal_channels_need_no_adapter():
    task = stage_one(teacher_width=16)
    assert task.extras is None
    task(random_batch(task.network, 1))["feature"].backward()
    assert stage_one().extras.weight.shape == (24, 16, 1, 1)


@pytest.mark.parametrize("teacher, message", [
    ({"size": (96, 96)}, r"teacher has input_size \(96, 96\), the student \(64, 96\)"),
    ({"keypoints": 17}, "teacher has keypoints 17, the student 5")])
def test_a_teacher_that_does_not_fit(teacher, message):
    with pytest.raises(TeacherError, match=message):
        StageOneTask(tiny_net(), tiny_net(**teacher), released())


def test_training_stage_one_leaves_the_teacher_alone(tmp_path):
    task = stage_one()
    before, student, adapter = (snapshot(m) for m in (task.teacher, task.network, task.extras))
    Trainer(task, Crops(task.network), collate, RUN, OptimConfig(), tmp_path).run()
    assert same(before, task.teacher) and len(before) > 50
    assert all(p.grad is None for p in task.teacher.parameters())
    assert not same(adapter, task.extras)
    moved = [not torch.equal(student[k], v) for k, v in task.network.state_dict().items()]
    assert sum(moved) > 0.9 * len(moved)
    # after three iterations of a run of 270 epochs the last one was epoch 181
    assert task.weights["logit"] == pytest.approx(0.1 * (1 - 180 / 270))
    stored = load_checkpoint(tmp_path / "last.pt")
    assert set(stored["network"]) == set(student) and "weight" in stored["extras"]
    for name in ("keypoints", "feature", "logit", "error_px"):
        assert f'"{name}"' in (tmp_path / "log.jsonl").read_text()


def test_steps_bring_the_student_to_the_teacher():
    task = stage_one(teacher_width=16)
    batch = random_batch(task.network, 2)
    optimizer = torch.optim.Adam(task.network.parameters(), 1e-3)
    history = []
    for _ in range(14):
        terms = task.train()(batch)
        history.append({name: terms[name].item() for name in ("feature", "keypoints")})
        optimizer.zero_grad()
        (1e-2 * terms["feature"] + terms["keypoints"]).backward()
        optimizer.step()
    for name in history[0]:
        assert history[-1][name] < 0.9 * history[0][name]


# ---- stage 2 -----------------------------------------------------------------------------------

def stage_two(config=None):
    trained = tiny_net()
    random_statistics(trained)
    return StageTwoTask(trained, config or released())


@torch.no_grad()
def random_statistics(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def test_the_head_is_fresh_and_the_old_one_teaches():
    trained = tiny_net()
    head, whole = snapshot(trained.head), copy.deepcopy(trained).eval()
    task = StageTwoTask(trained, released())
    assert same(head, task.teacher.head) and not same(head, task.network.head)
    assert not any(p.requires_grad for p in task.teacher.parameters())
    images = random_batch(trained, 2).images
    with torch.no_grad():
        for mine, true in zip(task.teacher(task.network.backbone(images)), whole(images)):
            torch.testing.assert_close(mine, true)


def test_the_backbone_runs_once_a_batch():
    task = stage_two().train()
    calls = []
    task.network.backbone.register_forward_hook(lambda *_: calls.append(1))
    task(random_batch(task.network, 2))
    assert len(calls) == 1


def test_what_stage_two_adds():
    assert stage_two(released()).weights == {"logit": 1.0, "keypoints": 1.0}
    assert stage_two(paper()).weights == {"logit": 1.0}
    task = stage_two(WholebodyDistillConfig(second_logit_weight=3.0, second_labels=False))
    terms = task(random_batch(task.network, 2))
    assert total(task, terms) == 3.0 * terms["logit"] and "keypoints" in terms


def test_only_the_head_moves_and_norm_statistics_stay(tmp_path):
    task = stage_two(paper())
    backbone, teacher, head = (snapshot(m) for m in (task.network.backbone, task.teacher,
                                                     task.network.head))
    config = dataclasses.replace(RUN, ema_decay=0.9)
    Trainer(task, Crops(task.network), collate, config, OptimConfig(), tmp_path).run()
    assert same(backbone, task.network.backbone) and same(teacher, task.teacher)
    assert any("running_var" in key for key in backbone)
    moved = [not torch.equal(head[k], v) for k, v in task.network.head.state_dict().items()]
    assert all(moved)
    average = load_checkpoint(tmp_path / "last.pt")["average"]["network"]
    assert all(torch.equal(average["backbone." + key], value) for key, value in backbone.items())


def test_a_resumed_stage_two_goes_on_alike(tmp_path):
    """The teacher's head comes from the trained network again, all else from the checkpoint."""
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()

    def trainer(folder, stop=None):
        torch.manual_seed(3)
        task = stage_two()
        if stop is not None:
            task.begin = lambda iteration, iterations: iteration == stop and 1 / 0
        return Trainer(task, Crops(task.network), collate,
                       dataclasses.replace(RUN, iterations=4, checkpoint_every=2), OptimConfig(),
                       folder)

    whole = trainer(tmp_path / "whole")
    whole.run()
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path / "parts", stop=3).run()
    again = trainer(tmp_path / "parts")
    again.resume(tmp_path / "parts" / "last.pt")
    assert again.iteration == 2
    again.run()
    assert same(snapshot(whole.task.network), again.task.network)


def test_steps_bring_the_fresh_head_to_the_old_one():
    task = stage_two(WholebodyDistillConfig(second_labels=False))
    batch = random_batch(task.network, 2)
    with torch.no_grad():  # an untrained head answers all keypoints alike: let it say something
        for layer in (task.teacher.head.cls_x, task.teacher.head.cls_y):
            layer.weight.mul_(30)
    optimizer = torch.optim.Adam(task.network.head.parameters(), 1e-3)
    history = []
    for _ in range(14):
        terms = task(batch)
        history.append(terms["logit"].item())
        optimizer.zero_grad()
        total(task, terms).backward()
        optimizer.step()
    assert history[-1] < 0.5 * history[0]


def test_label_loss_scales_a_mean():
    batch = random_batch(tiny_net(), 2)
    logits = (0.5 * batch.target_x, 0.5 * batch.target_y)
    assert LabelLoss(10.0, 64.0)(logits, batch) == pytest.approx(
        64 * LabelLoss(10.0, 1.0)(logits, batch).item())
