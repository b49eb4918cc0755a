"""``kd-pose-train check-data`` on COCO-WholeBody and UBody: what is missing, and where it is."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from helpers.wholebody_folder import annotation_path, change_annotations, write_people
from kd_pose_training import cli
from kd_pose_training.data.check_people import (
    SCENES,
    UBODY_SOURCE,
    check_people,
    kind_of_people,
)


@pytest.fixture
def coco(tmp_path):
    """A download with 4 training and 2 validation pictures."""
    root = write_people(tmp_path / "coco", 4, 2)
    for split in ("train", "val"):
        (root / "images" / split).rename(root / f"{split}2017")
    (root / "images").rmdir()
    return root


def check(root, *more):
    return cli.main(["check-data", str(root), *more])


def test_a_whole_download(coco, capsys):
    assert check(coco, "--samples", "3") == 0
    said = capsys.readouterr().out
    assert "COCO-WholeBody" in said and said.rstrip().endswith("complete")
    assert "4 people in 4 pictures, 3 pictures decoded" in said
    assert "2 people in 2 pictures, 2 pictures decoded" in said


def test_what_is_missing(coco, capsys):
    (coco / "train2017/000000000003.jpg").unlink()
    annotation_path(coco, "val").unlink()
    assert check(coco) == 2
    said = capsys.readouterr().out
    assert "1 of 4 pictures with people are missing, the first is 000000000003.jpg" in said
    assert "coco_wholebody_val_v1.0.json: no such file" in said
    assert "http://images.cocodataset.org/zips/train2017.zip" in said
    assert "zips/val2017.zip" not in said and "github.com/jin-s13/COCO-WholeBody" in said
    assert check(coco, "--splits", "val") == 2
    assert "train" not in capsys.readouterr().out
    shutil.rmtree(coco / "val2017")
    assert check(coco) == 2
    said = capsys.readouterr().out
    assert "no pictures of val; looked for val2017, images/val2017, images/val" in said
    assert check(coco.parent / "elsewhere/coco") == 2
    assert "no such folder; COCO-WholeBody is at" in capsys.readouterr().err


def test_what_is_broken(coco, capsys):
    change_annotations(coco, lambda item: item.pop("lefthand_kpts"), "val")
    (coco / "train2017/000000000001.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(coco / "train2017/000000000002.jpg"), np.zeros((9, 9, 3), np.uint8))
    assert check(coco) == 2
    said = capsys.readouterr().out
    assert "lefthand_kpts; whole-body training needs" in said
    assert "000000000001.jpg" in said and "is 9x9 pixels, its annotations say 90x120" in said


def test_a_wrong_id_does_not_end_the_check(coco, capsys):
    change_annotations(coco, lambda item: item.update(id="x1"), "train")
    assert check(coco) == 2
    said = capsys.readouterr().out
    assert "coco_wholebody_train_v1.0.json: annotations[0]: key 'id' must be a whole" in said
    assert "2 people in 2 pictures, 2 pictures decoded" in said  # val


def test_people_of_ones_own(tmp_path):
    root = write_people(tmp_path / "people", 2, 1)
    annotation_path(root, "val").rename(annotation_path(root, "calib"))
    (root / "images/val").rename(root / "images/calib")
    assert kind_of_people(root) == "coco" and kind_of_people(tmp_path) is None
    assert [part.name for part in check_people(root, "coco")] == ["calib", "train"]
    assert check(root) == 0


def test_ubody(tmp_path, capsys):
    root = tmp_path / "UBody"
    people = write_people(tmp_path / "people", 12, 1)
    for scene in SCENES:
        (root / "annotations" / scene).mkdir(parents=True)
        shutil.copy(annotation_path(people),
                    root / "annotations" / scene / "keypoint_annotation.json")
        shutil.copytree(people / "images/train", root / "images" / scene)
    (root / "splits").mkdir()
    np.save(root / "splits/intra_scene_test_list.npy", np.array(["one", "two"]))
    assert check(root) == 0
    said = capsys.readouterr().out
    assert "2 videos for testing" in said
    assert said.count("1 people in 1 pictures, 1 pictures decoded") == 15  # every tenth frame
    (root / "splits/intra_scene_test_list.npy").unlink()
    (root / "images/Movie/000000000010.jpg").unlink()
    (root / "annotations/Speech/keypoint_annotation.json").write_text(json.dumps({"images": []}))
    shutil.rmtree(root / "images/Singing")
    parts = {part.name: part for part in check_people(root, "ubody")}
    wrong = {name for name, part in parts.items() if part.problems}
    assert wrong == {"splits", "Movie", "Speech", "Singing"}
    assert all(problem.archives == (UBODY_SOURCE,) for name in wrong
               for problem in parts[name].problems)
    assert check(root, "--splits", "Movie") == 2
