"""Dense networks: published counts, shapes, gradients."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kd_pose_training.config import DEFAULT_STRIDES
from kd_pose_training.models.codenet import CODE_SIZES, dense_tiny, dense_tiny_h, resnet34_dense
from kd_pose_training.models.votenet import darknet_tiny_h

torch.set_num_threads(1)
# Millions of parameters of encoder and decoder, and 10^9 multiplications of the convolutions at
# 256x256, with one class and 16 bits. Teacher: counted by running the published code.
COUNTS = {"resnet34_dense": (21.28, 7.83, 54.57), "dense_tiny": (0.91, 0.14, 0.91),
          "dense_tiny_h": (0.23, 0.11, 0.28)}


def _millions(*modules):
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


@pytest.mark.parametrize("size", COUNTS)
def test_counts(size):
    with torch.device("meta"):
        network = CODE_SIZES[size](1).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 256, 256))
    found = (_millions(network.backbone), _millions(network.decoder, network.head),
             counter.get_total_flops() / 2e9)
    assert found == pytest.approx(COUNTS[size], abs=0.0051)


@pytest.mark.parametrize("size", COUNTS)
@pytest.mark.parametrize("wh", [(256, 256), (96, 160)])
def test_shapes_at_the_output_resolution(size, wh):
    with torch.device("meta"):
        masks, codes = CODE_SIZES[size](3, 7).eval()(torch.zeros(2, 3, wh[1], wh[0]))
    stride, = DEFAULT_STRIDES[size]
    assert masks.shape == (2, 3, wh[1] // stride, wh[0] // stride)
    assert codes.shape == (2, 3, 7, wh[1] // stride, wh[0] // stride)


def test_channels_are_masks_then_codes_by_class():
    network = dense_tiny(2, 3).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.arange(8.0))
        masks, codes = network(torch.randn(1, 3, 32, 32))
    assert masks[0, :, 0, 0].tolist() == [0, 1]
    assert codes[0, :, :, 0, 0].tolist() == [[2, 3, 4], [5, 6, 7]]


@pytest.mark.parametrize("size", COUNTS)
def test_every_parameter_gets_a_gradient(size):
    torch.manual_seed(0)
    network = CODE_SIZES[size](2, 4)
    masks, codes = network(torch.randn(2, 3, 64, 64))
    (masks.square().mean() + codes.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_student_trains_on_a_single_image():
    masks, _ = dense_tiny(1, 4).train()(torch.randn(1, 3, 32, 32))
    assert torch.isfinite(masks).all()


def test_encoder_takes_the_usual_names_of_imagenet_weights():
    with torch.device("meta"):
        names = set(resnet34_dense(1).backbone.state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight",
            "layer2.0.downsample.1.bias", "layer3.5.bn2.weight", "layer4.2.conv2.weight"} <= names


def test_a_vote_network_starts_the_narrow_student():
    with torch.device("meta"):
        shapes = [{name: value.shape for name, value in network.backbone.state_dict().items()}
                  for network in (dense_tiny_h(2), darknet_tiny_h(2, 8))]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("size", ["dense_tiny", "dense_tiny_h"])
def test_output_is_where_the_input_is(size):
    """A bright spot changes the mask logits most at its coordinates over the stride."""
    torch.manual_seed(0)
    stride, = DEFAULT_STRIDES[size]
    network = CODE_SIZES[size](1, 4).eval()
    image = torch.zeros(1, 3, 64, 96)
    spot = image.clone()
    spot[..., 20:28, 60:68] = 20.0
    with torch.no_grad():
        change = (network(spot)[0] - network(image)[0])[0, 0].abs()
    row, column = divmod(int(change.argmax()), change.shape[1])
    assert abs(stride * row - 24) <= 12 and abs(stride * column - 64) <= 12
