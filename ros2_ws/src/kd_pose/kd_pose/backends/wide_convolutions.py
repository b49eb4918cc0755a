"""Wide convolutions of small maps, computed another way where ONNX Runtime is slow at them.

The head of RTMPose is a 7x7 convolution of a map of 8x6 cells. On x86-64 ONNX Runtime works in
blocks of channels, row by row, and nearly half of each window lies outside such a map: the head
takes a fifth of the network's time for a tenth of its products. A transposed convolution with the
window turned by 180 degrees gives the same sums, as one matrix product and a scatter, in half of
that time (`python -m benchmarks wide_convolutions`). Smaller and larger maps gain nothing.
"""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path

import numpy as np

_LEAST_KERNEL = 5
_LEAST_CHANNELS = 128
_CELLS = range(40, 121)  # of the map: the matrix product is too thin below, the loss small above
_LARGEST_FILE = 1 << 30  # bytes; a model that goes through memory must stay below protobuf's 2 GiB


def transposed(path: Path) -> tuple[bytes, int] | None:
    """The model in the file with its wide convolutions transposed, and their number.

    None where there is nothing to gain: no such convolution, another kind of processor, weights
    beside the file, branches or loops (they see the weights, too), no package onnx, or a file that
    it cannot read, of which the engine says what is wrong.
    """
    if platform.machine() not in ("x86_64", "AMD64") or path.stat().st_size > _LARGEST_FILE:
        return None
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper, shape_inference
    except (ImportError, TypeError):  # protobuf raises the latter for an onnx too old for it
        return None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError:
        return None
    wide = _wide_convolutions(model.graph)
    if not wide:
        return None
    try:
        shapes = _shapes(shape_inference.infer_shapes(model).graph)
    except shape_inference.InferenceError:
        return None
    count = 0
    for node, weights in wide:
        rows, columns = shapes.get(node.output[0], (0, 0))
        if rows * columns not in _CELLS:
            continue
        turned = numpy_helper.to_array(weights)[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), weights.name))
        node.op_type = "ConvTranspose"  # its pads cut k - 1 - p = p off: the attributes stay
        count += 1
    return (model.SerializeToString(), count) if count else None


def _wide_convolutions(graph) -> list[tuple]:
    """Nodes and their weights (outputs, inputs, rows, columns), which nothing else reads."""
    if any(tensor.data_location == tensor.EXTERNAL for tensor in graph.initializer) or any(
            item.type == item.GRAPH for node in graph.node for item in node.attribute):
        return []
    weights = {tensor.name: tensor for tensor in graph.initializer
               if tensor.data_type == tensor.FLOAT}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in (*graph.input, *graph.output))  # IR 3: may be replaced
    return [(node, weights[node.input[1]]) for node in graph.node
            if node.op_type == "Conv" and node.domain == ""
            and node.input[1] in weights and readers[node.input[1]] == 1
            and _is_wide(list(weights[node.input[1]].dims), _attributes(node))]


def _is_wide(dims: list[int], attributes: dict) -> bool:
    """dims: (outputs, inputs, rows, columns) of the weights. A map keeps its size."""
    if len(dims) != 4:
        return False
    _, inputs, *kernel = dims
    return (min(kernel) >= _LEAST_KERNEL and inputs >= _LEAST_CHANNELS
            and all(size % 2 for size in kernel)
            and attributes.get("group", 1) == 1
            and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
            and set(attributes.get("strides", [1])) == {1}
            and set(attributes.get("dilations", [1])) == {1}
            and list(attributes.get("pads", [])) == [size // 2 for size in kernel] * 2)


def _attributes(node) -> dict:
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _shapes(graph) -> dict[str, tuple[int, int]]:
    """Rows and columns of every value whose size is known."""
    found = {}
    for value in (*graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and all(dim.HasField("dim_value") for dim in dims[2:]):
            found[value.name] = (dims[2].dim_value, dims[3].dim_value)
    return found
