"""Manifests of object networks, and what they say of each object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kd_pose.codes import CodeTable, code_table_from_text
from kd_pose.manifest.base import (
    NetworkManifest,
    check_keys,
    check_range,
    integers,
    numbers,
    texts,
)

# A diameter outside these is not metres: a mesh in millimetres comes out a thousand times larger.
DIAMETER_RANGE_M = (0.001, 20.0)
# How far the points of a code table may be outside their object's box, in diameters.
MAX_OUTSIDE = 0.02


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
        set_field(self, "box_min", numbers(self.box_min, 3, f"{where}: box_min"))
        set_field(self, "box_max", numbers(self.box_max, 3, f"{where}: box_max"))
        set_field(self, "diameter", numbers((self.diameter,), 1, f"{where}: diameter")[0])
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
                numbers(values, 16, f"{where}: symmetries_discrete")
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
class ObjectManifest(NetworkManifest):
    """What the manifests of all object networks have in common.

    objects: one per class, in the order of the network's outputs. crop_pad: how much larger than
    the box the training crops were. score_threshold: least score of a cell or pixel.
    covariance_scale: factor on the PnP covariance found on a validation set, 0 = not calibrated.
    """

    objects: tuple[ObjectSpec, ...]
    crop_pad: float = 1.5
    score_threshold: float = 0.3
    covariance_scale: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("crop_pad", self.crop_pad, 1e-6, 1e6)
        check_range("score_threshold", self.score_threshold, 0.0, 1.0)
        check_range("covariance_scale", self.covariance_scale, 0.0, 1e12)
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

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> ObjectManifest:
        check_keys(cls, data, "manifest")
        if not isinstance(data["objects"], list):
            raise ValueError(f"objects must be a list, got {data['objects']!r}")
        return cls(**{**data, "objects": tuple(map(_object_spec, data["objects"]))})


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
        object.__setattr__(self, "strides", integers(self.strides, "strides"))
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides must increase, got {self.strides}")
        keypoints = 8 if self.task == "object_votes" else 2
        if self.num_keypoints != keypoints:
            raise ValueError(f"num_keypoints of {self.task} is {keypoints}, not "
                             f"{self.num_keypoints}")
        check_range("anchor_scale", self.anchor_scale, 1e-6, 1e6)
        integers((self.cells_per_instance,), "cells_per_instance")


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
        integers((self.stride,), "stride")
        integers((self.max_pairs,), "max_pairs")
        if any(size % self.stride for size in self.input_size):
            raise ValueError(f"input_size {self.input_size} must be multiples of the stride "
                             f"{self.stride}")
        object.__setattr__(self, "code_tables", texts(self.code_tables, "code_tables"))
        if len(self.code_tables) != len(self.objects):
            raise ValueError(f"code_tables must be one per object, got {len(self.code_tables)} "
                             f"for {len(self.objects)}")
        bits = sorted({table.bits for table in self.tables()})
        if len(bits) != 1:
            raise ValueError(f"code_tables must have the same number of bits, got {bits}")

    def tables(self) -> list[CodeTable]:
        """The code tables, in the order of the objects. Decoded anew by every call."""
        return [_code_table(text, spec) for text, spec in zip(self.code_tables, self.objects)]


def _continuous(item: Any, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        axis, offset = item
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: symmetries_continuous must be pairs of axis and offset, got {item!r}"
        ) from None
    name = f"{where}: symmetries_continuous"
    axis = numbers(axis, 3, f"{name} axis")
    if not any(axis):
        raise ValueError(f"{name} axis must not be zero")
    return axis, numbers(offset, 3, f"{name} offset")


def _object_spec(data: Any) -> ObjectSpec:
    if not isinstance(data, dict):
        raise ValueError(f"objects must be JSON objects, got {data!r}")
    check_keys(ObjectSpec, data, f"object {data.get('name')!r}")
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
