"""Images in, people with 133 keypoints out.

find people -> crop -> one batch -> decode, for everyone in a frame. No ROS, no state between
frames: tracks, smoothing and depth are built on top.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kd_pose.boxes import shows_image
from kd_pose.crop import apply_affine, box_affine, invert_affine
from kd_pose.estimator import Stopwatch, check_image
from kd_pose.manifest import WholebodyManifest
from kd_pose.person_scoring import (
    MIN_KEYPOINT_SCORE,
    NMS_OKS,
    crop_areas,
    oks_nms,
    rescore,
)
from kd_pose.results import PERSON, Detection2D, PeopleFrame, PersonPose
from kd_pose.simcc_network import SimccNetwork

if TYPE_CHECKING:
    from kd_pose.person_detector import PersonDetector


@dataclass(frozen=True)
class WholebodyPoseOptions:
    """What may be changed while running.

    detector_score_threshold: least score of a detected box; None = the detector's own.
    max_people: per image at most, those with the best boxes.
    person_score_threshold: people with a lower score are left out.
    keypoint_score_threshold: keypoints at or below do not count for the person's score. All are
        reported, whatever their score.
    duplicate_oks: of two people whose keypoints are more alike than this (OKS), the one with the
        lower score is left out; 1 = nobody is.
    """

    detector_score_threshold: float | None = None
    max_people: int = 20
    person_score_threshold: float = 0.0
    keypoint_score_threshold: float = MIN_KEYPOINT_SCORE
    duplicate_oks: float = NMS_OKS

    def __post_init__(self) -> None:
        for name in ("detector_score_threshold", "person_score_threshold",
                     "keypoint_score_threshold", "duplicate_oks"):
            value = getattr(self, name)
            if value is None and name == "detector_score_threshold":
                continue
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be 0 to 1, got {value}")
        if self.max_people < 1:
            raise ValueError(f"max_people must be at least 1, got {self.max_people}")


class WholebodyPoseEstimator:
    """A whole-body model and, if wanted, a person detector.

    Raises ModelFileError (a ValueError that names the file), BackendError, ValueError for options.
    Not for several threads at once, except that `options` may be set from any.
    """

    def __init__(
        self,
        model_path: str | os.PathLike,
        detector_path: str | os.PathLike | None = None,
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "fp32",
        threads: int = 0,
        options: WholebodyPoseOptions | None = None,
    ) -> None:
        engine = dict(backend=backend, device=device, precision=precision, threads=threads)
        self._network = SimccNetwork(model_path, "wholebody", **engine)
        self._detector: PersonDetector | None = None
        if detector_path:
            # A robot that gets its boxes from elsewhere need not load the detectors' code.
            from kd_pose.person_detector import open_person_detector

            self._detector = open_person_detector(detector_path, **engine)
        self.options = options or WholebodyPoseOptions()

    @property
    def manifest(self) -> WholebodyManifest:
        return self._network.manifest

    @property
    def has_detector(self) -> bool:
        return self._detector is not None

    @property
    def description(self) -> str:
        """Engine, device and precision in words."""
        return self._network.session.description

    def warm_up(self, n: int = 1) -> None:
        """Run every network `n` times on zeros."""
        self._network.warm_up(n)
        if self._detector is not None:
            self._detector.warm_up(n)

    def close(self) -> None:
        """Give memory back. The estimator cannot be used afterwards."""
        self._network.close()
        if self._detector is not None:
            self._detector.close()

    def detect(self, image: np.ndarray, channel_order: str = "bgr") -> list[Detection2D]:
        """People in the whole image uint8 (H, W, 3), best first; ValueError without a detector."""
        if self._detector is None:
            raise ValueError("no detector was loaded: give boxes, or a detector model")
        check_image(image)
        options = self.options
        return self._detector.detect(image, channel_order, options.detector_score_threshold,
                                     options.max_people)

    def estimate(
        self,
        image: np.ndarray,
        *,
        channel_order: str = "bgr",
        boxes: Sequence[Detection2D] | None = None,
    ) -> PeopleFrame:
        """Whole-body poses of the people in `boxes`, or of those that the detector finds.

        image: uint8 (H, W, 3). boxes: regions of the class `person` in image pixels; what cannot
        be looked at is counted in `ignored_boxes`. An empty sequence means that there is nobody.
        Raises ValueError for an image that cannot be used, and without boxes and detector.
        """
        check_image(image)
        self._network.swap_channels(channel_order)  # checks the text also where nobody is
        options, clock, searched = self.options, Stopwatch(), boxes is None
        if searched:
            boxes = self.detect(image, channel_order)
        clock.lap("detector")
        usable = [item for item in boxes if _in_image(item, image.shape[1], image.shape[0])]
        ignored = len(boxes) - len(usable)
        detections = sorted(usable, key=lambda item: -item.score)[: options.max_people]
        frame = PeopleFrame(detections=detections, timing_ms=clock.ms, ignored_boxes=ignored,
                            searched=searched)
        if not detections:
            return frame
        manifest = self.manifest
        affines = [box_affine(item.box_xywh, manifest.input_size, manifest.crop_pad)
                   for item in detections]
        batch = self._network.prepare(image, affines, channel_order)
        clock.lap("crop")
        outputs = self._network.run(batch)
        clock.lap("network")
        xy, scores = self._network.decode(*outputs)
        clock.lap("decode")
        xy = np.stack([apply_affine(invert_affine(M), points) for M, points in zip(affines, xy)])
        frame.people = self._people(detections, xy, scores, options)
        clock.lap("pose")
        return frame

    def _people(self, detections: Sequence[Detection2D], xy: np.ndarray, scores: np.ndarray,
                options: WholebodyPoseOptions) -> list[PersonPose]:
        """Scored, without duplicates, best first. xy: (N, K, 2) image px. scores: (N, K)."""
        boxes = np.array([item.box_xywh for item in detections], dtype=np.float64)
        box_scores = np.clip([item.score for item in detections], 0.0, 1.0)
        person_scores = rescore(box_scores, scores, options.keypoint_score_threshold)
        width, height = self.manifest.input_size
        areas = crop_areas(boxes, width / height, self.manifest.crop_pad)
        return [
            PersonPose(boxes[row], float(person_scores[row]), xy[row], scores[row])
            for row in oks_nms(xy, person_scores, areas, options.duplicate_oks)
            if person_scores[row] >= options.person_score_threshold
        ]


def _in_image(item: Detection2D, width: int, height: int) -> bool:
    """Whether this is a person's box that shows something of the image."""
    return (item.class_id == PERSON and bool(np.isfinite(item.score))
            and shows_image(item.box_xywh, width, height))
