"""Who is who from image to image: people tracks with stable ids, and boxes for the next image.

People and tracks are matched by the geometric mean of two overlaps at the time of the new image,
where every track has moved on at its own speed: that of the boxes around their keypoints (IoU),
and that of their body keypoints (a Gaussian of the distance, as COCO's OKS, with a hip's tolerance
for every joint). The first tells people apart who are far from each other, the second those who
pass each other. The assignment is the best one as a whole (Kuhn and Munkres, as in SORT, Bewley et
al., ICIP 2016), not a greedy one, which swaps people who stand close.

Where the colours of people's clothes are given they have a say: of two who pass each other they
tell who is who, and whoever comes back from behind something, looking like one who was lost and
like nobody else, is that person (`appearance.py`).

Times are seconds of any clock, boxes xywh with continuous edges, all in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kd_pose.appearance import CELLS, WORN, blended, likeness
from kd_pose.assignment import best_pairs
from kd_pose.boxes import iou, points_box, xywh_from_xyxy, xyxy_from_xywh
from kd_pose.pose_overlap import (
    BODY,
    JOINT_TOLERANCE,
    MIN_POINTS,
    pose_overlaps,
    sure_keypoints,
    without_twins,
)
from kd_pose.results import PERSON, Detection2D, PersonPose, TrackState

# A box around sure keypoints that is a smaller part of where the person was looked at, with less
# than this share of the body (all down to the hips are 0.76), is that of a face or a hand, or of a
# network that is not sure of the person.
LEAST_PART, LEAST_BODY = 0.5, 0.75
# Who is in the same box (IoU from HELD on) as a track, and nearer to no other, is taken for it
# although the keypoints are elsewhere: a network that is not sure of somebody says now this, now
# that. Counts for less than any good match of keypoints.
HELD, HELD_GAIN = 0.7, 0.3
# A match of places keeps its gain from this likeness of the clothes on; below, as much of it as
# the square says, but some (light may have changed for everybody); and so much where nothing is
# known.
ALIKE, LEAST_GAIN, UNKNOWN_GAIN = 0.8, 0.2, 0.4
# Who comes back looks this much like a lost person, and so much less like anybody else.
KNOWN_AGAIN, CLEARLY, LEAST_PARTS = 0.6, 0.2, 2
# Share of a new look in a track's; and of one that is not like it, as somebody else's who stands
# in front would be.
NEWEST_LOOK, ODD_LOOK, ODD = 0.1, 0.01, 0.6
ODD_AFTER = 5  # looks; before, none is better known than the newest
# Nobody is known again further away than this many sizes of the person, and so many more a second.
REACH, REACH_PER_S = 1.0, 4.0
MOST_REMEMBERED = 50
SPEED_MEMORY = 0.5  # share of the old speed in the new one
HALT_S = 0.4  # a speed holds for a few images, then it fades
# Images further apart have nothing to do with each other, however slow the network is.
LONGEST_GAP_S = 5.0


@dataclass(frozen=True)
class TrackingOptions:
    """min_keypoint_score: keypoints below do not count. min_overlap: people and tracks that
    overlap less are never the same. confirm_frames: sightings until a track is TRACKED.
    max_coast_s: how long a track that is not seen is kept; 0: not at all. appearance: clothes have
    a say in who is who. remember_s: how long after the last sighting somebody who is lost may be
    known again by them; 0: not at all. box_pad: a box for the next image is the one around the
    sure keypoints, this much larger in width and height.
    """

    min_keypoint_score: float = 0.3
    min_overlap: float = 0.1
    confirm_frames: int = 3
    max_coast_s: float = 0.5
    appearance: bool = True
    remember_s: float = 10.0
    box_pad: float = 1.15  # the box of a labelled person is 1.08 to 1.12 times that of its points

    def __post_init__(self) -> None:
        for name, low, high in (("min_keypoint_score", 0.0, 1.0), ("min_overlap", 0.0, 1.0),
                                ("confirm_frames", 1, 1000), ("max_coast_s", 0.0, 60.0),
                                ("remember_s", 0.0, 3600.0),
                                ("box_pad", 1.0, 3.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low:g} to {high:g}, got {value!r}")


@dataclass(eq=False)
class Track:
    """One person over time: keypoints and boxes are those of `seen_s`, the last sighting.

    box_xywh: where to look next. looked_xywh: where the person was looked at. speed: (2,) px/s.
    box_score: of the box that led to the person, as its detector gave it. look: colours of the
    clothes, see `appearance.looks`; looks: how many it is made of.
    """

    id: str
    keypoints_xy: np.ndarray
    keypoint_scores: np.ndarray
    box_xywh: np.ndarray
    looked_xywh: np.ndarray
    box_score: float
    seen_s: float
    speed: np.ndarray
    sightings: int = 1
    look: np.ndarray = field(default_factory=lambda: np.zeros((WORN, CELLS)))
    looks: int = 0
    state: TrackState = TrackState.TENTATIVE

    def moved(self, stamp_s: float) -> np.ndarray:
        """How far the person has gone since the last sighting, px (2,), if it comes to a halt."""
        return self.speed * HALT_S * -np.expm1((self.seen_s - stamp_s) / HALT_S)

    def box_at(self, stamp_s: float) -> np.ndarray:
        return _shifted(self.box_xywh, self.moved(stamp_s))

    def wears(self, look: np.ndarray, alike: float) -> None:
        """Take a new look (4, CELLS) into the track's; unknown parts change nothing.

        alike: how alike the two are, NaN where that is not known.
        """
        if look.any():
            self.looks += 1
            odd = alike < ODD and self.looks > ODD_AFTER
            share = ODD_LOOK if odd else max(1.0 / self.looks, NEWEST_LOOK)
            self.look = blended(self.look, look, share)


class PeopleTracker:
    """Gives people ids and states; keeps what is needed for that between images."""

    def __init__(self, options: TrackingOptions | None = None) -> None:
        self.options = options or TrackingOptions()
        self.tracks: list[Track] = []
        self._remembered: list[Track] = []  # who was TRACKED and is LOST, the latest last
        self._stamp_s: float | None = None
        self._last_id = 0

    def reset(self) -> None:
        """Forget everybody. Ids go on, so that none is given twice."""
        self.tracks.clear()
        self._remembered.clear()
        self._stamp_s = None

    def begin(self, stamp_s: float) -> bool:
        """Say when the next image was taken; whether time went back, which forgets everybody."""
        if not np.isfinite(stamp_s):
            raise ValueError(f"stamp_s must be a finite time in seconds, got {stamp_s!r}")
        back = self._stamp_s is not None and stamp_s < self._stamp_s
        if back:
            self.reset()
        self._stamp_s = stamp_s
        return back

    def boxes(self, stamp_s: float, image_wh: Sequence[int]) -> list[Detection2D]:
        """Where the tracked people are to be looked for in the image of that time.

        Those who have moved out of the image are left out.
        """
        boxes = [Detection2D(PERSON, track.box_score, track.box_at(stamp_s))
                 for track in self.tracks if stamp_s - track.seen_s <= LONGEST_GAP_S]
        return [box for box in boxes if _in_image(box.box_xywh, image_wh)]

    def update(self, people: Sequence[PersonPose], stamp_s: float, image_wh: Sequence[int],
               box_scores: Sequence[float] | None = None,
               looks: np.ndarray | None = None) -> list[PersonPose]:
        """The people of one image with ids and states, best first as they came.

        Behind them follow tracks that are not seen: COASTING ones where they would be by now, with
        keypoints moved along and scores of 0, because nothing in this image speaks for them; and
        once, LOST, those that are given up. One person estimated twice is there once, with the
        better score. `people` is not changed.

        stamp_s: seconds; earlier than the last one forgets everybody first. image_wh: its size.
        box_scores: of the boxes that led to the people; theirs where not given. looks: (N, 4,
        CELLS), of `appearance.looks`; without them clothes have no say.
        """
        self.begin(stamp_s)
        kept = without_twins(people, self.options.min_keypoint_score)
        scores = [people[i].score if box_scores is None else box_scores[i] for i in kept]
        people = [people[i] for i in kept]
        boxes = [self._box(person) for person in people]
        looks = looks[kept] if looks is not None and self.options.appearance else None
        pairs = self._match(people, boxes, looks, stamp_s)
        seen = []
        for row, person in enumerate(people):
            if row in pairs:
                track = self.tracks[pairs[row]]
                self._see(track, person, boxes[row], scores[row], stamp_s)
            else:
                track = self._start(person, boxes[row], scores[row], stamp_s)
                if looks is not None:
                    track.wears(looks[row], np.nan)
            seen.append((track, replace(person, id=track.id, track_state=track.state)))
        unseen = [track for i, track in enumerate(self.tracks) if i not in pairs.values()]
        absent = self._coast(unseen, stamp_s, image_wh)
        self.tracks = [track for track, _ in seen] + [
            track for track, _ in absent if track.state is not TrackState.LOST]
        self._remembered += [track for track, _ in absent if track.state is TrackState.LOST]
        del self._remembered[:-MOST_REMEMBERED]
        return [person for _, person in (*seen, *absent)]

    def _match(self, people: Sequence[PersonPose], boxes: Sequence[np.ndarray],
               looks: np.ndarray | None, stamp_s: float) -> dict[int, int]:
        """Rows of people and the places of their tracks in `self.tracks`, which wear their looks
        from now on; who is known again may be at its end."""
        gain = self._overlaps(people, boxes, stamp_s)
        if looks is None:
            self._forget_looks()
            return dict(best_pairs(gain))
        alike = likeness(looks, [track.look for track in self.tracks])
        pairs = dict(best_pairs(gain * _say(alike)))
        self._know_again(pairs, boxes, looks, stamp_s)
        for row, place in pairs.items():
            # Who was lost has no column: it is known again because it is alike.
            like = alike[row, place] if place < alike.shape[1] else 1.0
            self.tracks[place].wears(looks[row], like)
        return pairs

    def _know_again(self, pairs: dict[int, int], boxes: Sequence[np.ndarray], looks: np.ndarray,
                    stamp_s: float) -> None:
        """Match who is new, or not confirmed yet, to the one person lost who looks alike.

        pairs: row of a person -> place in `self.tracks`; changed, as `self.tracks` is.
        """
        new = [row for row in range(len(boxes)) if row not in pairs
               or self.tracks[pairs[row]].state is TrackState.TENTATIVE]
        held = set(pairs.values())
        confirmed = [track for track in self.tracks if track.state is not TrackState.TENTATIVE]
        absent = [track for place, track in enumerate(self.tracks)
                  if place not in held and track in confirmed and (
                      track.state is TrackState.COASTING
                      or stamp_s - track.seen_s > LONGEST_GAP_S)]
        self._remembered, absent = (
            [track for track in tracks if stamp_s - track.seen_s <= self.options.remember_s]
            for tracks in (self._remembered, absent))
        candidates = [*absent, *self._remembered]
        if not new or not candidates or not self.options.remember_s:
            return
        rivals = [track for track in confirmed if track not in absent]
        worn = [track.look for track in (*candidates, *rivals)]
        alike = np.nan_to_num(likeness(looks[new], worn, LEAST_PARTS))
        found = alike[:, :len(candidates)].copy()
        for i, row in enumerate(new):
            for j, track in enumerate(candidates):
                # Two who wear the same may be either, whether both are lost or both are new.
                rest = max(np.delete(alike[i], j).max(initial=0.0),
                           np.delete(alike[:, j], i).max(initial=0.0))
                if (found[i, j] < max(KNOWN_AGAIN, rest + CLEARLY)
                        or not _in_reach(track, boxes[row], stamp_s)):
                    found[i, j] = 0.0
        for i, j in best_pairs(found):
            track = candidates[j]
            if track not in absent:
                self._remembered.remove(track)
                self.tracks.append(track)
            track.speed = np.zeros(2)  # that of another time
            pairs[new[i]] = self.tracks.index(track)

    def _forget_looks(self) -> None:
        """Nobody is told by clothes: what was kept of them would be out of date later."""
        self._remembered.clear()
        for track in self.tracks:
            if track.looks:
                track.look, track.looks = np.zeros((WORN, CELLS)), 0

    def _start(self, person: PersonPose, box: np.ndarray, score: float, stamp_s: float) -> Track:
        self._last_id += 1
        track = Track(str(self._last_id), person.keypoints_xy, person.keypoint_scores, box,
                      _looked_at(person), score, stamp_s, np.zeros(2))
        if self.options.confirm_frames <= 1:
            track.state = TrackState.TRACKED
        return track

    def _see(self, track: Track, person: PersonPose, box: np.ndarray, score: float,
             stamp_s: float) -> None:
        elapsed = stamp_s - track.seen_s
        if elapsed > 0:
            speed = self._way(track, person, box) / elapsed
            memory = SPEED_MEMORY if track.sightings > 1 else 0.0
            track.speed = memory * track.speed + (1.0 - memory) * speed
        track.keypoints_xy, track.keypoint_scores = person.keypoints_xy, person.keypoint_scores
        track.box_xywh, track.box_score, track.seen_s = box, score, stamp_s
        track.looked_xywh = _looked_at(person)
        track.sightings += 1
        # Who was confirmed once stays so, whatever the options say by now.
        known = track.state is not TrackState.TENTATIVE
        if known or track.sightings >= self.options.confirm_frames:
            track.state = TrackState.TRACKED

    def _way(self, track: Track, person: PersonPose, box: np.ndarray) -> np.ndarray:
        """Pixels (2,) from the last sighting to this one: the body's, else the box's."""
        both = self._sure(track)[BODY] & self._sure(person)[BODY]
        if both.sum() >= MIN_POINTS:
            return (person.keypoints_xy[BODY] - track.keypoints_xy[BODY])[both].mean(axis=0)
        return (box[:2] + box[2:] / 2) - (track.box_xywh[:2] + track.box_xywh[2:] / 2)

    def _coast(self, tracks: Sequence[Track], stamp_s: float, image_wh: Sequence[int]
               ) -> list[tuple[Track, PersonPose]]:
        """Tracks that are not in this image, coasting or lost; unconfirmed ones just end."""
        result = []
        for track in tracks:
            if track.state is TrackState.TENTATIVE:
                continue
            box = track.box_at(stamp_s)
            gone = stamp_s - track.seen_s > self.options.max_coast_s
            lost = gone or not self.options.max_coast_s or not _in_image(box, image_wh)
            track.state = TrackState.LOST if lost else TrackState.COASTING
            there = _shifted(track.looked_xywh, track.moved(stamp_s))
            result.append((track, PersonPose(
                there, 0.0, track.keypoints_xy + track.moved(stamp_s),
                np.zeros_like(track.keypoint_scores), id=track.id, track_state=track.state)))
        return result

    def _sure(self, item: Track | PersonPose) -> np.ndarray:
        return sure_keypoints(item, self.options.min_keypoint_score)

    def _box(self, person: PersonPose) -> np.ndarray:
        """Around the sure keypoints and padded; the box that was given where they are too few, and
        moved so that they are inside where they are a small part of the person."""
        looked_at, sure = _looked_at(person), self._sure(person)
        points = person.keypoints_xy[sure]
        if len(points) < MIN_POINTS:
            return looked_at
        box = xywh_from_xyxy(points_box(points))
        if (box[2:] <= 0).any():
            return looked_at
        grown = box[2:] * self.options.box_pad
        grown = np.concatenate([box[:2] - (grown - box[2:]) / 2, grown])
        part = np.prod(grown[2:]) < LEAST_PART * np.prod(looked_at[2:])
        if part and sure[BODY].mean() < LEAST_BODY:
            return _shifted(looked_at, _way_inside(grown, looked_at))
        return grown

    def _overlaps(self, people: Sequence[PersonPose], boxes: Sequence[np.ndarray],
                  stamp_s: float) -> np.ndarray:
        """(people, tracks) 0..1; 0 where the two cannot be the same."""
        overlaps = np.zeros((len(people), len(self.tracks)))
        if overlaps.size == 0:
            return overlaps
        moved = np.array([track.moved(stamp_s) for track in self.tracks])
        there = np.array([track.box_at(stamp_s) for track in self.tracks])
        looked_at = np.array([_shifted(track.looked_xywh, way)
                              for track, way in zip(self.tracks, moved)])
        now = np.array(boxes)
        looks = np.array([_looked_at(person) for person in people])
        overlaps = _ious(now, there)
        held = np.maximum(_ious(looks, looked_at), _ious(looks, there))
        poses = pose_overlaps(
            np.array([person.keypoints_xy for person in people]),
            np.array([track.keypoints_xy + way for track, way in zip(self.tracks, moved)]),
            np.array([self._sure(person) for person in people]),
            np.array([self._sure(track) for track in self.tracks]),
            there[:, 2] * there[:, 3], JOINT_TOLERANCE)
        overlaps = np.where(np.isnan(poses), overlaps, np.sqrt(overlaps * poses))
        overlaps = np.maximum(overlaps, np.where(held >= HELD, HELD_GAIN * held, 0.0))
        overlaps[overlaps < self.options.min_overlap] = 0.0
        overlaps[:, [stamp_s - track.seen_s > LONGEST_GAP_S for track in self.tracks]] = 0.0
        return overlaps


def _shifted(box_xywh: np.ndarray, way: np.ndarray) -> np.ndarray:
    return np.concatenate([box_xywh[:2] + way, box_xywh[2:]])


def _say(alike: np.ndarray) -> np.ndarray:
    """What is left of a match of places, by the likeness of the clothes (NaN: not known)."""
    return np.where(np.isnan(alike), UNKNOWN_GAIN, np.clip((alike / ALIKE) ** 2, LEAST_GAIN, 1.0))


def _in_reach(track: Track, box_xywh: np.ndarray, stamp_s: float) -> bool:
    """Whether a person can have gone from where it was last seen to a box."""
    way = box_xywh[:2] + box_xywh[2:] / 2 - track.box_xywh[:2] - track.box_xywh[2:] / 2
    size = np.sqrt(max(np.prod(track.box_xywh[2:]), np.prod(box_xywh[2:])))
    return bool(np.linalg.norm(way) <= (REACH + REACH_PER_S * (stamp_s - track.seen_s)) * size)


def _way_inside(inner_xywh: np.ndarray, outer_xywh: np.ndarray) -> np.ndarray:
    """The shortest way (2,) of the outer box until the inner one is in it, as far as it fits."""
    low = inner_xywh[:2] - outer_xywh[:2]
    high = low + inner_xywh[2:] - outer_xywh[2:]
    return np.where(high > low, (low + high) / 2, np.minimum(low, 0.0) + np.maximum(high, 0.0))


def _looked_at(person: PersonPose) -> np.ndarray:
    return np.asarray(person.box_xywh, dtype=np.float64)


def _ious(a_xywh: np.ndarray, b_xywh: np.ndarray) -> np.ndarray:
    """(N, M) overlaps of every box of `a` with every one of `b`."""
    a = xyxy_from_xywh(a_xywh)
    return np.stack([iou(box, a) for box in xyxy_from_xywh(b_xywh)], axis=1)


def _in_image(box_xywh: np.ndarray, image_wh: Sequence[int]) -> bool:
    """Whether any of the box lies in the image."""
    low, high = box_xywh[:2], box_xywh[:2] + box_xywh[2:]
    return bool((high > -0.5).all() and (low < np.asarray(image_wh) - 0.5).all())
