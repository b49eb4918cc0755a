"""kd_pose_training.experiments.wholebody_*: budgets, order, figures by hand, a whole run."""

import json

import cv2
import numpy as np
import pytest

from helpers.wholebody_files import annotation
from kd_pose.wholebody_keypoints import COUNT, PARTS, SIGMAS
from kd_pose_training import cli
from kd_pose_training.experiments.config import PeopleExperiment, load_experiment
from kd_pose_training.experiments.jobs import seconds_learnt
from kd_pose_training.experiments.wholebody_distillation import plan, recipe
from kd_pose_training.experiments.wholebody_scores import score
from kd_pose_training.experiments.wholebody_summary import table

RECIPE = """
task: wholebody
data: {{train: [{data}:train], val: [{data}:val], input_size: [32, 32], num_workers: 0}}
model: {{size: {size}}}
trainer: {{iterations: 2, batch_size: 2, threads: 1, progress_bar: false, tensorboard: false,
          validate_every: 0, checkpoint_every: 1, device: cpu, precision: fp32, log_every: 1}}
"""
EXPERIMENT = """
synth: {root}/synth.yaml
data: {root}/data
teacher: [{root}/teacher.yaml]
student: {root}/student.yaml
seeds: [0, 1]
iterations: 2
baseline: alone
shown: [alone, both_second]
arms:
  alone: {{label: student alone}}
  longer: {{label: alone for longer, iterations: 3}}
  both_second: {{label: stage 2 after both, after: both, iterations: 1}}
  both: {{label: both terms, set: [distill.stage=1]}}
"""
BOX, AREA = (20.0, 10.0, 40.0, 90.0), 2500.0
SIZE = 60.0  # root of the box's area


def write_set(root, points):
    """Two pictures, train and val, with the same person."""
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        image = np.full((120, 90, 3), 40, np.uint8)
        image[10:100, 20:60] = np.arange(40 * 90 * 3).reshape(90, 40, 3) % 251
        items = []
        for number in (1, 2):
            cv2.imwrite(str(root / f"images/{split}/{number}.png"), image)
            items.append({"id": number, "file_name": f"{number}.png", "width": 90, "height": 120})
        people = [annotation(number, number, points, BOX, AREA) for number in (1, 2)]
        path = root / f"annotations/coco_wholebody_{split}_v1.0.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": items, "annotations": people}))


@pytest.fixture
def points():
    xy = np.random.default_rng(0).uniform((22, 12), (58, 98), (COUNT, 2))
    return np.concatenate([xy, np.full((COUNT, 1), 2.0)], axis=1)


@pytest.fixture
def experiment(tmp_path):
    for name, size in (("teacher", "rtmpose_t"), ("student", "rtmpose_n")):
        (tmp_path / f"{name}.yaml").write_text(RECIPE.format(data=tmp_path / "data", size=size))
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENT.format(root=tmp_path))
    return path


def test_a_mistake_in_any_arm_is_found_before_anything_is_done(experiment, tmp_path, capsys):
    (tmp_path / "synth.yaml").write_text("{}")
    assert cli.main(["experiment", "wholebody-distillation", str(experiment), "-o",
                     str(tmp_path / "o"), "--set", "arms.both.set=[distill.stgae=1]"]) == 2
    assert "distill.stgae" in capsys.readouterr().err
    assert not (tmp_path / "o").exists() and not (tmp_path / "data").exists()


def test_what_an_arm_learns_from_and_for_how_long(experiment, tmp_path):
    config = load_experiment(experiment, (), PeopleExperiment)
    plans = {name: recipe(config, tmp_path, name, 1) for name in config.arms}
    assert {name: item.trainer.iterations for name, item in plans.items()} == {
        "alone": 2, "longer": 3, "both": 2, "both_second": 1}
    assert all(item.trainer.seed == 1 for item in plans.values())
    assert plans["alone"].distill is None and plans["longer"].distill is None
    assert (plans["both"].distill.stage, plans["both"].distill.teacher) == (
        1, str(tmp_path / "teacher/stage0/last.pt"))
    assert (plans["both_second"].distill.stage, plans["both_second"].distill.teacher) == (
        2, str(tmp_path / "both/seed1/last.pt"))
    two = load_experiment(experiment, (f"teacher=[{tmp_path}/teacher.yaml, "
                                       f"{tmp_path}/teacher.yaml]",), PeopleExperiment)
    assert recipe(two, tmp_path, "teacher", 0).model.weights == ""
    assert recipe(two, tmp_path, "teacher", 1).model.weights == str(
        tmp_path / "teacher/stage0/last.pt")
    assert recipe(two, tmp_path, "both", 0).distill.teacher.endswith("teacher/stage1/last.pt")


def test_second_stages_come_after_what_they_follow(experiment):
    config = load_experiment(experiment, (), PeopleExperiment)
    assert plan(config) == [
        [("teacher", 0)],
        [("alone", 0), ("longer", 0), ("both", 0)], [("both_second", 0)],
        [("alone", 1), ("longer", 1), ("both", 1)], [("both_second", 1)]]
    assert plan(config, ["both_second"])[1:] == [
        [("both", 0)], [("both_second", 0)], [("both", 1)], [("both_second", 1)]]


