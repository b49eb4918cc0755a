"""Vote networks: sizes, shapes, cells, gradients."""

from __future__ import annotations

import pytest
import torch

from kd_pose_training.config import ModelConfig
from kd_pose_training.models import build_model
from kd_pose_training.models.votenet import SIZES

torch.set_num_threads(1)
# Parameters with 15 classes and 8 keypoints: backbone, pyramid, head, all (millions).
COUNTS = {"darknet53": (40.58, 5.18, 5.31, 51.08), "darknet_tiny": (0.91, 2.13, 5.31, 8.36),
          "darknet_tiny_h": (0.23, 0.53, 1.48, 2.24)}


def _millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts(size):
    with torch.device("meta"):
        network = SIZES[size](15, 8)
    parts = [_millions(m) for m in (network.backbone, network.pyramid, network.head, network)]
    assert parts == pytest.approx(COUNTS[size], abs=0.0051)


@pytest.mark.parametrize("wh, strides", [((192, 192), (16, 32, 64)), ((320, 240), (8, 16, 32, 64)),
                                         ((77, 101), (8, 16, 32)), ((33, 65), (16,))])
def test_cells_match_the_grid(wh, strides):
    config = ModelConfig("darknet_tiny_h", strides, head_depth=1, num_classes=3, num_keypoints=2)
    network = build_model(config).eval()
    with torch.no_grad():
        logits, offsets = network(torch.zeros(2, 3, wh[1], wh[0]))
    cells = network.grid(wh).num_cells
    assert logits.shape == (2, cells, 3) and offsets.shape == (2, cells, 3, 2, 2)


def test_cells_are_row_major_fine_to_coarse():
    """Cells near a bright spot change most, and they lie where the grid says."""
    torch.manual_seed(0)
    config = ModelConfig("darknet_tiny_h", (16, 32), head_depth=0, num_classes=1, num_keypoints=2)
    network = build_model(config).eval()
    image = torch.zeros(1, 3, 96, 160)
    spot = image.clone()
    spot[..., 20:28, 116:124] = 50.0
    with torch.no_grad():
        change = (network(spot)[0] - network(image)[0])[0, :, 0].abs()
    grid = network.grid((160, 96))
    fine = torch.tensor(grid.levels == 0)
    best = int((change * fine).argmax())
    assert abs(grid.centers[best] - (119.5, 23.5)).max() <= 24


def test_teacher_shapes_and_start():
    config = ModelConfig("darknet53", num_classes=2, num_keypoints=8)
    network = build_model(config).eval()
    with torch.no_grad():
        logits, _ = network(torch.randn(1, 3, 64, 64))
    assert logits.shape[1] == network.grid((64, 64)).num_cells == 64 + 16 + 4 + 1 + 1
    assert logits.sigmoid().mean() == pytest.approx(0.01, abs=0.005)  # focal prior


def test_leaving_out_stride_8_keeps_the_weights_of_the_rest():
    full = build_model(ModelConfig("darknet_tiny_h", num_classes=1, num_keypoints=8))
    less = build_model(ModelConfig("darknet_tiny_h", (16, 32, 64), num_classes=1,
                                   num_keypoints=8))
    assert len(full.pyramid.outputs) == 2 and len(less.pyramid.outputs) == 1
    assert len(less.pyramid.extra) == 2


def test_every_parameter_gets_a_gradient():
    network = build_model(ModelConfig("darknet_tiny_h", (16, 32, 64), num_classes=2,
                                      num_keypoints=8))
    logits, offsets = network(torch.randn(2, 3, 64, 64))
    (logits.square().mean() + offsets.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_mistakes():
    with pytest.raises(ValueError, match="num_classes"):
        build_model(ModelConfig())
    with pytest.raises(ValueError, match="16"):
        build_model(ModelConfig(strides=(32, 64), num_classes=1, num_keypoints=8))
