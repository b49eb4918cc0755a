"""COCO's matching of estimates to people, and precision over recall, for all pictures at once.

Equal to COCOeval (Lin et al., and xtcocotools' whole-body variant) to rounding, but vectorised: a
*case* is one picture under one rule (part of the body, range of areas), and all cases take their
k-th best estimate at the same time.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_ESTIMATES = 20  # of a picture


def match(oks: np.ndarray, ignored: np.ndarray,
          crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greedy one-to-one matching, best estimate first -> matched, ignored (C, T, D) bool.

    For every threshold an estimate takes the most similar free person that is a target; failing
    that, the most similar one that is ignored. Of equal ones the last is taken, as in COCOeval.

    Args:
        oks: (C, D, G) of C cases, D estimates, best first, and G people; -1 where there is none.
        ignored, crowd: (C, G) bool. A crowd can be taken any number of times.
    """
    cases, estimates, people = oks.shape
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    # The last of equals: people in reverse, then the first of equals.
    oks, ignored, crowd = oks[..., ::-1], ignored[:, None, ::-1], crowd[:, None, ::-1]
    matched = np.zeros((cases, len(least), estimates), dtype=bool)
    spent_on_ignored = np.zeros_like(matched)
    taken = np.zeros((cases, len(least), people), dtype=bool)
    for rank in range(estimates):
        # Most estimates are near nobody.
        active = np.flatnonzero((oks[:, rank] >= least[0]).any(axis=1))
        if not len(active):
            continue
        value = oks[active, rank][:, None, :]
        possible = (value >= least[:, None]) & (~taken[active] | crowd[active])
        target = possible & ~ignored[active]
        possible = np.where(target.any(axis=2, keepdims=True), target, possible)
        best = np.where(possible, value, -2.0).argmax(axis=2)
        found = possible.any(axis=2)
        case, threshold = np.nonzero(found)
        person = best[case, threshold]
        taken[active[case], threshold, person] = True
        matched[active, :, rank] = found
        spent_on_ignored[active[case], threshold, rank] = ignored[active[case], 0, person]
    return matched, spent_on_ignored


def precision_recall(scores: np.ndarray, matched: np.ndarray, ignored: np.ndarray,
                     targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision at 101 recalls (T, 101) and the recall reached (T,).

    Args:
        scores: (N,) of all estimates of all pictures, in the order of the pictures.
        matched, ignored: (T, N) bool. targets: how many there are.
    """
    order = np.argsort(-scores, kind="stable")
    matched, counted = matched[:, order], ~ignored[:, order]
    true = np.cumsum(matched & counted, axis=1, dtype=np.float64)
    false = np.cumsum(~matched & counted, axis=1, dtype=np.float64)
    recall = true / targets
    precision = true / (false + true + np.spacing(1))
    # precision at a recall is the best one at that recall or above
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    curve = np.zeros((len(matched), len(RECALLS)))
    for row in range(len(matched)):
        place = np.searchsorted(recall[row], RECALLS, side="left")
        reached = place < recall.shape[1]
        curve[row, reached] = precision[row, place[reached]]
    reached = recall[:, -1] if recall.shape[1] else np.zeros(len(matched))
    return curve, reached
