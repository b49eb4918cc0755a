"""The monitor: what it counts, worked out by hand, and what it leaves behind, over DDS."""

from __future__ import annotations

import json
import os
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage

from kd_pose.nodes.monitor_boards import ObjectBoard, PeopleBoard, Spec
from kd_pose.nodes.monitor_node import MonitorNode
from kd_pose_msgs.msg import (
    ObjectInfo,
    ObjectPose,
    ObjectPoseArray,
    Timing,
    WholebodyPose,
    WholebodyPoseArray,
)


def people(*given):
    """A message of (id, score, scores of three keypoints)."""
    return WholebodyPoseArray(people=[
        WholebodyPose(id=name, score=score, keypoint_scores=points)
        for name, score, points in given])


def test_people_by_hand():
    board = PeopleBoard()
    board.arrived(20.0)
    line = board.update(people(("1", 0.8, [0.9, 0.3, 0.1]), ("2", 0.5, [0.0, 0.0, 0.4])))
    assert line == "2 people  #1 0.80 (2 points)  #2 0.50 (1 points)"
    board.arrived(40.0)
    assert board.update(people(("1", 0.8, [0.9, 0.9, 0.9]))).startswith("1 person  #1 0.80")
    board.arrived(99_999.0)  # from last week: no latency
    assert board.update(people()) == "0 people  "
    summary = board.summary()
    assert summary["frames"] == 3 and summary["latency_ms_median"] == 30
    assert (summary["people_mean"], summary["people_max"]) == (1.0, 2)
    assert summary["frames_without_people"] == 1
    assert summary["frames_by_id"] == {"1": 2, "2": 1}
    assert summary["keypoints_found"] == pytest.approx(6 / 9)
    table = board.table(summary)
    assert "2 ids: #1 in 2, #2 in 1" in table and "66.7% of the keypoints" in table


def at(x, name="", state=WholebodyPose.TRACKED):
    """A person all of whose points lie at x, 50, in a box of 100 x 100 pixels."""
    return WholebodyPose(id=name, track_state=state, score=0.5, xy=133 * [float(x), 50.0],
                         keypoint_scores=133 * [1.0], bbox_xywh=[x - 50.0, 0.0, 100.0, 100.0])


def frame_of(*given):
    return WholebodyPoseArray(people=list(given))


def test_people_against_the_truth_by_hand():
    board = PeopleBoard()
    truth = frame_of(at(100, "a"), at(300, "b"))
    line = board.update(frame_of(at(302, "7"), at(104, "3"), at(900, "8")), truth)
    assert line == ("3 people  2/2 found  #7 0.50 (133 points, 2.0 % off)  "
                    "#3 0.50 (133 points, 4.0 % off)  #8 0.50 (133 points)")
    # Nobody is found by a track that only goes on, or that nobody believes yet.
    board.update(frame_of(at(100, "3", WholebodyPose.COASTING),
                          at(300, "9", WholebodyPose.TENTATIVE)), truth)
    board.update(frame_of(at(300, "3"), at(100, "8")), truth)  # both are somebody else now
    board.update(frame_of(at(300, "3"), at(100, "8")), truth)
    summary = board.summary()["truth"]
    assert summary == {"people": 8, "found": 6, "recall": 0.75, "false_per_frame": 0.25,
                       "id_changes": 2, "median_error_of_size": pytest.approx(0.0)}
    table = board.table(board.summary())
    assert "6 of 8 true people tracked (75.0%; body OKS 0.5 or more)" in table
    assert "0.25 false ones a frame, 2 id changes, body points off by 0.0%" in table


def test_without_tracks_people_are_scored_all_the_same():
    board = PeopleBoard()
    line = board.update(frame_of(at(105, state=WholebodyPose.TENTATIVE)), frame_of(at(100)))
    assert line == "1 person  1/1 found  #? 0.50 (133 points, 5.0 % off)"
    assert board.summary()["truth"]["id_changes"] is None
    empty = PeopleBoard()
    empty.update(frame_of(at(105)), frame_of())
    assert "nobody there by the truth, 1.00 false people" in empty.table(empty.summary())


def test_a_crowd_is_not_listed():
    line = PeopleBoard().update(people(*((str(i), 0.5, []) for i in range(6))))
    assert line.startswith("6 people  #0 ") and line.endswith("#3 0.50 (0 points)  ...")


def test_nobody_at_all():
    board = PeopleBoard()
    board.update(people())
    assert "0 ids: none" in board.table(board.summary())


def object_at(name, x, z):
    item = ObjectPose(class_id=name)
    item.pose.pose.position.x, item.pose.pose.position.z = x, z
    item.pose.pose.orientation.w = 1.0
    return item


