"""A pose model, with its detector or with true boxes, on every frame of a BOP split.

Runs the estimator that the node runs, so that no other pre- or post-processing can flatter it.
Every visible known instance is a target; one that is not found is a failure. Estimates and targets
of a class are paired one to one, best score first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from kd_pose.boxes import iou, xywh_from_xyxy, xyxy_from_xywh
from kd_pose.camera import Camera
from kd_pose.manifest import ObjectSpec
from kd_pose.object_pose import ObjectPoseEstimator, ObjectPoseOptions
from kd_pose.results import Detection2D, ObjectPose, ObjectPoseFrame
from kd_pose_training.data.amodal import amodal_box, support_points
from kd_pose_training.data.bop_detections import DetectionFile
from kd_pose_training.data.bop_results import BopEstimate
from kd_pose_training.data.bop_targets import wanted_instances
from kd_pose_training.evaluation import errors

BOXES = ("oracle", "detected")  # and "file"
MIN_VISIB = 0.1
# An estimate is about a target when it is no farther (ADD-S, in diameters) ...
MATCH_DISTANCE = 0.5
# ... or their projected boxes overlap at least this much.
MATCH_IOU = 0.3
DETECTION_IOU = 0.5


@dataclass(frozen=True)
class EvaluatedObject:
    """What scoring needs of a class. vertices (n, 3) metres and their tree; outline: few points
    that span the mesh; finder: symmetries."""

    spec: ObjectSpec
    vertices: np.ndarray
    outline: np.ndarray
    tree: cKDTree
    finder: errors.TruthFinder

    @classmethod
    def build(cls, spec: ObjectSpec, vertices: np.ndarray) -> EvaluatedObject:
        sample = errors.sample_vertices(vertices)
        return cls(spec, sample, support_points(vertices), cKDTree(sample),
                   errors.TruthFinder(spec))


@dataclass
class InstanceResult:
    """One target and what was estimated for it; errors are None where nothing was.

    add: ADD, add_s: ADD-S, translation: metres; error is add_s for symmetric objects, else add.
    mahalanobis2: squared distance by the estimate's own covariance, None without one.
    box_iou: overlap of the best detection of its class, 0 where none; None with true boxes.
    """

    scene_id: int
    im_id: int
    instance: int
    name: str
    visib_fract: float
    diameter: float
    T_true: np.ndarray
    T_est: np.ndarray | None = None
    score: float = 0.0
    add: float | None = None
    add_s: float | None = None
    error: float | None = None
    reprojection_px: float | None = None
    rotation_deg: float | None = None
    translation: float | None = None
    mahalanobis2: float | None = None
    box_iou: float | None = None

    @property
    def correct(self) -> bool:
        """ADD(-S) below a tenth of the diameter."""
        return self.error is not None and self.error < 0.1 * self.diameter


@dataclass
class EvaluationResult:
    """All targets of a split. false_positives: estimates that belong to no target, by class.
    timing_ms: mean milliseconds per frame by stage, and "total". estimates: all, by frame."""

    boxes: str
    model: str
    detector: str
    data: str
    specs: tuple[ObjectSpec, ...]
    instances: list[InstanceResult] = field(default_factory=list)
    false_positives: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    timing_ms: dict[str, float] = field(default_factory=dict)
    engine: str = ""
    estimates: list[BopEstimate] = field(default_factory=list)


def evaluate(model_path: str | Path, detector_path: str | Path | None, dataset: Any, *,
             boxes: str = "oracle", limit: int = 0, min_visib: float = MIN_VISIB,
             options: ObjectPoseOptions | None = None, backend: str = "auto",
             device: str = "auto", precision: str = "fp32", threads: int = 0,
             load_vertices: Callable[[Any], np.ndarray] | None = None,
             detections: DetectionFile | None = None,
             progress: bool = True) -> EvaluationResult:
    """Score a model on the frames of a ``BopDataset``.

    Args:
        boxes: "oracle" = the true box of every target (of the whole object, also where covered),
            "detected" = what the detector finds, "file" = those of ``detections``.
        limit: frames at most, spread evenly over the split; 0 = all.
        min_visib: targets are at least this visible; estimates for others are not counted. Where
            the data set has targets, these say instead what counts.
        options, backend, device, precision, threads: of the estimator.
        load_vertices: BOP model -> (n, 3) metres; the BOP reader's own by default.

    Raises:
        ValueError: no detector although its boxes are wanted, or the data set and the model have
            no object in common. ModelFileError, BackendError: of the estimator.
    """
    if boxes not in (*BOXES, "file"):
        raise ValueError(f"boxes is {boxes!r}; allowed: {', '.join(BOXES)}, file")
    if (boxes == "file") != (detections is not None):
        raise ValueError("boxes 'file' and detections belong together")
    if boxes == "detected" and detector_path is None:
        raise ValueError("boxes is 'detected', but there is no detector model")
    used = detector_path if boxes == "detected" else None
    estimator = ObjectPoseEstimator(model_path, used, backend=backend, device=device,
                                    precision=precision, threads=threads, options=options)
    try:
        names = {spec.name: spec for spec in estimator.objects}
        objects = known_objects(dataset, names, load_vertices)
        result = EvaluationResult(
            boxes, str(model_path), str(used or ""), data_name(dataset), estimator.objects,
            engine=estimator.description)
        frames = spread(dataset.frames, limit)
        if detections is not None:
            detections.check_images((frame.scene_id, frame.im_id) for frame in frames)
        estimator.warm_up(2)
        _run(estimator, frames, dataset, objects, min_visib, result, detections, progress)
    finally:
        estimator.close()
    return result


def _run(estimator: ObjectPoseEstimator, frames: Sequence[Any], dataset: Any,
         objects: dict[str, EvaluatedObject], min_visib: float, result: EvaluationResult,
         detections: DetectionFile | None, progress: bool) -> None:
    from tqdm import tqdm
    sums: dict[str, float] = {}
    hidden = None if progress else True  # None: shown on a terminal only
    for frame in tqdm(frames, f"{result.boxes} boxes", disable=hidden, unit=" frames",
                      leave=False):
        image = frame.load_image()
        camera = Camera(frame.K, image.shape[1], image.shape[0])
        targets, ignored = targets_of(frame, dataset, objects, min_visib)
        given, box_time = None, 0.0
        if result.boxes == "oracle":
            given = [Detection2D(item.name, 1.0, xywh_from_xyxy(true_box(item, objects, camera)))
                     for item in targets]
        elif detections is not None:
            given, box_time = file_boxes(detections, frame, dataset)
        if given is not None:
            wanted = max(len(given), estimator.options.max_instances)
            if wanted != estimator.options.max_instances:
                estimator.options = _with_instances(estimator.options, wanted)
        found = estimator.estimate(image, camera, channel_order="bgr", boxes=given)
        score_frame(found, targets, ignored, objects, camera, result)
        result.instances += targets
        result.estimates += _estimates(found, frame, dataset, box_time)
        for stage, value in found.timing_ms.items():
            sums[stage] = sums.get(stage, 0.0) + value
    result.frames = len(frames)
    count = max(len(frames), 1)
    result.timing_ms = {stage: value / count for stage, value in sums.items()}
    result.timing_ms["total"] = sum(sums.values()) / count


def file_boxes(detections: DetectionFile, frame: Any,
               dataset: Any) -> tuple[list[Detection2D], float]:
    """Boxes of a frame in a file, and the seconds that they took (0 where unknown).

    Where the data set has targets, the task is to find so many instances of known objects: the
    best boxes of these are taken.
    """
    found = detections.boxes.get((frame.scene_id, frame.im_id), [])
    targets = getattr(dataset, "targets", {})
    counts = targets.get((frame.scene_id, frame.im_id), {})
    boxes: list[Detection2D] = []
    used: dict[int, int] = {}
    for item in found:
        used[item.obj_id] = used.get(item.obj_id, 0) + 1
        if item.obj_id in dataset.models and (
                not targets or used[item.obj_id] <= counts.get(item.obj_id, 0)):
            boxes.append(Detection2D(dataset.models[item.obj_id].name, item.score, item.box_xywh))
    return boxes, max((item.time for item in found), default=0.0)


def _estimates(found: ObjectPoseFrame, frame: Any, dataset: Any,
               box_time: float) -> list[BopEstimate]:
    """The poses of a frame as rows of a results file; objects that the set lacks are left out."""
    numbers = {model.name: obj_id for obj_id, model in dataset.models.items()}
    seconds = 1e-3 * sum(found.timing_ms.values()) + max(box_time, 0.0)
    return [BopEstimate(frame.scene_id, frame.im_id, numbers[item.class_id], float(item.score),
                        item.T_cam_obj, seconds)
            for item in found.objects if item.class_id in numbers]


def _with_instances(options: ObjectPoseOptions, count: int) -> ObjectPoseOptions:
    return dataclasses.replace(options, max_instances=count)


def known_objects(dataset: Any, names: dict[str, ObjectSpec],
                  load_vertices: Callable[[Any], np.ndarray] | None = None
                  ) -> dict[str, EvaluatedObject]:
    """The objects that both the data set and the model know, by name.

    Diameter, vertices and symmetries are those of the data set: it holds the truth.

    Raises:
        ValueError: there are none.
    """
    if load_vertices is None:
        from kd_pose_training.data.bop_models import load_mesh_vertices as load_vertices
    objects = {model.name: EvaluatedObject.build(model.spec, load_vertices(model))
               for model in dataset.models.values() if model.name in names}
    if not objects:
        there = ", ".join(model.name for model in dataset.models.values())
        raise ValueError(f"the model knows {', '.join(names)}, the data set has {there}: "
                         "no object in common")
    return objects


def targets_of(frame: Any, dataset: Any, objects: dict[str, EvaluatedObject], min_visib: float
               ) -> tuple[list[InstanceResult], list[InstanceResult]]:
    """Instances that must be found, and known ones that need not be."""
    targets, ignored = [], []
    wanted = {id(item) for items in wanted_instances(
        getattr(dataset, "targets", {}), frame, min_visib).values() for item in items}
    for row, instance in enumerate(frame.instances):
        model = dataset.models.get(instance.obj_id)
        if model is None or model.name not in objects:
            continue
        item = InstanceResult(frame.scene_id, frame.im_id, row, model.name,
                              float(instance.visib_fract), objects[model.name].spec.diameter,
                              np.asarray(instance.T_cam_obj, dtype=np.float64))
        ahead = amodal_box(item.T_true, objects[model.name].outline, frame.K) is not None
        (targets if id(instance) in wanted and ahead else ignored).append(item)
    return targets, ignored


def true_box(item: InstanceResult, objects: dict[str, EvaluatedObject],
             camera: Camera) -> np.ndarray:
    """Box xyxy (4,) of the whole object in the image, reaching over its edge if need be."""
    return amodal_box(item.T_true, objects[item.name].outline, camera.K)


def score_frame(found: ObjectPoseFrame, targets: Sequence[InstanceResult],
                ignored: Sequence[InstanceResult], objects: dict[str, EvaluatedObject],
                camera: Camera, result: EvaluationResult) -> None:
    """Pair the estimates of one frame with its targets and write the errors into these."""
    if result.boxes != "oracle":
        for item, overlap in zip(targets, _detection_overlaps(found.detections, targets, objects,
                                                              camera)):
            item.box_iou = overlap
    free, spare = list(targets), list(ignored)
    for estimate in sorted(found.objects, key=lambda item: -item.score):
        if estimate.class_id not in objects:
            continue
        for candidates in (free, spare):
            item = _nearest(estimate, candidates, objects[estimate.class_id], camera)
            if item is not None:
                candidates[:] = [other for other in candidates if other is not item]
                _write_errors(item, estimate, objects[item.name], camera)
                break
        else:
            count = result.false_positives.get(estimate.class_id, 0)
            result.false_positives[estimate.class_id] = count + 1


def _nearest(estimate: ObjectPose, candidates: Sequence[InstanceResult], known: EvaluatedObject,
             camera: Camera) -> InstanceResult | None:
    """The target of its class that an estimate is about, if there is one."""
    best, best_distance = None, np.inf
    for item in candidates:
        if item.name != estimate.class_id:
            continue
        distance = errors.add_s(estimate.T_cam_obj, item.T_true, known.vertices, known.tree)
        if distance > MATCH_DISTANCE * known.spec.diameter:
            estimated = amodal_box(estimate.T_cam_obj, known.outline, camera.K)
            truth = amodal_box(item.T_true, known.outline, camera.K)
            if estimated is None or truth is None or iou(estimated, truth)[0] < MATCH_IOU:
                continue
        if distance < best_distance:
            best, best_distance = item, distance
    return best


def _write_errors(item: InstanceResult, estimate: ObjectPose, known: EvaluatedObject,
                  camera: Camera) -> None:
    T_est, T_true = estimate.T_cam_obj, item.T_true
    near = known.finder.nearest(T_true, T_est)
    item.T_est, item.score = T_est, float(estimate.score)
    item.add = errors.add(T_est, T_true, known.vertices)
    item.add_s = errors.add_s(T_est, T_true, known.vertices, known.tree)
    item.error = item.add_s if errors.is_symmetric(known.spec) else item.add
    item.reprojection_px = errors.reprojection_error(T_est, near, known.vertices, camera)
    item.rotation_deg, item.translation = errors.rotation_translation_error(T_est, near)
    if estimate.covariance is not None:
        difference = errors.pose_difference(T_est, near)
        item.mahalanobis2 = float(difference @ np.linalg.solve(estimate.covariance, difference))


def _detection_overlaps(detections: Sequence[Detection2D], targets: Sequence[InstanceResult],
                        objects: dict[str, EvaluatedObject], camera: Camera) -> list[float]:
    """Overlap of every target's box with its own detection, one to one, best score first."""
    truths = [true_box(item, objects, camera) for item in targets]
    overlaps = [0.0] * len(targets)
    free = set(range(len(targets)))
    for detection in sorted(detections, key=lambda item: -item.score):
        rows = [row for row in free if targets[row].name == detection.class_id]
        if not rows:
            continue
        found = iou(xyxy_from_xywh(detection.box_xywh), np.array([truths[row] for row in rows]))
        best = int(np.argmax(found))
        if found[best] > 0.1:  # else it is about something else
            overlaps[rows[best]] = float(found[best])
            free.discard(rows[best])
    return overlaps


def spread(frames: Sequence[Any], limit: int) -> list[Any]:
    """At most ``limit`` frames (0 = all), evenly over the sequence."""
    if not 0 < limit < len(frames):
        return list(frames)
    return [frames[i * len(frames) // limit] for i in range(limit)]


def data_name(dataset: Any) -> str:
    """``root:split`` of a data set."""
    return f"{getattr(dataset, 'root', '?')}:{getattr(dataset, 'split', '?')}"

