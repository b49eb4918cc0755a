"""What a model says of itself: JSON inside the ONNX file, read without onnx or onnxruntime.

Weights and the numbers needed to use them (input size, mean, std, strides, object boxes, ...) are
one file, so they cannot part. The JSON is in the ONNX metadata (`ModelProto.metadata_props`, field
14) under the key `kd_pose.manifest`. Its `task` tells the network family and with it which class
it becomes: `Manifest` for vote networks, `DenseManifest` for dense ones.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from kd_pose.codes import CodeTable, code_table_from_text
from kd_pose.onnx_metadata import WireError, metadata_entries

FORMAT_VERSION = 1
METADATA_KEY = "kd_pose.manifest"
CHANNEL_ORDERS = ("rgb", "bgr")
# A diameter outside these is not metres: a mesh in millimetres comes out a thousand times larger.
DIAMETER_RANGE_M = (0.001, 20.0)
# How far the points of a code table may be outside their object's box, in diameters.
MAX_OUTSIDE = 0.02


class ModelFileError(ValueError):
    """A model file cannot be used; the message begins with its path."""


@dataclass(frozen=True)
class ObjectSpec:
    """One class of objects. Lengths in metres, in the frame of its mesh.

    symmetries_discrete: row-major 4x4, 16 numbers each. symmetries_continuous: (axis (3),
    offset (3)) each, as in BOP's models_info.json. mesh_uri: for visualisation, may be empty.
    """

    name: str
    diameter: float
    box_min: tuple[float, float, float]
    box_max: tuple[float, float, float]
    symmetries_discrete: tuple[tuple[float, ...], ...] = ()
    symmetries_continuous: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    mesh_uri: str = ""

    def __post_init__(self) -> None:
        where = f"object {self.name!r}"
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"object name must be a non-empty text, got {self.name!r}")
        set_field = object.__setattr__
        set_field(self, "box_min", _numbers(self.box_min, 3, f"{where}: box_min"))
        set_field(self, "box_max", _numbers(self.box_max, 3, f"{where}: box_max"))
        set_field(self, "diameter", _numbers((self.diameter,), 1, f"{where}: diameter")[0])
        low, high = DIAMETER_RANGE_M
        if not low <= self.diameter <= high:
            raise ValueError(
                f"{where}: diameter must be {low} to {high} metres, got {self.diameter}; "
                "is it in millimetres?"
            )
        if not all(a <= b for a, b in zip(self.box_min, self.box_max)):
            raise ValueError(f"{where}: box_min {self.box_min} exceeds box_max {self.box_max}")
        set_field(
            self,
            "symmetries_discrete",
            tuple(
                _numbers(values, 16, f"{where}: symmetries_discrete")
                for values in self.symmetries_discrete
            ),
        )
        set_field(
            self,
            "symmetries_continuous",
            tuple(_continuous(item, where) for item in self.symmetries_continuous),
        )

    @property
    def box_size(self) -> tuple[float, float, float]:
        return tuple(b - a for a, b in zip(self.box_min, self.box_max))

    @property
    def box_center(self) -> tuple[float, float, float]:
        return tuple((a + b) / 2.0 for a, b in zip(self.box_min, self.box_max))


@dataclass(frozen=True, kw_only=True)
class ObjectManifest:
    """What the manifests of all object networks have in common. Checked on construction.

    input_size: (width, height). mean, std: 0..255 units, in channel_order.
    objects: one per class, in the order of the network's outputs. crop_pad: how much larger than
    the box the training crops were. score_threshold: least score of a cell or pixel.
    covariance_scale: factor on the PnP covariance found on a validation set, 0 = not calibrated.
    training, metrics: free notes for people.
    """

    TASKS: ClassVar[tuple[str, ...]] = ()

    task: str
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str
    objects: tuple[ObjectSpec, ...]
    crop_pad: float = 1.5
    score_threshold: float = 0.3
    covariance_scale: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    producer: str = "kd_pose"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check_choice("task", self.task, self.TASKS)
        _check_choice("channel_order", self.channel_order, CHANNEL_ORDERS)
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"format_version {self.format_version} is not {FORMAT_VERSION}, the only one "
                "that this version of kd_pose reads"
            )
        set_field = object.__setattr__
        set_field(self, "input_size", _integers(self.input_size, "input_size", count=2))
        set_field(self, "mean", _numbers(self.mean, 3, "mean"))
        set_field(self, "std", _numbers(self.std, 3, "std"))
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        _check_range("crop_pad", self.crop_pad, 1e-6, 1e6)
        _check_range("score_threshold", self.score_threshold, 0.0, 1.0)
        _check_range("covariance_scale", self.covariance_scale, 0.0, 1e12)
        for name in ("training", "metrics"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} must be a mapping, got {getattr(self, name)!r}")
        if not isinstance(self.producer, str):
            raise ValueError(f"producer must be a text, got {self.producer!r}")
        self._check_objects()

    def _check_objects(self) -> None:
        object.__setattr__(self, "objects", tuple(self.objects))
        if not self.objects:
            raise ValueError("objects must name at least one object")
        for spec in self.objects:
            if not isinstance(spec, ObjectSpec):
                raise ValueError(f"objects must be ObjectSpec, got {spec!r}")
        names = [spec.name for spec in self.objects]
        if len(set(names)) != len(names):
            raise ValueError(f"objects must have different names, got {names}")

    def to_json(self) -> str:
        """JSON text; NaN and infinity are refused."""
        return json.dumps(asdict(self), allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Manifest(ObjectManifest):
    """Everything the runtime must know about a vote network.

    task: "object_votes" (8 box corners) or "object_detector" (2 box corners).
    strides, anchor_scale: the cells, see `votes.VoteGrid`.
    """

    TASKS = ("object_votes", "object_detector")

    strides: tuple[int, ...]
    anchor_scale: float
    num_keypoints: int
    cells_per_instance: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "strides", _integers(self.strides, "strides"))
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides must increase, got {self.strides}")
        keypoints = 8 if self.task == "object_votes" else 2
        if self.num_keypoints != keypoints:
            raise ValueError(f"num_keypoints of {self.task} is {keypoints}, not "
                             f"{self.num_keypoints}")
        _check_range("anchor_scale", self.anchor_scale, 1e-6, 1e6)
        _integers((self.cells_per_instance,), "cells_per_instance")


@dataclass(frozen=True, kw_only=True)
class DenseManifest(ObjectManifest):
    """Everything the runtime must know about a dense network ("object_codes").

    code_tables: one per object, what its codes mean, see `codes.code_table_to_text`.
    stride: input pixels per output pixel. max_pairs: 2D-3D pairs per object that go to PnP.
    score_threshold: least mask score of a pixel.
    """

    TASKS = ("object_codes",)

    code_tables: tuple[str, ...]
    stride: int = 2
    max_pairs: int = 400
    score_threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _integers((self.stride,), "stride")
        _integers((self.max_pairs,), "max_pairs")
        if any(size % self.stride for size in self.input_size):
            raise ValueError(f"input_size {self.input_size} must be multiples of the stride "
                             f"{self.stride}")
        object.__setattr__(self, "code_tables", _texts(self.code_tables, "code_tables"))
        if len(self.code_tables) != len(self.objects):
            raise ValueError(f"code_tables must be one per object, got {len(self.code_tables)} "
                             f"for {len(self.objects)}")
        bits = sorted({table.bits for table in self.tables()})
        if len(bits) != 1:
            raise ValueError(f"code_tables must have the same number of bits, got {bits}")

    def tables(self) -> list[CodeTable]:
        """The code tables, in the order of the objects. Decoded anew by every call."""
        return [_code_table(text, spec) for text, spec in zip(self.code_tables, self.objects)]


def manifest_from_json(text: str, source: str = "manifest") -> Manifest | DenseManifest:
    """Parse strictly: unknown, missing or wrong keys are errors that begin with `source`."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"{source}: the manifest is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{source}: the manifest must be a JSON object")
    version = data.get("format_version")
    if version != FORMAT_VERSION:  # first: other versions may have other keys
        raise ModelFileError(
            f"{source}: the manifest has format version {version!r}, this version of kd_pose "
            f"reads {FORMAT_VERSION}; export the model again or use a matching kd_pose"
        )
    kinds = {task: kind for kind in (Manifest, DenseManifest) for task in kind.TASKS}
    try:
        _check_choice("task", data.get("task"), tuple(kinds))
        kind = kinds[data["task"]]
        _check_keys(kind, data, "manifest")
        items = data["objects"]
        if not isinstance(items, list):
            raise ValueError(f"objects must be a list, got {items!r}")
        data["objects"] = tuple(_object_spec(item) for item in items)
        return kind(**data)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{source}: {error}") from error


