"""``kd-pose-train train`` for whole bodies: plain, both stages, resuming, and what is refused."""

from __future__ import annotations

import shutil

import pytest
import torch

from helpers.wholebody_folder import (
    annotation_path,
    change_annotations,
    write_people,
    write_recipe,
)
from kd_pose_training import cli
from kd_pose_training.data.known_labels import labels_are_known
from kd_pose_training.data.people_sets import find_files, open_people
from kd_pose_training.distill.wholebody_stage1 import StageOneTask
from kd_pose_training.engine.checkpoint import load_checkpoint, save_checkpoint
from kd_pose_training.engine.log import read_log
from kd_pose_training.models.simcc_net import build_simcc_net
from kd_pose_training.recipe import load_recipe
from kd_pose_training.training.wholebody import load_network

torch.set_num_threads(1)


class Folder:
    """A people folder, a recipe, and finished runs: ``plain``, and ``one`` that learnt from it."""

    def __init__(self, path):
        self.path = path
        self.people = write_people(path / "people")
        self.recipe = write_recipe(path, self.people)
        assert self.train("plain") == 0
        assert self.train("one", f"distill.teacher={self.last('plain')}") == 0

    def train(self, run, *settings, resume=False):
        sets = [part for setting in settings for part in ("--set", setting)]
        return cli.main(["train", str(self.recipe), "-o", str(self.path / run), *sets,
                         *(["--resume"] if resume else [])])

    def last(self, run):
        return self.path / run / "last.pt"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("wholebody"))


def lines(folder, kind):
    return [line for line in read_log(folder) if line["kind"] == kind]


def test_a_run_leaves_what_other_runs_leave(runs):
    folder = runs.path / "plain"
    assert {"last.pt", "best.pt", "config.yaml", "log.jsonl"} <= {p.name for p in folder.iterdir()}
    assert len(lines(folder, "train")) == 4 and len(lines(folder, "val")) == 2
    assert all({"keypoints", "error_px", "score"} <= line.keys() for line in read_log(folder))
    network, recipe, weights = load_network(folder)
    assert recipe == load_recipe(folder / "config.yaml") and weights.size == "rtmpose_n"
    assert network.codec.input_size_wh == (32, 64) and not network.training
    # the best by the label loss, which every way of training has in common
    best = min(line["keypoints"] for line in lines(folder, "val"))
    assert load_checkpoint(folder / "best.pt")["best_score"] == pytest.approx(best, rel=1e-6)


def test_the_published_schedule_is_the_default(runs):
    optim = load_recipe(runs.recipe).optim
    assert (optim.lr, optim.weight_decay, optim.schedule) == (4e-3, 0.05, "flat_cosine")
    rates = [line["lr"] for line in lines(runs.path / "plain", "train")]
    # flat to the middle of 4, then half a cosine to a twentieth
    assert rates == pytest.approx([4e-3, 4e-3, 4e-3 * (0.05 + 0.95 / 2), 4e-3 * 0.05])


def test_stage_one_hears_the_teacher_in_training_only(runs):
    for kind, heard in (("train", True), ("val", False)):
        for line in lines(runs.path / "one", kind):
            assert ("logit" in line) == ("feature" in line) == heard
    first, last = (lines(runs.path / "one", "train")[row] for row in (0, -1))
    # 4 iterations of 270 epochs: t = 1 and t = 203
    for line, share in ((first, 1.0), (last, 1 - 202 / 270)):
        total = line["keypoints"] + share * (7e-5 * line["feature"] + 0.1 * line["logit"])
        assert line["total"] == pytest.approx(total, rel=1e-5)
    state = load_checkpoint(runs.last("one"))
    assert state["extras"] is None  # same widths


def test_settings_of_a_stage(runs):
    assert runs.train("logits", f"distill={{teacher: {runs.last('plain')}, preset: paper, "
                      "feature_weight: 0, decay: false}", "trainer.iterations=2",
                      "trainer.validate_every=0") == 0
    for line in lines(runs.path / "logits", "train"):
        assert line["total"] == pytest.approx(line["keypoints"] + 0.1 * line["logit"], rel=1e-5)


