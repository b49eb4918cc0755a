"""synth-people as a user runs it: files, format, resume, what it refuses."""

import hashlib
import json

import cv2
import numpy as np
import pytest

from helpers.synth_scenes import renderer
from kd_pose_training.cli import main
from kd_pose_training.data.coco_wholebody import read_coco_wholebody
from kd_pose_training.synthetic.people.settings import PeopleSettings, load_settings

SETTINGS = """
splits: {train: 3, val: 1}
seed: 3
renderer: rays
workers: 1
picture: {width: 128, height: 96}
crowd: {people: [1, 2], close: 0.0, half: 0.0, whole: 1.0}
labels: {smallest: 5}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    renderer("rays")
    path = tmp_path_factory.mktemp("synth") / "people.yaml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture(scope="module")
def rendered(config, tmp_path_factory):
    root = tmp_path_factory.mktemp("out") / "set"
    assert run(config, root) == 0
    return root


def run(config, out, *more):
    return main(["synth-people", str(config), "-o", str(out), *more])


def digest(root):
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file()}


def annotations(root, split="train"):
    return json.loads((root / f"annotations/coco_wholebody_{split}_v1.0.json").read_text())


def test_a_set_has_the_public_layout(rendered):
    assert sorted(p.name for p in (rendered / "images/train").iterdir()) == [
        "000000000001.jpg", "000000000002.jpg", "000000000003.jpg"]
    data = annotations(rendered)
    assert [item["id"] for item in data["images"]] == [1, 2, 3]
    assert data["categories"][0]["name"] == "person"
    assert len(data["annotations"]) >= 3
    lengths = {"keypoints": 51, "foot_kpts": 18, "face_kpts": 204, "lefthand_kpts": 63,
               "righthand_kpts": 63, "bbox": 4, "face_box": 4, "lefthand_box": 4,
               "righthand_box": 4}
    for item in data["annotations"]:
        assert {key: len(item[key]) for key in lengths} == lengths
        for key in ("face_valid", "lefthand_valid", "righthand_valid", "foot_valid"):
            assert isinstance(item[key], bool)
        body = np.reshape(item["keypoints"], (17, 3))
        assert item["num_keypoints"] == (body[:, 2] > 0).sum()
        assert item["category_id"] == 1 and item["iscrowd"] == 0 and item["image_id"] in (1, 2, 3)
        assert sum(item["segmentation"]["counts"][1::2]) == item["area"] > 0
        for part in ("face", "lefthand", "righthand"):
            assert item[f"{part}_valid"] == bool(np.any(item[f"{part}_kpts"]))
    image = cv2.imread(str(rendered / "images/train/000000000001.jpg"))
    assert image.shape == (96, 128, 3) and image.std() > 5
    sheet = cv2.imread(str(rendered / "sheet.jpg"))
    assert sheet.shape[1] == 4 * 480 and sheet.std() > 10
    assert not list(rendered.rglob("*.part")) and not list(rendered.rglob("chunk_*"))


def test_the_reader_of_the_public_set_reads_it(rendered):
    path = rendered / "annotations/coco_wholebody_train_v1.0.json"
    table = read_coco_wholebody(path, rendered / "images/train")
    used = [a for a in annotations(rendered)["annotations"] if a["num_keypoints"]]
    assert len(table) == len(used)
    np.testing.assert_allclose(table.xy[0, :17].ravel(),
                               np.reshape(used[0]["keypoints"], (17, 3))[:, :2].ravel())
    assert table.load_image(0).shape == (96, 128, 3)


def test_again_renders_nothing(config, rendered, capsys):
    before = digest(rendered)
    assert run(config, rendered) == 0
    assert "0 of them new" in capsys.readouterr().out
    assert digest(rendered) == before


def test_a_lost_split_is_rendered_again_to_the_same_bytes(config, rendered, capsys):
    before = digest(rendered)
    (rendered / "images/val/000000000001.jpg").unlink()
    (rendered / "images/val").rmdir()
    assert run(config, rendered) == 0
    assert "1 of them new" in capsys.readouterr().out
    assert digest(rendered) == before


@pytest.mark.slow
def test_two_workers_give_the_same_files(config, rendered, tmp_path):
    assert run(config, tmp_path / "set", "--set", "workers=2") == 0
    assert digest(tmp_path / "set") == digest(rendered)


def refused(capsys, code):
    assert code == 2
    return capsys.readouterr().err


def test_another_set_and_other_files_are_left_alone(config, rendered, tmp_path, capsys):
    before = digest(rendered)
    message = refused(capsys, run(config, rendered, "--set", "crowd.facing=0.5"))
    assert "crowd.facing = 0.75, not 0.5" in message
    assert digest(rendered) == before
    (tmp_path / "mine.txt").write_text("mine")
    message = refused(capsys, run(config, tmp_path))
    assert "not a set of synth-people" in message
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("change, what", [
    ("crowd.peple=[1, 2]", "did you mean 'people'"), ("crowd.people=[3, 1]", "people"),
    ("picture.width=wide", "width"), ("crowd.close=0.9", "whole + half + close"),
    ("picture.field_of_view=[0, 20]", "field_of_view"), ("labels.part_seen=2", "part_seen"),
    ("splits={}", "splits"), ("splits.train=0", "splits.train"),
    ("look.backgrounds=/nowhere/at/all", "/nowhere/at/all"),
    ("seed=-1", "configuration: seed is -1; allowed: 0 to 2147483647"),
    ("seed=2147483648", "configuration: seed is 2147483648; allowed: 0 to 2147483647"),
    ("labels.smallest=10000000000", "section 'labels': smallest is 10000000000; allowed: 1 to"),
    ("look.blur=" + 400 * "9", "key 'look.blur' has the value 999"),
])
def test_bad_settings_are_refused_before_anything_is_written(config, tmp_path, capsys, change,
                                                             what):
    assert what in refused(capsys, run(config, tmp_path / "set", "--set", change))
    assert not (tmp_path / "set").exists()


def test_the_shipped_recipe_is_read():
    settings = load_settings("config/training/synth_people.yaml")
    assert settings.picture == PeopleSettings().picture and settings.splits["train"] == 8000


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["synth-people", "--help"])
    text = capsys.readouterr().out
    for word in ("face_kpts", "sheet.jpg", "--set crowd.close=0.8", "2 seen"):
        assert word in text
