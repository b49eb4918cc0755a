"""The experiment on object distillation: plan, a whole tiny run, resuming, the table."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_pose_training import cli, strict
from kd_pose_training.engine.checkpoint import save_checkpoint
from kd_pose_training.experiments.config import load_experiment
from kd_pose_training.experiments.jobs import check_jobs, train_to_end
from kd_pose_training.experiments.object_distillation import plan, recipe, run_job
from kd_pose_training.experiments.summary import figures, notes, table
from kd_pose_training.experiments.tables import spread

SYNTH = """
splits: {train: 6, val: 4}
frames_per_scene: 6
workers: 1
camera: {width: 160, height: 120, fx: 150.0, fy: 150.0, cx: 79.5, cy: 59.5}
scene: {resting: 1.0, upright: 1.0, instances: [3, 5], clutter: [0, 0], distance: [0.5, 0.7]}
"""
RECIPE = """
data: {{train: [{data}:train], val: [{data}:val], objects: [can, brick], input_size: [64, 64],
       num_workers: 0, max_val_samples: 4}}
model: {{strides: [16, 32], head_depth: {depth}, fpn_channels: 32}}
trainer: {{iterations: 2, batch_size: 2, threads: 1, progress_bar: false, tensorboard: false,
          validate_every: 1, checkpoint_every: 1, device: cpu, precision: fp32}}
"""
EXPERIMENT = """
meshes: {root}/meshes
synth: {root}/synth.yaml
data: {root}/data
teacher: [{root}/teacher.yaml, {root}/teacher.yaml]
student: {root}/student.yaml
seeds: [0, 1]
start_iterations: 2
iterations: 2
variants: 2
baseline: alone
votes_of: [alone, both]
arms:
  alone: {{label: student alone}}
  both: {{label: FKD + alignment, set: [distill.score_threshold=0, distill.max_error=0,
          "distill.features={{}}"]}}
