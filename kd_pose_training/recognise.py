"""Which published network an ONNX file holds, and the manifest that follows from it.

RTMPose, DWPose and RTMW with 133 keypoints, and YOLOX and RTMDet detectors in every form in which
they are published. Sizes and layouts come from the graph and from running it; what a graph cannot
tell (how pictures were normalised in training) comes from the family.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_pose.detector_outputs import grid_cells
from kd_pose.manifest import NetworkManifest, PersonDetectorManifest, WholebodyManifest
from kd_pose.wholebody_keypoints import COUNT
from kd_pose_training.export import package_version
from kd_pose_training.export_wholebody import MMPOSE_BORDER
from kd_pose_training.onnx_graph import ARITHMETIC, OnnxFileError, OnnxGraph, Port

POSE_KINDS = ("rtmpose", "rtmw")
DETECTOR_KINDS = ("yolox", "rtmdet")
KINDS = (*POSE_KINDS, *DETECTOR_KINDS)
STRIDES = (8, 16, 32)
FOCUS_CHANNELS = 12  # YOLOX's first convolution sees four pixels at once

# Mean, standard deviation and order of the channels that the families were trained with.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PICTURES = {
    "rtmpose": (*IMAGENET, "rgb"),
    "rtmw": (*IMAGENET, "rgb"),
    "yolox": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bgr"),
    "rtmdet": (IMAGENET[0][::-1], IMAGENET[1][::-1], "bgr"),
}
SCORE_SCALE = {"rtmpose": 1.0, "rtmw": 10.0}  # RTMW learns labels times 10
NMS_THRESHOLD = {"yolox": 0.45, "rtmdet": 0.6}  # Megvii's demo; mmpose's person detectors

OTHER_SKELETONS = {17: "COCO's body", 21: "a hand", 26: "body and feet (Halpe26)",
                   68: "a face", 98: "a face", 106: "a face"}
KNOWN = (
    f"simcc_x (B, {COUNT}, bins) and simcc_y (B, {COUNT}, bins) of RTMPose, DWPose and RTMW; "
    "one (1, N, 5 + classes) of YOLOX; dets (1, M, 5) and labels (1, M) of YOLOX or RTMDet with "
    "suppression; boxes (1, N, 4) and scores (1, N, classes) without; six maps of RTMDet's head, "
    "(1, classes, h, w) and (1, 4, h, w) of the strides 8, 16 and 32"
)


@dataclass(frozen=True)
class ImportOptions:
    """What the user may say that the file does not.

    kind: one of `KINDS`, None = recognise it. input_size: (width, height) where the file leaves
    it open. mean, std, channel_order: instead of the family's. person_class: index of a
    detector's class, None = 0. score_threshold, nms_threshold: of a detector, None = the family's.
    """

    kind: str | None = None
    input_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: str | None = None
    person_class: int | None = None
    score_threshold: float | None = None
    nms_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")


def recognise(graph: OnnxGraph, options: ImportOptions) -> tuple[NetworkManifest, list[str]]:
    """The manifest for a file and, in words, what it was made of.

    Raises:
        OnnxFileError: it is none of the known ones, or not whole, or options are for others.
    """
    image = _image_port(graph)
    size = _input_size(graph, image, options.input_size)
    noise = np.random.default_rng(0).normal(size=(1, 3, *size[::-1])).astype(np.float32)
    answers = graph.run([noise])[0]
    shapes = {name: value.shape for name, value in answers.items()}
    layout, names = _layout(graph, answers, size)
    kind, reasons = _kind(graph, image, layout, options.kind)
    _check_options(graph, layout, kind, options)
    _check_finite(graph, {name: answers[name] for name in names})
    if layout == "simcc":
        ratio = _check_simcc(graph, shapes, names, size)
        if image.shape[0] < 0:
            _check_batch(graph, noise)
    common = dict(
        input_size=size, input_name=image.name, output_names=names,
        **_pictures(graph, image, kind, options),
        training=_notes(graph, image, kind), producer=f"kd_pose {package_version()}")
    if layout == "simcc":
        return WholebodyManifest(
            task="wholebody", split_ratio=ratio, border_value=MMPOSE_BORDER,
            score_scale=SCORE_SCALE[kind], **common), reasons
    thresholds = {name: value for name, value in (
        ("score_threshold", options.score_threshold),
        ("nms_threshold", options.nms_threshold if options.nms_threshold is not None
         else NMS_THRESHOLD[kind])) if value is not None}
    person_class = options.person_class or 0
    _check_classes(graph, layout, shapes[names[-1]] if layout != "rtmdet_maps"
                   else shapes[names[0]], person_class, reasons)
    return PersonDetectorManifest(
        task="person_detector", architecture=kind, layout=layout, strides=STRIDES,
        person_class=person_class, **thresholds, **common), reasons


def _image_port(graph: OnnxGraph) -> Port:
    """The one input, (batch, 3, height, width) float32."""
    if len(graph.inputs) != 1:
        raise OnnxFileError(f"{graph.path}: has {len(graph.inputs)} inputs, "
                            f"{', '.join(map(str, graph.inputs))}; known files have one, the "
                            "pictures")
    image = graph.inputs[0]
    if image.dtype != "float32":
        raise OnnxFileError(f"{graph.path}: its input {image} is {image.dtype}; needed is float32")
    if image.shape is None or len(image.shape) != 4:
        raise OnnxFileError(f"{graph.path}: its input {image} is not (batch, 3, height, width)")
    if image.shape[1] not in (-1, 3):
        layout = " (channels last is not known)" if image.shape[3] == 3 else ""
        raise OnnxFileError(f"{graph.path}: its input {image} is not (batch, 3, height, width)"
                            f"{layout}")
    if image.shape[0] > 1:
        raise OnnxFileError(f"{graph.path}: its input {image} wants {image.shape[0]} pictures at "
                            "once; the batch must be free or 1")
    return image


def _input_size(graph: OnnxGraph, image: Port, given: tuple[int, int] | None) -> tuple[int, int]:
    """(width, height), by the file or, where it leaves it open, by the user."""
    found = image.shape[3], image.shape[2]
    if min(found) > 0:
        if given is not None and tuple(given) != found:
            raise OnnxFileError(f"{graph.path}: its input is {found[0]}x{found[1]}, not "
                                f"{given[0]}x{given[1]}")
        return found
    if given is None:
        raise OnnxFileError(
            f"{graph.path}: leaves the size of its input {image} open; say --input-size "
            "WIDTHxHEIGHT as it was trained (YOLOX and RTMDet 640x640, their nano and tiny ones "
            "416x416 or 320x320)")
    if any(size > 0 and size != want for size, want in zip(found, given)):
        raise OnnxFileError(f"{graph.path}: its input is {image}, not {given[0]}x{given[1]}")
    return int(given[0]), int(given[1])


def _layout(graph: OnnxGraph, answers: dict[str, np.ndarray],
            size: tuple[int, int]) -> tuple[str, tuple[str, ...]]:
    """What the outputs are, and their names in the order of that layout."""
    cells = len(grid_cells(size, STRIDES)[0])
    shapes = {name: value.shape for name, value in answers.items()}
    names, ranks = list(shapes), [len(shape) for shape in shapes.values()]
    if len(names) == 1 and ranks == [3] and shapes[names[0]][2] > 5:
        return _yolox_layout(graph, names[0], shapes[names[0]], cells, size)
    if len(names) == 2 and sorted(ranks) == [2, 3]:
        dets, labels = sorted(names, key=lambda name: -len(shapes[name]))
        if shapes[dets][2] == 5 and shapes[labels] == shapes[dets][:2] and np.issubdtype(
                answers[labels].dtype, np.integer):
            return "dets_labels", (dets, labels)
    if len(names) == 2 and ranks == [3, 3]:
        boxes, scores = sorted(names, key=lambda name: (shapes[name][2] != 4, "score" in name))
        if shapes[boxes][1:] == (cells, 4) and shapes[scores][1] == cells:
            return "boxes_scores", (boxes, scores)
        if shapes[names[0]][1] == shapes[names[1]][1]:
            return "simcc", _simcc_names(shapes, size)
    if len(names) == 2 * len(STRIDES) and set(ranks) == {4}:
        maps = _rtmdet_maps(shapes, size)
        if maps is not None:
            _check_maps(graph, maps)
            return "rtmdet_maps", maps
    found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    raise OnnxFileError(f"{graph.path}: its outputs are {found}; known are {KNOWN}")


def _yolox_layout(graph: OnnxGraph, name: str, shape: tuple[int, ...], cells: int,
                  size: tuple[int, int]) -> tuple[str, tuple[str]]:
    if shape[1] != cells:
        raise OnnxFileError(
            f"{graph.path}: {name} has {shape[1]} rows of {shape[2]}, but YOLOX has {cells} for "
            f"an input of {size[0]}x{size[1]} (strides 8, 16 and 32); other networks of this form "
            "(YOLOv5 to YOLOv8) are not known")
    # Only the decoding of sizes needs an exponential.
    return ("yolox_boxes" if "Exp" in graph.operators else "yolox_grid"), (name,)


def _simcc_names(shapes: dict[str, tuple[int, ...]], size: tuple[int, int]) -> tuple[str, str]:
    """By their names where they have the published ones, else by the bins a pixel."""
    if set(shapes) == {"simcc_x", "simcc_y"}:
        return "simcc_x", "simcc_y"
    first, second = shapes
    straight = shapes[first][2] * size[1] == shapes[second][2] * size[0]
    swapped = shapes[second][2] * size[1] == shapes[first][2] * size[0]
    return (second, first) if swapped and not straight else (first, second)


def _rtmdet_maps(shapes: dict[str, tuple[int, ...]],
                 size: tuple[int, int]) -> tuple[str, ...] | None:
    """Names of logits and distances by stride, or None where the sizes do not fit.

    A class number of 4 would look like distances: then the order in the file decides.
    """
    logits, distances = [], []
    for stride in STRIDES:
        here = [name for name, shape in shapes.items()
                if shape[2:] == (size[1] // stride, size[0] // stride)]
        if len(here) != 2:
            return None
        one, other = here
        if shapes[other][1] != 4:
            one, other = other, one
        if shapes[other][1] != 4:
            return None
        logits.append(one)
        distances.append(other)
    return (*logits, *distances)


def _check_maps(graph: OnnxGraph, names: Sequence[str]) -> None:
    """The maps of mmdet's head: logits, and distances that end in a product with the stride."""
    levels = len(STRIDES)
    for name in names[:levels]:
        node = graph.producer_of(name)
        if node is not None and node.op_type == "Sigmoid":
            raise OnnxFileError(f"{graph.path}: {name} is a probability already; known are maps "
                                "of logits, as mmdet's head gives them")
    for name, stride in zip(names[levels:], STRIDES):
        node = graph.producer_of(name)
        factors = [graph.constant(item) for item in node.input] if node is not None else []
        known = node is not None and node.op_type == "Mul" and any(
            value is not None and value.size == 1 and float(value.reshape(-1)[0]) == stride
            for value in factors)
        if not known:
            raise OnnxFileError(
                f"{graph.path}: {name} does not end in a product with its stride {stride}, as in "
                "mmdet's head, so the unit of its distances is not known; export it with mmdeploy")


