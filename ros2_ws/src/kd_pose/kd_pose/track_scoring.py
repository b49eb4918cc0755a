"""People who are tracked against true people, image by image: found, false, and taken for another.

What the `monitor` prints of a running node and `kd-pose-train evaluate-clip` of a recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kd_pose.scoring import PERSON_OKS, match_people
from kd_pose.sources.base import TruePerson
from kd_pose.wholebody_keypoints import COUNT, PARTS


class TrueTracks:
    """True people and who was taken for them, frame by frame.

    An estimate is a true person's when the body is near enough (`scoring.match_people`). True
    people without a labelled body point are nobody's, and whoever is estimated in their boxes is
    not false.
    """

    def __init__(self) -> None:
        self.frames = self.people = self.false = self.id_changes = 0
        self.errors: list[float] = []
        self.found_of: dict[str, int] = {}
        self.people_of: dict[str, int] = {}
        self._last_id: dict[str, str] = {}

    def update(self, ids: Sequence[str], keypoints_xy: np.ndarray, truths: Sequence[TruePerson]
               ) -> dict[int, float]:
        """Score one frame; returns the error of those who were found, by their row.

        ids: of the E estimates, "" without tracking. keypoints_xy: (E, 133, 2) pixels, NaN: not
        known. An error is a part of the person's size (`scoring.PersonMatch`).
        """
        unlabelled = [person for person in truths if not _labelled(person)]
        truths = [person for person in truths if _labelled(person)]
        boxes = np.array([person.box_xywh for person in truths], dtype=np.float64).reshape(-1, 4)
        places = np.array([person.keypoints_xy for person in truths], dtype=np.float64)
        pairs = match_people(keypoints_xy, places.reshape(-1, COUNT, 2), boxes[:, 2] * boxes[:, 3])
        self.frames += 1
        self.people += len(truths)
        matched = {pair.estimate for pair in pairs}
        self.false += sum(row not in matched and not _inside(keypoints_xy[row], unlabelled)
                          for row in range(len(ids)))
        for person in truths:
            self.people_of[person.id] = self.people_of.get(person.id, 0) + 1
        for pair in pairs:
            who, name = truths[pair.truth].id, ids[pair.estimate]
            self.found_of[who] = self.found_of.get(who, 0) + 1
            if who and name:  # else nobody knows who it was before
                self.id_changes += self._last_id.get(who, name) != name
                self._last_id[who] = name
            self.errors.append(pair.error)
        return {pair.estimate: pair.error for pair in pairs}

    def summary(self) -> dict[str, Any]:
        """Recall, wrong people, and how far off the found ones are; None where nothing says it."""
        return {
            "people": self.people,
            "found": len(self.errors),
            "recall": len(self.errors) / self.people if self.people else None,
            "false_per_frame": self.false / self.frames if self.frames else None,
            "id_changes": self.id_changes if self._last_id else None,
            "median_error_of_size": float(np.median(self.errors)) if self.errors else None,
        }


def _labelled(person: TruePerson) -> bool:
    return bool(np.isfinite(person.keypoints_xy[PARTS["body"]]).all(axis=1).any())


def _inside(keypoints_xy: np.ndarray, people: Sequence[TruePerson]) -> bool:
    """Whether most of the body points that are known lie in the box of one of the people."""
    body = keypoints_xy[PARTS["body"]]
    body = body[np.isfinite(body).all(axis=1)]
    for person in people:
        low = np.array(person.box_xywh[:2])
        inside = ((body >= low) & (body <= low + person.box_xywh[2:])).all(axis=1)
        if len(body) and inside.mean() > 0.5:
            return True
    return False


def describe(truth: dict[str, Any]) -> str:
    """A summary of `TrueTracks` in words."""
    if not truth["people"]:
        return f"nobody there by the truth, {truth['false_per_frame']:.2f} false people a frame"
    changes, error = truth["id_changes"], truth["median_error_of_size"]
    text = (f"{truth['found']} of {truth['people']} true people tracked ({truth['recall']:.1%}; "
            f"body OKS {PERSON_OKS:g} or more), {truth['false_per_frame']:.2f} false ones a frame")
    if changes is not None:
        text += f", {changes} id changes"
    if error is not None:
        text += f", body points off by {error:.1%} of the person's size (median)"
    return text
