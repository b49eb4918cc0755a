"""Surface codes of one crop to 2D-3D pairs: kd_pose.codes against a loop over the pixels.

The network's answer is that for a disc of 20 to 60 % of a 128 x 128 output: 16 bits of random
certainty, mask scores above 0.5. The peer is the same rule written pixel by pixel in plain Python,
on lists, which Python reads several times faster than single entries of arrays.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.timing import Row, interleave, row
from kd_pose.codes import COARSE_BITS, CodePairs, CodeTable, decode

PEERS = ()
BITS, SIDE, STRIDE = 16, 128, 2
MAX_PAIRS = 400
SHARES = (0.2, 0.4, 0.6)  # of the output that the object covers
GOAL = 20.0
MAX_DIFFERENCE = 1e-6


def answer(share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mask scores (h, w) and bit probabilities (bits, h, w) of a disc."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    on_it = np.hypot(x, y) < SIDE * math.sqrt(share / math.pi)
    mask = np.where(on_it, rng.uniform(0.5, 1.0, on_it.shape), 0.1).astype(np.float32)
    return mask, rng.random((BITS, SIDE, SIDE), dtype=np.float32)


def decode_loop(
    table: CodeTable, mask_scores: np.ndarray, code_probabilities: np.ndarray
) -> CodePairs:
    """The peer: `kd_pose.codes.decode`, one pixel after the other."""
    mask, probabilities = mask_scores.tolist(), code_probabilities.tolist()
    found = []
    for y in range(SIDE):
        for x in range(SIDE):
            if mask[y][x] < 0.5:
                continue
            weight, code = mask[y][x], 0
            for bit in range(BITS):
                p = probabilities[bit][y][x]
                code = 2 * code + (p > 0.5)
                if bit < COARSE_BITS:
                    weight *= p if p > 0.5 else 1.0 - p
            found.append((weight, x, y, code))
    found.sort(key=lambda item: -item[0])
    if len(found) > MAX_PAIRS:
        side = math.ceil(math.sqrt(len(found) / MAX_PAIRS))
        best = {}
        for item in found:
            best.setdefault((item[1] // side, item[2] // side), item)
        found = list(best.values())[:MAX_PAIRS]
    weights, xs, ys, codes = (np.array(values) for values in zip(*found))
    pixels = (np.stack([xs, ys], axis=1) + 0.5) * STRIDE - 0.5
    return CodePairs(pixels, table.points[codes], weights, codes >> (BITS - COARSE_BITS))


def run(pairs: int = 40) -> list[Row]:
    return [_case(share, pairs) for share in SHARES]


def _case(share: float, pairs: int) -> Row:
    rng = np.random.default_rng(0)
    table = CodeTable(rng.uniform(-0.1, 0.1, (1 << BITS, 3)))
    answers = [answer(share, rng) for _ in range(5)]

    def peer(index):
        return decode_loop(table, *answers[index % 5])

    def ours(index):
        return decode(table, *answers[index % 5], stride=STRIDE, max_pairs=MAX_PAIRS)

    times = interleave(peer, ours, pairs)
    difference = max(_difference(peer(index), ours(index)) for index in range(5))
    name = f"codes of a crop, object on {100 * share:.0f} %, vs loop"
    return row(name, times, GOAL, f"difference {difference:.1e}", difference <= MAX_DIFFERENCE)


def _difference(a: CodePairs, b: CodePairs) -> float:
    """Largest difference of two answers, whatever their order; infinite if they differ in size."""
    if len(a.points) != len(b.points):
        return math.inf
    order_a, order_b = (np.lexsort(item.pixels.T) for item in (a, b))
    return max(
        float(np.abs(getattr(a, name)[order_a] - getattr(b, name)[order_b]).max())
        for name in ("pixels", "points", "weights", "patches")
    )