def read_manifest(path: str | os.PathLike) -> Manifest | DenseManifest:
    """The manifest inside an ONNX file.

    Raises ModelFileError that names the file: missing, not ONNX, truncated, without a manifest,
    of another format version, or inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
    with open(path, "rb") as file:
        try:
            entries = metadata_entries(file, path.stat().st_size)
        except WireError as error:
            raise ModelFileError(f"{path}: {error}") from error
    if METADATA_KEY not in entries:
        raise ModelFileError(
            f"{path}: no {METADATA_KEY!r} in its metadata: it was not exported by kd_pose"
        )
    return manifest_from_json(entries[METADATA_KEY], source=str(path))


def require_task(manifest: ObjectManifest, tasks: Sequence[str], path: str | os.PathLike) -> None:
    """Raise ModelFileError naming the file if the model is for something else than `tasks`."""
    if manifest.task not in tasks:
        needed = " or ".join(repr(task) for task in tasks)
        raise ModelFileError(f"{path}: the model's task is {manifest.task!r}, needed is {needed}")


# --- checks ------------------------------------------------------------------------------------


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _check_range(name: str, value: Any, low: float, high: float) -> None:
    number = _numbers((value,), 1, name)[0]
    if not low <= number <= high:
        raise ValueError(f"{name} must be {low} to {high}, got {value!r}")


def _numbers(values: Any, count: int, name: str) -> tuple[float, ...]:
    try:
        items = tuple(values)
        if any(isinstance(item, (str, bool)) for item in items):
            raise TypeError
        numbers = tuple(float(item) for item in items)
    except TypeError:
        raise ValueError(f"{name} must be numbers, got {values!r}") from None
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be {count} finite number(s), got {values!r}")
    return numbers


def _integers(values: Any, name: str, count: int | None = None) -> tuple[int, ...]:
    try:
        items = tuple(values)
        integers = tuple(int(item) for item in items)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be integers, got {values!r}") from None
    wrong = any(isinstance(item, bool) or item != int(item) or item < 1 for item in items)
    if wrong or not integers or (count is not None and len(integers) != count):
        size = "" if count is None else f"{count} "
        raise ValueError(f"{name} must be {size}positive integers, got {values!r}")
    return integers


def _texts(values: Any, name: str) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise ValueError(f"{name} must be a list of texts")
    return tuple(values)


def _continuous(item: Any, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        axis, offset = item
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: symmetries_continuous must be pairs of axis and offset, got {item!r}"
        ) from None
    name = f"{where}: symmetries_continuous"
    axis = _numbers(axis, 3, f"{name} axis")
    if not any(axis):
        raise ValueError(f"{name} axis must not be zero")
    return axis, _numbers(offset, 3, f"{name} offset")


def _check_keys(kind: type, data: dict, where: str) -> None:
    known = [item.name for item in fields(kind)]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown key(s) {', '.join(unknown)}")
    missing = sorted(set(known) - set(data))
    if missing:
        raise ValueError(f"{where}: missing key(s) {', '.join(missing)}")


def _object_spec(data: Any) -> ObjectSpec:
    if not isinstance(data, dict):
        raise ValueError(f"objects must be JSON objects, got {data!r}")
    _check_keys(ObjectSpec, data, f"object {data.get('name')!r}")
    return ObjectSpec(**data)


def _code_table(text: str, spec: ObjectSpec) -> CodeTable:
    try:
        table = code_table_from_text(text)
    except ValueError as error:
        raise ValueError(f"object {spec.name!r}: {error}") from error
    low, high = table.points.min(axis=0), table.points.max(axis=0)
    margin = MAX_OUTSIDE * spec.diameter
    outside = zip(low, spec.box_min, high, spec.box_max)
    if any(a < b - margin or c > d + margin for a, b, c, d in outside):
        raise ValueError(
            f"object {spec.name!r}: the code table goes from {low} to {high}, its box from "
            f"{spec.box_min} to {spec.box_max}; is the table another object's, or in millimetres?"
        )
    return table
