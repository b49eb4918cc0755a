"""Every YAML file under config/training is read by the command that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kd_pose_training import strict
from kd_pose_training.experiments.config import (
    ExperimentConfig,
    PeopleExperiment,
    load_experiment,
)
from kd_pose_training.recipe import load_recipe
from kd_pose_training.synthetic import settings as objects
from kd_pose_training.synthetic.people import settings as people
from kd_pose_training.training.chain import load_chain

ROOT = Path(__file__).parents[2] / "config/training"
PATHS = sorted(ROOT.rglob("*.yaml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_loads(path):
    keys = set(yaml.safe_load(path.read_text()))
    if "arms" in keys:
        kind = ExperimentConfig if "meshes" in keys else PeopleExperiment
        settings = load_experiment(path, ("seeds=[7]",), kind)
        assert settings.seeds == (7,) and settings.baseline in settings.arms
        named = {settings.synth, settings.student, *settings.teacher}
        assert all((ROOT.parents[1] / name).is_file() for name in named)
    elif "splits" in keys:
        module = people if "crowd" in keys else objects
        settings = module.load_settings(path, ("splits.extra=3",))
        assert settings.splits["extra"] == 3
    elif "plain" in keys:
        assert load_chain(path).links
    else:
        settings = load_recipe(path, ("trainer.seed=7",))
        assert settings.trainer.seed == 7
        assert strict.to_dict(settings)["task"] == settings.task


def test_all_of_them_were_found():
    assert len(PATHS) >= 50