def test_objects_by_hand():
    info = ObjectInfo(class_id="mug", diameter=0.2)
    info.box_center.orientation.w = 1.0
    info.box_size.x = info.box_size.y = info.box_size.z = 0.1
    board = ObjectBoard()
    board.specs = {"mug": Spec(info)}
    truth = ObjectPoseArray(objects=[object_at("mug", 0.0, 1.0), object_at("mug", 0.5, 1.0)])
    line = board.update(ObjectPoseArray(objects=[
        object_at("mug", 0.01, 1.0), object_at("mug", 0.5, 1.03), object_at("mug", 2.0, 1.0)]),
        truth)
    assert line.startswith("2/2 found  ")
    assert "mug 10.0mm/0.0deg" in line and "mug 30.0mm/0.0deg!" in line  # a tenth of 0.2 is 20 mm
    row = board.summary()["classes"]["mug"]
    assert row["truth_instances"] == 2 and row["recall_corners_0.1d"] == 0.5
    assert row["median_translation_mm"] == pytest.approx(20)
    assert board.summary()["unmatched_estimates"] == 1
    assert "1 estimates without a truth" in board.table(board.summary())


def test_objects_without_a_truth_by_hand():
    board = ObjectBoard()
    seen = object_at("mug", 0.01, 1.0)
    seen.score = 0.9
    assert board.update(ObjectPoseArray(objects=[seen])) == (
        "1 object  mug 0.90 at (0.010, 0.000, 1.000) m")
    assert board.update(ObjectPoseArray()) == "0 objects  "
    line = board.update(ObjectPoseArray(objects=[object_at("can", 0.0, 1.0)] * 6))
    assert line.startswith("6 objects  can 0.00") and line.endswith("m  ...")
    assert board.prefix().startswith("[   3]")
    summary = board.summary()
    assert summary["frames"] == 0 and summary["frames_without_truth"] == 3
    assert summary["objects_without_truth"] == {"can": 6, "mug": 1}
    table = board.table(summary)
    assert table.startswith("3 frames without a truth, seen in them: can 6, mug 1, image-to-")
    board.update(ObjectPoseArray(), ObjectPoseArray())
    table = board.table(board.summary())
    assert "1 frames scored" in table and table.endswith("can 6, mug 1")


def test_the_summary_with_a_truth_has_no_further_keys():
    board = ObjectBoard()
    board.update(ObjectPoseArray(), ObjectPoseArray())
    assert set(board.summary()) == {"frames", "latency_ms_median", "latency_ms_p95",
                                    "unmatched_estimates", "classes"}


def test_scores_of_keypoints_are_counted_not_kept():
    board = PeopleBoard()
    for _ in range(3):
        board.update(people(("1", 0.5, [0.1, 0.62, 0.7]), ("2", 0.5, [0.62, 1.2, np.nan])))
    summary = board.summary()
    assert summary["keypoint_score_median"] == 0.62
    assert summary["keypoints_found"] == pytest.approx(4 / 6)
    assert board.scores.size == 1001 and board.scores.sum() == 18


@pytest.fixture
def monitor():
    """Makes monitors in a context of their own."""
    context = Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    nodes = []

    def make(**values):
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        space = f"/monitor{os.getpid()}_{len(nodes)}"
        nodes.append(MonitorNode(context=context, namespace=space, parameter_overrides=overrides))
        return nodes[-1]

    make.context = context
    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown(context=context)


def objects_of(second):
    message = ObjectPoseArray(objects=[object_at("mug", 0.0, 1.0)])
    message.header.stamp.sec = second
    return message


def test_a_live_camera_has_a_line_a_frame(monitor, capsys):
    """Nobody publishes a truth: nothing is waited for."""
    node = monitor()
    for second in range(3):
        node._on_result(objects_of(second))
    assert capsys.readouterr().out.count("1 object  mug 0.00 at (0.000, 0.000, 1.000) m") == 3
    assert node.finish()["frames_without_truth"] == 3


def test_a_result_waits_where_a_truth_is_to_come(monitor, capsys):
    node = monitor()
    client = Node("player", context=monitor.context, namespace=node.get_namespace())
    try:
        client.create_publisher(ObjectPoseArray, "~/truth", 5)
        end = time.monotonic() + 10
        while not node._waits_for_truth():
            assert time.monotonic() < end
            time.sleep(0.01)
        node._on_result(objects_of(1))
        assert not capsys.readouterr().out
        node._on_truth(objects_of(1))
        assert "1/1 found" in capsys.readouterr().out
        node._on_result(objects_of(2))  # its truth was lost
        summary = node.finish()
    finally:
        client.destroy_node()
    assert summary["frames"] == 1 and summary["frames_without_truth"] == 1


def test_when_truths_have_ended_lines_go_on(monitor, capsys):
    node = monitor()
    node._on_truth(objects_of(0))
    for second in range(1, 203):
        node._on_result(objects_of(second))
    assert capsys.readouterr().out.count("1 object  mug") == 202  # those that waited, too
    assert node.board.unscored == 202 and not node.pending["result"]
    node._on_truth(objects_of(500))
    node._on_result(objects_of(500))
    assert "1/1 found" in capsys.readouterr().out


