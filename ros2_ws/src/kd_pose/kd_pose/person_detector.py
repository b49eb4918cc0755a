"""Where the people of an image are: one door to this project's detectors and to published ones.

A vote network of task "object_detector" that knows the class `person` and an imported YOLOX or
RTMDet file (`kd-pose-train import`) answer the same question in the same form; the manifest in the
file says which it is and how it wants its pictures. No state between images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kd_pose.boxes import nms, xywh_from_xyxy
from kd_pose.crop import apply_affine, corner_affine, invert_affine
from kd_pose.detector_outputs import (
    Candidates,
    decode_boxes_scores,
    decode_dets_labels,
    decode_rtmdet_maps,
    decode_yolox,
    grid_cells,
)
from kd_pose.estimator import check_image
from kd_pose.manifest import (
    ModelFileError,
    PersonDetectorManifest,
    read_manifest,
    require_task,
)
from kd_pose.network import CropNetwork
from kd_pose.results import PERSON, Detection2D
from kd_pose.vote_network import VoteNetwork

TASKS = ("object_detector", "person_detector")
# Suppression looks at no more boxes than this, the best ones (mmdeploy's files: 1000 to 5000).
MAX_CANDIDATES = 1000
# What is left of a box inside the image must have sides of at least this, else it is dropped.
MIN_SIDE_PX = 1.0


class PersonDetector(Protocol):
    """A loaded detector. description: engine, device and precision in words.

    Not for several threads at once.
    """

    description: str
    manifest: object

    def detect(
        self,
        image: np.ndarray,
        channel_order: str = "bgr",
        score_threshold: float | None = None,
        max_people: int = 20,
    ) -> list[Detection2D]:
        """People in the image uint8 (H, W, 3), best first, class `person`.

        channel_order: of the image, "bgr" or "rgb". score_threshold: 0..1, None = the
        manifest's. Boxes have continuous edges in image pixels (see `crop.py`).
        Raises ValueError for arguments that cannot be used.
        """
        ...

    def warm_up(self, n: int = 1) -> None: ...

    def close(self) -> None: ...


def open_person_detector(
    path: str | os.PathLike,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
    threads: int = 0,
) -> PersonDetector:
    """Load the detector in an ONNX file with a manifest.

    Raises ModelFileError, naming the file, if it is missing, broken, for another task, knows no
    class `person`, or contradicts its manifest; BackendError as `backends.open_session`.
    """
    manifest = read_manifest(path)
    require_task(manifest, TASKS, path)
    engine = dict(backend=backend, device=device, precision=precision, threads=threads)
    if manifest.task == "object_detector":
        return VotePersonDetector(path, **engine)
    return PublishedPersonDetector(path, **engine)


class VotePersonDetector:
    """A vote network with two box corners; see `PersonDetector`.

    Its boxes are amodal: they may reach over the edge of the image.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "fp32",
        threads: int = 0,
    ) -> None:
        self._network = VoteNetwork(path, "object_detector", backend=backend, device=device,
                                    precision=precision, threads=threads)
        if PERSON not in self._network.names:
            raise ModelFileError(
                f"{path}: detects {', '.join(self._network.names)}, not {PERSON}"
            )
        self.manifest = self._network.manifest
        self.description = self._network.session.description
        self._class_index = self._network.names.index(PERSON)

    def detect(
        self,
        image: np.ndarray,
        channel_order: str = "bgr",
        score_threshold: float | None = None,
        max_people: int = 20,
    ) -> list[Detection2D]:
        _check(image, score_threshold, max_people)
        return self._network.detect(image, channel_order, score_threshold=score_threshold,
                                    max_instances=max_people, classes=[self._class_index])

    def warm_up(self, n: int = 1) -> None:
        self._network.warm_up(n)

    def close(self) -> None:
        self._network.close()