def test_stage_two_is_a_new_head_on_the_same_backbone(runs):
    assert runs.train("two", f"distill.teacher={runs.last('one')}", "distill.stage=2",
                      "trainer.iterations=2") == 0
    before, after = (load_network(runs.last(name))[0].state_dict() for name in ("one", "two"))
    for key, value in after.items():
        same = torch.equal(before[key], value)
        assert same == key.startswith("backbone."), key  # norm statistics as well
    for line in lines(runs.path / "two", "train"):  # released: labels and logits
        assert line["total"] == pytest.approx(line["keypoints"] + line["logit"], rel=1e-5)


def test_a_stopped_run_goes_on_as_if_it_had_not(runs, monkeypatch):
    begin = StageOneTask.begin

    def killed(self, iteration, iterations):
        if iteration == 3:
            raise KeyboardInterrupt
        begin(self, iteration, iterations)

    teacher = f"distill.teacher={runs.last('plain')}"
    monkeypatch.setattr(StageOneTask, "begin", killed)
    assert runs.train("stopped", teacher) == 130
    monkeypatch.undo()
    assert load_checkpoint(runs.last("stopped"))["iteration"] == 2
    assert runs.train("stopped", teacher, resume=True) == 0
    for ours, whole in zip(lines(runs.path / "stopped", "train"),
                           lines(runs.path / "one", "train")):
        assert ours["iteration"] == whole["iteration"] and ours["total"] == whole["total"]


def test_resuming_with_other_settings_is_refused(runs, capsys):
    teacher = f"distill.teacher={runs.last('plain')}"
    for setting, part in (("optim.lr=0.1", "optim.lr was 0.004, now 0.1"),
                          ("augment.weak_share=0", "augment.weak_share was 0.111"),
                          ("distill.preset=paper", "preset was 'released', now 'paper'")):
        assert runs.train("one", teacher, setting, resume=True) == 2
        assert part in capsys.readouterr().err
    kept = runs.last("plain").read_bytes()
    shutil.copy(runs.last("one"), runs.last("plain"))
    try:
        assert runs.train("one", teacher, resume=True) == 2
    finally:
        runs.last("plain").write_bytes(kept)
    assert "the teacher's file has changed" in capsys.readouterr().err


def refused(runs, capsys, *settings):
    """The one line that a training ends with; nothing was trained."""
    assert runs.train("never", *settings) == 2
    assert not list((runs.path / "never").glob("*.pt"))
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


def test_weights_of_another_size(runs, capsys):
    error = refused(runs, capsys, f"model.weights={runs.last('plain')}", "model.size=rtmpose_t")
    assert "last.pt: backbone.stem.0.conv.weight has the shape (8, 3, 3, 3)" in error
    assert "(12, 3, 3, 3) in the network" in error
    error = refused(runs, capsys, f"model.weights={runs.last('plain')}",
                    "data.input_size=[64, 64]")
    assert "head.mlp.1.weight has the shape (128, 2) in the file and (128, 4)" in error


def test_weights_that_fit(runs):
    assert runs.train("on", f"model.weights={runs.path / 'plain'}", "data.val=[]",
                      "trainer.iterations=1") == 0
    assert runs.train("wide", f"model.weights={runs.last('plain')}", "data.input_size=[64, 64]",
                      "model.backbone_only=true", "trainer.iterations=1") == 0


@pytest.mark.parametrize("setting, part", [
    ("data.input_size=[64, 64]", "data.input_size (32, 64), the student (64, 64)"),
    ("data.mean=[0, 0, 0]", "data.mean (123.675, 116.28, 103.53), the student (0.0, 0.0, 0.0)"),
    ("data.crop_pad=1.5", "data.crop_pad 1.25, the student 1.5"),
])
def test_teachers_that_see_other_crops(runs, capsys, setting, part):
    assert part in refused(runs, capsys, f"distill.teacher={runs.last('plain')}", setting)


