"""Crop and normalise one region of a 1080p image: kd_pose.crop against rtmlib's RTMPose.

Same affine, same mean and std, float32 CHW out of both. The gain depends on how many pixels of the
image stand behind one of the input, so three sizes of box are cut out.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np

from benchmarks.timing import Row, interleave, row
from kd_pose.crop import crop_batch

PEERS = ("rtmlib",)
SIZES = ((192, 256), (288, 384))  # width, height; named height x width as the models are
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
BOXES_XYXY = (
    (700.0, 250.0, 850.0, 500.0),
    (700.0, 250.0, 950.0, 650.0),
    (700.0, 250.0, 1050.0, 830.0),
)
GOAL = 3.0
MAX_DIFFERENCE = 1e-5


def run(pairs: int = 60) -> list[Row]:
    """Every case in a fresh process: what other code did to the heap changes the peer's time."""
    cases = [(size, box, pairs) for size in SIZES for box in BOXES_XYXY]
    context = multiprocessing.get_context("spawn")
    rows = []
    for case in cases:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows.append(pool.submit(_case, *case).result())
    return rows


def _case(size: tuple[int, int], box: tuple[float, ...], pairs: int) -> Row:
    from rtmlib.tools.pose_estimation.pre_processings import bbox_xyxy2cs, get_warp_matrix
    from rtmlib.tools.pose_estimation.rtmpose import RTMPose

    cv2.setNumThreads(1)
    small = np.random.default_rng(0).integers(0, 256, (135, 240, 3), dtype=np.uint8)
    image = cv2.resize(small, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    peer_model = RTMPose.__new__(RTMPose)  # its constructor would load a network
    peer_model.model_input_size, peer_model.mean, peer_model.std = size, MEAN, STD
    center, scale = bbox_xyxy2cs(np.array(box), padding=1.25)
    aspect = size[0] / size[1]
    scale = np.array([max(scale[0], scale[1] * aspect), max(scale[1], scale[0] / aspect)])
    M = get_warp_matrix(center, scale, 0, output_size=size)

    def peer(_):
        cropped = peer_model.preprocess(image, box)[0]
        # what BaseTool.inference does before the network
        return np.ascontiguousarray(cropped.transpose(2, 0, 1), dtype=np.float32)[None]

    buffer = np.empty((1, 3, size[1], size[0]), dtype=np.float32)  # as the estimator keeps one

    def ours(_):
        return crop_batch(image, [M], size, MEAN, STD, False, out=buffer)

    times = interleave(peer, ours, pairs)
    inside = _inside(M, size, image.shape)
    difference = float(np.abs(peer(0) - ours(0))[..., inside].max())
    width, height = int(box[2] - box[0]), int(box[3] - box[1])
    name = f"crop to {size[1]}x{size[0]}, box {height}x{width} of 1080p, vs rtmlib"
    guard = f"difference {difference:.1e}"
    return row(name, times, GOAL, guard, difference <= MAX_DIFFERENCE)


def _inside(M: np.ndarray, size, shape) -> np.ndarray:
    """(H, W) bool: input pixels that lie in the image; outside the two fill differently."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    inverse = cv2.invertAffineTransform(M)
    source = np.stack([x, y], axis=-1) @ inverse[:, :2].T + inverse[:, 2]
    return ((source >= 0) & (source <= (shape[1] - 2, shape[0] - 2))).all(axis=-1)
