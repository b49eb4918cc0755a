"""Images in, object poses out.

find regions -> crop -> one batch -> decode -> PnP, for every object of a frame. The model's
manifest says which family of network it is and with that how it is decoded. No ROS, no state
between frames: tracking is built on top.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kd_pose.boxes import iou, points_box, shows_image, xyxy_from_xywh
from kd_pose.camera import Camera
from kd_pose.crop import apply_affine, box_affine, invert_affine
from kd_pose.dense_network import DenseNetwork
from kd_pose.estimator import Stopwatch, check_image
from kd_pose.geometry import box_corners, transform_points
from kd_pose.manifest import (
    ModelFileError,
    ObjectManifest,
    ObjectSpec,
    read_manifest,
    require_task,
)
from kd_pose.object_network import Correspondences, ObjectNetwork
from kd_pose.pnp import PnPResult, pose_covariance, solve_pnp
from kd_pose.results import Detection2D, ObjectPose, ObjectPoseFrame
from kd_pose.vote_network import VoteNetwork

POSE_NETWORKS = {"object_votes": VoteNetwork, "object_codes": DenseNetwork}
# Two results of one class are one object when their projected boxes overlap by more than this ...
DUPLICATE_IOU = 0.7
# ... or their origins are nearer to each other than this share of the object's diameter.
DUPLICATE_DISTANCE = 0.1


@dataclass(frozen=True)
class ObjectPoseOptions:
    """What may be changed while running.

    score_threshold, detector_score_threshold: cells (of a dense network: mask pixels) below are
        not used; None = the manifest's.
    object_score_threshold: objects with a lower score are left out. Scores of one model compare,
        those of two hardly; its card says what a threshold keeps.
    max_instances: objects per image at most.
    min_inliers: 2D-3D pairs that must agree on a pose; vote networks give up to 8 per cell, dense
        ones up to their manifest's max_pairs.
    max_reprojection_error_px: how far a pair may be from the pose that explains it, in pixels of
        the *network's input*: what the network can resolve, whether the object is near or far.
    target_objects: names of the objects looked for; empty = all.
    """

    score_threshold: float | None = None
    detector_score_threshold: float | None = None
    object_score_threshold: float = 0.0
    max_instances: int = 20
    min_inliers: int = 6
    max_reprojection_error_px: float = 6.0
    target_objects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_objects", tuple(self.target_objects))
        for name in ("score_threshold", "detector_score_threshold", "object_score_threshold"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be 0 to 1, got {value}")
        if self.max_instances < 1:
            raise ValueError(f"max_instances must be at least 1, got {self.max_instances}")
        if self.min_inliers < 4:
            raise ValueError(f"min_inliers must be at least 4, got {self.min_inliers}")
        if not self.max_reprojection_error_px > 0:
            raise ValueError(
                f"max_reprojection_error_px must be positive, got {self.max_reprojection_error_px}"
            )


class ObjectPoseEstimator:
    """A pose model and, if wanted, its detector.

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
        options: ObjectPoseOptions | None = None,
    ) -> None:
        engine = dict(backend=backend, device=device, precision=precision, threads=threads)
        self._network = _open_pose_network(model_path, engine)
        self._detector: VoteNetwork | None = None
        if detector_path:
            self._detector = VoteNetwork(detector_path, "object_detector", **engine)
            if not set(self._detector.names) & set(self._network.names):
                raise ModelFileError(
                    f"{detector_path}: detects {', '.join(self._detector.names)}, none of which "
                    f"{model_path} knows ({', '.join(self._network.names)})"
                )
        self._class_of = {name: index for index, name in enumerate(self._network.names)}
        self._corners = [box_corners(spec.box_min, spec.box_max) for spec in self.objects]
        self.options = options or ObjectPoseOptions()

    @property
    def manifest(self) -> ObjectManifest:
        return self._network.manifest

    @property
    def objects(self) -> tuple[ObjectSpec, ...]:
        return self._network.manifest.objects

    @property
    def has_detector(self) -> bool:
        return self._detector is not None

    @property
    def description(self) -> str:
        """Engine, device and precision in words."""
        return self._network.session.description

    @property
    def options(self) -> ObjectPoseOptions:
        return self._options

    @options.setter
    def options(self, value: ObjectPoseOptions) -> None:
        unknown = [name for name in value.target_objects if name not in self._class_of]
        if unknown:
            raise ValueError(
                f"target_objects: unknown {', '.join(unknown)}; "
                f"the model knows {', '.join(self._class_of)}"
            )
        self._options = value

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
        """Boxes of the whole image uint8 (H, W, 3), best first; ValueError without a detector.

        Only classes that are looked for and that the pose model knows.
        """
        if self._detector is None:
            raise ValueError("no detector was loaded: give boxes, or a detector model")
        check_image(image)
        options, detector = self.options, self._detector
        wanted = set(options.target_objects or self._class_of)
        classes = [index for index, name in enumerate(detector.names) if name in wanted]
        return detector.detect(
            image,
            channel_order,
            score_threshold=options.detector_score_threshold,
            max_instances=options.max_instances,
            classes=classes,
        )

    def estimate(
        self,
        image: np.ndarray,
        camera: Camera,
        *,
        channel_order: str = "bgr",
        boxes: Sequence[Detection2D] | None = None,
    ) -> ObjectPoseFrame:
        """Poses of the objects in `boxes`, or of those that the detector finds.

        image: uint8 (H, W, 3) as delivered, i.e. distorted as `camera` says.
        boxes: regions of the image with the class of each; what cannot be looked at is counted
            in `ignored_boxes`. An empty sequence means that there is nothing.
        Raises ValueError for an image or camera that cannot be used.
        """
        check_image(image)
        if not camera.is_calibrated:
            raise ValueError("K[0] is 0: the camera is not calibrated, so there are no poses")
        if (camera.width, camera.height) != (image.shape[1], image.shape[0]):
            raise ValueError(
                f"the image is {image.shape[1]}x{image.shape[0]}, but the camera is calibrated "
                f"for {camera.width}x{camera.height}"
            )
        options, clock = self.options, Stopwatch()
        if boxes is None:
            boxes = self.detect(image, channel_order)
        clock.lap("detector")
        detections, ignored = self._relevant(boxes, image.shape[1::-1], options)
        frame = ObjectPoseFrame(detections=detections, timing_ms=clock.ms, ignored_boxes=ignored)
        if not detections:
            return frame
        manifest = self.manifest
        affines = [
            box_affine(item.box_xywh, manifest.input_size, manifest.crop_pad)
            for item in detections
        ]
        batch = self._network.prepare(image, affines, channel_order)
        clock.lap("crop")
        outputs = self._network.run(batch)
        clock.lap("network")
        found = [
            self._network.correspondences(
                [output[row] for output in outputs],
                self._class_of[detection.class_id],
                apply_affine(M, xyxy_from_xywh(detection.box_xywh).reshape(2, 2)).reshape(4),
                options.score_threshold,
            )
            for row, (detection, M) in enumerate(zip(detections, affines))
        ]
        clock.lap("decode")
        objects = [
            self._pose(detection, M, pairs, camera, options)
            for detection, M, pairs in zip(detections, affines, found)
            if pairs is not None
        ]
        frame.objects = suppress_duplicates([
            item for item in objects
            if item is not None and item.score >= options.object_score_threshold])
        clock.lap("pose")
        return frame

    def _relevant(
        self, boxes: Sequence[Detection2D], image_wh: tuple[int, int], options: ObjectPoseOptions
    ) -> tuple[list[Detection2D], int]:
        """Boxes that are looked at, best first, and how many cannot be."""
        usable = [item for item in boxes
                  if item.class_id in self._class_of and np.isfinite(item.score)
                  and shows_image(item.box_xywh, *image_wh)]
        wanted = [item for item in usable
                  if not options.target_objects or item.class_id in options.target_objects]
        wanted.sort(key=lambda item: -item.score)
        return wanted[: options.max_instances], len(boxes) - len(usable)

    def _pose(
        self,
        detection: Detection2D,
        M: np.ndarray,
        pairs: Correspondences,
        camera: Camera,
        options: ObjectPoseOptions,
    ) -> ObjectPose | None:
        index = pairs.class_index
        points2d = camera.undistort(apply_affine(invert_affine(M), pairs.pixels))
        result = solve_pnp(
            pairs.points,
            points2d,
            camera.K,
            weights=pairs.weights,
            max_error_px=options.max_reprojection_error_px / M[0, 0],
            min_inliers=options.min_inliers,
        )
        if result is None:
            return None
        explained = _explained(pairs, result)
        corners = transform_points(result.T_cam_obj, self._corners[index])
        return ObjectPose(
            class_id=self._network.names[index],
            score=_score(detection, pairs.score) * explained,
            T_cam_obj=result.T_cam_obj,
            covariance=self._covariance(pairs, points2d, camera, result),
            spec=self.objects[index],
            keypoints_xy=camera.project(corners),
            keypoint_scores=_corner_scores(pairs, result, explained),
            reprojection_error_px=result.reprojection_error_px,
            inliers=int(np.count_nonzero(result.inliers)),
        )

    def _covariance(
        self, pairs: Correspondences, points2d: np.ndarray, camera: Camera, result: PnPResult
    ) -> np.ndarray | None:
        """Covariance (6, 6), or None where the model's was not calibrated.

        All pairs come from one look at the image, so those of one group count as one measurement.
        """
        scale = self.manifest.covariance_scale
        if not scale > 0:
            return None
        covariance = pose_covariance(
            pairs.points,
            points2d,
            camera.K,
            result.T_cam_obj,
            result.inliers,
            effective_points=len(np.unique(pairs.groups[result.inliers])),
        )
        return None if covariance is None else scale * covariance