def _kind(graph: OnnxGraph, image: Port, layout: str,
          wanted: str | None) -> tuple[str, list[str]]:
    """Family of the file and why; `wanted` decides where the graph does not contradict."""
    if layout == "simcc":
        kind = "rtmw" if "DepthToSpace" in graph.operators else "rtmpose"
        reason = ("SimCC outputs and pixels shuffled in its head: RTMW" if kind == "rtmw" else
                  "SimCC outputs: RTMPose or DWPose")
        allowed = POSE_KINDS
    elif layout.startswith("yolox"):
        kind, reason, allowed = "yolox", "one output of box, objectness and classes", ("yolox",)
    elif layout == "rtmdet_maps":
        kind, reason, allowed = "rtmdet", "maps of logits and distances", ("rtmdet",)
    else:
        kind, reason = _stem(graph, image)
        allowed = DETECTOR_KINDS
    if wanted is not None:
        if wanted not in allowed:
            raise OnnxFileError(f"{graph.path}: its outputs are those of {' or '.join(allowed)}, "
                                f"not of {wanted}")
        return wanted, [f"--kind {wanted}"]
    if kind is None:
        raise OnnxFileError(f"{graph.path}: is it YOLOX or RTMDet? Its outputs are those of both, "
                            f"and {reason}; say --kind yolox or --kind rtmdet")
    return kind, [reason]


