"""RTMPose on ONNX Runtime's CPU engine, with its head as a transposed convolution and as it is.

`kd_pose`'s session against onnxruntime's own for the same file: the 7x7 convolution to 133
keypoints by itself, and whole networks with random weights for 1 and 4 people. Ours is what
`open_session` makes of it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.published_networks import pose_file
from benchmarks.timing import Row, interleave, row

PEERS = ("onnxruntime",)
INSTALL = "onnxruntime"
KEYPOINTS, KERNEL = 133, 7
HEADS = ((384, (8, 6)), (768, (8, 6)), (768, (12, 9)))  # channels, rows and columns of the map
MAX_DIFFERENCE = 1e-5  # of the largest answer


def run(pairs: int = 40) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for channels, map_hw in HEADS:
            path = head_file(Path(folder) / f"{channels}_{map_hw[0]}.onnx", channels, map_hw)
            name = "head, {} channels, {}x{} cells".format(channels, *map_hw)
            rows += [_compare(name, path, (people, channels, *map_hw), 1, pairs)
                     for people in (1, 4)]
    for size in ("rtmpose_m", "rtmpose_t"):
        for threads in (1, 2):
            rows += [_compare(size, pose_file(size), (people, 3, 256, 192), threads, pairs)
                     for people in (1, 4)]
    return rows


def head_file(path: Path, channels: int, map_hw: tuple[int, int]) -> Path:
    """The last convolution of RTMPose's head by itself, random weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = (KEYPOINTS, channels, KERNEL, KERNEL)
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[KERNEL] * 2,
                            pads=[KERNEL // 2] * 4)
    graph = helper.make_graph(
        [node], "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["people", channels, *map_hw])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


def _compare(name: str, path: Path, shape: tuple[int, ...], threads: int, pairs: int) -> Row:
    import onnxruntime

    from kd_pose.backends import open_session

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    peer = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ours = open_session(path, "onnxruntime", device="cpu", threads=threads)
    (key,) = ours.inputs
    inputs = {key: np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    expected, found = peer.run(None, inputs), list(ours.run(inputs).values())
    difference = max(float(np.abs(a - b).max() / np.abs(a).max())
                     for a, b in zip(expected, found))
    people = "1 person" if shape[0] == 1 else f"{shape[0]} people"
    times = interleave(lambda _: peer.run(None, inputs), lambda _: ours.run(inputs), pairs)
    return row(f"{name}, {people}, {threads} thread{'s' * (threads > 1)}, vs the file as it is",
               times, 1.0, f"difference {difference:.0e}", difference <= MAX_DIFFERENCE)