def test_teachers_that_are_none(runs, capsys, tmp_path):
    def error(path, *more):
        return refused(runs, capsys, f"distill.teacher={path}", *more)

    assert "nothing.pt: there is no such checkpoint" in error(tmp_path / "nothing.pt")
    (tmp_path / "half.pt").write_bytes(runs.last("plain").read_bytes()[:5000])
    assert "half.pt: is damaged or not a checkpoint" in error(tmp_path / "half.pt")
    assert "holds neither best.pt nor last.pt" in error(tmp_path)
    other = {**load_checkpoint(runs.last("plain")), "config": {"task": "object_votes"}}
    save_checkpoint(other, tmp_path / "objects.pt")
    assert "is of the task object_votes" in error(tmp_path / "objects.pt")
    body = build_simcc_net("rtmpose_n", 17, (32, 64))
    torch.save({"state_dict": body.state_dict()}, tmp_path / "body.pth")
    message = error(tmp_path / "body.pth")
    assert "head.final_layer.weight has the shape (17, 256, 7, 7)" in message
    assert "(133, 256, 7, 7) in the network" in message
    torch.save({f"backbone.{key}": value for key, value in body.backbone.state_dict().items()},
               tmp_path / "backbone.pth")
    assert "is a backbone alone" in error(tmp_path / "backbone.pth", "distill.stage=2")


@pytest.mark.parametrize("setting", ["model.weights", "distill.teacher"])
def test_a_file_that_is_no_exported_model_is_refused(runs, capsys, tmp_path, setting):
    (tmp_path / "student.onnx").write_bytes(b"\x08\x08")
    error = refused(runs, capsys, f"{setting}={tmp_path / 'student.onnx'}")
    assert "student.onnx: the file has no graph" in error


def test_an_mmpose_file_teaches(runs, tmp_path):
    torch.manual_seed(1)
    network = build_simcc_net("rtmpose_n", input_size=(32, 64))
    torch.save({"state_dict": network.state_dict(), "meta": {}}, tmp_path / "teacher.pth")
    for run, stage in (("from_mmpose", 1), ("from_mmpose_2", 2)):
        assert runs.train(run, f"distill.teacher={tmp_path / 'teacher.pth'}",
                          f"distill.stage={stage}", "trainer.iterations=1", "data.val=[]") == 0
    found = load_network(runs.last("from_mmpose_2"))[0].backbone.state_dict()
    assert all(torch.equal(found[key], value)
               for key, value in network.backbone.state_dict().items())


def test_stage_two_of_another_network(runs, capsys, tmp_path):
    error = refused(runs, capsys, f"distill.teacher={runs.last('plain')}", "distill.stage=2",
                    "model.size=rtmpose_t")
    assert "is a rtmpose_n, model.size is rtmpose_t" in error
    save_checkpoint({**load_checkpoint(runs.last("plain")), "iteration": 0}, tmp_path / "new.pt")
    error = refused(runs, capsys, f"distill.teacher={tmp_path / 'new.pt'}", "distill.stage=2")
    assert "has not been trained yet" in error
    error = refused(runs, capsys, f"distill.teacher={runs.last('plain')}", "distill.stage=2",
                    f"model.weights={runs.last('plain')}")
    assert "nothing in stage 2, which starts from distill.teacher" in error


@pytest.mark.parametrize("setting, part", [
    ("distill={stage: 1}", "key 'distill.teacher' is missing"),
    ("distill={teacher: a, stage: 3}", "expected one of 1, 2"),
    ("distill={teacher: a, preset: best}", "expected one of 'released', 'paper'"),
    ("distill={teacher: a, logit_weight: -1}", "logit_weight is -1.0; allowed: 0 or more"),
    ("data.input_size=[100, 128]", "multiples of 32"),
    ("data.train=[people]", "'folder:split' or"),
    ("data.train=['nowhere:train']", "there is no folder nowhere"),
    ("model.size=rtmpose_q", "'rtmpose_t'"), ("model.part=student", "nothing without weights"),
    ("augment.weak.scale=[2, 1]", "low <= high"), ("task=wholebodies", "wholebody"),
    ("optim.flat=0", "flat is 0.0; allowed: 0.01 to 1.0"),
])
def test_mistakes_in_a_recipe(runs, capsys, setting, part):
    assert part in refused(runs, capsys, setting)


