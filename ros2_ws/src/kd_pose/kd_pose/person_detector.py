"""Where the people of an image are: one door to this project's detectors and to published ones.

A vote network of task "object_detector" that knows the class `person` and an imported YOLOX or
RTMDet file (`kd-pose-train import`) answer the same question in the same form; the manifest in the
file says which it is and how it wants its pictures. No state between images.
"""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np

from kd_pose.backends import open_session
from kd_pose.boxes import nms, xywh_from_xyxy
from kd_pose.crop import apply_affine, corner_affine, crop_batch, invert_affine
from kd_pose.detector_outputs import (
    Candidates,
    decode_boxes_scores,
    decode_dets_labels,
    decode_rtmdet_maps,
    decode_yolox,
    grid_cells,
)
from kd_pose.manifest import (
    ModelFileError,
    PersonDetectorManifest,
    read_manifest,
    require_task,
)
from kd_pose.results import Detection2D
from kd_pose.vote_network import VoteNetwork

PERSON = "person"
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


class PublishedPersonDetector:
    """A YOLOX or RTMDet file as it was published; see `PersonDetector`.

    Its boxes are cut off at the edges of the image, where those of its training data ended; a box
    of which less than `MIN_SIDE_PX` is left is dropped.
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
        self.path = str(path)
        manifest = read_manifest(path)
        require_task(manifest, ("person_detector",), path)
        self.manifest: PersonDetectorManifest = manifest
        self._session = open_session(path, backend, device, precision, threads)
        self.description = self._session.description
        self._corners, self._strides = grid_cells(manifest.input_size, manifest.strides)
        width, height = manifest.input_size
        self._buffer = np.empty((1, 3, height, width), dtype=np.float32)
        self._check_ports()

    def _check_ports(self) -> None:
        """Names and what the file says of its sizes; -1 are those that it leaves open."""
        manifest, inputs = self.manifest, self._session.inputs
        if list(inputs) != [manifest.input_name]:
            raise ModelFileError(f"{self.path}: its inputs are {', '.join(inputs)}, its manifest "
                                 f"says {manifest.input_name}")
        found = inputs[manifest.input_name]
        expected = self._buffer.shape
        if len(found) != 4 or any(a not in (-1, b) for a, b in zip(found, expected)):
            raise ModelFileError(f"{self.path}: {manifest.input_name!r} has the shape {found}, "
                                 f"its manifest says {expected}")
        missing = [name for name in manifest.output_names if name not in self._session.outputs]
        if missing:
            raise ModelFileError(f"{self.path}: no {', '.join(missing)} among its outputs "
                                 f"{', '.join(self._session.outputs)}")

    def detect(
        self,
        image: np.ndarray,
        channel_order: str = "bgr",
        score_threshold: float | None = None,
        max_people: int = 20,
    ) -> list[Detection2D]:
        _check(image, score_threshold, max_people)
        if channel_order not in ("bgr", "rgb"):
            raise ValueError(f"channel_order must be bgr or rgb, got {channel_order!r}")
        manifest = self.manifest
        threshold = manifest.score_threshold if score_threshold is None else score_threshold
        image_wh = image.shape[1], image.shape[0]
        M = corner_affine(image_wh, manifest.input_size)
        batch = crop_batch(image, [M], manifest.input_size, manifest.mean, manifest.std,
                           channel_order != manifest.channel_order, out=self._buffer)
        boxes, scores = self.decode(self._run(batch), float(threshold))
        order = np.argsort(-scores, kind="stable")
        if manifest.layout != "dets_labels":
            order = order[:MAX_CANDIDATES]
            order = order[nms(boxes[order], scores[order], manifest.nms_threshold)]
        corners = apply_affine(invert_affine(M), boxes[order].reshape(-1, 2, 2))
        limits = np.array(image_wh) - 0.5
        corners = np.clip(corners, -0.5, limits)
        found = xywh_from_xyxy(corners.reshape(-1, 4))
        return [
            Detection2D(PERSON, min(1.0, float(scores[row])), box)
            for row, box in zip(order, found) if box[2:].min() >= MIN_SIDE_PX
        ][:max_people]

    def _run(self, batch: np.ndarray) -> list[np.ndarray]:
        outputs = self._session.run({self.manifest.input_name: batch})
        return [outputs[name] for name in self.manifest.output_names]

    def decode(self, outputs: list[np.ndarray], threshold: float) -> Candidates:
        """Outputs of one image, with the batch axis -> boxes (M, 4) in input px, scores (M,).

        Raises ModelFileError where a shape is not what the layout promises: a file whose sizes
        are open tells them only when it runs.
        """
        manifest, index = self.manifest, self.manifest.person_class
        answers = [output[0] for output in outputs]
        self._check_answers(answers)
        if manifest.layout in ("yolox_grid", "yolox_boxes"):
            return decode_yolox(answers[0], self._corners, self._strides, threshold, index,
                                in_pixels=manifest.layout == "yolox_boxes")
        if manifest.layout == "boxes_scores":
            return decode_boxes_scores(*answers, threshold, index)
        if manifest.layout == "rtmdet_maps":
            return decode_rtmdet_maps(answers, self._corners, threshold, index)
        return decode_dets_labels(*answers, threshold, index)

    def _check_answers(self, answers: list[np.ndarray]) -> None:
        manifest = self.manifest
        for name, answer, wanted in zip(manifest.output_names, answers,
                                        answer_shapes(manifest, len(answers[0]))):
            fits = answer.ndim == len(wanted) and all(
                size == want or (want < 0 and size >= -want)
                for size, want in zip(answer.shape, wanted))
            if not fits:
                shape = ", ".join(f"{-n} or more" if n < 0 else str(n) for n in wanted)
                raise ModelFileError(f"{self.path}: {name!r} answers {answer.shape} for an image, "
                                     f"its manifest says ({shape})")

    def warm_up(self, n: int = 1) -> None:
        """Run `n` times on zeros, so that the first image does not pay for allocation."""
        zeros = np.zeros_like(self._buffer)
        for _ in range(n):
            self._run(zeros)

    def close(self) -> None:
        """Give memory back. The detector cannot be used afterwards."""
        self._session.close()


def answer_shapes(manifest: PersonDetectorManifest, rows: int) -> list[tuple[int, ...]]:
    """Shape of every output for one image, without the batch; -n: at least n.

    rows: how many boxes there are where the layout leaves it open.
    """
    cells = len(grid_cells(manifest.input_size, manifest.strides)[0])
    least_classes = manifest.person_class + 1
    if manifest.layout == "boxes_scores":
        return [(cells, 4), (cells, -least_classes)]
    if manifest.layout == "dets_labels":
        return [(rows, 5), (rows,)]
    if manifest.layout == "rtmdet_maps":
        sizes = [(manifest.input_size[1] // s, manifest.input_size[0] // s)
                 for s in manifest.strides]
        return [(-least_classes, *size) for size in sizes] + [(4, *size) for size in sizes]
    return [(cells, -(5 + least_classes))]


def _check(image: np.ndarray, score_threshold: float | None, max_people: int) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if score_threshold is not None and not 0.0 <= score_threshold <= 1.0:
        raise ValueError(f"score_threshold must be 0 to 1, got {score_threshold}")
    if max_people < 1:
        raise ValueError(f"max_people must be at least 1, got {max_people}")
