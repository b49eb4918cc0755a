"""The recipes for public sets, on folders laid out as those are: what is learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import bop_folder
from helpers.bop_folder import write_json, write_scene
from kd_pose_training.config import load_config
from kd_pose_training.data.bop_targets import targets_file
from kd_pose_training.training.objects import open_datasets

RECIPES = Path(__file__).parents[2] / "config/training"
TARGET = {"scene_id": 1, "im_id": 10, "obj_id": 1, "inst_count": 1}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """data/bop with lm, lmo and ycbv of one or two scenes; objects 1 and 5 of each."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data/bop"
    for name, splits in (("lm", ("test/000001", "train_pbr/000000")), ("lmo", ("test/000002",)),
                         ("ycbv", ("test/000048", "train_real/000000", "train_pbr/000000"))):
        for folder in ("models", "models_eval"):
            bop_folder.write_models(root / name, folder, names=False)
        for split in splits:
            write_scene(root / name / split, packed=False)
        write_json(root / name / "test_targets_bop19.json",
                   [TARGET | {"scene_id": int(splits[0][-2:])}])
    return root


def opened(recipe, key="train"):
    config = load_config(RECIPES / f"{recipe}.yaml").data
    return {f"{data.root}:{data.split}": [(frame.scene_id, frame.im_id) for frame in data.frames]
            for data in open_datasets(getattr(config, key), config.objects)}


@pytest.mark.parametrize("recipe", ["lm_student", "lm_teacher", "lmo_student", "lmo_teacher"])
def test_linemod_is_learned_from_what_is_not_tested_on(root, recipe):
    found = opened(recipe)
    assert found == {"data/bop/lm:test@!test_targets_bop19.json": [(1, 0), (1, 2)],
                     "data/bop/lm:train_pbr": [(0, 0), (0, 2), (0, 10)]}
    config = load_config(RECIPES / f"{recipe}.yaml").data
    assert config.train_shares == (0.25, 0.75)
    if recipe.startswith("lmo"):
        assert opened(recipe, "val") == {"data/bop/lm:test@test_targets_bop19.json": [(1, 10)]}
        assert [int(name[-2:]) for name in config.objects] == [1, 5, 6, 8, 9, 10, 11, 12]


def test_ycbv_is_learned_from_real_and_rendered_pictures(root):
    assert list(opened("ycbv_student")) == ["data/bop/ycbv:train_real", "data/bop/ycbv:train_pbr"]
    assert list(opened("lm_detector")) == list(opened("lmo_detector")) == ["data/bop/lm:train_pbr"]
    assert len(opened("ycbv_detector")) == 2


def test_symmetries_are_those_of_the_set(root):
    config = load_config(RECIPES / "ycbv_student.yaml").data
    model = open_datasets(config.train, config.objects)[0].models[5]
    assert len(model.symmetries_discrete) == len(model.symmetries_continuous) == 1
    assert model.diameter == pytest.approx(0.1)


def test_which_targets_file(root):
    lmo = root / "lmo"
    assert targets_file(lmo, "test", None) == "test_targets_bop19.json"
    assert targets_file(lmo, "test", "none") is None
    assert targets_file(lmo, "test", "own.json") == "own.json"
    assert targets_file(lmo, "test@own.json", None) is None
    assert targets_file(lmo, "train_pbr", None) is None
    (lmo / "test_targets_bop19.json").unlink()
    assert targets_file(lmo, "test", None) is None
