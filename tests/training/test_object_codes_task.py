"""Training step of the dense networks and its configuration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from kd_pose_training.config import (
    CodesConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
    TrainerConfig,
    from_dict,
    to_dict,
)
from kd_pose_training.data.code_batch import CodeBatch
from kd_pose_training.losses.codes import bit_weights
from kd_pose_training.models import build_model
from kd_pose_training.tasks.object_codes import CodesTask

torch.set_num_threads(1)
BITS = 3


class Fixed(nn.Module):
    """A "network" that answers with given logits."""

    def __init__(self, masks, codes):
        super().__init__()
        self.masks, self.codes = nn.Parameter(masks), nn.Parameter(codes)
        self.register_buffer("bit_error", torch.full((codes.shape[2],), 0.5))

    def forward(self, images):
        return self.masks, self.codes


def make_batch(label=(1, 0)):
    """Two crops of 2x3 pixels: the first row is visible, its last pixel has no code."""
    mask = torch.tensor([[[True] * 3, [False] * 3]] * 2)
    codes = torch.tensor([[[5, 2, -1], [-1] * 3], [[7, 0, 4], [-1] * 3]], dtype=torch.int32)
    return CodeBatch(torch.zeros(2, 3, 4, 6), torch.tensor(label), mask, codes,
                     torch.full((2,), -1))


def right_answers(batch, classes=2, strength=20.0):
    masks = torch.full((2, classes, 2, 3), 3.0)  # of other classes: wrong everywhere
    codes = torch.full((2, classes, BITS, 2, 3), 9.0)
    for row, label in enumerate(batch.label):
        masks[row, label] = strength * (2.0 * batch.mask[row] - 1)
        for bit in range(BITS):
            is_set = (batch.codes[row].clamp(min=0) >> (BITS - 1 - bit)) & 1
            codes[row, label, bit] = strength * (2.0 * is_set - 1)
    return Fixed(masks, codes)


def test_the_truth_costs_nothing_and_other_classes_do_not_count():
    batch = make_batch()
    network = right_answers(batch)
    terms = CodesTask(network, CodesConfig())(batch)
    assert terms["mask"].item() < 1e-6 and terms["code"].item() < 1e-6
    assert terms["mask_iou"].item() == 1 and terms["bit_error"].item() == 0
    (terms["mask"] + terms["code"]).backward()
    for parameter in (network.masks, network.codes):
        assert (parameter.grad[0, 0] == 0).all() and (parameter.grad[1, 1] == 0).all()


def test_terms_by_hand():
    """All logits 0: mask ½ off, every bit costs ln 2, bits read 0: wrong where they are 1.

    Codes 5, 2, 7, 0, 4 = 101, 010, 111, 000, 100: of five pixels 3, 2 and 2 are wrong.
    """
    batch = make_batch()
    network = Fixed(torch.zeros(2, 2, 2, 3), torch.zeros(2, 2, BITS, 2, 3))
    task = CodesTask(network, CodesConfig())
    terms = task(batch)
    assert terms["mask"].item() == pytest.approx(0.5)
    assert terms["code"].item() == pytest.approx(math.log(2), rel=1e-6)
    assert terms["bit_error"].item() == pytest.approx(7 / 15) == terms["coarse_error"].item()
    assert terms["mask_iou"].item() == 0
    expected = [0.95 * 0.5 + 0.05 * n / 5 for n in (3, 2, 2)]
    assert network.bit_error.tolist() == pytest.approx(expected)
    assert task.weights == {"mask": 1.0, "code": 3.0}


def test_weights_of_the_bits_act_in_training_only():
    batch = make_batch()
    network = right_answers(batch)
    with torch.no_grad():
        network.codes[:, :, 0] *= -1  # the coarsest bit always wrong
        network.bit_error.copy_(torch.tensor([0.9, 0.25, 0.0]))
    task = CodesTask(network, CodesConfig())
    task.eval()
    assert task(batch)["code"].item() == pytest.approx(20 / 3, rel=1e-4)
    assert network.bit_error.tolist() == pytest.approx([0.9, 0.25, 0.0])  # eval leaves it alone
    task.train()
    value = task(batch)["code"].item()
    weights = bit_weights(network.bit_error)
    assert value == pytest.approx(20 * (weights[0] / weights.sum()).item(), rel=1e-4)


def test_predicted_mask_as_published():
    """Mean over all pixels, also those that are wrongly on the mask, whose bits then are 0."""
    batch = make_batch()
    network = right_answers(batch)
    with torch.no_grad():
        network.masks.fill_(-1.0)
        network.masks[0, 1, 0, 0] = 1.0   # visible
        network.masks[0, 1, 1, 0] = 1.0   # background
        network.codes[0, 1, :, 1, 0] = 2.0
    task = CodesTask(network, CodesConfig(code_mask="predicted")).eval()
    expected = math.log(1 + math.exp(2.0)) / 12
    assert task(batch)["code"].item() == pytest.approx(expected, rel=1e-4)


def test_other_sizes_are_refused():
    batch = make_batch()
    batch.mask = batch.mask[:, :1]
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(2, 3\)"):
        CodesTask(right_answers(make_batch()), CodesConfig())(batch)


def test_a_network_learns_a_picture():
    """The student's size takes a made-up batch to heart in some steps."""
    torch.manual_seed(0)
    config = ModelConfig("dense_tiny", num_classes=2, code_bits=BITS)
    task = CodesTask(build_model(config), CodesConfig())
    rng = np.random.default_rng(0)
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[:, 4:12, 4:12] = True
    codes = torch.full((2, 16, 16), -1, dtype=torch.int32)
    codes[:, 4:12, 4:12] = torch.tensor(rng.integers(0, 8, (4, 4)).repeat(2, 0).repeat(2, 1))
    batch = CodeBatch(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), mask, codes,
                      torch.full((2,), -1))
    optimizer = torch.optim.AdamW(task.network.parameters(), 5e-3)
    for _ in range(40):
        terms = task(batch)
        optimizer.zero_grad()
        sum(terms[name] * weight for name, weight in task.weights.items()).backward()
        optimizer.step()
    assert terms["mask_iou"] > 0.5 and terms["bit_error"] < 0.05


