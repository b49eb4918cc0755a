"""SimCC files of a few kilobytes that really look: every keypoint is the brightest column and row.

Keypoint k looks at channel k % 3 (in the order of the network's input) and gives logits that are
the largest value of every column and row of the crop times `GAIN[k]`. So a test that paints three
dots into a picture knows where all 133 keypoints must come out, and with which score.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kd_pose.manifest import METADATA_KEY, WholebodyManifest
from kd_pose.wholebody_keypoints import COUNT

SIZE = (48, 64)  # width, height
# Score of a keypoint that sees full brightness: none has a place from 130 on.
GAIN = np.where(np.arange(COUNT) < 130, 0.8, 0.0)
GAIN[3:6] = 0.1


def people_manifest(**changes) -> WholebodyManifest:
    """Bytes are divided by 255, nothing else."""
    values = dict(task="wholebody", input_size=SIZE, mean=(0, 0, 0), std=(255, 255, 255),
                  channel_order="rgb", border_value=0, producer="kd_pose tests")
    return WholebodyManifest(**{**values, **changes})


def write_people_model(path: str | Path, manifest: WholebodyManifest | None = None, *,
                       batch: int | str = "batch", keypoints: int = COUNT,
                       open_outputs: bool = False, **changes) -> Path:
    """A file with that manifest; keypoints: how many it answers with, whatever the manifest says.

    open_outputs: the file does not say how large its answers are.
    """
    manifest = manifest or people_manifest(**changes)
    width, height = manifest.input_size
    pick = np.zeros((keypoints, 3), np.float32)
    pick[np.arange(keypoints), np.arange(keypoints) % 3] = GAIN[:keypoints]
    constants = [numpy_helper.from_array(pick, "pick")]
    nodes, outputs = [], []
    if open_outputs:  # how many keypoints are left of `all` is only known when it runs
        constants[0].name = "all"
        nodes = [
            helper.make_node("ReduceMin", [manifest.input_name], ["least"], axes=[1, 2, 3],
                             keepdims=0),
            helper.make_node("ReduceMin", ["least"], ["darkest"], keepdims=0),
            helper.make_node("Add", ["ones", "darkest"], ["more"]),
            helper.make_node("Cast", ["more"], ["wanted"], to=TensorProto.BOOL),
            helper.make_node("Compress", ["all", "wanted"], ["pick"], axis=0),
        ]
        constants.append(numpy_helper.from_array(np.ones(keypoints, np.float32), "ones"))
    for name, axis, size in zip(manifest.output_names, (2, 3), (width, height)):
        bins = round(size * manifest.split_ratio)
        repeat = (np.arange(bins) // manifest.split_ratio == np.arange(size)[:, None])
        constants.append(numpy_helper.from_array(repeat.astype(np.float32), f"{name}_repeat"))
        nodes += [
            helper.make_node("ReduceMax", [manifest.input_name], [f"{name}_best"], axes=[axis],
                             keepdims=0),
            helper.make_node("MatMul", ["pick", f"{name}_best"], [f"{name}_logits"]),
            helper.make_node("MatMul", [f"{name}_logits", f"{name}_repeat"], [name]),
        ]
        shape = ["a", "b", f"{name}_c"] if open_outputs else [batch, keypoints, bins]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    image = helper.make_tensor_value_info(manifest.input_name, TensorProto.FLOAT,
                                          [batch, 3, height, width])
    graph = helper.make_graph(nodes, "people", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)],
                              producer_name="kd_pose tests")
    model.ir_version = 9
    helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return Path(path)