def test_students_of_a_seed_may_share_their_start(experiment, tmp_path):
    config = load_experiment(experiment, ("start_iterations=5",), PeopleExperiment)
    assert plan(config)[:2] == [[("teacher", 0), ("start", 0), ("start", 1)],
                                [("alone", 0), ("longer", 0), ("both", 0)]]
    start = recipe(config, tmp_path, "start", 1)
    assert (start.trainer.iterations, start.trainer.seed, start.model.weights) == (5, 1, "")
    for name in ("alone", "both"):
        weights = recipe(config, tmp_path, name, 1).model.weights
        assert weights == str(tmp_path / "start/seed1/last.pt")
    assert recipe(config, tmp_path, "both_second", 1).model.weights == ""
    config = load_experiment(experiment, ("start_iterations=5", "one_start=true"),
                             PeopleExperiment)
    assert plan(config)[0] == [("teacher", 0), ("start", 0)]
    assert recipe(config, tmp_path, "both", 1).model.weights == str(
        tmp_path / "start/seed0/last.pt")


@pytest.mark.parametrize("change, message", [
    ("arms.both_second.after=nobody", "alone, longer, both"),
    ("arms.both.after=both_second", "no second stage"),
    ("arms.both.iterations=-1", "iterations"), ("shown=[nobody]", "shown"),
    ("baseline=nobody", "baseline"), ("jobs=0", "jobs"), ("start_iterations=-1", "start"),
    ("votes_of=[alone]", "votes_of")])
def test_bad_plans_are_refused(experiment, change, message):
    with pytest.raises(ValueError, match=message):
        load_experiment(experiment, (change,), PeopleExperiment)


def test_figures_by_hand(tmp_path, points):
    """All points are 3 px off, and those of the left hand 6."""
    points[PARTS["face"], 2] = 1.0  # hidden ones count for the similarity, not for the distance
    write_set(tmp_path, points)
    moved = points[:, :2] + (3.0, 0.0)
    moved[PARTS["left_hand"], 0] += 3.0
    found = score(lambda image, boxes: (np.repeat(moved[None], len(boxes), 0),
                                        np.ones((len(boxes), COUNT))), 0.75, f"{tmp_path}:val")
    distance = np.full(COUNT, 3.0)
    distance[PARTS["left_hand"]] = 6.0
    near = np.exp(-distance**2 / (2 * AREA * (2 * SIGMAS) ** 2))
    for part, columns in PARTS.items():
        assert found["oks"][part] == pytest.approx(near[columns].mean())
    assert found["oks"]["wholebody"] == pytest.approx(near.mean())
    assert found["nme"]["body"] == pytest.approx(3 / SIZE)
    assert found["nme"]["left_hand"] == pytest.approx(6 / SIZE)
    assert found["nme"]["hand"] == pytest.approx(4.5 / SIZE)
    assert found["nme"]["wholebody"] == pytest.approx((3 * 44 + 6 * 21) / 65 / SIZE)
    assert np.isnan(found["nme"]["face"])
    passed = np.mean(near[PARTS["body"]].mean() >= np.linspace(0.5, 0.95, 10) - 1e-9)
    assert found["ap"]["body"] == pytest.approx(passed)


def test_a_whole_experiment(experiment, tmp_path, points, capsys, monkeypatch):
    write_set(tmp_path / "data", points)
    monkeypatch.setattr("kd_pose_training.experiments.wholebody_distillation._make_data",
                        lambda config: None)
    out = tmp_path / "out"
    command = ["experiment", "wholebody-distillation", str(experiment), "-o", str(out), "--set",
               "seeds=[0]", "--set", "jobs=1"]
    assert cli.main(command) == 0
    text = (out / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [
        "teacher", "student alone", "alone for longer", "stage 2 after both", "both terms"]
    for name in ("curves.png", "people.png"):
        assert cv2.imread(str(out / name)).std() > 10
    result = json.loads((out / "result.json").read_text())["runs"]
    assert result["both_second"]["0"]["iterations"] == 1
    # What is finished is not trained again; what is missing is.
    stamp = (out / "both/seed0/last.pt").stat().st_mtime_ns
    (out / "both_second/seed0/result.json").unlink()
    assert cli.main([*command, "--only", "both_second"]) == 0
    assert (out / "both_second/seed0/result.json").exists()
    assert stamp == (out / "both/seed0/last.pt").stat().st_mtime_ns
    capsys.readouterr()
    assert cli.main([*command, "--set", "arms.both.set=[distill.stage=1, optim.lr=0.1]"]) == 2
    assert "both/seed0/result.json: was trained with other settings: optim.lr" in (
        capsys.readouterr().err)


def test_seconds_of_learning(tmp_path):
    """20 iterations at 40 a second, one validation, 10 at 20 a second; 4 samples each."""
    rows = [{"iteration": 20, "kind": "train", "samples_per_s": 160.0},
            {"iteration": 20, "kind": "val"},
            {"iteration": 30, "kind": "train", "samples_per_s": 80.0}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert seconds_learnt(tmp_path, 4) == pytest.approx(0.5 + 0.5)


def test_the_table_compares_by_seed(experiment):
    config = load_experiment(experiment, (), PeopleExperiment)
    keys = ("oks_wholebody", "nme_wholebody", "iterations", "seconds",
            *(f"ap_{part}" for part in ("wholebody", "body", "foot", "face", "hand")))
    runs = {name: {seed: {"figures": dict.fromkeys(keys, value + seed * slope)}
                   for seed in (0, 1)}
            for name, value, slope in (("alone", 0.2, 0.1), ("both", 0.23, 0.12))}
    text = table(config, runs)
    assert "+4.0 (+3.0, +5.0)" in text and "25.0 ± 7.1" in text
