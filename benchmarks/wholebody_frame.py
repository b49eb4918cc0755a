"""Whole frames with 1 and 4 people: detector, crops, pose network, decoding, tracks.

kd_pose's `PeopleStream` against rtmlib's PoseTracker, with the same two ONNX files (YOLOX-m
at 640x640, RTMPose for 133 keypoints at 256x192) and the same engine. Tracks give kd_pose its
boxes; its detector runs in every 10th frame, or while nothing moves but those who are tracked in
the 30th, then the 60th, then every 120th, which is what is timed. The camera of the pictures
stands, or moves. rtmlib's detector runs in every frame, or in every 10th. A third pair of files
costs next to nothing: what is left is all that is not the networks. A detector whose sizes are
open is run by kd_pose with an input of the picture's shape, by rtmlib with its square.

Everything has one thread, and times are CPU times, which other programs hardly change, as means
over the 120 frames of a cycle. rtmlib does the same in all tens of frames, so 30 of each cycle are
timed, and two where its detector runs in all.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from benchmarks.published_networks import NO_NETWORKS, SQUARE, detector_file, pose_file
from benchmarks.timing import Row, row

PEERS = ("rtmlib",)
INSTALL = "--no-deps -r tools/requirements/bench.txt"
EVERY = 10  # frames from detection to detection of rtmlib, and of kd_pose at the most
STILL = 30  # from the first to the second detection of kd_pose where nothing else moves
CYCLE = 4 * STILL  # the same after that
PEERS_FROM = CYCLE - STILL  # kd_pose's detections: 0, 30, 90, and then 120 frames each further
OURS = 2  # place of kd_pose among the streams
WIDTH, HEIGHT = 1920, 1080
WIDE = (640, 384)  # 16:9 and the least multiples of 32
PERSON_WH = (200, 500)
FRAME_S = 1 / 30
GOAL_ALWAYS, GOAL_EVERY = 3.0, 1.3
MAX_DIFFERENCE_PX = 2.5  # a pixel of the network's input is 2.4 of the picture


@dataclass(frozen=True)
class Case:
    """size: of the pose network, or ``NO_NETWORKS``. detector_wh: its input, as the manifest in
    the file says; rtmlib's is 640x640. stands: whether the camera does."""

    size: str
    people: int
    engine: str = "onnxruntime"
    goals: tuple[float, float] = (GOAL_ALWAYS, GOAL_EVERY)
    detector_wh: tuple[int, int] = SQUARE
    stands: bool = True

    @property
    def name(self) -> str:
        people = "1 person" if self.people == 1 else f"{self.people} people"
        wide = "" if self.detector_wh == SQUARE else ", detector {}x{}".format(*self.detector_wh)
        moves = "" if self.stands else ", camera moves"
        return f"frame, {people}, {self.size}, {self.engine}{wide}{moves}, vs rtmlib"


def cases() -> list[Case]:
    sizes = ("rtmpose_m", "rtmpose_t", NO_NETWORKS)
    found = [Case(size, people, goals=(0, 0) if size == NO_NETWORKS else (GOAL_ALWAYS, GOAL_EVERY))
             for size in sizes for people in (1, 4)]
    found += [Case("rtmpose_m", people, stands=False) for people in (1, 4)]
    found += [Case(size, people, detector_wh=WIDE) for size in sizes[:2] for people in (1, 4)]
    found += [Case("rtmpose_m", people, detector_wh=WIDE, stands=False) for people in (1, 4)]
    return found + ([Case("rtmpose_m", 4, "openvino")] if find_spec("openvino") else [])


def run(cycles: int = 3) -> list[Row]:
    """Every case in a fresh process, on a core of its own."""
    rows = []
    for case in cases():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows += pool.submit(measure, case, cycles).result()
    return rows