class PublishedPersonDetector(CropNetwork):
    """A YOLOX or RTMDet file as it was published; see `PersonDetector`.

    Its boxes are cut off at the edges of the image, where those of its training data ended; a box
    of which less than `MIN_SIDE_PX` is left is dropped.
    """

    manifest: PersonDetectorManifest

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "fp32",
        threads: int = 0,
    ) -> None:
        super().__init__(path, "person_detector", backend=backend, device=device,
                         precision=precision, threads=threads)
        missing = [name for name in self.manifest.output_names if name not in self.session.outputs]
        if missing:
            raise ModelFileError(f"{self.path}: no {', '.join(missing)} among its outputs "
                                 f"{', '.join(self.session.outputs)}")
        self._corners, self._strides = grid_cells(self.manifest.input_size, self.manifest.strides)

    @property
    def description(self) -> str:
        return self.session.description

    @property
    def input_name(self) -> str:
        return self.manifest.input_name

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Nothing before it runs: published files leave many of their sizes open."""
        return {}

    def detect(
        self,
        image: np.ndarray,
        channel_order: str = "bgr",
        score_threshold: float | None = None,
        max_people: int = 20,
    ) -> list[Detection2D]:
        _check(image, score_threshold, max_people)
        manifest = self.manifest
        threshold = manifest.score_threshold if score_threshold is None else score_threshold
        image_wh = image.shape[1], image.shape[0]
        M = corner_affine(image_wh, manifest.input_size)
        answers = [output[0] for output in self.run(self.prepare(image, [M], channel_order))]
        boxes, scores = self.decode(answers, float(threshold))
        order = np.argsort(-scores, kind="stable")
        if manifest.layout != "dets_labels":
            order = order[:MAX_CANDIDATES]
            order = order[nms(boxes[order], scores[order], manifest.nms_threshold)]
        corners = apply_affine(invert_affine(M), boxes[order].reshape(-1, 2, 2))
        corners = np.clip(corners, -0.5, np.array(image_wh) - 0.5)
        found = xywh_from_xyxy(corners.reshape(-1, 4))
        return [
            Detection2D(PERSON, min(1.0, float(scores[row])), box)
            for row, box in zip(order, found) if box[2:].min() >= MIN_SIDE_PX
        ][:max_people]

    def _run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        """One image -> the outputs of the manifest, with the batch axis.

        Raises ModelFileError where a shape is not what the layout promises.
        """
        outputs = self.session.run({self.input_name: batch})
        found = tuple(outputs[name] for name in self.manifest.output_names)
        for name, answer, wanted in zip(self.manifest.output_names, found,
                                        answer_shapes(self.manifest, found[0].shape)):
            wanted = (len(batch), *wanted)
            fits = answer.ndim == len(wanted) and all(
                size == want or (want < 0 and size >= -want)
                for size, want in zip(answer.shape, wanted))
            if not fits:
                shape = ", ".join(f"{-n} or more" if n < 0 else str(n) for n in wanted)
                raise ModelFileError(f"{self.path}: {name!r} answers {answer.shape}, its "
                                     f"manifest says ({shape})")
        return found

    def decode(self, answers: Sequence[np.ndarray], threshold: float) -> Candidates:
        """Outputs for one image, without the batch -> boxes (M, 4) in input px, scores (M,)."""
        manifest, index = self.manifest, self.manifest.person_class
        if manifest.layout in ("yolox_grid", "yolox_boxes"):
            return decode_yolox(answers[0], self._corners, self._strides, threshold, index,
                                in_pixels=manifest.layout == "yolox_boxes")
        if manifest.layout == "boxes_scores":
            return decode_boxes_scores(*answers, threshold, index)
        if manifest.layout == "rtmdet_maps":
            return decode_rtmdet_maps(answers, self._corners, threshold, index)
        return decode_dets_labels(*answers, threshold, index)


def answer_shapes(
    manifest: PersonDetectorManifest, first: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Shape of every output, without the batch; -n: at least n.

    first: shape of the first answer; how many boxes a file's own suppression leaves is open.
    """
    cells = len(grid_cells(manifest.input_size, manifest.strides)[0])
    least_classes = manifest.person_class + 1
    if manifest.layout == "boxes_scores":
        return [(cells, 4), (cells, -least_classes)]
    if manifest.layout == "dets_labels":
        rows = first[1] if len(first) > 1 else 0
        return [(rows, 5), (rows,)]
    if manifest.layout == "rtmdet_maps":
        sizes = [(manifest.input_size[1] // s, manifest.input_size[0] // s)
                 for s in manifest.strides]
        return [(-least_classes, *size) for size in sizes] + [(4, *size) for size in sizes]
    return [(cells, -(5 + least_classes))]


def _check(image: np.ndarray, score_threshold: float | None, max_people: int) -> None:
    check_image(image)
    if score_threshold is not None and not 0.0 <= score_threshold <= 1.0:
        raise ValueError(f"score_threshold must be 0 to 1, got {score_threshold}")
    if max_people < 1:
        raise ValueError(f"max_people must be at least 1, got {max_people}")
