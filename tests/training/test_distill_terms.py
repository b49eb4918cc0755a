"""Naive and feature distillation, trust in keypoints, and the teacher's answers on disk."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import numpy as np
import pytest
import torch

from helpers.bop_folder import write_picture, write_set
from helpers.fake_votes import FakeVotes
from kd_pose.votes import VoteGrid
from kd_pose_training.config import LossConfig, ModelConfig, OptimConfig, TrainerConfig, from_dict
from kd_pose_training.data.batch import collate
from kd_pose_training.data.fixed_set import FixedAugmentationSet
from kd_pose_training.data.teacher_cache import CacheError, TeacherCache, only_one
from kd_pose_training.distill import cached_teacher
from kd_pose_training.distill.align import keypoint_trust
from kd_pose_training.distill.cached_teacher import fill_cache
from kd_pose_training.distill.config import AlignTerm, DistillConfig, FeatureTerm, NaiveTerm
from kd_pose_training.distill.teacher import Teacher, TeacherError, TeacherOutputs
from kd_pose_training.distill.votes_task import DistilledVotesTask, paired_cells, paired_levels
from kd_pose_training.engine.trainer import Trainer
from kd_pose_training.losses.alignment import LocalPredictions
from kd_pose_training.losses.feature_attention import feature_terms, relations
from kd_pose_training.losses.naive_votes import score_difference, vote_distance
from kd_pose_training.models import build_model

torch.set_num_threads(1)
SIZE, STRIDES = (64, 64), (16, 32)
MODEL = ModelConfig("darknet_tiny_h", STRIDES, head_depth=1, fpn_channels=32, num_classes=2,
                    num_keypoints=8)
WIDE = dataclasses.replace(MODEL, fpn_channels=64)


def _teacher(model=WIDE):
    torch.manual_seed(5)
    return Teacher(build_model(model), [0, 1], SIZE)


def _task(distill, teacher=None, student=MODEL):
    torch.manual_seed(0)
    return DistilledVotesTask(build_model(student), SIZE, LossConfig(), "object_votes",
                              teacher or _teacher(), distill)


def _data(length=8):
    return FakeVotes(VoteGrid(SIZE, STRIDES), length=length)


def _batch(count=4):
    data = _data()
    return collate([data[index, index] for index in range(count)])


OPEN = {"score_threshold": 0.0, "max_error": 0.0}  # every teacher is heard
ALL = DistillConfig("t", naive=NaiveTerm(), features=FeatureTerm(), **OPEN)


# ---- values ------------------------------------------------------------------------------------

def test_distance_of_votes_by_hand():
    """Two cells, one keypoint: 3-4-5 triangles in objects of 10 and 50 pixels."""
    student = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[[0.0, 0.0]], [[30.0, 40.0]]])
    value = vote_distance(student, teacher, torch.tensor([10.0, 50.0]))
    assert value.item() == pytest.approx((0.5 + 1.0) / 2, abs=2e-4)
    value.backward()
    torch.testing.assert_close(student.grad[0, 0], torch.tensor([0.6, 0.8]) / 10 / 2)


def test_equal_votes_cost_nothing_and_pull_nowhere():
    points = torch.rand(3, 8, 2, requires_grad=True)
    value = vote_distance(points, points.detach(), torch.full((3,), 60.0))
    value.backward()
    assert value.item() == 0 and points.grad.abs().max() == 0
    none = vote_distance(points[:0], points[:0], torch.ones(0))
    assert none.item() == 0 and none.requires_grad


def test_score_difference_by_hand():
    logits = torch.tensor([[0.0, 0.0]])
    assert score_difference(logits, torch.tensor([[1.0, 0.5]]), 2).item() == pytest.approx(0.125)
    assert score_difference(logits, torch.tensor([[1.0, 0.5]]), 0).item() == pytest.approx(0.25)


def test_relations_by_hand():
    """Two places of one channel: softmax weights of the products."""
    maps = torch.tensor([[[[1.0, 2.0]]]])
    first = np.exp([1, 2]) / np.exp([1, 2]).sum() @ [1, 2]
    second = np.exp([2, 4]) / np.exp([2, 4]).sum() @ [1, 2]
    torch.testing.assert_close(relations(maps)[0, :, 0], torch.tensor([first, second]).float())


def test_feature_terms_of_equal_and_of_scaled_maps():
    maps = torch.randn(2, 8, 3, 4)
    assert all(value.item() < 2.5e-4 for value in feature_terms(maps, maps))
    # In units of the teacher's mean activation: the scale of a teacher does not matter.
    other = torch.randn(2, 8, 3, 4)
    for small, large in zip(feature_terms(other, maps), feature_terms(50 * other, 50 * maps)):
        torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-6)


def test_attention_by_hand():
    """One image, one channel, two places: 2 and 0 against 1 and 1; the unit is 1."""
    student = torch.tensor([[[[2.0, 0.0]]]])
    teacher = torch.ones(1, 1, 1, 2)
    attention, masked, _ = feature_terms(student, teacher, temperature=1.0)
    assert attention.item() == pytest.approx(1.0, abs=2e-4)  # spatial 1, channel 0
    weight = 2 * np.exp([3, 1]) / np.exp([3, 1]).sum()
    assert masked.item() == pytest.approx(np.sqrt(weight.mean()), abs=1e-4)


def test_the_masks_look_where_something_is():
    teacher = torch.full((1, 4, 2, 2), 0.1)
    teacher[..., 0, 0] = 5.0
    wrong = [teacher.clone(), teacher.clone()]
    wrong[0][..., 0, 0] += 1.0
    wrong[1][..., 1, 1] += 1.0
    at_object, beside = (feature_terms(maps, teacher)[1].item() for maps in wrong)
    assert at_object > 3 * beside


def test_gradients_of_the_feature_terms():
    maps = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 3, 2, 2)
    total = sum(feature_terms(maps, teacher))
    total.backward()
    assert maps.grad.isfinite().all() and maps.grad.abs().max() > 0
    with pytest.raises(ValueError, match="alike"):
        feature_terms(maps, teacher[:, :2])


def test_trust_by_hand():
    """Votes 10 px apart, equal scores: spread 5 px; half trust at 0.1 of 50 px."""
    points = torch.tensor([[[[0.0, 0.0], [3.0, 3.0]], [[10.0, 0.0], [3.0, 3.0]]]])
    votes = LocalPredictions(points, torch.full((1, 2), 0.7), torch.ones(1, 2, dtype=torch.bool))
    trust = keypoint_trust(votes, torch.tensor([50.0]), 0.1)
    torch.testing.assert_close(trust, torch.tensor([[0.5, 1.0]]))
    alone = dataclasses.replace(votes, valid=torch.tensor([[True, False]]))
    torch.testing.assert_close(keypoint_trust(alone, torch.tensor([50.0]), 0.1), torch.ones(1, 2))


def test_terms_are_computed_in_float32_under_autocast():
    """Votes spread by 0.2 px about pixel 40 to 220: bfloat16 tells whole pixels there."""
    points = torch.rand(50, 1, 8, 2) * 180 + 40 + torch.randn(50, 10, 8, 2) * 0.2
    votes = LocalPredictions(points, torch.rand(50, 10), torch.ones(50, 10, dtype=torch.bool))
    maps = torch.randn(2, 64, 6, 6), torch.randn(2, 64, 6, 6)
    values = [(keypoint_trust(votes, torch.full((50,), 100.0), 0.01), *feature_terms(*maps))]
    with torch.autocast("cpu", torch.bfloat16):
        values.append((keypoint_trust(votes, torch.full((50,), 100.0), 0.01),
                       *feature_terms(*maps)))
    for full, half in zip(*values):
        assert torch.equal(full, half)


def test_feature_terms_of_an_image_do_not_depend_on_the_others():
    student, teacher = torch.randn(2, 8, 3, 4), torch.randn(2, 8, 3, 4)
    teacher[1] *= 20  # one image in which much is active
    alone = [torch.stack(feature_terms(student[i:i + 1], teacher[i:i + 1])) for i in (0, 1)]
    torch.testing.assert_close(torch.stack(feature_terms(student, teacher)), sum(alone) / 2)


# ---- the task --------------------------------------------------------------------------------

def test_all_terms_together_reach_the_student_and_the_adapters_only():
    task, batch = _task(ALL), _batch()
    task.train()
    terms = task(batch)
    names = {"align", "naive_votes", "naive_scores", "fkd_attention", "fkd_masked",
             "fkd_relation"}
    assert names <= terms.keys() and names <= task.weights.keys()
    sum(terms[name] * weight for name, weight in task.weights.items()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.extras.parameters())
    assert all(p.grad is None for p in task.teacher.parameters())
    assert sum(p.grad is not None for p in task.network.parameters()) > 20


def test_a_student_that_is_its_teacher_copies_for_nothing():
    teacher = _teacher(MODEL)
    task = DistilledVotesTask(teacher.network, SIZE, LossConfig(), "object_votes", teacher,
                              DistillConfig("t", align=None, naive=NaiveTerm(), **OPEN))
    task.train()
    task.network.eval()  # the same batch statistics
    terms = task(_batch())
    assert terms["naive_votes"].item() < 1e-4 and terms["naive_scores"].item() < 1e-6
    assert "align" not in terms


def _scattered(batch, task):
    """A teacher that votes at the positive cells for the truth, up to 6 px beside it."""
    scores = torch.zeros(*batch.cell_class.shape, 2)
    offsets = torch.zeros(*scores.shape, 8, 2)
    rng = torch.Generator().manual_seed(0)
    for image, cell in (batch.cell_instance >= 0).nonzero().tolist():
        row, label = int(batch.cell_instance[image, cell]), int(batch.cell_class[image, cell])
        points = batch.points_px[row, 0] + 12 * torch.rand(8, 2, generator=rng) - 6
        scores[image, cell, label] = 0.9
        offsets[image, cell, label] = (points - task.centers[cell]) / task.anchors[cell]
    return TeacherOutputs(scores, offsets)


def test_trust_lowers_the_alignment():
    batch, values = _batch(), []
    for trust in (0.0, 0.05):
        task = _task(DistillConfig("t", align=AlignTerm(trust=trust), **OPEN))
        task.train()
        task.teacher_outputs = lambda batch, task=task: _scattered(batch, task)
        values.append(task(batch)["align"].item())
    assert 0 < values[1] < values[0]


def test_levels_are_paired_or_refused():
    mine, theirs = VoteGrid(SIZE, (16, 32)), VoteGrid(SIZE, (8, 16, 32))
    assert paired_levels((16, 32), (8, 16, 32)) == [1, 2]
    np.testing.assert_array_equal(theirs.centers[paired_cells(mine, theirs)], mine.centers)
    with pytest.raises(TeacherError, match=r"\[8\].*lacks"):
        paired_levels((8, 16), (16, 32))
    with pytest.raises(TeacherError, match="anchor_scale"):
        paired_cells(mine, VoteGrid(SIZE, (16, 32), 3.0))


def test_a_killed_run_goes_on_with_its_adapters(tmp_path):
    """Losses of 2 + 2 iterations equal those of 4: adapters and their optimiser are kept."""
    def trainer(folder, iterations=4):
        folder.mkdir(exist_ok=True)
        config = TrainerConfig(iterations=iterations, batch_size=2, precision="fp32", device="cpu",
                               log_every=1, validate_every=0, checkpoint_every=2,
                               progress_bar=False, tensorboard=False)
        return Trainer(_task(ALL), _data(), collate, config, OptimConfig(), folder)

    def losses(folder):
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [row["total"] for row in rows if row["kind"] == "train"]

    trainer(tmp_path / "whole").run()
    first = trainer(tmp_path / "parts")
    save, calls = first._save, []
    first._save = lambda name: (save(name), calls.append(name),
                                (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = trainer(tmp_path / "parts")
    second.resume(tmp_path / "parts" / "last.pt")
    second.run()
    assert losses(tmp_path / "parts")[-2:] == losses(tmp_path / "whole")[-2:]


# ---- the cache -------------------------------------------------------------------------------

def _config(tmp_path, **distill):
    (tmp_path / "teacher.pt").write_bytes(b"weights")
    return from_dict({
        "data": {"train": ["a:b"], "input_size": [64, 64], "objects": ["x", "y"], "variants": 2},
        "model": {"strides": [16, 32], "head_depth": 1},
        "trainer": {"device": "cpu", "precision": "fp32"},
        "distill": {"teacher": str(tmp_path / "teacher.pt"), "cache": str(tmp_path / "cache"),
                    **distill}})


def test_variants_are_few_and_always_the_same():
    fixed = FixedAugmentationSet(_data(), 2)
    drawn = {int(fixed[3, seed].sample) for seed in range(30)}
    assert drawn == {6, 7} and fixed.total == 16
    torch.testing.assert_close(fixed[3, 8].images, fixed.variant(6).images)
    assert not torch.equal(fixed.variant(6).images, fixed.variant(7).images)


@pytest.mark.parametrize("distill", [ALL, DistillConfig("t", **OPEN)])
def test_cached_and_live_runs_give_the_same_loss(tmp_path, distill):
    fixed = FixedAugmentationSet(_data(), 2)
    batch = collate([fixed[index, seed] for index, seed in ((0, 0), (5, 1), (2, 7))])
    totals = []
    for cached in (False, True):
        task = _task(distill)
        if cached:
            task.cache = fill_cache(task.teacher, fixed, _config(tmp_path), with_maps=True,
                                    progress=False)
            assert task.cache.complete
            task.teacher.network = None  # nobody asks it any more
        task.train()
        terms = task(batch)
        totals.append([terms[name].item() for name in sorted(task.weights)])
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-5, atol=1e-7)


def test_filling_goes_on_where_it_was(tmp_path):
    config, fixed, teacher = _config(tmp_path), FixedAugmentationSet(_data(), 2), _teacher()
    whole = fill_cache(teacher, fixed, config, False, progress=False)
    wanted = whole.read(np.arange(16))
    whole._arrays["scores"][9:] = 0
    (tmp_path / "cache/done.json").write_text("9")
    again = fill_cache(teacher, fixed, config, False, progress=False)
    assert again.complete
    np.testing.assert_allclose(again.read(np.arange(16))["scores"], wanted["scores"], atol=1e-6)


@pytest.mark.parametrize("change, message", [
    ("teacher", "teacher was"), ("augment", "augment.blur was"),
    ("contents", "contents.*:train was \"[0-9a-f]{16}\", now"),
    ("version", "contents was not noted, now .*:train"),
    ("variants", "data.variants was 2, now 3")])
def test_a_cache_of_something_else_is_refused(tmp_path, change, message):
    config, teacher = _config(tmp_path), _teacher()
    scene = write_set(tmp_path / "set")
    config = dataclasses.replace(config, data=dataclasses.replace(
        config.data, train=(f"{tmp_path / 'set'}:train",)))
    fill_cache(teacher, FixedAugmentationSet(_data(), 2), config, False, progress=False)
    if change == "teacher":
        (tmp_path / "teacher.pt").write_bytes(b"others")
    elif change == "contents":
        write_picture(scene / "rgb/000010.png", np.zeros((6, 8, 3), np.uint8))
    elif change == "version":  # an earlier one's
        path = tmp_path / "cache/key.json"
        key = json.loads(path.read_text())
        del key["contents"]
        path.write_text(json.dumps(key))
    elif change == "augment":
        config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, blur=0.0))
    else:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, variants=3))
    variants = config.data.variants
    with pytest.raises(CacheError, match=f"another teacher, augmentation or data: .*{message}"):
        fill_cache(teacher, FixedAugmentationSet(_data(), variants), config, False, progress=False)


def test_folders_that_are_no_cache_and_rows_that_are_not_there(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(CacheError, match="no cache"):
        TeacherCache(tmp_path, {}, {"scores": (2,)}, 3)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    cache = TeacherCache(tmp_path / "c", {}, {"scores": (2,)}, 3)
    with pytest.raises(CacheError, match="holds 0 rows"):
        cache.write(1, {"scores": np.zeros((1, 2), np.float32)})
    with pytest.raises(CacheError, match="samples 0 to 2"):
        cache.read(np.array([-1]))
    (tmp_path / "c/key.json").write_text("{")
    with pytest.raises(CacheError, match="key.json"):
        TeacherCache(tmp_path / "c", {}, {"scores": (2,)}, 3)


def test_two_runs_fill_one_cache_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cached_teacher, "BATCH", 4)
    config, fixed, teacher = _config(tmp_path), FixedAugmentationSet(_data(), 2), _teacher()
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(fill_cache, teacher, fixed, config, False, progress=False)
                for _ in range(2)]
    first, second = (run.result().read(np.arange(16))["scores"] for run in runs)
    np.testing.assert_array_equal(first, second)
    assert first.any(axis=(1, 2)).all()


def test_who_finds_a_cache_being_filled_waits_and_says_so(tmp_path, capsys):
    opened = []

    def second():
        with only_one(tmp_path / "c"):
            opened.append(True)

    thread = Thread(target=second)
    with only_one(tmp_path / "c"):
        thread.start()
        thread.join(0.3)
        assert not opened
    thread.join(5)
    assert opened
    assert f"{tmp_path / 'c'}: another process is filling this cache" in capsys.readouterr().err


def test_a_cache_that_was_cut_off_when_it_began_is_gone_on_with(tmp_path, monkeypatch):
    shapes, make = {"offsets": (3,), "scores": (2,)}, np.lib.format.open_memmap

    def killed(path, *of):
        if path.name == "scores.npy":
            raise KeyboardInterrupt
        return make(path, *of)

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "open_memmap", killed)
        with pytest.raises(KeyboardInterrupt), only_one(tmp_path / "c"):
            TeacherCache(tmp_path / "c", {}, shapes, 3)
    with only_one(tmp_path / "c"):
        cache = TeacherCache(tmp_path / "c", {}, shapes, 3)
    cache.write(0, {name: np.ones((3, *shape), np.float32) for name, shape in shapes.items()})
    assert cache.complete


def test_a_damaged_count_of_rows_is_named(tmp_path):
    cache = TeacherCache(tmp_path / "c", {}, {"scores": (2,)}, 3)
    for text in ("", "4", "-1", "two"):
        (tmp_path / "c/done.json").write_text(text)
        with pytest.raises(CacheError, match=r"done.json: must hold a number from 0 to 3.*Delete"):
            cache.write(0, {})


def test_maps_do_not_stay_behind_in_an_unfinished_cache(tmp_path):
    """A run without maps may read a cache that has them, but not go on filling it."""
    with_maps = {"scores": (2,), "map0": (1,)}
    cache = TeacherCache(tmp_path / "c", {}, with_maps, 2)
    cache.write(0, {name: np.ones((1, *shape)) for name, shape in with_maps.items()})
    with pytest.raises(CacheError, match=r"shapes.map0 was \[1\]"):
        TeacherCache(tmp_path / "c", {}, {"scores": (2,)}, 2)
    cache.write(1, {name: np.ones((1, *shape)) for name, shape in with_maps.items()})
    assert TeacherCache(tmp_path / "c", {}, {"scores": (2,)}, 2).complete
