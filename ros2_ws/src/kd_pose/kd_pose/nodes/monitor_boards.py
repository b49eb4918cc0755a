"""What `monitor` counts: errors of objects and people against the truth, and people by track.

A board takes messages of one stamp, answers with the line to print, and sums up at the end. It
knows nothing of ROS but the messages.
"""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from kd_pose.geometry import make_pose, matrix_from_quaternion
from kd_pose.scoring import match_poses, pose_error
from kd_pose.sources.base import TruePerson
from kd_pose.symmetry import symmetry_transforms
from kd_pose.track_scoring import TrueTracks, describe
from kd_pose.wholebody_keypoints import COUNT
from kd_pose_msgs.msg import WholebodyPose

# A keypoint counts as found from this score on.
FOUND_SCORE = 0.3
LISTED = 4  # people, or objects, of a line
LATENCIES = 100_000  # of the latest results, kept for the summary
SCORE_STEPS = 1000  # of a keypoint's score, as they are counted


def pose_matrix(pose) -> np.ndarray:
    """geometry_msgs/Pose -> (4, 4) transform, metres."""
    q, p = pose.orientation, pose.position
    return make_pose(matrix_from_quaternion([q.x, q.y, q.z, q.w]), [p.x, p.y, p.z])


class Board:
    """Frames, their rate, and their latency."""

    def __init__(self):
        self.frames = 0
        self.latency_ms: deque[float] = deque(maxlen=LATENCIES)
        self.arrivals: deque = deque(maxlen=30)

    def arrived(self, age_ms: float) -> float:
        """Note a result and the age of its picture; returns the monotonic time."""
        now = time.monotonic()
        self.arrivals.append(now)
        if 0 <= age_ms < 10_000:  # a bag from last week has stamps of last week
            self.latency_ms.append(age_ms)
        return now

    def rate_hz(self) -> float:
        """Results per second over the last 30 of them."""
        if len(self.arrivals) < 2:
            return 0.0
        return (len(self.arrivals) - 1) / max(self.arrivals[-1] - self.arrivals[0], 1e-9)

    def count(self) -> int:
        """Results so far that a line was made of."""
        return self.frames

    def prefix(self) -> str:
        """Number, rate and latency of the frame."""
        latency = self.latency_ms[-1] if self.latency_ms else float("nan")
        return f"[{self.count():4d}] {self.rate_hz():5.1f} Hz {latency:5.0f} ms  "

    def pace(self) -> dict:
        """Part of a summary."""
        latency = np.array(self.latency_ms) if self.latency_ms else np.array([np.nan])
        return {"frames": self.frames, "latency_ms_median": float(np.median(latency)),
                "latency_ms_p95": float(np.percentile(latency, 95))}


def latency_text(summary: dict) -> str:
    """Latency of a summary in words."""
    return (f"image-to-result latency median {summary['latency_ms_median']:.0f} ms, "
            f"p95 {summary['latency_ms_p95']:.0f} ms")


class Spec:
    """What scoring needs of a kd_pose_msgs/ObjectInfo: box corners and symmetry transforms."""

    def __init__(self, info):
        self.diameter = float(info.diameter)
        centre = np.array([info.box_center.position.x, info.box_center.position.y,
                           info.box_center.position.z])
        half = 0.5 * np.array([info.box_size.x, info.box_size.y, info.box_size.z])
        self.box_min, self.box_max = centre - half, centre + half
        self.symmetries_discrete = tuple(
            tuple(pose_matrix(p).ravel()) for p in info.symmetries_discrete
        )
        self.symmetries_continuous = tuple(
            ((a.x, a.y, a.z), (o.x, o.y, o.z))
            for a, o in zip(info.symmetry_axes, info.symmetry_offsets)
        )
        self.symmetries = symmetry_transforms(self, step_deg=5.0)


