"""Manifest of published person detectors: YOLOX and RTMDet files as they were exported."""

from __future__ import annotations

from dataclasses import dataclass

from kd_pose.manifest.base import (
    NetworkManifest,
    check_choice,
    check_range,
    integers,
    texts,
)

# Layout -> number of outputs; 0: two for every stride. See `detector_outputs`.
LAYOUTS = {
    "yolox_grid": 1,
    "yolox_boxes": 1,
    "boxes_scores": 2,
    "rtmdet_maps": 0,
    "dets_labels": 2,
}


@dataclass(frozen=True, kw_only=True)
class PersonDetectorManifest(NetworkManifest):
    """Everything the runtime must know about a published detector.

    layout: what the outputs are:
        yolox_grid    (B, N, 5 + C) relative to the cells, as YOLOX's own export
        yolox_boxes   the same in input pixels
        boxes_scores  (B, N, 4) xyxy and (B, N, C), before suppression
        rtmdet_maps   logits (B, C, h, w) of every stride, then distances (B, 4, h, w)
        dets_labels   (B, M, 5) xyxy and score, (B, M), after the file's own suppression
    output_names: in that order. strides: input pixels per cell, of each level.
    person_class: index of the class. score_threshold: least score of a box.
    nms_threshold: overlap above which the worse box of two is dropped; not for dets_labels.
    """

    TASKS = ("person_detector",)

    architecture: str
    layout: str
    input_name: str
    output_names: tuple[str, ...]
    strides: tuple[int, ...] = (8, 16, 32)
    person_class: int = 0
    score_threshold: float = 0.3
    nms_threshold: float = 0.45

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("architecture", self.architecture, ("yolox", "rtmdet"))
        check_choice("layout", self.layout, tuple(LAYOUTS))
        check_range("score_threshold", self.score_threshold, 0.0, 1.0)
        check_range("nms_threshold", self.nms_threshold, 0.0, 1.0)
        set_field = object.__setattr__
        set_field(self, "strides", integers(self.strides, "strides"))
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides must increase, got {self.strides}")
        if any(size % self.strides[-1] for size in self.input_size):
            raise ValueError(f"input_size {self.input_size} must be multiples of the largest "
                             f"stride, {self.strides[-1]}")
        if isinstance(self.person_class, bool) or not isinstance(self.person_class, int) or (
                self.person_class < 0):
            raise ValueError(f"person_class must be a whole number of 0 or more, got "
                             f"{self.person_class!r}")
        names = texts(self.output_names, "output_names")
        set_field(self, "output_names", names)
        count = LAYOUTS[self.layout] or 2 * len(self.strides)
        if len(names) != count or len(set(names)) != count or not all(names):
            raise ValueError(f"output_names of {self.layout} must be {count} different texts, "
                             f"got {names}")
        if not isinstance(self.input_name, str) or not self.input_name:
            raise ValueError(f"input_name must be a text, got {self.input_name!r}")