"""


def _write(root):
    (root / "synth.yaml").write_text(SYNTH)
    for name, depth in (("teacher", 1), ("student", 0)):
        (root / f"{name}.yaml").write_text(RECIPE.format(data=root / "data", depth=depth))
    path = root / "experiment.yaml"
    path.write_text(EXPERIMENT.format(root=root))
    return path


def test_every_arm_has_the_same_budget_and_start(tmp_path):
    config = load_experiment(_write(tmp_path))
    plans = [recipe(config, tmp_path, name, 1) for name in ("alone", "both")]
    assert plans[0].distill is None and plans[1].distill.features is not None
    assert plans[1].distill.cache == str(tmp_path / "cache")
    for settings in plans:
        assert settings.trainer.iterations == 2 and settings.trainer.seed == 1
        assert settings.model.weights == str(tmp_path / "start/seed1/last.pt")
        assert settings.data.variants == 2
    assert recipe(config, tmp_path, "start", 1).model.weights == ""
    stages = [recipe(config, tmp_path, "teacher", stage).model.weights for stage in (0, 1)]
    assert stages == ["", str(tmp_path / "teacher/stage0/last.pt")]
    assert plans[1].distill.teacher == str(tmp_path / "teacher/stage1/last.pt")


def test_what_needs_no_teacher_is_trained_beside_it(tmp_path):
    path = _write(tmp_path)
    assert plan(load_experiment(path)) == (
        [[("teacher", 0), ("start", 0), ("start", 1)],
         [("teacher", 1), ("alone", 0), ("alone", 1)]], [("both", 0), ("both", 1)])
    single = load_experiment(path, (f"teacher=[{tmp_path}/teacher.yaml]", "start_iterations=0"))
    assert plan(single) == ([[("teacher", 0)]], [("alone", 0), ("both", 0), ("alone", 1),
                                                 ("both", 1)])
    assert plan(single, ["both"])[1] == [("both", 0), ("both", 1)]


def test_a_whole_experiment(tmp_path, capsys):
    path, out = _write(tmp_path), tmp_path / "out"
    command = ["experiment", "object-distillation", str(path), "-o", str(out), "--set",
               "seeds=[0]", "--set", f"teacher=[{tmp_path}/teacher.yaml]"]
    assert cli.main(command) == 0
    text = (out / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [
        "teacher", "student before", "student alone", "FKD + alignment"]
    for name in ("curves.png", "votes.png"):
        assert cv2.imread(str(out / name)).std() > 10
    result = json.loads((out / "result.json").read_text())
    assert sorted(result["runs"]) == ["alone", "both", "start", "teacher"]
    # Both arms saw the same pictures and cells, and the one that was taught learnt otherwise.
    logs = {name: [json.loads(line) for line in
                   (out / name / "seed0/log.jsonl").read_text().splitlines()]
            for name in ("alone", "both")}
    last = {name: [row for row in rows if row["kind"] == "val"][-1] for name, rows in logs.items()}
    assert last["alone"]["vote"] != last["both"]["vote"]
    # Once more: nothing is trained again, what is missing is.
    stamp = (out / "alone/seed0/last.pt").stat().st_mtime_ns
    (out / "both/seed0/result.json").unlink()
    assert cli.main(command) == 0
    assert (out / "both/seed0/result.json").exists()
    assert stamp == (out / "alone/seed0/last.pt").stat().st_mtime_ns
    capsys.readouterr()
    assert cli.main([*command, "--set", "variants=3"]) == 2
    assert "data.variants was 2, now 3" in capsys.readouterr().err


def _result(tmp_path, recipe=None, checkpoint=None):
    """A finished run of the arm ``both``."""
    where = tmp_path / "out/both/seed0"
    where.mkdir(parents=True)
    (where / "result.json").write_text(json.dumps({"recipe": recipe} if recipe else {}))
    if checkpoint:
        save_checkpoint({"config": checkpoint}, where / "last.pt")
    return where


def _check(path, *sets):
    config = load_experiment(path, sets)
    check_jobs(config, path.parent / "out", partial(recipe, config))


def test_a_result_of_another_recipe_is_refused(tmp_path):
    path = _write(tmp_path)
    config = load_experiment(path)
    where = _result(tmp_path, strict.to_dict(recipe(config, Path(), "both", 0)))
    _check(path)
    _check(path, "jobs=2", "arms.both.label=other")
    for change, part in (("iterations=3", "trainer.iterations was 2, now 3"),
                         ("start_iterations=0", "weights was 'start/seed0/last.pt', now ''"),
                         ("arms.both.set=['distill.decay=true']", "distill.decay was False")):
        with pytest.raises(ValueError, match=f"^{where}/result.json: .*{part}.*remove {where}"):
            _check(path, change)
    (tmp_path / "student.yaml").write_text(RECIPE.format(data="elsewhere", depth=0))
    with pytest.raises(ValueError, match="data.train was .* now .'elsewhere:train'"):
        _check(path)


def test_a_result_of_an_earlier_version_is_checked_by_its_checkpoint(tmp_path, capsys):
    """Which was trained where the experiment lay then, and has the objects that it found."""
    path = _write(tmp_path)
    then = strict.to_dict(recipe(load_experiment(path), Path("runs/then"), "both", 0))
    then["data"]["objects"], then["model"]["num_classes"] = ["can", "brick"], 2
    where = _result(tmp_path, checkpoint=then)
    _check(path)
    text = (tmp_path / "student.yaml").read_text()
    (tmp_path / "student.yaml").write_text(text.replace("objects: [can, brick], ", ""))
    _check(path)
    with pytest.raises(ValueError, match=f"{where}/last.pt: .*iterations was 2, now 3"):
        _check(path, "iterations=3")
    with pytest.raises(ValueError, match="model.weights was 'runs/then/start/seed0/last.pt'"):
        _check(path, "start_iterations=0")
    (where / "last.pt").unlink()
    assert not capsys.readouterr().err
    _check(path, "iterations=3")
    assert f"warning: {where}: result.json does not say" in capsys.readouterr().err


def test_a_training_that_a_signal_stopped_is_not_scored(tmp_path, monkeypatch):
    config = load_experiment(_write(tmp_path))

    def stopped(settings, where, resume):
        where.mkdir(parents=True)
        save_checkpoint({"iteration": 1, "iterations": 2}, where / "last.pt")
        return where / "last.pt"

    monkeypatch.setattr("kd_pose_training.training.run.train", stopped)
    with pytest.raises(KeyboardInterrupt, match="iteration 1"):
        run_job(config, tmp_path / "out", "alone", 0)
    assert not (tmp_path / "out/alone/seed0/result.json").exists()


def test_an_arm_whose_teacher_taught_nothing_is_marked(tmp_path):
    config = load_experiment(_write(tmp_path))
    rows = {"alone": {0: {"total": 1.0}, 1: {"total": 1.0}},
            "both": {0: {"teacher_used": 0.0, "align": 0.0},
                     1: {"teacher_used": 0.2, "align": 0.1}}}
    for name, seeds in rows.items():
        for seed, row in seeds.items():
            where = tmp_path / name / f"seed{seed}"
            where.mkdir(parents=True)
            (where / "log.jsonl").write_text(
                json.dumps({"iteration": 1, "kind": "train", **row}) + "\n")
    said = notes(config, tmp_path, rows)
    assert said.startswith("\nFKD + alignment (seed 0): no object passed the teacher's gate")
    assert len(said.strip().splitlines()) == 1


def test_a_stopped_and_resumed_run_counts_all_its_seconds(tmp_path, monkeypatch):
    """20 iterations at 40 a second before the stop, 10 at 20 a second after it; 2 samples each."""
    settings = recipe(load_experiment(_write(tmp_path)), tmp_path, "alone", 0)
    where = tmp_path / "run"

    def resumed(settings, folder):
        folder.mkdir()
        (folder / "log.jsonl").write_text("".join(
            json.dumps({"iteration": done, "kind": "train", "samples_per_s": rate}) + "\n"
            for done, rate in ((20, 80.0), (30, 40.0))))

    monkeypatch.setattr("kd_pose_training.training.run.train_to_end", resumed)
    assert train_to_end(settings, where) == pytest.approx(0.5 + 0.5)


@pytest.mark.parametrize("change, message", [
    ("seeds=[0, 0]", "each once"), ("baseline=nobody", "alone, both"), ("jobs=0", "jobs"),
    ("teacher=[]", "teacher"), ("arms={}", "at least one"),
    ("arms={teacher: {label: x}}", "baseline|folder")])
def test_bad_plans_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_experiment(_write(tmp_path), (change,))


def test_an_unknown_arm_is_named(tmp_path, capsys):
    assert cli.main(["experiment", "object-distillation", str(_write(tmp_path)), "-o",
                     str(tmp_path / "o"), "--only", "none"]) == 2
    assert "none" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_a_mistake_in_any_arm_is_found_before_anything_is_done(tmp_path, capsys):
    assert cli.main(["experiment", "object-distillation", str(_write(tmp_path)), "-o",
                     str(tmp_path / "o"), "--set", "arms.both.set=[distill.align.wieght=3]"]) == 2
    assert "distill.align.wieght" in capsys.readouterr().err
    assert not (tmp_path / "o").exists() and not (tmp_path / "data").exists()


def test_figures_by_hand():
    """Two objects count alike; what was not found is an infinite error."""
    found = figures({"errors": {"a": [0.05, 0.15, None, 0.3], "b": [0.0]},
                     "validation": {"vote_relative": 0.2}})
    assert found["add_01"] == pytest.approx((0.25 + 1) / 2)
    assert found["add_02"] == pytest.approx((0.5 + 1) / 2)
    assert found["add_auc"] == pytest.approx(((0.9 + 0.7 + 0 + 0.4) / 4 + 1) / 2)
    assert found["median"] == pytest.approx((0.225 + 0.0) / 2) and found["vote_relative"] == 0.2
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(np.sqrt(2))) and spread([1.0]) == (1.0, 0.0)


def test_differences_are_paired_by_seed(tmp_path):
    config = load_experiment(_write(tmp_path))
    runs = {name: {seed: {"figures": dict.fromkeys(
        ("add_01", "add_02", "add_auc", "median", "vote_relative"), value + seed)}
        for seed in (0, 1)} for name, value in (("alone", 0.1), ("both", 0.13))}
    assert "+3.0 (+3.0, +3.0)" in table(config, runs)
