"""kd_pose_training.models.simcc_weights: what is asked of a file must be in it."""

from __future__ import annotations

import pytest
import torch

from helpers.tiny_simcc import tiny_net
from kd_pose_training.engine.checkpoint import CheckpointError, save_checkpoint
from kd_pose_training.models.simcc_weights import read_weights


def test_a_run_has_no_parts(tmp_path):
    path, network = tmp_path / "last.pt", tiny_net().state_dict()
    save_checkpoint({"config": {"task": "wholebody"}, "network": network, "average": None}, path)
    assert read_weights(path).tensors.keys() == network.keys()
    for part in ("student", "nonsense"):
        message = f"last.pt: is of a run, which has one network; part is '{part}'"
        with pytest.raises(CheckpointError, match=message):
            read_weights(path, part)


def test_parts_of_a_file_of_mmpose(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"student." + key: value for key, value in tiny_net().state_dict().items()}, path)
    assert read_weights(path, "student").tensors.keys() == tiny_net().state_dict().keys()
    with pytest.raises(CheckpointError, match="part is 'nonsense'; allowed: plain, student"):
        read_weights(path, "nonsense")


def test_a_run_with_weights_that_are_not_finite(tmp_path):
    path, network = tmp_path / "last.pt", tiny_net()
    weights = network.state_dict()
    weights["head.cls_x.weight"][0] = torch.nan
    save_checkpoint({"config": {"task": "wholebody"}, "network": weights, "average": None}, path)
    with pytest.raises(CheckpointError, match="last.pt: head.cls_x.weight has values that are not "
                                              "finite"):
        read_weights(path).fill(network)
    read_weights(path, backbone_only=True).fill(network, backbone_only=True)  # that part is good