def _stem(graph: OnnxGraph, image: Port) -> tuple[str | None, str]:
    """YOLOX or RTMDet by the first convolution and by CSPNeXt's channel attention."""
    channels = graph.first_operators(image.name)[1]
    attention = "HardSigmoid" in graph.operators
    if channels == FOCUS_CHANNELS and not attention:
        return "yolox", "its first convolution sees four pixels at once: YOLOX"
    if channels == 3 and attention:
        return "rtmdet", "channel attention after a plain first convolution: RTMDet"
    return None, (f"its first convolution sees {channels} channels (YOLOX: {FOCUS_CHANNELS}, "
                  f"RTMDet: 3) {'with' if attention else 'without'} channel attention (RTMDet's)")


def _pictures(graph: OnnxGraph, image: Port, kind: str, options: ImportOptions) -> dict[str, Any]:
    """mean, std and channel_order; refuses a file that normalises by itself, unless told."""
    mean, std, order = PICTURES[kind]
    if options.mean is None or options.std is None:
        found = [name for name in graph.first_operators(image.name)[0] if name in ARITHMETIC]
        if found:
            raise OnnxFileError(
                f"{graph.path}: calculates with the pictures ({', '.join(found)}) before its "
                "first convolution, so it seems to normalise them itself; say --mean and --std "
                "for what is left to do outside (nothing: --mean 0 0 0 --std 1 1 1), and "
                "--channel-order")
    return {"mean": options.mean or mean, "std": options.std or std,
            "channel_order": options.channel_order or order}


