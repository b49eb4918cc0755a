"""What tells a split's contents: any file of it, and neither its place nor its age."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from helpers.bop_folder import write_picture, write_set
from helpers.people_folder import write_people
from kd_pose_training.data.split_contents import READ_WHOLE, split_contents


def test_a_copy_is_the_same(tmp_path):
    scene = write_set(tmp_path / "set")
    before = split_contents(tmp_path / "set", "train")
    assert len(before) == 16
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    os.utime(scene / "rgb/000000.png", (0, 0))
    assert split_contents(tmp_path / "copy", "train") == before
    assert split_contents(tmp_path / "set", "train") == before


@pytest.mark.parametrize("name", [
    "models/models_info.json", "train/000003/scene_gt.json", "train/000003/scene_gt_info.json",
    "train/000003/scene_camera.json", "train/000003/rgb/000002.png",
    "train/000003/instance_map/000010.png", "list.json"])
def test_a_byte_of_any_file_changes_it(tmp_path, name):
    """The size stays: of so few pictures all are read."""
    write_set(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    before = split_contents(tmp_path, "train@!list.json")
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(data)
    assert split_contents(tmp_path, "train@!list.json") != before


def test_a_picture_less_and_one_of_another_size_among_many(tmp_path):
    scene = write_set(tmp_path)
    many = 2 * READ_WHOLE
    for number in range(20, 20 + many):
        write_picture(scene / f"rgb/{number:06d}.png", np.zeros((6, 8, 3), np.uint8))
    found = [split_contents(tmp_path, "train")]
    for number in (31, 32):
        with open(scene / f"rgb/{number:06d}.png", "ab") as stream:
            stream.write(b"x")
        found.append(split_contents(tmp_path, "train"))
    (scene / "rgb/000033.png").unlink()
    found.append(split_contents(tmp_path, "train"))
    assert len(set(found)) == 4


def test_people_in_cocos_layout(tmp_path):
    write_people(tmp_path, [[], []])
    before = split_contents(tmp_path, "train")
    picture = next(path for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg"))
    picture.write_bytes(picture.read_bytes() + b"x")
    assert split_contents(tmp_path, "train") != before
