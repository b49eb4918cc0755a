"""``kd-pose-train distill-chain``: order, going on, what is refused; and the recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.wholebody_folder import write_people, write_recipe
from kd_pose_training import cli, strict
from kd_pose_training.distill.wholebody_stage2 import StageTwoTask
from kd_pose_training.engine.checkpoint import load_checkpoint, save_checkpoint
from kd_pose_training.engine.log import read_log
from kd_pose_training.recipe import load_recipe
from kd_pose_training.training.chain import load_chain, plan
from kd_pose_training.training.wholebody import fingerprint, finished

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "config/training").glob("wholebody*.yaml"))
CHAIN = """
plain: {folder}/people.yaml
stage1: {folder}/one.yaml
stage2: {folder}/two.yaml
set: [trainer.iterations=2, trainer.validate_every=0]
links: [{{size: rtmpose_t}}, {{size: rtmpose_n}}]
"""


@pytest.fixture
def folder(tmp_path):
    plain = write_recipe(tmp_path, write_people(tmp_path / "people", 4, 2)).read_text()
    for stage, name in ((1, "one"), (2, "two")):
        (tmp_path / f"{name}.yaml").write_text(
            f"{plain}\ndistill: {{teacher: to be said, stage: {stage}}}\n")
    (tmp_path / "chain.yaml").write_text(CHAIN.format(folder=tmp_path))
    return tmp_path


def run(folder, *more):
    return cli.main(["distill-chain", str(folder / "chain.yaml"), "-o", str(folder / "out"),
                     *more])


def test_a_chain_from_end_to_end(folder, monkeypatch, capsys):
    assert run(folder, "--dry-run") == 0
    assert capsys.readouterr().out.count("to do") == 3 and not (folder / "out").exists()

    forward = StageTwoTask.forward

    def killed(self, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(StageTwoTask, "forward", killed)
    assert run(folder) == 130
    monkeypatch.setattr(StageTwoTask, "forward", forward)
    out = folder / "out"
    kept = {name: (out / name / "last.pt").read_bytes()
            for name in ("rtmpose_t/plain", "rtmpose_n/stage1")}
    capsys.readouterr()
    assert run(folder) == 0
    said = capsys.readouterr().out
    assert said.count("finished") == 2 and "3/3 rtmpose_n/stage2: learns from" in said
    assert "keypoints" in said.splitlines()[3] and len(said.splitlines()) == 7
    for name, content in kept.items():  # a teacher stays as its students knew it
        assert (out / name / "last.pt").read_bytes() == content
    stage1 = load_checkpoint(out / "rtmpose_n/stage1/last.pt")
    assert stage1["config"]["distill"]["teacher"] == str(out / "rtmpose_t/plain/last.pt")
    assert stage1["extras"] is not None  # 256 channels learn from 384
    assert all("logit" in line for line in read_log(out / "rtmpose_n/stage2")
               if line["kind"] == "train")
    assert run(folder, "--dry-run") == 0
    assert capsys.readouterr().out.count("finished") == 3

    assert run(folder, "--set", "set=[trainer.iterations=2, optim.lr=0.1]") == 2
    assert "was trained with other settings: optim.lr was 0.004" in capsys.readouterr().err


def test_a_first_network_that_is_not_there(folder, capsys):
    links = f"links=[{{size: rtmpose_t, weights: {folder}/no.pt}}, {{size: rtmpose_n}}]"
    for more in ([], ["--dry-run"]):
        assert run(folder, "--set", links, *more) == 2
        assert f"links[0].weights is '{folder}/no.pt', which does not exist" in (
            capsys.readouterr().err)


def test_a_run_of_another_teacher_is_not_finished(folder):
    """Where the teacher is gone by now, its run alone tells."""
    config = load_recipe(folder / "one.yaml", [f"distill.teacher={folder}/teacher.pt"])
    (folder / "teacher.pt").write_bytes(b"weights")
    save_checkpoint({"config": strict.to_dict(config), "iteration": 4, "iterations": 4,
                     "teacher": fingerprint(folder / "teacher.pt")}, folder / "last.pt")
    assert finished(folder, config)
    (folder / "teacher.pt").write_bytes(b"others")
    with pytest.raises(ValueError, match=f"last.pt: .*{folder}/teacher.pt, has changed since"):
        finished(folder, config)
    (folder / "teacher.pt").unlink()
    assert finished(folder, config)


def test_order_and_teachers(folder):
    chain = load_chain(folder / "chain.yaml", [
        "links=[{size: rtmpose_m}, {size: rtmpose_s}, {size: rtmpose_t},"
        " {size: rtmpose_n, teacher: rtmpose_s, set: [trainer.seed=5]}]"])
    steps = plan(chain, "runs")
    assert [(step.name, step.teacher) for step in steps] == [
        ("rtmpose_m/plain", ""),
        ("rtmpose_s/stage1", "runs/rtmpose_m/plain/last.pt"),
        ("rtmpose_s/stage2", "runs/rtmpose_s/stage1/last.pt"),
        ("rtmpose_t/stage1", "runs/rtmpose_s/stage2/last.pt"),
        ("rtmpose_t/stage2", "runs/rtmpose_t/stage1/last.pt"),
        ("rtmpose_n/stage1", "runs/rtmpose_s/stage2/last.pt"),
        ("rtmpose_n/stage2", "runs/rtmpose_n/stage1/last.pt")]
    assert [step.config.model.size for step in steps][-1] == "rtmpose_n"
    assert [step.config.trainer.seed for step in steps] == [0] * 5 + [5, 5]
    chain = load_chain(folder / "chain.yaml", [
        "taught_by=stage1", "links=[{size: rtmpose_m, weights: m.pth}, {size: rtmpose_s},"
        " {size: rtmpose_t}]"])
    assert [step.teacher for step in plan(chain, "runs")] == [
        "m.pth", "runs/rtmpose_s/stage1/last.pt", "runs/rtmpose_s/stage1/last.pt",
        "runs/rtmpose_t/stage1/last.pt"]


@pytest.mark.parametrize("setting, part", [
    ("links=[{size: rtmpose_t}]", "at least two sizes"),
    ("links=[{size: rtmpose_t}, {size: rtmpose_t}]", "each once"),
    ("links=[{size: rtmpose_t}, {size: rtmpose_n, teacher: rtmpose_s}]", "one of rtmpose_t"),
    ("links=[{size: rtmpose_t}, {size: rtmpose_n, weights: a.pt}]", "only the first"),
    ("stage1={}/two.yaml", "should have distill.stage 1"),
    ("plain={}/one.yaml", "should have no section distill"),
    ("stage2={}/absent.yaml", "absent.yaml: cannot be read"),
])
def test_mistakes(folder, capsys, setting, part):
    assert run(folder, "--set", setting.replace("{}", str(folder))) == 2
    assert part in capsys.readouterr().err and not (folder / "out").exists()


def test_a_run_told_in_epochs(folder):
    settings = ["trainer.epochs=3"]
    arguments = ["train", str(folder / "people.yaml"), "-o", str(folder / "run")]
    assert cli.main([*arguments, "--set", *settings]) == 0
    state = load_checkpoint(folder / "run/last.pt")
    assert state["iterations"] == 3  # 3 times 4 people, 4 in a batch
    assert finished(folder / "run", load_recipe(folder / "people.yaml", settings))
    before = (folder / "run/last.pt").read_bytes()
    assert cli.main([*arguments, "--resume", "--set", *settings]) == 0
    assert (folder / "run/last.pt").read_bytes() == before


@pytest.mark.parametrize("path", [path for path in RECIPES if "chain" not in path.name],
                         ids=lambda path: path.stem)
def test_recipes_can_be_read(path):
    recipe = load_recipe(path)
    assert recipe.task == "wholebody"
    stage = recipe.distill.stage if recipe.distill else 0
    assert stage == next((n for n in (1, 2) if f"stage{n}" in path.stem), 0)


def test_chains_can_be_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {path.name: [step.name for step in plan(load_chain(path), "runs")]
             for path in RECIPES if "chain" in path.name}
    sizes = ("l", "m", "s", "t")
    assert names["wholebody_chain.yaml"] == ["rtmpose_x/plain", *(
        f"rtmpose_{size}/stage{stage}" for size in sizes for stage in (1, 2))]
    assert len(names["wholebody_people_chain.yaml"]) == 5


def test_published_settings():
    plain, second = (load_recipe(ROOT / f"config/training/{name}.yaml")
                     for name in ("wholebody", "wholebody_stage2"))
    assert (plain.trainer.epochs, plain.trainer.batch_size) == (270, 512)
    assert plain.augment.strong.scale == (0.5, 1.5) and plain.augment.weak.shift == 0.0
    assert (second.trainer.epochs, second.optim.flat, second.augment.weak_share) == (60, 1.0, 0.0)
    first = load_recipe(ROOT / "config/training/wholebody_stage1.yaml")
    settings = first.distill.settings(first.data.input_size)
    assert (settings.feature_weight, settings.logit_weight) == (7e-5, 0.1)
    assert settings.reference_batch == 64 and settings.epochs == 270 and settings.decay