class ObjectBoard(Board):
    """Errors of all frames so far, by class; of those without a truth what was seen.

    frames: those that were scored. unscored: the others.
    """

    def __init__(self):
        super().__init__()
        self.unscored = 0
        self.seen: dict[str, int] = {}  # objects of frames without a truth
        self.specs: dict[str, Spec] = {}
        self.errors: dict[str, list] = {}
        self.truths: dict[str, int] = {}
        self.found: dict[str, int] = {}
        self.extra = 0

    def count(self) -> int:
        return self.frames + self.unscored

    def update(self, objects, truth=None) -> str:
        """Score one frame (two ObjectPoseArrays with one stamp) and return its line.

        Without a truth the line says what is seen, and where.
        """
        if truth is None:
            return self._list(objects.objects)
        estimates = [(o.class_id, pose_matrix(o.pose.pose)) for o in objects.objects]
        truths = [(o.class_id, pose_matrix(o.pose.pose)) for o in truth.objects]
        pairs = match_poses(estimates, truths)
        self.frames += 1
        self.extra += len(estimates) - len(pairs)
        for name, _ in truths:
            self.truths[name] = self.truths.get(name, 0) + 1
        parts = []
        for i, j in pairs:
            name = estimates[i][0]
            spec = self.specs.get(name)
            if spec is None:
                continue
            error = pose_error(estimates[i][1], truths[j][1], spec.box_min, spec.box_max,
                               spec.symmetries)
            self.errors.setdefault(name, []).append(error)
            good = error.corners <= 0.1 * spec.diameter
            self.found[name] = self.found.get(name, 0) + int(good)
            parts.append(f"{name} {error.translation * 1e3:.1f}mm/{error.rotation_deg:.1f}deg"
                         f"{'' if good else '!'}")
        return f"{len(pairs)}/{len(truths)} found  " + "  ".join(sorted(parts))

    def _list(self, objects) -> str:
        self.unscored += 1
        parts = []
        for item in objects:
            self.seen[item.class_id] = self.seen.get(item.class_id, 0) + 1
            place = item.pose.pose.position
            parts.append(f"{item.class_id} {item.score:.2f} at "
                         f"({place.x:.3f}, {place.y:.3f}, {place.z:.3f}) m")
        count = len(parts)
        parts[LISTED:] = ["..."] if count > LISTED else []
        return f"{count} {'object' if count == 1 else 'objects'}  " + "  ".join(parts)

    def summary(self) -> dict:
        """Medians and recall by class, rate and latency."""
        classes = {}
        for name in sorted(self.truths):
            errors = self.errors.get(name, [])
            median = lambda values: float(np.median(values)) if values else None  # noqa: E731
            classes[name] = {
                "truth_instances": self.truths[name],
                "estimated": len(errors),
                "recall_corners_0.1d": self.found.get(name, 0) / self.truths[name],
                "median_translation_mm": median([e.translation * 1e3 for e in errors]),
                "median_rotation_deg": median([e.rotation_deg for e in errors]),
            }
        summary = {**self.pace(), "unmatched_estimates": self.extra, "classes": classes}
        if self.unscored:
            summary["frames_without_truth"] = self.unscored
            summary["objects_without_truth"] = dict(sorted(self.seen.items()))
        return summary

    def table(self, summary: dict) -> str:
        """The summary for a terminal."""
        unscored = self._unscored_text(summary)
        if unscored and not summary["frames"]:
            return f"{unscored}, {latency_text(summary)}"
        lines = [f"{'object':14s} {'seen':>6s} {'recall':>7s} {'median mm':>10s} "
                 f"{'median deg':>11s}"]
        for name, row in summary["classes"].items():
            mm, deg = row["median_translation_mm"], row["median_rotation_deg"]
            lines.append(
                f"{name:14s} {row['estimated']:3d}/{row['truth_instances']:<3d}"
                f"{100 * row['recall_corners_0.1d']:7.1f}%"
                f" {mm if mm is not None else float('nan'):9.2f} "
                f"{deg if deg is not None else float('nan'):11.2f}"
            )
        lines.append(
            f"{summary['frames']} frames scored, {summary['unmatched_estimates']} estimates "
            f"without a truth, {latency_text(summary)}"
        )
        lines.append("recall: mean distance of the 8 box corners within 10 % of the diameter")
        return "\n".join([*lines, unscored] if unscored else lines)

    def _unscored_text(self, summary: dict) -> str:
        if "frames_without_truth" not in summary:
            return ""
        seen = ", ".join(f"{name} {count}"
                         for name, count in summary["objects_without_truth"].items())
        return (f"{summary['frames_without_truth']} frames without a truth, seen in them: "
                f"{seen or 'nothing'}")


