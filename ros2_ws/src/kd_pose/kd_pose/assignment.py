"""The best one-to-one assignment as a whole: a robot has no scipy."""

from __future__ import annotations

import numpy as np


def best_pairs(gain: np.ndarray) -> list[tuple[int, int]]:
    """One-to-one pairs (row, column) of the largest sum of `gain` (N, M) >= 0, none with gain 0.

    Kuhn-Munkres by shortest augmenting paths, O(N^2 M); scipy is not on the robot.
    """
    gain = np.asarray(gain, dtype=np.float64)
    if gain.size == 0 or not gain.any():
        return []
    if gain.shape[0] > gain.shape[1]:
        return sorted((row, column) for column, row in best_pairs(gain.T))
    rows, columns = gain.shape
    cost = gain.max() - gain
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1)  # the row that holds a column
    for start in range(rows):
        distance, before = np.full(columns, np.inf), np.full(columns, -1)
        done = np.zeros(columns, dtype=bool)
        row, column = start, -1
        while row >= 0:
            reach = cost[row] - row_price[row] - column_price
            reach += 0.0 if column < 0 else distance[column]
            nearer = ~done & (reach < distance)
            distance[nearer], before[nearer] = reach[nearer], column
            column = int(np.argmin(np.where(done, np.inf, distance)))
            done[column] = True
            row = int(row_of[column])
        length = distance[column]
        # Prices keep all reduced costs >= 0 and those of held columns at 0.
        reached = done & (np.arange(columns) != column)
        row_price[start] += length
        row_price[row_of[reached]] += length - distance[reached]
        column_price[reached] -= length - distance[reached]
        while column >= 0:
            previous = int(before[column])
            row_of[column] = start if previous < 0 else row_of[previous]
            column = previous
    return sorted((int(row), column) for column, row in enumerate(row_of)
                  if row >= 0 and gain[row, column] > 0)
