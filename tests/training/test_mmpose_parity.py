"""The networks and losses against mmpose's own modules with random weights and norm statistics.

Skipped where mmpose is not installed; docs/wholebody.md says how to run it and what came out.
"""

from __future__ import annotations

import pytest

pytest.importorskip("mmpose.models", reason="mmpose cannot be imported", exc_type=ImportError)

import torch
from mmpose.models.backbones import CSPNeXt as PeerBackbone
from mmpose.models.heads import RTMCCHead as PeerHead
from mmpose.models.losses import FeaLoss, KDLoss, KLDiscretLoss

from kd_pose_training.losses.feature_mimic import feature_mimic_loss
from kd_pose_training.losses.logit_distillation import logit_distillation_loss
from kd_pose_training.losses.simcc import simcc_loss
from kd_pose_training.models.mmpose_checkpoint import load_mmpose_checkpoint
from kd_pose_training.models.simcc_net import LARGE, SMALL, build_simcc_net

torch.set_num_threads(1)
FACTORS = {"rtmpose_t": (0.167, 0.375), "rtmpose_s": (0.33, 0.5), "rtmpose_m": (0.67, 0.75),
           "rtmpose_l": (1.0, 1.0), "rtmpose_x": (1.33, 1.25)}  # deepen, widen
TOLERANCE = 1e-5


def peer_network(size: str, input_size: tuple[int, int]) -> torch.nn.Module:
    """As mmpose's whole-body configurations build it; BN in place of SyncBN: one process."""
    deepen, widen = FACTORS[size]
    backbone = PeerBackbone(
        arch="P5", expand_ratio=0.5, deepen_factor=deepen, widen_factor=widen, out_indices=(4,),
        channel_attention=True, norm_cfg={"type": "BN"}, act_cfg={"type": "SiLU"})
    head = PeerHead(
        in_channels=int(1024 * widen), out_channels=133, input_size=input_size,
        in_featuremap_size=tuple(value // 32 for value in input_size), simcc_split_ratio=2.0,
        final_layer_kernel_size=7,
        gau_cfg={"hidden_dims": 256, "s": 128, "expansion_factor": 2, "dropout_rate": 0.0,
                 "drop_path": 0.0, "act_fn": "SiLU", "use_rel_bias": False, "pos_enc": False})
    network = torch.nn.ModuleDict({"backbone": backbone, "head": head})
    randomise(network)
    return network


@torch.no_grad()
def randomise(network: torch.nn.Module) -> None:
    """Random norm statistics and factors; weights at a scale that keeps the signal alive."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or ".bn.weight" in name:
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean") or ".bn.bias" in name:
            tensor.normal_(0, 0.3)
        elif tensor.ndim > 1 and tensor.is_floating_point():
            tensor.normal_(0, tensor[0].numel() ** -0.5)
        elif tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)


QUICK = {("rtmpose_t", SMALL), ("rtmpose_t", LARGE), ("rtmpose_m", SMALL)}


@pytest.mark.parametrize("size, input_size", [
    pytest.param(size, input_size, id=f"{size} {input_size[1]}x{input_size[0]}",
                 marks=[] if (size, input_size) in QUICK else pytest.mark.slow)
    for size in FACTORS for input_size in (SMALL, LARGE)])
def test_networks(tmp_path, size, input_size):
    torch.manual_seed(0)
    peer = peer_network(size, input_size).eval()
    torch.save({"meta": {}, "state_dict": peer.state_dict()}, tmp_path / "peer.pth")
    ours = build_simcc_net(size, input_size=input_size)
    load_mmpose_checkpoint(ours, tmp_path / "peer.pth")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
    images = torch.randn(2, 3, input_size[1], input_size[0])
    with torch.no_grad():
        want_map = peer["backbone"](images)
        want = peer["head"](want_map)
        found_map = ours.eval().backbone(images)
        found = ours(images)
    scale = {name: float(tensor.abs().max()) for name, tensor in
             (("features", want_map[-1]), ("x", want[0]), ("y", want[1]))}
    assert min(scale.values()) > 0.1 and max(scale.values()) < 100, scale  # something to compare
    pairs = {"features": (found_map, want_map[-1]), "x": (found[0], want[0]),
             "y": (found[1], want[1])}
    errors = {name: float((a - b).abs().max()) for name, (a, b) in pairs.items()}
    print(size, input_size, "largest", scale, "difference", errors)
    assert max(errors.values()) <= TOLERANCE


def test_training_mode(tmp_path):
    """Batch statistics, gradients and what the norms keep of a batch."""
    torch.manual_seed(0)
    peer = peer_network("rtmpose_t", SMALL).train().double()
    torch.save(peer.state_dict(), tmp_path / "peer.pth")
    ours = build_simcc_net("rtmpose_t").double()
    load_mmpose_checkpoint(ours, tmp_path / "peer.pth")
    images = torch.randn(2, 3, 256, 192, dtype=torch.float64)
    for x, y in (peer["head"](peer["backbone"](images)), ours.train()(images)):
        (x.square().mean() + y.square().mean()).backward()
    mine, gradients = dict(ours.named_parameters()), dict(peer.named_parameters())
    for name, parameter in gradients.items():
        torch.testing.assert_close(mine[name].grad, parameter.grad, rtol=1e-8, atol=1e-10)
    state = ours.state_dict()
    for name, value in peer.state_dict().items():
        torch.testing.assert_close(state[name], value)


def axes(batch: int, scale: float, dtype: torch.dtype) -> list[torch.Tensor]:
    return [(scale * torch.randn(batch, 133, bins)).to(dtype).requires_grad_()
            for bins in (384, 512)]


def compare(ours, theirs, inputs, tolerance=1e-6) -> None:
    """Value and gradient by every input, relative to the largest of the peer's."""
    assert (ours - theirs).abs() <= tolerance * theirs.abs(), (ours, theirs)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs)):
        error = float((a - b).abs().max() / b.abs().max())
        print("gradient differs by", error)
        assert error <= tolerance


each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@each_dtype
def test_label_loss(dtype):
    torch.manual_seed(0)
    logits, targets = axes(3, 0.5, dtype), [a.detach().abs() for a in axes(3, 0.3, dtype)]
    weight = (torch.rand(3, 133) > 0.3).to(dtype)
    peer = KLDiscretLoss(use_target_weight=True, beta=10.0, label_softmax=True)
    compare(simcc_loss(logits, targets, weight).sum(), peer(logits, targets, weight), logits)


@each_dtype
def test_logit_loss(dtype):
    torch.manual_seed(0)
    student, teacher = axes(3, 0.5, dtype), axes(3, 0.5, dtype)
    peer = KDLoss(name="loss_logit", use_this=True, weight=0.1)
    want = peer(student, teacher, 10.0, torch.rand(3, 133))  # takes the weights, uses none
    compare(0.1 * logit_distillation_loss(student, teacher).mean(), want, student)


@each_dtype
@pytest.mark.parametrize("channels", [(384, 384), (384, 512)])
def test_feature_loss(channels, dtype):
    torch.manual_seed(0)
    peer = FeaLoss(name="loss_fea", use_this=True, student_channels=channels[0],
                   teacher_channels=channels[1]).to(dtype)
    maps = [torch.randn(3, count, 8, 6, dtype=dtype) for count in channels]
    inputs = [maps[0].requires_grad_(), *peer.parameters()]
    adapted = peer.align(maps[0]) if peer.align is not None else maps[0]
    ours = 7e-5 * feature_mimic_loss(adapted, maps[1]).mean()
    compare(ours, peer(*maps), inputs)
