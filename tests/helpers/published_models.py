"""Files like the published ones, of a few kilobytes: true names, layouts and first layers.

The first layer looks at the picture, everything after it answers what the test wants: the answers
are constants to which the network adds nothing. Where a published file calculates (decoding,
suppression), so does this one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)


class Graph:
    """Nodes and constants of a model under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value, name: str | None = None) -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str | None = None, **attributes) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def slice(self, value: str, starts, ends, axes, steps) -> str:
        parts = [self.constant(np.array(item, np.int64)) for item in (starts, ends, axes, steps)]
        return self.node("Slice", [value, *parts])

    def nothing(self, image: str, stem: str) -> str:
        """The family's first layers, and of their result a zero (1,).

        stem: "focus" (YOLOX), "conv" (RTMPose), "attention" (RTMDet: a HardSigmoid later on),
        "normalise" (mean and standard deviation inside the file).
        """
        rng = np.random.default_rng(0)
        channels = 3
        if stem == "focus":
            far = np.iinfo(np.int64).max
            corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
            parts = [self.slice(image, corner, (far, far), (2, 3), (2, 2)) for corner in corners]
            image, channels = self.node("Concat", parts, axis=1), 12
        elif stem == "normalise":
            image = self.node("Sub", [image, self.constant(np.float32(114.0))])
            image = self.node("Div", [image, self.constant(np.float32(57.0))])
        weights = rng.normal(size=(2, channels, 3, 3)).astype(np.float32)
        name = self.constant(weights, "backbone.stem.conv.weight")
        value = self.node("Conv", [image, name], strides=[2, 2], pads=[1, 1, 1, 1])
        if stem == "attention":
            value = self.node("HardSigmoid", [value])
        value = self.node("ReduceMean", [value], keepdims=0)
        value = self.node("Mul", [value, self.constant(np.float32(0.0))])
        return self.node("Reshape", [value, self.constant(np.array([1], np.int64))])

    def save(self, path: str | Path, inputs: dict, outputs: dict, opset: int = 13) -> Path:
        """inputs, outputs: name -> shape, or (shape, element type)."""
        def ports(items):
            return [helper.make_tensor_value_info(
                name, *((item[1], item[0]) if isinstance(item[0], (tuple, list))
                        else (TensorProto.FLOAT, item))) for name, item in items.items()]
        graph = helper.make_graph(self.nodes, "published", ports(inputs), ports(outputs),
                                  self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)],
                                  producer_name="pytorch", producer_version="1.13.1")
        model.ir_version = 8
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return Path(path)


