"""An estimator of whole-body poses whose people are told to it: for counts, ids and time."""

from __future__ import annotations

import time

import numpy as np

from kd_pose.boxes import iou, xyxy_from_xywh
from kd_pose.results import PERSON, STAGES, Detection2D, PeopleFrame, PersonPose
from kd_pose.wholebody_keypoints import COUNT

# Where the 133 points of a person are in its box, 0..1; the first two make it the box.
POSTURE = np.random.default_rng(3).random((COUNT, 2))
POSTURE[:2] = [[0.0, 0.0], [1.0, 1.0]]


def true_points(box):
    """Keypoints (133, 2) of a person in a box xywh."""
    box = np.asarray(box, dtype=float)
    return box[:2] + POSTURE * box[2:]


class FakePeople:
    """Sees `people` (boxes xywh): a box that overlaps one is answered with its keypoints, any
    other one with keypoints that are not sure. `detected`: what the detector sees of them.
    """

    description = "fake people"

    def __init__(self, people=(), *, delay_s=0.0, detector=True):
        self.people, self.hidden = [np.array(box, float) for box in people], set()
        self.delay_s, self.has_detector, self.failure = delay_s, detector, None
        self.detections, self.looked_at = 0, []
        self.closed, self.options, self.ignored_boxes = False, None, 0

    def warm_up(self, n):
        pass

    def close(self):
        self.closed = True

    def detect(self, image, channel_order="bgr"):
        if not self.has_detector:
            raise ValueError("no detector was loaded")
        self.detections += 1
        return [Detection2D(PERSON, 0.9, box) for i, box in enumerate(self.people)
                if i not in self.hidden]

    def estimate(self, image, *, channel_order="bgr", boxes=None):
        if self.failure is not None:
            raise self.failure
        time.sleep(self.delay_s)
        boxes = self.detect(image, channel_order) if boxes is None else list(boxes)
        self.seen = (image, channel_order)
        self.looked_at.append([np.asarray(box.box_xywh) for box in boxes])
        people = [self._pose(box) for box in boxes]
        people.sort(key=lambda person: -person.score)
        return PeopleFrame(people, boxes, dict.fromkeys(STAGES, 1.0), self.ignored_boxes)

    def _pose(self, box):
        truth = np.array(self.people).reshape(-1, 4)
        overlaps = iou(xyxy_from_xywh(box.box_xywh), xyxy_from_xywh(truth))
        if len(truth) and overlaps.max() > 0.2:
            points, score = true_points(truth[np.argmax(overlaps)]), 0.8
        else:
            points, score = true_points(box.box_xywh), 0.1
        return PersonPose(np.asarray(box.box_xywh, float), box.score * score, points,
                          np.full(COUNT, score))
