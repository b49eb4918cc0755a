"""From the one file that a robot has back to a whole-body network that learns or teaches.

Reads our own ONNX exports of SimCC networks, as ``exported_weights`` does those of vote networks:
what the network computes is the file's answer, which is checked; the statistics of the batch
norms are not in the file, ``exported_weights.restore_batch_norms`` measures them on pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_pose.manifest import ModelFileError, WholebodyManifest, read_manifest
from kd_pose_training.engine.checkpoint import CheckpointError, check_finite
from kd_pose_training.models.exported_weights import bias_as_norm, check_answers
from kd_pose_training.models.simcc_net import KEYPOINTS, SIZES, SimccNet, build_simcc_net

_PREFIX = "network."
# What the head multiplies its tokens with, in the order of the graph.
_PRODUCTS = ("mlp.1", "gau.uv", "gau.o", "cls_x", "cls_y")
_NORMS = ("mlp.0", "gau.ln")


def read_exported_simcc(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Weights of a whole-body network's file, and what a checkpoint of its run would say of it.

    Returns:
        A state dict of the :class:`SimccNet` that was exported, its batch norms adding a bias
        only; and ``config``, ``iteration`` and ``iterations`` of its run, None of MMPose's
        weights.

    Raises:
        CheckpointError: missing, damaged, not a whole-body network of ``kd-pose-train export``,
            one with weights that are not finite, or one whose answers the weights do not give
            again; the message names the file.
    """
    import onnx
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        manifest = read_manifest(path)
    except ModelFileError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(manifest, WholebodyManifest):
        raise CheckpointError(f"{path}: is of the task {manifest.task}; allowed here: wholebody")
    graph = onnx.load(str(path)).graph
    values = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy())
              for item in graph.initializer}
    try:
        state = {**dict(_convolutions(graph, values)), **dict(_head(graph, values))}
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: was not written by kd-pose-train export, so its weights "
                              "cannot be taken; a published network's are in its checkpoint "
                              "(.pth)") from error
    check_finite(state, path)
    network = _same_network(path, manifest, state)
    try:
        check_answers(path, manifest.input_size,
                      lambda images: dict(zip(manifest.output_names, network(images))), least=1e-6)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    notes = manifest.training
    if "config" not in notes:
        return state, None
    return state, {"config": notes["config"], "iteration": notes["iteration"],
                   "iterations": notes["iterations"], "network": state, "average": None}


def _convolutions(graph: Any, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The backbone and the head's first layer. Only weights are found by their names: equal
    numbers share one, and terms of zero are left out."""
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight = values[node.input[1]]
        layer = node.input[1].removeprefix(_PREFIX).removesuffix(".weight")
        bias = values[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
        yield layer + ".weight", weight
        if layer.endswith(".conv"):
            yield from bias_as_norm(layer.removesuffix("conv") + "bn.", bias)
        else:
            yield layer + ".bias", bias


def _head(graph: Any, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tokens' way from there to both classifications (``rtmcc_head.RTMCCHead``)."""
    nodes = list(graph.node)
    made = {name: node for node in nodes for name in node.output}
    first = [number for number, node in enumerate(nodes) if node.op_type == "Conv"
             and node.input[1].endswith("head.final_layer.weight")]
    nodes = nodes[first[0] + 1:]
    products = [node for node in nodes
                if node.op_type == "MatMul" and node.input[1] in values]
    for name, node in zip(_PRODUCTS, products, strict=True):
        yield f"head.{name}.weight", values[node.input[1]].T.contiguous()
    scaled = [node for node in nodes if node.op_type == "Mul" and node.input[1] in values]
    norms = [node for node in scaled
             if node.input[0] in made and made[node.input[0]].op_type == "Div"]
    for name, node in zip(_NORMS, norms, strict=True):
        yield f"head.{name}.g", values[node.input[1]]
    split = [node for node in nodes if node.op_type == "Split"]
    rows = [node for node in scaled if node.input[0] == split[0].output[2]]
    yield "head.gau.gamma", torch.stack([values[node.input[1]] for node in rows])
    added = {node.input[0]: values[node.input[1]] for node in nodes
             if node.op_type == "Add" and node.input[1] in values}
    yield "head.gau.beta", torch.stack([
        added.get(node.output[0], torch.zeros_like(values[node.input[1]])) for node in rows])
    residual = [node for node in scaled if node.input[0] == products[0].output[0]]
    yield "head.gau.res_scale.scale", values[residual[0].input[1]]


def _same_network(path: Path, manifest: WholebodyManifest, state: dict[str, Tensor]) -> SimccNet:
    """The network that a state dict is of, with these weights, in eval mode."""
    mine = {name: value.shape for name, value in state.items()}
    for size in SIZES:
        network = build_simcc_net(size, KEYPOINTS, manifest.input_size)
        if mine == {name: value.shape for name, value in network.state_dict().items()}:
            network.load_state_dict(state)
            return network.eval()
    raise CheckpointError(f"{path}: holds none of the networks {', '.join(SIZES)}")
