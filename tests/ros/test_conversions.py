"""Messages to what estimators take; vision_msgs need not be installed."""

from types import SimpleNamespace as Message

import pytest

pytest.importorskip("rclpy")

from kd_pose.nodes.conversions import detections_from_message


def detection(*hypotheses):
    """A box of 40 x 20 around (100, 50) with (class, score) each."""
    return Message(
        results=[Message(hypothesis=Message(class_id=name, score=score))
                 for name, score in hypotheses],
        bbox=Message(center=Message(position=Message(x=100.0, y=50.0)), size_x=40.0, size_y=20.0))


def test_boxes_have_the_best_of_their_hypotheses():
    box, = detections_from_message(Message(detections=[detection(("cat", 0.2), ("person", 0.7))]))
    assert (box.class_id, box.score, list(box.box_xywh)) == ("person", 0.7, [80, 40, 40, 20])


def test_boxes_without_hypotheses_are_of_no_class_but_there():
    """So that they are counted where boxes are ignored."""
    box, = detections_from_message(Message(detections=[detection()]))
    assert (box.class_id, box.score) == ("", 0.0)
