"""A recording with true people, image by image through what the node runs: who is tracked?

AP looks at every picture by itself, with boxes that are given; a robot sees a stream and follows
people with boxes of its own. Nothing is dropped here, whatever the time, so that two runs of a
model are the same and two models can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from kd_pose.people_stream import PeopleStream
from kd_pose.results import PeopleFrame, TrackState
from kd_pose.skeleton_drawing import draw_frame
from kd_pose.sources import Frame, RawPicture, Source, SourceError
from kd_pose.track_scoring import TrueTracks
from kd_pose.wholebody_keypoints import COUNT

# Encodings of a recording that a network of people takes, and how a grey one becomes three.
CHANNEL_ORDER = {"bgr8": "bgr", "8UC3": "bgr", "rgb8": "rgb", "mono8": "grey", "8UC1": "grey"}


@dataclass
class ClipScore:
    """frames: pictures. tracks: who was found. ids: of all who were TRACKED. detector_runs: in how
    many pictures the detector was asked. ms: of each picture, estimating and tracking."""

    frames: int = 0
    tracks: TrueTracks = field(default_factory=TrueTracks)
    ids: set[str] = field(default_factory=set)
    detector_runs: int = 0
    ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """For a report: the figures, and the recall of each person."""
        people = self.tracks.people_of
        return {
            "frames": self.frames, **self.tracks.summary(), "ids": len(self.ids),
            "detector_runs": self.detector_runs,
            "ms_median": float(np.median(self.ms)) if self.ms else None,
            "recall_by_person": {name: self.tracks.found_of.get(name, 0) / count
                                 for name, count in sorted(people.items()) if name},
        }


def score_clip(stream: PeopleStream, source: Source, *, rate_hz: float = 0.0,
               shown: Callable[[np.ndarray], None] | None = None,
               done: Callable[[int], None] | None = None) -> ClipScore:
    """Run the pictures of a recording in order and compare who is TRACKED with who is there.

    A `stream` without tracking counts everybody it finds. rate_hz: of the pictures; 0: as
    recorded. shown: called with every annotated picture, uint8 (H, W, 3) BGR; done: with the
    number of pictures so far.

    Raises ValueError (`SourceError`) for a recording without true people, without times where
    none are given, or with pictures that cannot be read.
    """
    score = ClipScore()
    stream.reset()
    for index, (frame, time_s) in enumerate(_timed(source, rate_hz)):
        image = _bgr(frame.picture.as_raw(), frame.picture.where)
        started = time.perf_counter()
        found = stream.estimate(image, time_s)
        score.ms.append(1e3 * (time.perf_counter() - started))
        score.detector_runs += found.searched
        _count(score, found, frame, stream.options.tracking is not None)
        if shown is not None:
            shown(draw_frame(image, found))
        if done is not None:
            done(index + 1)
    return score


def _count(score: ClipScore, found: PeopleFrame, frame: Frame, tracking: bool) -> None:
    people = [person for person in found.people
              if not tracking or person.track_state is TrackState.TRACKED]
    places = np.array([person.keypoints_xy for person in people]).reshape(-1, COUNT, 2)
    score.frames += 1
    score.tracks.update([person.id for person in people], places, frame.people)
    score.ids.update(person.id for person in people if person.id)


def _timed(source: Source, rate_hz: float) -> Iterator[tuple[Frame, float]]:
    """Frames with their time in seconds."""
    frames = source.frames()
    first = next(frames, None)
    if first is None:
        raise SourceError(f"{source.path}: has no pictures")
    if first.people is None:
        raise SourceError(f"{source.path}: has no true people; give their annotations")
    for index, frame in enumerate(chain([first], frames)):
        time_s = index / rate_hz if rate_hz > 0 else frame.time_s
        if time_s is None:
            raise SourceError(f"{frame.picture.where}: nothing says when it was taken; give the "
                              "rate of the pictures")
        yield frame, time_s


def _bgr(picture: RawPicture, where: str) -> np.ndarray:
    order = CHANNEL_ORDER.get(picture.encoding)
    if order is None:
        raise SourceError(f"{where}: encoding {picture.encoding!r} is not one of "
                          f"{', '.join(CHANNEL_ORDER)}")
    image = picture.pixels()
    if order == "grey":
        image = image.repeat(3, axis=2)
    return np.ascontiguousarray(image[:, :, ::-1] if order == "rgb" else image)