def _open_pose_network(path: str | os.PathLike, engine: dict) -> ObjectNetwork:
    manifest = read_manifest(path)
    require_task(manifest, tuple(POSE_NETWORKS), path)
    return POSE_NETWORKS[manifest.task](path, manifest.task, **engine)


def suppress_duplicates(objects: Sequence[ObjectPose]) -> list[ObjectPose]:
    """Best first, each object once: see `DUPLICATE_IOU` and `DUPLICATE_DISTANCE`."""
    kept: list[ObjectPose] = []
    for item in sorted(objects, key=lambda item: -item.score):
        if not any(_same_object(item, other) for other in kept):
            kept.append(item)
    return kept


def _same_object(a: ObjectPose, b: ObjectPose) -> bool:
    if a.class_id != b.class_id:
        return False
    distance = np.linalg.norm(a.T_cam_obj[:3, 3] - b.T_cam_obj[:3, 3])
    if distance < DUPLICATE_DISTANCE * a.spec.diameter:
        return True
    overlap = iou(points_box(a.keypoints_xy), points_box(b.keypoints_xy))[0]
    return bool(overlap > DUPLICATE_IOU)


def _score(detection: Detection2D, score: float) -> float:
    """Geometric mean of the detector's and the pose network's scores, 0..1."""
    return min(1.0, float(np.sqrt(max(0.0, float(detection.score)) * max(0.0, score))))


def _explained(pairs: Correspondences, result: PnPResult) -> float:
    """Share of the weight of all pairs that the pose explains."""
    return float(pairs.weights[result.inliers].sum() / pairs.weights.sum())


def _corner_scores(pairs: Correspondences, result: PnPResult, explained: float) -> np.ndarray:
    """That share for each box corner (8,); all alike where no pair is about a corner."""
    if not pairs.of_corners:
        return np.full(8, explained)
    total = np.bincount(pairs.groups, pairs.weights, 8)
    return np.bincount(pairs.groups, pairs.weights * result.inliers, 8) / total