def cells(size_wh: tuple[int, int], strides=STRIDES) -> int:
    return sum((size_wh[0] // s) * (size_wh[1] // s) for s in strides)


def yolox(path, rows: np.ndarray, size_wh=(640, 640), *, decoded=False, stem="focus",
          names=("images", "output"), batch: int | str = 1) -> Path:
    """YOLOX's own export: rows (N, 5 + C) relative to the cells, or decoded by the file."""
    graph = Graph()
    nothing = graph.nothing(names[0], stem)
    value = graph.node("Add", [graph.constant(rows.astype(np.float32)[None]), nothing],
                       None if decoded else names[1])
    if decoded:
        corners, sizes = [], []
        for s in STRIDES:
            for y in range(size_wh[1] // s):
                for x in range(size_wh[0] // s):
                    corners.append((x * s, y * s))
                    sizes.append((s,))
        stride = graph.constant(np.array(sizes, np.float32)[None])
        last = np.iinfo(np.int64).max
        centre, size, rest = (graph.slice(value, [a], [b], [2], [1])
                              for a, b in ((0, 2), (2, 4), (4, last)))
        centre = graph.node("Mul", [centre, stride])
        centre = graph.node("Add", [centre, graph.constant(np.array(corners, np.float32)[None])])
        size = graph.node("Mul", [graph.node("Exp", [size]), stride])
        graph.node("Concat", [centre, size, rest], names[1], axis=2)
    return graph.save(path, {names[0]: (batch, 3, *size_wh[::-1])},
                      {names[1]: (1, *rows.shape)})


def boxes_scores(path, boxes: np.ndarray, scores: np.ndarray, size_wh=(640, 640), *,
                 stem="attention", swap=False) -> Path:
    """mmdeploy's partition before the suppression: xyxy (N, 4) and scores (N, C)."""
    graph = Graph()
    nothing = graph.nothing("input", stem)
    for name, value in (("boxes", boxes), ("scores", scores)):
        graph.node("Add", [graph.constant(value.astype(np.float32)[None]), nothing], name)
    outputs = {"boxes": ("batch", "num_boxes", 4), "scores": ("batch", "num_boxes",
                                                              scores.shape[1])}
    if swap:
        outputs = dict(reversed(outputs.items()))
    return graph.save(path, {"input": ("batch", 3, *size_wh[::-1])}, outputs)


def with_suppression(path, boxes: np.ndarray, scores: np.ndarray, size_wh=(640, 640), *,
                     stem="focus", iou=0.45, score=0.05, keep=100, open_size=False) -> Path:
    """mmdeploy's whole export: NonMaxSuppression, a row of zeros added, the best ones first."""
    graph = Graph()
    nothing = graph.nothing("input", stem)
    box = graph.node("Add", [graph.constant(boxes.astype(np.float32)[None]), nothing])
    per_class = graph.node("Add", [graph.constant(scores.T.astype(np.float32)[None]), nothing])
    chosen = graph.node("NonMaxSuppression", [
        box, per_class, graph.constant(np.array([200], np.int64)),
        graph.constant(np.array([iou], np.float32)), graph.constant(np.array([score], np.float32)),
    ])
    pairs = graph.slice(chosen, [1], [3], [1], [1])
    which = graph.node("Squeeze", [graph.slice(chosen, [2], [3], [1], [1]),
                                   graph.constant(np.array([1], np.int64))])
    label = graph.node("Squeeze", [graph.slice(chosen, [1], [2], [1], [1]),
                                   graph.constant(np.array([1], np.int64))])
    zero = graph.constant(np.array([0], np.int64))
    found = graph.node("GatherND", [graph.node("Squeeze", [per_class, zero]), pairs])
    found = graph.node("Unsqueeze", [found, graph.constant(np.array([1], np.int64))])
    rows = graph.node("Concat", [
        graph.node("Gather", [graph.node("Squeeze", [box, zero]), which], axis=0), found], axis=1)
    rows = graph.node("Concat", [rows, graph.constant(np.zeros((1, 5), np.float32))], axis=0)
    label = graph.node("Concat", [label, graph.constant(np.zeros(1, np.int64))], axis=0)
    count = graph.node("Min", [
        graph.node("Shape", [label]), graph.constant(np.array([keep], np.int64))])
    score_column = graph.node("Squeeze", [graph.slice(rows, [4], [5], [1], [1]),
                                          graph.constant(np.array([1], np.int64))])
    graph.nodes.append(helper.make_node("TopK", [score_column, count], ["best", "order"], axis=0))
    graph.node("Unsqueeze", [graph.node("Gather", [rows, "order"], axis=0), zero], "dets")
    graph.node("Unsqueeze", [graph.node("Gather", [label, "order"], axis=0), zero], "labels")
    size = ("height", "width") if open_size else size_wh[::-1]
    return graph.save(path, {"input": ("batch", 3, *size)}, {
        "dets": ("batch", "num_dets", 5),
        "labels": (("batch", "num_dets"), TensorProto.INT64)})


def rtmdet_maps(path, logits: list[np.ndarray], distances: list[np.ndarray], size_wh=(320, 320),
                *, in_pixels=True, probabilities=False) -> Path:
    """mmdet's head: logits (C, h, w), and distances (4, h, w) in strides times the stride.

    in_pixels, probabilities: turn into files that must not be taken for those.
    """
    graph = Graph()
    nothing = graph.nothing("input", "attention")
    outputs = {}
    for level, value in enumerate(logits):
        name = f"cls_scores.{level}"
        graph.node("Add", [graph.constant(value.astype(np.float32)[None]), nothing],
                   "logits" if probabilities and level == 0 else name)
        if probabilities and level == 0:
            graph.node("Sigmoid", ["logits"], name)
        outputs[name] = (1, *value.shape)
    for level, (value, stride) in enumerate(zip(distances, STRIDES)):
        name = f"bbox_preds.{level}"
        distance = graph.node("Add", [graph.constant(value.astype(np.float32)[None]), nothing],
                              None if in_pixels else name)
        if in_pixels:
            graph.node("Mul", [distance, graph.constant(np.float32(stride))], name)
        outputs[name] = (1, *value.shape)
    return graph.save(path, {"input": (1, 3, *size_wh[::-1])}, outputs)


def simcc(path, logits: tuple[np.ndarray, np.ndarray], size_wh=(192, 256), *, stem="conv",
          names=("input", "simcc_x", "simcc_y"), batch: int | str = "batch",
          shuffle=False) -> Path:
    """RTMPose's export: logits (K, 2 W) and (K, 2 H), the same for every picture of the batch.

    shuffle: with the PixelShuffle of RTMW's head.
    """
    graph = Graph()
    nothing = graph.nothing(names[0], stem)
    if shuffle:
        value = graph.constant(np.zeros((1, 4, 1, 1), np.float32))
        value = graph.node("DepthToSpace", [value], blocksize=2, mode="CRD")
        value = graph.node("ReduceMean", [value], keepdims=0)
        nothing = graph.node("Add", [nothing, value])
    rows = graph.node("Gather", [graph.node("Shape", [names[0]]),
                                 graph.constant(np.array([0], np.int64))], axis=0)
    outputs = {}
    for name, value in zip(names[1:], logits):
        shape = graph.constant(np.array(value.shape, np.int64))
        shape = graph.node("Concat", [rows, shape], axis=0)
        answer = graph.node("Add", [graph.constant(value.astype(np.float32)[None]), nothing])
        graph.node("Expand", [answer, shape], name)
        outputs[name] = (batch, *value.shape)
    return graph.save(path, {names[0]: (batch, 3, *size_wh[::-1])}, outputs)


def random_people(seed: int, count: int = 12, size_wh=(640, 640)) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (M, 4) xyxy and scores (M,): heaps of boxes that overlap a lot, apart from others."""
    rng = np.random.default_rng(seed)
    columns = 4
    cell = np.array(size_wh) / columns
    boxes, scores = [], []
    for place in rng.choice(columns * columns, count, replace=False):
        corner = np.array([place % columns, place // columns]) * cell
        low = corner + cell * rng.uniform(0.05, 0.15, 2)
        high = corner + cell * rng.uniform(0.8, 0.95, 2)
        for _ in range(rng.integers(1, 6)):
            boxes.append(np.concatenate([low, high]) + rng.uniform(-3, 3, 4))
            scores.append(rng.uniform(0.1, 0.99))
    return np.array(boxes), np.array(scores)


def yolox_rows(boxes: np.ndarray, scores: np.ndarray, size_wh=(640, 640), classes=80, seed=0,
               labels=0) -> np.ndarray:
    """Rows (N, 5 + C) whose cells say these boxes xyxy with these scores, and noise elsewhere.

    labels: class of every box. The cell of a box is any free one near its middle.
    """
    rng = np.random.default_rng(seed)
    count = cells(size_wh)
    rows = np.zeros((count, 5 + classes))
    rows[:, :4] = rng.normal(0, 1, (count, 4))
    rows[:, 4:] = rng.uniform(0, 0.05, (count, 1 + classes))
    corners, strides = _cells(size_wh)
    free = np.ones(count, bool)
    for box, score, label in zip(boxes, scores, np.broadcast_to(labels, len(boxes))):
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        distance = np.abs(corners + strides[:, None] / 2 - centre).sum(1)
        row = np.argmin(np.where(free, distance, np.inf))
        free[row] = False
        rows[row, :2] = (centre - corners[row]) / strides[row]
        rows[row, 2:4] = np.log(size / strides[row])
        rows[row, 4] = rng.uniform(score, 1.0)
        rows[row, 5 + label] = score / rows[row, 4]
    return rows


def _cells(size_wh):
    """Written again, cell by cell: what the code under test is compared with."""
    corners, strides = [], []
    for stride in STRIDES:
        for y in range(size_wh[1] // stride):
            for x in range(size_wh[0] // stride):
                corners.append((x * stride, y * stride))
                strides.append(stride)
    return np.array(corners, float), np.array(strides, float)


def embed(path: Path, manifest) -> Path:
    """Put a manifest into the file itself."""
    model = onnx.load(str(path))
    model.metadata_props.add(key="kd_pose.manifest", value=manifest.to_json())
    onnx.save(model, str(path))
    return Path(path)