def test_nobody_waits_long_for_truths_that_have_ended(monitor, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("kd_pose.nodes.monitor_node.monotonic", lambda: now[0])
    node = monitor()
    for second in range(3):
        node._on_result(objects_of(second))
        node._on_truth(objects_of(second))
        now[0] += 10.0  # a slow camera
        node._on_timer()
    capsys.readouterr()
    for second in (3, 4):
        node._on_result(objects_of(second))
        now[0] += 3.0
        if second == 3:
            node._on_timer()
            assert not capsys.readouterr().out
    node._on_timer()
    assert capsys.readouterr().out.count("1 object  mug") == 2
    node._on_result(objects_of(5))
    assert capsys.readouterr().out.count("1 object  mug") == 1
    assert (node.board.frames, node.board.unscored) == (2, 4)  # the first came before any truth


def test_a_message_that_cannot_be_scored_ends_nothing(monitor, capsys, monkeypatch):
    said = []
    monkeypatch.setattr("rclpy.impl.rcutils_logger.RcutilsLogger.error",
                        lambda self, text, **kwargs: said.append(text))
    node = monitor(watch="people")
    for second, xy in enumerate(([1.0, 2.0], 133 * [100.0, 50.0])):
        person, truth = at(100, "3"), frame_of(at(100, "a"))
        person.xy = xy
        message = frame_of(person)
        message.header.stamp.sec = truth.header.stamp.sec = second
        node._on_truth(truth)
        node._on_result(message)
    assert len(said) == 1 and "a result could not be counted: cannot reshape" in said[0]
    assert "1/1 found" in capsys.readouterr().out
    node.finish()


def test_a_parameter_that_nothing_reads_is_named(monitor, monkeypatch):
    said = []
    monkeypatch.setattr("rclpy.impl.rcutils_logger.RcutilsLogger.warning",
                        lambda self, text, **kwargs: said.append(text))
    monitor(wacth="people")
    assert said == ["unknown parameter(s) given: wacth"]


def test_what_is_left_behind_of_people(tmp_path, capsys):
    context = Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    overrides = [Parameter("watch", value="people"), Parameter("idle_timeout_s", value=0.3),
                 Parameter("output_dir", value=str(tmp_path / "out"))]
    space = f"/monitor{os.getpid()}"
    node = MonitorNode(context=context, namespace=space, parameter_overrides=overrides)
    client = Node("wholebody_pose", context=context, namespace=space)
    executor = SingleThreadedExecutor(context=context)
    for item in (node, client):
        executor.add_node(item)
    try:
        outputs = [client.create_publisher(kind, f"~/{name}", 10) for kind, name in (
            (WholebodyPoseArray, "people"), (Timing, "timing"),
            (CompressedImage, "image_annotated/compressed"))]
        spin(executor, lambda: all(p.get_subscription_count() for p in outputs))
        picture = cv2.imencode(".jpg", np.full((48, 64, 3), 99, np.uint8))[1].tobytes()
        message = people(("7", 0.5, [0.5]))
        message.header.stamp = client.get_clock().now().to_msg()
        outputs[1].publish(Timing(stages=["network"], ms=[3.0], received=1, processed=1))
        outputs[2].publish(CompressedImage(format="jpeg", data=picture))
        outputs[0].publish(message)
        assert not node.finished() and not node.done.done()
        spin(executor, lambda: node.done.done() and node.recording.count)
        summary = node.finish()
    finally:
        for item in (node, client):
            item.destroy_node()
        rclpy.try_shutdown(context=context)
    assert summary["frames_by_id"] == {"7": 1} and summary["last_stage_ms"] == {"network": 3.0}
    assert json.loads((tmp_path / "out/summary.json").read_text())["frames"] == 1
    assert cv2.imread(str(tmp_path / "out/sheet.jpg")).shape[1] == 4 * 480
    assert (tmp_path / "out/annotated.mp4").stat().st_size > 0
    assert "1 person  #7 0.50" in capsys.readouterr().out


def test_people_wait_for_their_truth(capsys):
    context = Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    node = MonitorNode(context=context, parameter_overrides=[Parameter("watch", value="people")])
    try:
        for second, (first, then) in enumerate((("truth", "people"), ("people", "truth")), 1):
            messages = {"people": frame_of(at(102, "3")), "truth": frame_of(at(100, "a"))}
            for message in messages.values():
                message.header.stamp.sec = second
            for kind in (first, then):
                if kind == "people":
                    node._on_result(messages[kind])
                else:
                    node._on_truth(messages[kind])
        summary = node.finish()
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    assert summary["frames"] == 2 and summary["truth"]["found"] == 2
    assert capsys.readouterr().out.count("1/1 found  #3") == 2


def test_something_else_is_not_watched():
    context = Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    try:
        with pytest.raises(ValueError, match="watch must be one of objects, people, got 'cats'"):
            MonitorNode(context=context, parameter_overrides=[Parameter("watch", value="cats")])
    finally:
        rclpy.try_shutdown(context=context)


def spin(executor, ready, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < end, "timed out"
        executor.spin_once(timeout_sec=0.05)