def _use_one_core() -> None:
    """The engines' own choice of threads follows the process's cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def person_boxes(people: int) -> np.ndarray:
    """(n, 4) xyxy, side by side so that nobody's crop shows another."""
    centres = np.array([[(2 * i + 1) * WIDTH / (2 * people), HEIGHT / 2] for i in range(people)])
    half = np.array(PERSON_WH) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def pictures(people: int, frames: int = STILL, stands: bool = True) -> list[np.ndarray]:
    """Dark patches and noise; a blob of one channel each in two corners and the middle of
    everyone's box.

    People walk one pixel a frame to the right and back. stands: the patches do not move.
    """
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 60, (HEIGHT // 40, WIDTH // 40, 1)).repeat(40, 0).repeat(40, 1)
    reach = np.arange(-12, 13)
    blob = 255 * np.exp(-(reach[:, None] ** 2 + reach**2) / (2 * 5.0**2))
    images = []
    for index in range(frames):
        noise = rng.integers(0, 20, (HEIGHT, WIDTH, 3))
        image = (noise + np.roll(patches, 0 if stands else 20 * index, axis=1)).astype(np.uint8)
        for x0, y0, x1, y1 in person_boxes(people).astype(int):
            shift = min(index % EVERY, EVERY - index % EVERY)
            places = ((x0, y0), ((x0 + x1) // 2, (y0 + y1) // 2), (x1, y1))
            for channel, (x, y) in enumerate(places):
                part = image[y - 12:y + 13, x + shift - 12:x + shift + 13, channel]
                part[...] = np.maximum(part, blob)
        images.append(image)
    return images


@contextlib.contextmanager
def _single_thread_sessions() -> Iterator[None]:
    """rtmlib gives its onnxruntime sessions no options; these say one thread."""
    import onnxruntime

    original = onnxruntime.InferenceSession

    def session(path_or_bytes, providers):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return original(path_or_bytes, options, providers=providers)

    onnxruntime.InferenceSession = session
    try:
        yield
    finally:
        onnxruntime.InferenceSession = original


def peer_stream(case: Case, pose: Path, detector: Path, every: int) -> Callable:
    """Picture -> keypoints (n, 133, 2), by rtmlib as its users call it."""
    from rtmlib import Custom, PoseTracker

    solution = partial(Custom, det_class="YOLOX", det=str(detector), det_input_size=(640, 640),
                       pose_class="RTMPose", pose=str(pose), pose_input_size=(192, 256))
    with _single_thread_sessions(), contextlib.redirect_stdout(io.StringIO()):
        tracker = PoseTracker(solution, det_frequency=every, backend=case.engine)
    return lambda image: tracker(image)[0]


def our_stream(case: Case, pose: Path, detector: Path) -> Callable:
    """Picture -> keypoints (n, 133, 2), by what the node runs, with its settings."""
    from kd_pose.people_stream import PeopleStream, StreamOptions
    from kd_pose.wholebody_pose import WholebodyPoseEstimator

    # rtmlib leaves the arithmetic to the engine: OpenVINO takes bfloat16 where a CPU has it.
    precision = "auto" if case.engine == "openvino" else "fp32"
    estimator = WholebodyPoseEstimator(pose, detector, backend=case.engine, device="cpu",
                                       precision=precision, threads=1)
    options = StreamOptions(detector_every_n=EVERY, detector_still_n=STILL)
    stream, stamps = PeopleStream(estimator, options), count()

    def process(image: np.ndarray) -> np.ndarray:
        frame = stream.estimate(image, next(stamps) * FRAME_S)
        return np.array([person.keypoints_xy for person in frame.people])

    return process


def measure(case: Case, cycles: int) -> list[Row]:
    """Two rows: rtmlib's detector in every frame, and as rarely as ours."""
    cv2.setNumThreads(1)
    pose = pose_file(case.size)
    detector = detector_file(person_boxes(case.people) * 640 / WIDTH, case.size == NO_NETWORKS,
                             case.detector_wh)
    _use_one_core()
    streams = [peer_stream(case, pose, detector, 1), peer_stream(case, pose, detector, EVERY),
               our_stream(case, pose, detector)]
    ms, difference = _times(case, streams, cycles)
    return [
        row(f"{case.name} det_frequency={every}", (ms[peer], ms[2]), goal,
            f"keypoints within {difference:.1f} px, quartiles {_quartiles(ms[peer])} vs "
            f"{_quartiles(ms[2])}", difference <= MAX_DIFFERENCE_PX)
        for peer, every, goal in zip((0, 1), (1, EVERY), case.goals)
    ]


def _times(case: Case, streams: list[Callable], cycles: int) -> tuple[np.ndarray, float]:
    """Milliseconds a frame (3, cycles), and the largest difference on detector frames, px."""
    images, difference = pictures(case.people, stands=case.stands), 0.0
    seconds = np.zeros((3, cycles + 1, CYCLE))
    for cycle in range(cycles + 1):
        for index in range(CYCLE):
            image, found = images[index % STILL], [None, None, None]
            for which, stream in enumerate(streams):
                if which == OURS or index >= PEERS_FROM and (
                        which or index % (STILL // 2) == 0):
                    start = time.process_time()
                    found[which] = stream(image)
                    seconds[which, cycle, index] = time.process_time() - start
            if index >= PEERS_FROM:
                gap = _difference(found[1], found[OURS], case.people)
                if index == PEERS_FROM or not np.isfinite(gap):
                    difference = max(difference, gap)
    ms = 1e3 * seconds[:, 1:]  # the first cycle warms up
    peers = ms[:, :, PEERS_FROM:]
    per_frame = [peers[0][:, ::STILL // 2].mean(axis=1), peers[1].mean(axis=1),
                 ms[OURS].mean(axis=1)]
    return np.stack(per_frame), difference


def _difference(a: np.ndarray, b: np.ndarray, people: int) -> float:
    """Largest distance along an axis between people in order of x; inf where somebody is lost."""
    if len(a) != people or len(b) != people:
        return float("inf")
    a, b = (items[np.argsort(items[:, :, 0].mean(axis=1))] for items in (a, b))
    return float(np.abs(a - b).max())


def _quartiles(values: np.ndarray) -> str:
    return "{:.1f} to {:.1f}".format(*np.percentile(values, [25, 75]))
