"""From the one file that a robot has back to a network that learns: reads our own ONNX exports.

The exporter folds batch norms into the convolutions before them and writes a GroupNorm as several
operators. Undone here: what the network computes is the file's answer, which ``read_exported``
checks. The statistics of the batch norms are not in the file; ``restore_batch_norms`` measures
them on pictures before a training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_pose.backends import open_session
from kd_pose.manifest import Manifest, read_manifest
from kd_pose_training import strict
from kd_pose_training.engine.checkpoint import check_finite
from kd_pose_training.models.votenet import SIZES, VoteNet

EXPORTED = ".onnx"  # ending of what export writes
TOLERANCE = 1e-3  # of answers, in parts of the largest: that of the export
_EPSILON = nn.BatchNorm2d(1).eps
_PREFIX = "network."


def read_exported(path: str | Path) -> dict[str, Tensor]:
    """Weights of a vote network's file.

    Returns:
        A state dict of the :class:`VoteNet` that was exported; its batch norms have no statistics,
        they add a bias only.

    Raises:
        ValueError: not a vote network of ``kd-pose-train export``, one with weights that are not
            finite, or one whose answers the weights do not give again; the message names the file.
    """
    import onnx
    path = Path(path)
    manifest = read_manifest(path)
    if not isinstance(manifest, Manifest):
        raise ValueError(f"{path}: only vote networks (object_votes, object_detector) can be "
                         f"learnt on from their file; this one is for {manifest.task}")
    graph = onnx.load(str(path)).graph
    values = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy())
              for item in graph.initializer}
    state = dict(_layers(graph, values))
    check_finite(state, path)
    check_answers(path, manifest.input_size,
                  partial(_answers, _same_network(path, manifest, state)), least=1.0)
    return state


def exported_state(path: str | Path) -> dict[str, Any]:
    """What a checkpoint of the exported run would say: ``config``, ``objects`` and weights.

    Raises:
        ValueError: see :func:`read_exported`; or the file's manifest does not say how it was
            trained.
    """
    weights = read_exported(path)
    manifest = read_manifest(path)
    if "config" not in manifest.training:
        raise ValueError(f"{path}: its manifest has no training.config, which says what network "
                         "it is; only files of kd-pose-train export have it")
    return {"config": manifest.training["config"], "network": weights, "average": None,
            "objects": [strict.to_dict(spec) for spec in manifest.objects]}


def _layers(graph: Any, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names and values of a vote network's state, by the convolutions in the graph.

    A graph shares equal numbers between layers under one name and leaves out factors of one and
    terms of zero, so only the weights are found by their names.
    """
    readers = {name: node for node in graph.node for name in node.input}
    scales = []
    for node in graph.node:
        if node.op_type != "Conv" or not node.input[1].startswith(_PREFIX):
            continue
        weight = values[node.input[1]]
        layer = node.input[1].removeprefix(_PREFIX).removesuffix(".weight")
        before, position = layer.rsplit(".", 1)
        bias = values[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
        yield layer + ".weight", weight
        if layer.startswith("backbone."):
            yield from bias_as_norm(f"{before}.{int(position) + 1}.", bias)
            continue
        yield layer + ".bias", bias
        if "_tower." in layer:
            behind = _constants_behind(node, readers, values)
            norm = f"{before}.{int(position) + 1}."
            yield norm + "weight", behind.get("Mul", torch.ones(len(weight))).flatten()
            yield norm + "bias", behind.get("Add", torch.zeros(len(weight))).flatten()
        elif layer == "head.votes":
            scales.append(_constants_behind(node, readers, values).get("Mul", torch.tensor(1.0)))
    if scales:
        yield "head.scales", torch.stack(scales)


def bias_as_norm(norm: str, bias: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A batch norm that is nothing but the bias that was folded into its convolution."""
    yield norm + "bias", bias
    yield norm + "weight", torch.full_like(bias, (1 + _EPSILON) ** 0.5)
    yield norm + "running_mean", torch.zeros_like(bias)
    yield norm + "running_var", torch.ones_like(bias)
    yield norm + "num_batches_tracked", torch.tensor(0)


def _constants_behind(node: Any, readers: dict[str, Any],
                      values: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the output of a convolution is multiplied by and what is added, until it is joined
    with others or cut off."""
    found: dict[str, Tensor] = {}
    while (node := readers.get(node.output[0])) is not None and \
            node.op_type not in ("Relu", "Concat"):
        if node.op_type in ("Mul", "Add"):
            found[node.op_type] = next(values[name] for name in node.input if name in values)
    return found


def _same_network(path: Path, manifest: Manifest, state: dict[str, Tensor]) -> VoteNet:
    """The network that a state dict is of, with these weights, in eval mode."""
    channels = state["head.votes.weight"].shape[1] if "head.votes.weight" in state else 0
    depth = sum(name.startswith("head.vote_tower.") and value.ndim == 4
                for name, value in state.items())
    for build in SIZES.values():
        network = build(len(manifest.objects), manifest.num_keypoints, manifest.strides, channels,
                        depth, manifest.anchor_scale)
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        if shapes == {name: value.shape for name, value in state.items()}:
            network.load_state_dict(state)
            return network.eval()
    raise ValueError(f"{path}: holds none of the networks {', '.join(SIZES)}")


def check_answers(path: Path, input_size: Sequence[int],
                  answers: Callable[[Tensor], Mapping[str, Tensor]], least: float) -> None:
    """Refuse weights that do not give their file's own answers.

    Args:
        input_size: (width, height) of the file's images.
        answers: of the weights to images (1, 3, H, W), by the names of the file's outputs.
        least: errors are parts of the largest answer, but of no less than this.

    Raises:
        ValueError: names the file and the output.
    """
    width, height = input_size
    image = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    session = open_session(path, "onnxruntime", "cpu", threads=1)
    try:
        expected = session.run({"image": image})
    finally:
        session.close()
    with torch.no_grad():
        found = answers(torch.from_numpy(image))
    for name, got in found.items():
        scale = max(least, float(np.abs(expected[name]).max()))
        error = float(np.abs(got.numpy() - expected[name]).max()) / scale
        if not error < TOLERANCE:
            raise ValueError(f"{path}: its weights do not give its own {name} again (off by "
                             f"{error:.2g}); was it written by another version of export?")


def _answers(network: VoteNet, images: Tensor) -> dict[str, Tensor]:
    logits, offsets = network(images)
    return {"scores": logits.sigmoid(), "offsets": offsets}


@torch.no_grad()
def restore_batch_norms(network: nn.Module, part: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give batch norms that only add a bias the statistics of their inputs on some pictures.

    What the network computes in eval mode stays; in training each norm starts where it was.

    Args:
        part: of the network, the norms that are meant.
        batches: normalised images (B, 3, H, W), some hundred in all.
    """
    norms = {name: module for name, module in part.named_modules()
             if isinstance(module, nn.BatchNorm2d)}
    moments: dict[str, list[Tensor]] = {name: [] for name in norms}

    def keep(name: str):
        def hook(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            x = inputs[0]
            moments[name].append(torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]))
        return hook

    hooks = [norm.register_forward_pre_hook(keep(name)) for name, norm in norms.items()]
    training = network.training
    try:
        network.eval()
        for images in batches:
            network(images)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    for name, norm in norms.items():
        mean, square = torch.stack(moments[name]).mean(0)
        variance = (square - mean.square()).clamp_min(0)
        # y = weight * (x - running_mean) / sqrt(running_var + eps) + bias stays what it is.
        slope = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(slope * (mean - norm.running_mean))
        norm.weight.copy_(slope * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
