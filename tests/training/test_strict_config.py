"""Strict configuration: what is accepted, and that every mistake names file, key and value."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from kd_pose_training import strict
from kd_pose_training.config import from_dict, load_config, save_config, to_dict

MINIMAL = {"data": {"train": ["data/objects:train"]}}


@dataclasses.dataclass(frozen=True)
class Inner:
    size: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class Outer:
    needed: int
    inner: Inner = dataclasses.field(default_factory=Inner)
    kind: Literal["a", "b"] = "a"
    limit: int | None = None
    flag: bool = False
    where: Path = Path(".")
    table: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.needed < 0:
            raise ValueError(f"needed is {self.needed}; allowed: 0 or more")


def test_values_are_converted():
    data = {"needed": 1, "inner": {"size": [3, 4], "names": ["x"], "rate": "1e-3"},
            "where": "/tmp", "table": {"q": 2}, "limit": None}
    result = strict.from_dict(Outer, data)
    assert result.inner == Inner((3, 4), ("x",), 0.001)
    assert result.where == Path("/tmp") and result.table == {"q": 2.0} and result.limit is None
    assert strict.from_dict(Outer, strict.to_dict(result)) == result


@pytest.mark.parametrize("data, parts", [
    ({"needed": 1, "flagg": True}, ["flagg", "did you mean 'flag'"]),
    ({"needed": True}, ["needed", "True", "whole number"]),
    ({"needed": 1.5}, ["needed", "1.5"]),
    ({"needed": 1, "inner": {"size": [1]}}, ["inner.size", "[1]"]),
    ({"needed": 1, "inner": {"size": [1, "x"]}}, ["inner.size[1]", "'x'"]),
    ({"needed": 1, "inner": {"names": "abc"}}, ["inner.names", "'abc'", "list"]),
    ({"needed": 1, "inner": {"rate": float("nan")}}, ["inner.rate", "finite"]),
    ({"needed": 1, "inner": {"rate": 10**400}}, ["inner.rate", "finite"]),
    ({"needed": 1, "inner": 3}, ["inner", "3", "size, names, rate"]),
    ({"needed": 1, "kind": "c"}, ["kind", "'c'", "'a', 'b'"]),
    ({"needed": 1, "flag": 1}, ["flag", "true or false"]),
    ({}, ["needed", "missing"]),
    ({"needed": -1}, ["needed is -1", "0 or more"]),
])
def test_mistakes_are_named(data, parts):
    with pytest.raises(ValueError) as caught:
        strict.from_dict(Outer, data, "file.yaml")
    for part in ["file.yaml", *parts]:
        assert part in str(caught.value)


def test_overrides_are_typed_and_strict(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {train: ['a:b']}\n")
    overrides = ["optim.lr=5e-4", "data.input_size=[64, 32]", "task=object_detector"]
    config = load_config(path, overrides)
    assert config.optim.lr == 5e-4 and config.data.input_size == (64, 32)
    assert config.model.num_keypoints == 2
    for bad in ("optim.lrr=1", "optim.lr=fast", "optim", "=3", "data.train.x=1", "optim.lr=[1"):
        with pytest.raises(ValueError, match="optim|data|--set"):
            load_config(path, [bad])


@pytest.mark.parametrize("text", ["- 1", "a: [1", "data: {}\ndata: {}", "\tx: 1"])
def test_bad_yaml_names_the_file(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="broken.yaml"):
        load_config(path)
    with pytest.raises(ValueError, match="absent.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_saved_configuration_reads_back_equal(tmp_path):
    config = from_dict(MINIMAL)
    save_config(config, tmp_path / "c.yaml")
    assert load_config(tmp_path / "c.yaml") == config
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize("section, key, value", [
    ("data", "train", []), ("data", "train", ["folder"]), ("data", "input_size", [8, 8]),
    ("data", "crop_pad", 0.5), ("data", "train_shares", []), ("data", "train_shares", [1.0, 1.0]),
    ("data", "train_shares", [0.0]), ("data", "objects", ["a", "a"]), ("augment", "zoom", [2, 1]),
    ("model", "strides", [8, 32]), ("model", "fpn_channels", 100), ("model", "num_keypoints", 5),
    ("optim", "lr", 0), ("optim", "betas", [0.9, 1.0]), ("trainer", "iterations", 0),
    ("trainer", "ema_decay", 1.0), ("loss", "knee", 0),
])
def test_values_out_of_range(section, key, value):
    data = to_dict(from_dict(MINIMAL))
    data[section][key] = value
    with pytest.raises(ValueError, match=key):
        from_dict(data, "f.yaml")


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_dict(MINIMAL).task = "object_detector"
