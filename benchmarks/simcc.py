"""SimCC: decoding against rtmlib, training targets against mmpose's codec. 133 keypoints, 256x192.

rtmlib's part is `get_simcc_maximum` and the division by the split ratio, as its RTMPose does.
"""

from __future__ import annotations

import numpy as np

from benchmarks.timing import Row, interleave, row
from kd_pose.simcc import SimccCodec

PEERS = ("rtmlib", "mmpose")
INSTALL = "--no-deps -r tools/requirements/bench.txt"
CODEC = SimccCodec((192, 256))
KEYPOINTS = 133
PERSONS = (1, 8)
GOAL_DECODE, GOAL_ENCODE = 1.8, 8.0


def run(pairs: int = 200) -> list[Row]:
    return [_decode(persons, pairs) for persons in PERSONS] + [_encode(max(30, pairs // 4))]


def _decode(persons: int, pairs: int) -> Row:
    from rtmlib.tools.pose_estimation.post_processings import get_simcc_maximum

    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(persons, KEYPOINTS, bins)).astype(np.float32) for bins in CODEC.bins)

    def peer(_):
        places, scores = get_simcc_maximum(x, y)
        return places / CODEC.split_ratio, scores

    def ours(_):
        return CODEC.decode(x, y)

    (theirs, _), (found, scores) = peer(0), ours(0)
    lower = np.minimum(x.max(axis=-1), y.max(axis=-1))  # rtmlib's score is the mean instead
    same = np.array_equal(theirs, found) and np.array_equal(lower, scores)
    times = interleave(peer, ours, pairs)
    return row(f"SimCC decode, {persons} x {KEYPOINTS} keypoints, vs rtmlib", times, GOAL_DECODE,
               f"positions {'equal' if same else 'DIFFER'}", same)


def _encode(pairs: int) -> Row:
    from mmpose.codecs import SimCCLabel

    codec = SimCCLabel(CODEC.input_size_wh, sigma=CODEC.sigma, normalize=False,
                       simcc_split_ratio=CODEC.split_ratio)
    rng = np.random.default_rng(0)
    points = (rng.uniform(-0.1, 1.1, (1, KEYPOINTS, 2)) * CODEC.input_size_wh).astype(np.float32)
    visible = (rng.random((1, KEYPOINTS)) > 0.1).astype(np.float32)

    def peer(_):
        return tuple(codec.encode(points, visible).values())

    def ours(_):
        return CODEC.encode(points, visible)

    difference = max(float(np.abs(a - b).max()) for a, b in zip(peer(0), ours(0)))
    exact = 0.0 if np.__version__ >= "2" else 2e-7  # mmpose computes in float32 under NumPy 1
    times = interleave(peer, ours, pairs)
    return row(f"SimCC targets, {KEYPOINTS} keypoints, vs mmpose", times, GOAL_ENCODE,
               f"difference {difference:.1e}", difference <= exact)