def test_the_weak_stage_keeps_its_own_defaults(runs):
    augment = load_recipe(runs.recipe, ["augment.weak.rotate_deg=90"]).augment
    assert (augment.weak.scale, augment.weak.shift) == ((0.75, 1.25), 0.0)
    assert augment.weak.rotate_deg == 90.0 and augment.strong.rotate_deg == 80.0


def test_annotations_that_cannot_be_used(runs, capsys, tmp_path):
    people = write_people(tmp_path / "people", 2, 1)
    train = f"data.train=['{people}:train']"
    change_annotations(people, lambda item: item.pop("face_kpts"))
    error = refused(runs, capsys, train)
    assert "face_kpts; whole-body training needs the COCO-WholeBody files" in error

    people = write_people(tmp_path / "second", 2, 1)
    train = f"data.train=['{people}:train']"
    (people / "images/train/000000000002.jpg").unlink()
    assert "1 of its 2 pictures with people are missing" in refused(runs, capsys, train)
    shutil.rmtree(people / "images")
    assert "its pictures are missing; looked for the folders" in refused(runs, capsys, train)


def test_boxes_of_zero_area_and_outside(runs, capsys, tmp_path):
    people = write_people(tmp_path / "people", 4, 1)
    boxes = {1: [10, 10, 0, 50], 2: [500, 10, 40, 40], 3: [60, 80, 100, 100]}
    change_annotations(people, lambda item: item.update(bbox=boxes.get(item["id"], item["bbox"])))
    table = open_people([f"{people}:train"])
    assert len(table) == 2 and table.skipped["without a box in the picture"] == 2
    assert table.box_xywh[0].tolist() == [59.5, 79.5, 30, 40]  # cut at the edges of 90x120
    change_annotations(people, lambda item: item.update(bbox=[500, 10, 40, 40]))
    error = refused(runs, capsys, f"data.train=['{people}:train']")
    assert "nobody to learn from" in error and "4 without a box in the picture" in error


def test_hidden_keypoints_do_not_matter_and_their_pictures_do(runs, tmp_path):
    """label_share 0.5: another truth of the hidden half changes nothing, its absence does."""
    def weights(people, name, unlabelled):
        assert runs.train(name, f"data.train=['{people}:train']", "data.label_share=0.5",
                          f"data.unlabelled_share={unlabelled}", "augment.strong.half_body=0",
                          f"distill.teacher={runs.last('plain')}") == 0
        return load_checkpoint(runs.last(name))["network"]

    people = write_people(tmp_path / "people", 6, 1)
    table = open_people([f"{people}:train"])
    known = labels_are_known(table, 0.5)[table.image]
    assert 0 < known.sum() < len(table)
    hidden = set(table.annotation_id[~known].tolist())
    before = weights(people, "hidden", 0.5)
    change_annotations(people, lambda item: item["id"] in hidden and item.update(
        keypoints=[x / 2 for x in item["keypoints"]]))
    after, without = weights(people, "hidden_other", 0.5), weights(people, "hidden_none", 0)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any(not torch.equal(before[key], without[key]) for key in before)


def test_sets_by_name(tmp_path):
    people = write_people(tmp_path / "coco", 2, 1)
    both = open_people([f"{people}:train", f"{annotation_path(people, 'val')}:"
                        f"{people / 'images/val'}"])
    assert len(both) == 3
    (people / "images/train").rename(people / "train2017")
    assert find_files(f"{people}:train").images == people / "train2017"
    with pytest.raises(ValueError, match="coco_wholebody_train_v1.0.json, coco_wholebody_val"):
        find_files(f"{people}:minival")