def _check_simcc(graph: OnnxGraph, shapes: dict[str, tuple[int, ...]], names: tuple[str, str],
                 size: tuple[int, int]) -> float:
    """Keypoints and sizes; returns the bins a pixel."""
    (_, count, bins_x), (_, _, bins_y) = (shapes[name] for name in names)
    if count != COUNT:
        what = f" ({OTHER_SKELETONS[count]})" if count in OTHER_SKELETONS else ""
        raise OnnxFileError(f"{graph.path}: has {count} keypoints{what}; the whole-body node "
                            f"needs the {COUNT} of COCO-WholeBody")
    ratio = bins_x / size[0]
    if ratio != bins_y / size[1]:
        raise OnnxFileError(
            f"{graph.path}: {names[0]} has {bins_x} bins and {names[1]} {bins_y} for an input of "
            f"{size[0]}x{size[1]}: {ratio:g} and {bins_y / size[1]:g} a pixel, which cannot be")
    return ratio


def _check_batch(graph: OnnxGraph, noise: np.ndarray) -> None:
    """A file that says it takes any number of pictures must answer each as if it were alone."""
    pair = np.concatenate([noise, noise[..., ::-1]])
    alone, other = graph.run([pair[:1], pair[1:]])
    try:
        both = graph.run([pair])[0]
    except OnnxFileError as error:
        raise OnnxFileError(
            f"{graph.path}: leaves the number of pictures open, but does not run on two at once; "
            "export it with a batch of 1") from error
    for name, value in both.items():
        single = np.concatenate([alone[name], other[name]])
        if value.shape != single.shape or np.abs(value - single).max() > 1e-3 * max(
                1.0, np.abs(single).max()):
            raise OnnxFileError(
                f"{graph.path}: leaves the number of pictures open, but answers two at once "
                f"differently from one ({name}: {value.shape}); export it with a batch of 1")


def _check_finite(graph: OnnxGraph, answers: dict[str, np.ndarray]) -> None:
    for name, value in answers.items():
        if not np.isfinite(value).all():
            raise OnnxFileError(f"{graph.path}: {name} answers noise with values that are not "
                                "finite; its weights are damaged, or it was exported wrongly")


def _check_options(graph: OnnxGraph, layout: str, kind: str, options: ImportOptions) -> None:
    """What is said of the file must mean something for its kind."""
    of_detectors = ("person_class", "score_threshold", "nms_threshold")
    for name in of_detectors if layout == "simcc" else ():
        if getattr(options, name) is not None:
            raise OnnxFileError(f"{graph.path}: is {kind}, which gives keypoints; "
                                f"--{name.replace('_', '-')} is for detectors")
    if layout == "dets_labels" and options.nms_threshold is not None:
        raise OnnxFileError(f"{graph.path}: has its suppression inside; --nms-threshold is for "
                            "detectors without")


def _check_classes(graph: OnnxGraph, layout: str, shape: tuple[int, ...], person: int,
                   reasons: list[str]) -> None:
    """Where the classes can be counted, person's must be among them."""
    if layout == "dets_labels":
        reasons.append(f"label {person} is taken for people")
        return
    count = shape[1] if layout == "rtmdet_maps" else shape[2] - 5 * layout.startswith("yolox")
    if not 0 <= person < count:
        raise OnnxFileError(f"{graph.path}: has {count} classes, so people cannot be class "
                            f"{person}")
    reasons.append(f"class {person} of {count} is taken for people")


# --- provenance ----------------------------------------------------------------------------------


def _notes(graph: OnnxGraph, image: Port, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "source": graph.path.name,
        "sha256": hashlib.sha256(graph.path.read_bytes()).hexdigest(),
        "graph": graph.producer,
        "opset": graph.opset,
        "batch": "any" if image.shape[0] < 0 else image.shape[0],
        "imported": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