def test_configuration():
    config = TrainConfig(DataConfig(("a:b",)), "object_codes", model=ModelConfig("dense_tiny"))
    assert config.model.code_bits == 16 and config.model.strides == (2,)
    assert config.model.num_keypoints is None and config.codes.weights["code"] == 3.0
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize("changes, part", [
    ({"model": ModelConfig("darknet_tiny_h")}, "resnet34_dense, dense_tiny"),
    ({"task": "object_votes"}, "darknet53, darknet_tiny, darknet_tiny_h"),
    ({"task": "object_votes", "model": ModelConfig(code_bits=8)}, "no settings of codes"),
    ({"task": "object_votes", "model": ModelConfig(), "codes": CodesConfig(code_weight=1.0)},
     "no settings of codes"),
    ({"model": ModelConfig("dense_tiny", fpn_channels=32)}, "model.fpn_channels"),
    ({"loss": LossConfig(class_weight=2.0)}, "section codes"),
    ({"data": DataConfig(("a:b",), input_size=(200, 192))}, "multiples of 16"),
    ({"codes": CodesConfig(surface_samples=1000)}, "at least 65536 for 16 bits"),
    ({"trainer": TrainerConfig(batch_size=1)}, "2 or more"),
])
def test_configurations_that_do_not_fit(changes, part):
    values = {"data": DataConfig(("a:b",)), "task": "object_codes",
              "model": ModelConfig("dense_tiny"), **changes}
    with pytest.raises(ValueError, match=part):
        TrainConfig(**values)
