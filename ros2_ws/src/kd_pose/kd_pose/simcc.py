"""SimCC: a keypoint as two classifications, one over the bins of each axis.

Li et al., ECCV 2022, "SimCC: a Simple Coordinate Classification Perspective for Human Pose
Estimation", in the form that RTMPose and DWPose use (Jiang et al., arXiv 2303.07399): half-pixel
bins, Gaussian targets whose peak is 1, raw logits as scores. Training encodes its targets here and
the runtime decodes here.

Convention: bin b stands for the coordinate b / split_ratio in input pixels, so 2 * W bins at split
ratio 2 end half a pixel before W. Everything equals mmpose's ``SimCCLabel`` (``normalize=False``)
to the bit under NumPy 2; under NumPy 1, where mmpose rounds earlier, targets to 2e-7. rtmlib takes
the mean of both axes' maxima as score, this the smaller one; positions are the same wherever both
scores are above 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

WINDOW = 3.0  # sigmas of a Gaussian that have to touch the input for the keypoint to count


def default_sigma(bins: int) -> float:
    """Sigma in bins of an axis: sqrt(bins / 16) in the two decimals of the published settings.

    (4.9, 5.66) for 192x256 pixels and (6, 6.93) for 288x384 (RTMPose, eq. 6).
    """
    return round(math.sqrt(bins / 16), 2)


@dataclass(frozen=True)
class SimccCodec:
    """Targets and decoding for one input size.

    input_size_wh: pixels. sigma: of the targets in bins, x and y; None: `default_sigma`.
    split_ratio: bins a pixel.

    Raises:
        ValueError: a size, sigma or ratio that is not positive; bins that are no whole number.
    """

    input_size_wh: tuple[int, int] = (192, 256)
    sigma: tuple[float, float] | None = None
    split_ratio: float = 2.0

    def __post_init__(self) -> None:
        size = tuple(int(value) for value in self.input_size_wh)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"input_size_wh must be two positive, got {self.input_size_wh}")
        bins = [self.split_ratio * value for value in size]
        if not self.split_ratio > 0 or any(value != round(value) for value in bins):
            raise ValueError("split_ratio must be positive and give whole numbers of bins, got "
                             f"{self.split_ratio} for {size}")
        sigma = self.sigma or tuple(default_sigma(round(value)) for value in bins)
        if len(sigma) != 2 or not all(0 < value < math.inf for value in sigma):
            raise ValueError(f"sigma must be two positive numbers, got {self.sigma}")
        object.__setattr__(self, "input_size_wh", size)
        object.__setattr__(self, "sigma", tuple(float(value) for value in sigma))

    @property
    def bins(self) -> tuple[int, int]:
        """Number of bins along x and y."""
        w, h = self.input_size_wh
        return round(w * self.split_ratio), round(h * self.split_ratio)

    @cached_property
    def _gaussians(self) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """Per axis: targets (places, bins) of every place in reach, and the row of place 0.

        A target depends on bin minus place alone, so all are windows on one row of numbers.
        """
        return tuple(_windows(bins, sigma) for bins, sigma in zip(self.bins, self.sigma))

    def encode(
        self, keypoints: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Training targets -> target_x (..., K, Wx), target_y (..., K, Wy), weight (..., K).

        keypoints: (..., K, 2) in input pixels. weight: (..., K), 0 where a keypoint is not
        labelled (its coordinates do not matter then). All results are float32. The targets are
        exp(-(b - m)^2 / 2 sigma^2) over the bins b around the bin m = round(split_ratio *
        coordinate), zeros where the weight is 0. A keypoint whose Gaussian lies more than `WINDOW`
        sigmas outside along either axis gets weight 0.

        Raises:
            ValueError: shapes that do not fit, or a labelled keypoint that is not finite.
        """
        keypoints, weight = np.asarray(keypoints), np.asarray(weight)
        if keypoints.shape != (*weight.shape, 2):
            raise ValueError(f"keypoints must be (..., K, 2) and weight (..., K), got "
                             f"{keypoints.shape} and {weight.shape}")
        labelled = weight > 0
        if not np.isfinite(keypoints[labelled]).all():
            raise ValueError("keypoints with a weight above 0 must be finite")
        place = np.around(np.where(labelled[..., None], keypoints, 0) * self.split_ratio)
        radius = WINDOW * np.array(self.sigma)
        labelled &= ((place - radius < self.bins) & (place + radius + 1 >= 0)).all(axis=-1)
        place = np.where(labelled[..., None], place, 0).astype(np.int64)
        targets = [windows[origin - place[..., axis]]
                   for axis, (windows, origin) in enumerate(self._gaussians)]
        for target in targets:
            target[~labelled] = 0.0
        return targets[0], targets[1], np.where(labelled, weight, 0).astype(np.float32)

    def decode(self, simcc_x: np.ndarray, simcc_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (..., K, Wx) and (..., K, Wy) -> keypoints (..., K, 2) and scores (..., K).

        keypoints: float32, input pixels, the best bin of each axis. scores: float32, the smaller
        of the two raw maxima: about 1 for a sure keypoint of a trained network, but not bounded.
        A keypoint with a score of 0 or less has no place: -1 / split_ratio on both axes, as in
        mmpose. A score that is not finite becomes 0.

        Raises:
            ValueError: shapes that do not fit the codec.
        """
        simcc_x, simcc_y = np.asarray(simcc_x), np.asarray(simcc_y)
        leading = simcc_x.shape[:-1]
        wx, wy = self.bins
        if not leading or simcc_x.shape != (*leading, wx) or simcc_y.shape != (*leading, wy):
            raise ValueError(f"simcc_x and simcc_y must be (..., K, {wx}) and (..., K, {wy}), got "
                             f"{simcc_x.shape} and {simcc_y.shape}")
        (x, peak_x), (y, peak_y) = _best(simcc_x), _best(simcc_y)
        scores = np.minimum(peak_x, peak_y).astype(np.float32, copy=False)
        keypoints = np.empty((len(scores), 2), dtype=np.float32)
        keypoints[:, 0], keypoints[:, 1] = x, y
        sound = (scores > 0) & (scores < np.inf)
        if not sound.all():
            keypoints[~sound] = -1.0
            scores[~np.isfinite(scores)] = 0.0
        keypoints /= np.float32(self.split_ratio)
        return keypoints.reshape(*leading, 2), scores.reshape(leading)


def _windows(bins: int, sigma: float) -> tuple[np.ndarray, int]:
    reach = math.ceil(WINDOW * sigma) + 1
    offsets = np.arange(-(bins + reach), bins + reach, dtype=np.float64)
    row = np.exp(-(offsets**2) / (2 * sigma**2)).astype(np.float32)
    return sliding_window_view(row, bins), bins + reach


def _best(simcc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and value of the largest of each row, (rows,) both."""
    rows = simcc.reshape(-1, simcc.shape[-1])
    index = rows.argmax(axis=1)
    return index, rows[np.arange(len(rows)), index]


def merge_flipped(
    simcc: Sequence[np.ndarray], flipped: Sequence[np.ndarray], mirror: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the logits of an image and of its mirror image -> x (..., K, Wx), y (..., K, Wy).

    simcc, flipped: logits (x, y) of both. mirror: (K,) the keypoint that each becomes in a mirror,
    such as ``kd_pose.wholebody_keypoints.FLIP``. As in the published flip tests the bins of x are
    only reversed: since pixel i becomes W - 1 - i, the mirrored view speaks one bin too far right.
    """
    flipped_x, flipped_y = (logits[..., mirror, :] for logits in flipped)
    return (simcc[0] + flipped_x[..., ::-1]) * 0.5, (simcc[1] + flipped_y) * 0.5
