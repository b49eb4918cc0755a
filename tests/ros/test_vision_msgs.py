"""The standard messages, where vision_msgs is installed: outputs, and boxes from a topic."""

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")
pytest.importorskip("onnx")
vision_msgs = pytest.importorskip("vision_msgs.msg")

from helpers.people_models import BOX, make_people_models, picture, true_keypoints
from helpers.ros_rig import LATCHED, RELIABLE, Rig, info_message, wait_for
from kd_pose.nodes.wholebody_pose_node import WholebodyPoseNode


def box_message(scene, names, stamp, frame_id="camera_optical"):
    """Detection2DArray with the true boxes of the scene's objects."""
    message = vision_msgs.Detection2DArray()
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    message.header.frame_id = frame_id
    for index in range(len(scene.specs)):
        x, y, w, h = scene.box_xywh(index)
        item = vision_msgs.Detection2D()
        item.bbox.center.position.x, item.bbox.center.position.y = x + w / 2, y + h / 2
        item.bbox.size_x, item.bbox.size_y = w, h
        for name, score in ((names[index], 0.9), ("something else", 0.1)):
            result = vision_msgs.ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = name, score
            item.results.append(result)
        message.detections.append(item)
    return message


def person_message(boxes, stamp, name="person"):
    message = vision_msgs.Detection2DArray()
    message.header.stamp.sec, message.header.frame_id = stamp, "camera_optical"
    for x, y, w, h in boxes:
        item = vision_msgs.Detection2D()
        item.bbox.center.position.x, item.bbox.center.position.y = x + w / 2, y + h / 2
        item.bbox.size_x, item.bbox.size_y = w, h
        result = vision_msgs.ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = name, 0.9
        item.results.append(result)
        message.detections.append(item)
    return message


def test_people_in_boxes_of_a_topic(tmp_path):
    """Boxes in, people and their boxes with ids out; those of other classes are ignored."""
    values = {**make_people_models(tmp_path), "roi_source": "topic", "detector_path": ""}
    with Rig(values, kind=WholebodyPoseNode, outputs=("people",)) as rig:
        received = []
        rig.client.create_subscription(vision_msgs.Detection2DArray, "wholebody_pose/detections",
                                       received.append, RELIABLE)
        boxes = rig.client.create_publisher(vision_msgs.Detection2DArray, "boxes", RELIABLE)
        rig.start()
        wait_for(boxes.get_subscription_count)
        boxes.publish(person_message([BOX], 1))
        rig.publish(picture(), stamp=(1, 0))
        person, = rig.wait_message("people").people
        np.testing.assert_allclose(np.reshape(person.xy, (-1, 2)), true_keypoints()[0], atol=1e-3)
        wait_for(lambda: received)
        item, = received[0].detections
        assert received[0].header == item.header == rig.received["people"][0].header
        assert item.id == person.id == "1"
        assert item.results[0].hypothesis.class_id == "person"
        assert item.results[0].hypothesis.score == pytest.approx(person.score)
        assert [item.bbox.center.position.x, item.bbox.size_y] == pytest.approx(
            [BOX[0] + BOX[2] / 2, BOX[3]], abs=1e-4)
        boxes.publish(person_message([BOX], 2, "cat"))
        rig.publish(picture(), stamp=(2, 0))
        assert rig.wait_message("people", 2).people == []  # not confirmed yet, so not coasting
        wait_for(lambda: len(received) == 2)
        assert received[1].detections == []


def test_detections_repeat_the_objects_with_box_centres(models, scene):
    with Rig(models) as rig:
        received, info = [], []
        rig.client.create_subscription(vision_msgs.Detection3DArray, "object_pose/detections",
                                       received.append, RELIABLE)
        rig.start()
        rig.client.create_subscription(vision_msgs.VisionInfo, "object_pose/vision_info",
                                       info.append, LATCHED)
        wait_for(lambda: info)
        assert info[0].database_location.endswith("/object_pose/object_info")
        rig.publish(scene.image(), info_message(scene.camera), (100, 5))
        objects = {item.class_id: item for item in rig.wait_message("objects").objects}
        wait_for(lambda: received)
        message = received[0]
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (100, 5)
        assert message.header.frame_id == "camera_optical"
        found = {item.results[0].hypothesis.class_id: item for item in message.detections}
        assert set(found) == {"block", "can"}
        for index, spec in enumerate(scene.specs):
            item = found[spec.name]
            assert item.header == message.header and item.id == ""
            assert item.results[0].pose.pose == objects[spec.name].pose.pose
            assert item.bbox.center == objects[spec.name].box_center
            center = scene.poses[index] @ [*spec.box_center, 1.0]
            position = item.bbox.center.position
            np.testing.assert_allclose([position.x, position.y, position.z], center[:3], atol=1e-3)
            size = item.bbox.size
            np.testing.assert_allclose([size.x, size.y, size.z], spec.box_size)


def test_boxes_from_a_topic_are_matched_by_stamp(models, scene):
    values = {**models, "roi_source": "topic", "detector_path": ""}
    with Rig(values) as rig:
        boxes = rig.client.create_publisher(vision_msgs.Detection2DArray, "boxes", RELIABLE)
        rig.start()
        wait_for(boxes.get_subscription_count)
        rig.publish(scene.image(), info_message(scene.camera), (1, 0))
        boxes.publish(box_message(scene, ("block", "can"), (1, 0)))
        message = rig.wait_message("objects")
        assert {item.class_id for item in message.objects} == {"block", "can"}
        boxes.publish(box_message(scene, ("block", "unheard of"), (2, 0)))
        rig.publish(scene.image(), info_message(scene.camera), (2, 0))
        message = rig.wait_message("objects", 2)
        assert [item.class_id for item in message.objects] == ["block"]
        rig.publish(scene.image(), info_message(scene.camera), (3, 0))  # no boxes for this one
        boxes.publish(box_message(scene, ("block", "can"), (4, 0)))
        rig.publish(scene.image(), info_message(scene.camera), (4, 0))
        assert rig.wait_message("objects", 3).header.stamp.sec == 4
        assert rig.wait_message("timing", 3).unsynced == 1
