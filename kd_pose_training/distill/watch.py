"""Tells of a teacher whose gate lets nothing pass: its student learns from the truth alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from kd_pose_training.distill.config import DistillConfig

GATED = ("align", "naive_votes", "naive_scores")  # terms of accepted objects only
USED = "teacher_used"
STRETCH = 20  # iterations; a bad batch, or what is left of a stopped run, says little


def taught_nothing(rows: Iterable[Mapping[str, float]]) -> bool:
    """Whether no object passed the gate in any of a run's logged rows that tell of a gate."""
    told = [row for row in rows if USED in row]
    return bool(told) and not any(_heard(row) for row in told)


def _heard(terms: Mapping[str, float]) -> bool:
    # A crop can pass the gate of errors without a cell above the score threshold.
    return terms[USED] > 0 and any(terms.get(name) for name in GATED)


class TeacherWatch:
    """Counts, without waiting for the device, the batches in which a teacher taught."""

    def __init__(self, distill: DistillConfig) -> None:
        self.distill, self.warned = distill, False
        self._seen, self._heard = 0, torch.tensor(False)

    def hear(self, terms: Mapping[str, Tensor]) -> None:
        """The terms of one batch."""
        if USED not in terms:
            return
        used = terms[USED].detach()
        gated = sum(terms[name].detach().abs() for name in GATED if name in terms)
        self._heard = self._heard.to(used.device) | ((used > 0) & (gated > 0))
        self._seen += 1

    def remark(self, iterations: int) -> str:
        """What is wrong since the last remark, once; empty: nothing, or too early to say.

        Args:
            iterations: of the whole run.
        """
        if self._seen < min(STRETCH, iterations):
            return ""
        silent, seen = not bool(self._heard), self._seen
        self._seen, self._heard = 0, torch.zeros_like(self._heard)
        if self.warned or not silent:
            return ""
        self.warned = True
        return (f"in {seen} iterations no object passed the teacher's gate, so the terms of "
                f"distill but features taught nothing: distill.score_threshold is "
                f"{self.distill.score_threshold:g}, distill.max_error {self.distill.max_error:g}, "
                f"distill.max_box_error {self.distill.max_box_error:g}; a lower threshold or a "
                "larger error lets more pass (a max_error of 0 all), if the teacher suits the "
                "pictures")