class PeopleBoard(Board):
    """How many people there were, with which ids and how sure; against the truth, where given."""

    def __init__(self):
        super().__init__()
        self.people: list[int] = []
        self.frames_of: dict[str, int] = {}
        # Counted, not kept: 133 a person and frame fill the memory of a robot in a day.
        self.scores = np.zeros(SCORE_STEPS + 1, np.int64)
        self.found_points = 0
        self.truth = TrueTracks()

    def update(self, message, truth=None) -> str:
        """Count one WholebodyPoseArray, score it if there is a truth, and return its line."""
        errors = {} if truth is None else self._score(message.people, truth.people)
        self.frames += 1
        self.people.append(len(message.people))
        parts = []
        for index, person in enumerate(message.people):
            scores = np.asarray(person.keypoint_scores, dtype=np.float64)
            self.frames_of[person.id] = self.frames_of.get(person.id, 0) + 1
            steps = (SCORE_STEPS * np.clip(np.nan_to_num(scores), 0.0, 1.0)).round().astype(int)
            self.scores += np.bincount(steps, minlength=len(self.scores))
            found = int(np.count_nonzero(scores >= FOUND_SCORE))
            self.found_points += found
            error = f", {100 * errors[index]:.1f} % off" if index in errors else ""
            parts.append(f"#{person.id or '?'} {person.score:.2f} "
                         f"({found} points{error})")
        count = len(parts)
        parts[LISTED:] = ["..."] if count > LISTED else []
        found = "" if truth is None else f"{len(errors)}/{len(truth.people)} found  "
        return f"{count} {'person' if count == 1 else 'people'}  {found}" + "  ".join(parts)

    def _score(self, people, truths) -> dict[int, float]:
        """Errors of those who are true people, by their place in `people`.

        An estimate counts when it is TRACKED, as a robot should count it, or when there is no
        tracking (no id).
        """
        counted = [index for index, person in enumerate(people)
                   if person.track_state == WholebodyPose.TRACKED or not person.id]
        errors = self.truth.update(
            [people[index].id for index in counted], _places([people[index] for index in counted]),
            [TruePerson(person.id, tuple(person.bbox_xywh), xy)
             for person, xy in zip(truths, _places(truths))])
        return {counted[row]: error for row, error in errors.items()}

    def summary(self) -> dict:
        """People by frame, frames by track, keypoints, and errors where there is a truth."""
        total = int(self.scores.sum())
        median = np.searchsorted(self.scores.cumsum(), 0.5 * total) / SCORE_STEPS
        return {
            **self.pace(),
            "people_mean": float(np.mean(self.people)) if self.people else 0.0,
            "people_max": max(self.people, default=0),
            "frames_without_people": self.people.count(0),
            "frames_by_id": dict(sorted(self.frames_of.items(), key=lambda item: -item[1])),
            "keypoint_score_median": float(median) if total else None,
            "keypoints_found": self.found_points / total if total else None,
            **({"truth": self.truth.summary()} if self.truth.frames else {}),
        }

    def table(self, summary: dict) -> str:
        """The summary for a terminal."""
        found, ids = summary["keypoints_found"], summary["frames_by_id"]
        tracks = ", ".join(f"#{name or '?'} in {count}" for name, count in list(ids.items())[:8])
        lines = [
            f"{summary['frames']} frames, {summary['people_mean']:.2f} people a frame (at most "
            f"{summary['people_max']}), none in {summary['frames_without_people']}",
            f"{len(ids)} ids: {tracks or 'none'}{' ...' if len(ids) > 8 else ''}",
            "no keypoints" if found is None else
            f"{found:.1%} of the keypoints score {FOUND_SCORE:g} or more, median "
            f"{summary['keypoint_score_median']:.2f}",
        ]
        if "truth" in summary:
            lines.append(describe(summary["truth"]))
        return "\n".join([*lines, latency_text(summary)])


def _places(people) -> np.ndarray:
    """Messages -> (N, 133, 2) pixels."""
    return np.array([person.xy for person in people], dtype=np.float64).reshape(-1, COUNT, 2)
