"""Whole-body poses of a stream of images: where to look, poses, 3-D, ids, smoothing. No ROS.

    stream = PeopleStream(WholebodyPoseEstimator("model.onnx", "detector.onnx"), StreamOptions())
    frame = stream.estimate(image, time_s)

The estimator has no state; all that is kept between images is here and in `tracking.py` and
`smoothing.py`. Boxes may come from the tracks of the last image, which costs no detector: it runs
every few images for those who are new, at once when somebody is not found where expected, and in
every image while somebody shows no keypoint that is sure, or only in the detector's box.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kd_pose.appearance import looks
from kd_pose.assignment import best_pairs
from kd_pose.boxes import iou, xyxy_from_xywh
from kd_pose.camera import Camera
from kd_pose.lifting import LiftingOptions, check_depth, lift_people
from kd_pose.pose_overlap import looks_like, sure_keypoints
from kd_pose.results import STAGES, Detection2D, PeopleFrame, PersonPose, TrackState
from kd_pose.smoothing import PeopleSmoother, SmoothingOptions
from kd_pose.stillness import Stillness
from kd_pose.tracking import PeopleTracker, TrackingOptions
from kd_pose.wholebody_keypoints import PARTS
from kd_pose.wholebody_pose import WholebodyPoseEstimator

STREAM_STAGES = (*STAGES, "lift", "track")  # of `timing_ms`
MOST_REST = 4  # times `detector_still_n`, while the detector finds nobody new
SAME_PERSON_IOU = 0.4  # a track's box that overlaps a detection so much is not looked at as well
PART_SHARE = 0.5  # of a part's keypoints must be sure for a person to be there
# Parts that speak for somebody whom a detector that has just looked does not see: a track that has
# come to rest on the hand or face of somebody else shows that part of a person, and no body.
UNSEEN_PARTS = ("body",)


@dataclass(frozen=True)
class StreamOptions:
    """tracking: None = no ids, and no state between images. smoothing: None = none.

    boxes_from_tracks: look where tracks say, with the detector every `detector_every_n` images,
    while there are no tracks, and when a track was not found in the last image. While nothing
    moves but those who are tracked, every `detector_still_n` images are enough, and twice and four
    times as many when it then finds nobody new; a camera that moves, or `detector_still_n` not
    above the other, leaves it at `detector_every_n`.
    """

    tracking: TrackingOptions | None = field(default_factory=TrackingOptions)
    smoothing: SmoothingOptions | None = None
    lifting: LiftingOptions = field(default_factory=LiftingOptions)
    boxes_from_tracks: bool = True
    detector_every_n: int = 10
    detector_still_n: int = 30

    def __post_init__(self) -> None:
        for name in ("detector_every_n", "detector_still_n"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("smoothing", "boxes_from_tracks"):
            if getattr(self, name) and self.tracking is None:
                raise ValueError(f"{name} needs tracking, which is switched off")


class PeopleStream:
    """Estimates people image by image and remembers who is who. For one thread at a time."""

    def __init__(self, estimator: WholebodyPoseEstimator, options: StreamOptions | None = None
                 ) -> None:
        self.estimator = estimator
        self._tracker, self._smoother = PeopleTracker(), PeopleSmoother()
        self._stillness = Stillness()
        self.options = options or StreamOptions()
        self.reset()

    @property
    def options(self) -> StreamOptions:
        return self._options

    @options.setter
    def options(self, options: StreamOptions) -> None:
        """May be changed between images; tracks stay."""
        self._options = options
        self._tracker.options = options.tracking or TrackingOptions()
        self._smoother.options = options.smoothing or SmoothingOptions()

    def reset(self) -> None:
        """Forget everybody; the next image is looked at as a whole."""
        self._tracker.reset()
        self._smoother.reset()
        self._stillness.forget()
        self._since_detector, self._someone_missing, self._detector_first = 0, False, 0
        self._rest, self._rested = 1, False

    def estimate(
        self,
        image: np.ndarray,
        stamp_s: float,
        *,
        channel_order: str = "bgr",
        boxes: Sequence[Detection2D] | None = None,
        depth: np.ndarray | None = None,
        camera: Camera | None = None,
    ) -> PeopleFrame:
        """Everybody in one image; behind those who are seen, tracks that coast or are lost.

        image: uint8 (H, W, 3). stamp_s: seconds of any clock; time that goes back starts anew.
        boxes: where to look, instead of what the options say. depth: (H, W) metres registered to
        the image, with the image's `camera`: adds `keypoints_xyz`.
        Raises ValueError for arguments that cannot be used.
        """
        options, wh = self._options, (image.shape[1], image.shape[0])
        if depth is not None:
            if camera is None:
                raise ValueError("depth is given without a camera")
            check_depth(depth, wh)
        if self._tracker.begin(stamp_s):
            self.reset()
        if boxes is None and options.boxes_from_tracks:
            frame = self._follow(image, stamp_s, channel_order)
        else:
            frame = self.estimator.estimate(image, channel_order=channel_order, boxes=boxes)
        estimated = time.perf_counter()
        if depth is not None:
            frame.people = lift_people(frame.people, depth, camera, options.lifting)
        lifted = time.perf_counter()
        if options.tracking is not None:
            frame.people = self._track(frame, stamp_s, image, channel_order)
        frame.timing_ms["lift"] = 1e3 * (lifted - estimated)
        frame.timing_ms["track"] = 1e3 * (time.perf_counter() - lifted)
        return frame

    def _follow(self, image: np.ndarray, stamp_s: float, channel_order: str) -> PeopleFrame:
        """People where the tracks say, or where the detector says if it has to be asked."""
        expected = self._tracker.boxes(stamp_s, (image.shape[1], image.shape[0]))
        self._since_detector += 1
        if not expected or self._asks_detector(image, expected):
            return self._search(image, expected, channel_order)[0]
        frame = self.estimator.estimate(image, channel_order=channel_order, boxes=expected)
        seen = {_key(person.box_xywh) for person in frame.people}
        frame.people = self._once(self._believable(frame.people, None), ())
        sure = {_key(person.box_xywh) for person in frame.people}
        gone = [item for item in expected if _key(item.box_xywh) in seen - sure]
        if not gone:
            return frame
        first_ms = frame.timing_ms
        frame, found = self._search(image, expected, channel_order)
        frame.timing_ms = {stage: ms + first_ms[stage] for stage, ms in frame.timing_ms.items()}
        if _same_person(gone, found).any():
            # In the track's box the network is not sure of whom it knows in the detector's.
            self._detector_first = self._options.detector_every_n
        return frame

    def _asks_detector(self, image: np.ndarray, expected: Sequence[Detection2D]) -> bool:
        """Whether the detector runs although there are tracks."""
        self._rested = False
        if self._detector_first > 0:
            self._detector_first -= 1
            return True
        return self._someone_missing or self._due(image, expected)

    def _search(self, image: np.ndarray, expected: Sequence[Detection2D], channel_order: str
                ) -> tuple[PeopleFrame, list[Detection2D]]:
        """People where the detector sees any or tracks say; also the detector's boxes."""
        started = time.perf_counter()
        self._since_detector = 0
        found = self.estimator.detect(image, channel_order)
        # A detector now and then misses someone who is tracked well, and of two people who overlap
        # its one box is one of them.
        taken = {row for row, _ in best_pairs(_same_person(expected, found))}
        missed = [item for row, item in enumerate(expected) if row not in taken]
        nobody_new = self._rested and len(found) == len(taken)
        self._rest, self._rested = min(2 * self._rest, MOST_REST) if nobody_new else 1, False
        self._stillness.remember(image, [item.box_xywh for item in (*found, *missed)])
        looked = time.perf_counter()
        frame = self.estimator.estimate(image, channel_order=channel_order,
                                        boxes=[*found, *missed])
        frame.timing_ms["detector"] += 1e3 * (looked - started)
        frame.searched = True
        frame.people = self._once(self._believable(frame.people, found), found)
        return frame, found

    def _once(self, people: Sequence[PersonPose], detected: Sequence[Detection2D]
              ) -> list[PersonPose]:
        """Without whom a track shows again, or a part of, who is there already: in a detected box,
        or with a better score in that of another track."""
        vouched = {_key(item.box_xywh) for item in detected}
        threshold = self._tracker.options.min_keypoint_score
        kept = [person for person in people if _key(person.box_xywh) in vouched]
        for person in sorted(people, key=lambda person: -person.score):
            if _key(person.box_xywh) not in vouched and not looks_like(person, kept, threshold):
                kept.append(person)
        places = {id(person) for person in kept}
        return [person for person in people if id(person) in places]

    def _due(self, image: np.ndarray, expected: Sequence[Detection2D]) -> bool:
        """Whether it is time for the detector, somebody being tracked."""
        options = self._options
        if self._since_detector < options.detector_every_n:
            return False
        if options.detector_still_n <= options.detector_every_n or self._stillness.moved(
                image, [item.box_xywh for item in expected]):
            return True
        self._rested = self._since_detector >= self._rest * options.detector_still_n
        return self._rested

    def _believable(self, people: Sequence[PersonPose], detected: Sequence[Detection2D] | None
                    ) -> list[PersonPose]:
        """A network answers for any box. Without a detector's word keypoints must be sure; most of
        all where it has just looked (`detected`; None: it has not)."""
        vouched = {_key(item.box_xywh) for item in detected or ()}
        threshold = self._tracker.options.min_keypoint_score
        parts = tuple(PARTS) if detected is None else UNSEEN_PARTS
        return [person for person in people
                if _key(person.box_xywh) in vouched
                or shows_a_part(person, threshold, parts)]

    def _track(self, frame: PeopleFrame, stamp_s: float, image: np.ndarray, channel_order: str
               ) -> list[PersonPose]:
        scores = {_key(item.box_xywh): item.score for item in frame.detections}
        threshold = self._tracker.options.min_keypoint_score
        worn = None
        if self._tracker.options.appearance:
            worn = looks(image, np.array([item.keypoints_xy for item in frame.people]),
                         np.array([sure_keypoints(item, threshold) for item in frame.people]),
                         np.sqrt([np.prod(item.box_xywh[2:]) for item in frame.people]),
                         channel_order)
        people = self._tracker.update(
            frame.people, stamp_s, image.shape[1::-1],
            [scores.get(_key(person.box_xywh), person.score) for person in frame.people], worn)
        # Of whom only the detector knows it must speak again: the track alone finds nobody there.
        self._someone_missing = any(
            person.track_state in (TrackState.COASTING, TrackState.LOST)
            or not shows_a_part(person, threshold) for person in people)
        if self._options.smoothing is None:
            return people
        return self._smoother.smooth(people, stamp_s)


def _same_person(tracked: Sequence[Detection2D], found: Sequence[Detection2D]) -> np.ndarray:
    """(tracked, found) IoU; 0 where it is too small for one person."""
    boxes = xyxy_from_xywh(np.array([item.box_xywh for item in found]).reshape(-1, 4))
    overlaps = np.array([iou(xyxy_from_xywh(item.box_xywh), boxes) for item in tracked])
    return np.where(overlaps > SAME_PERSON_IOU, overlaps, 0.0).reshape(len(tracked), len(found))


def shows_a_part(person: PersonPose, threshold: float, parts: Sequence[str] = tuple(PARTS)
                 ) -> bool:
    """Whether body, feet, face or a hand has enough keypoints that are sure."""
    sure = sure_keypoints(person, threshold)
    return any(sure[PARTS[part]].mean() >= PART_SHARE for part in parts)


def _key(box_xywh: np.ndarray) -> tuple[float, ...]:
    return tuple(np.asarray(box_xywh, dtype=np.float64).tolist())
