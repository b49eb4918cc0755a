"""kd_pose.assignment."""

import numpy as np
import pytest

from kd_pose.assignment import best_pairs


def test_best_pairs_is_not_greedy():
    # Greedy takes 0.9 and leaves 0.1: sum 1.0. The best is 0.8 + 0.7.
    assert best_pairs(np.array([[0.9, 0.8], [0.7, 0.1]])) == [(0, 1), (1, 0)]
    assert best_pairs(np.array([[0.0, 0.5], [0.0, 0.4]])) == [(0, 1)]
    assert best_pairs(np.zeros((2, 3))) == best_pairs(np.zeros((0, 3))) == []
    assert best_pairs(np.array([[0.1], [0.2], [0.0]])) == [(1, 0)]


def test_best_pairs_equals_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for _ in range(300):
        gain = rng.random(rng.integers(1, 8, 2))
        gain *= rng.random(gain.shape) < rng.choice([0.3, 1.0])
        pairs = best_pairs(gain)
        rows, columns = optimize.linear_sum_assignment(-gain)
        assert sum(gain[pair] for pair in pairs) == pytest.approx(gain[rows, columns].sum())
        for side in zip(*pairs):
            assert len(set(side)) == len(pairs)
