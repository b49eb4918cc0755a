"""wholebody_pose over DDS: what goes in comes out, with its header; ids; empty frames; time.

One active node serves most tests: its people are told to a fake, its stamps only go on.
"""

# ruff: noqa: E402
import itertools
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

from builtin_interfaces.msg import Duration
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from helpers.fake_people import FakePeople, true_points
from helpers.ros_rig import BEST_EFFORT, LATCHED, RELIABLE, Rig, fake_node, wait_for
from kd_pose.nodes.conversions import vision_msgs_available
from kd_pose.nodes.wholebody_pose_node import WholebodyPoseNode
from kd_pose.people_stream import STREAM_STAGES
from kd_pose.wholebody_keypoints import COCO_WHOLEBODY_133, COUNT, FLIP
from kd_pose_msgs.msg import SkeletonInfo, WholebodyPose
from kd_pose_msgs.srv import EstimatePeople

OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"
IMAGE = np.full((480, 640, 3), 60, np.uint8)
ONE, TWO = (100.0, 100.0, 80.0, 200.0), (400.0, 120.0, 80.0, 200.0)
OUTPUTS = ("people", "timing", "image_annotated", "image_annotated/compressed")
_seconds = itertools.count(1000, 100)  # further apart than any track lives


@pytest.fixture(scope="module")
def shared():
    fake = FakePeople()
    with Rig(kind=fake_node(fake, WholebodyPoseNode), outputs=OUTPUTS) as rig:
        yield rig.start(), fake


@pytest.fixture
def live(shared):
    """rig, fake and a time of which nobody knows anything yet."""
    rig, fake = shared
    fake.people, fake.hidden, fake.failure, fake.detections = [], set(), None, 0
    rig.node.forget_before_next_image()
    return rig, fake, next(_seconds)


def show(live, people, after_s=0.0):
    """Publish an image in which there are these people -> the answer."""
    rig, fake, start = live
    fake.people = [np.array(box, float) for box in people]
    stamp = (start + int(after_s), round(1e9 * (after_s % 1)))
    rig.publish(IMAGE, stamp=stamp)
    return answer(rig, "people", stamp)


def answer(rig, topic, stamp):
    def found():
        return [message for message in tuple(rig.received[topic])
                if (message.header.stamp.sec, message.header.stamp.nanosec) == stamp]
    wait_for(found)
    message = found()[-1]
    assert message.header.frame_id == "camera_optical"
    return message


def ids(message):
    return [person.id for person in message.people]


def test_people_have_the_keypoints_and_the_header_of_the_image(live):
    rig, fake, start = live
    message = show(live, [ONE, TWO])
    assert (message.skeleton, message.image_width, message.image_height) == (
        "coco_wholebody_133", 640, 480)
    assert len(message.people) == 2
    for person, box in zip(message.people, (ONE, TWO)):
        np.testing.assert_allclose(np.reshape(person.xy, (COUNT, 2)), true_points(box), atol=1e-3)
        np.testing.assert_allclose(person.keypoint_scores, 0.8)
        np.testing.assert_allclose(person.bbox_xywh, box)
        assert person.score == pytest.approx(0.72)
        assert person.track_state == WholebodyPose.TENTATIVE and len(person.xyz) == 0
    timing = answer(rig, "timing", (start, 0))
    assert tuple(timing.stages) == ("wait", "convert", *STREAM_STAGES, "publish", "draw",
                                    "capture_to_publish")
    picture = answer(rig, "image_annotated", (start, 0))
    assert (picture.width, picture.height, picture.encoding) == (640, 480, "bgr8")
    drawn = (np.reshape(picture.data, (480, 640, 3)) != 60).any(axis=2)
    x, y = np.rint(true_points(ONE)[[5, 7, 91, 120]]).astype(int).T
    assert drawn[y, x].all() and not drawn[400:].any()
    jpeg = answer(rig, "image_annotated/compressed", (start, 0))
    assert cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), 1).shape == (480, 640, 3)


def test_camera_info_is_not_waited_for_without_depth(live):
    rig = live[0]
    show(live, [ONE])
    assert rig.info.get_subscription_count() == rig.depth.get_subscription_count() == 0
    rig.wait_status("calibration", OK, "no camera_info is needed")
    assert not rig.node.count_publishers(f"{rig.namespace}/wholebody_pose/markers")
    assert vision_msgs_available() == bool(
        rig.node.count_publishers(f"{rig.namespace}/wholebody_pose/detections"))


def test_where_nobody_is_an_empty_array_is_published(live):
    assert show(live, []).people == []
    assert ids(show(live, [ONE], 0.1)) != []


def test_ids_stay_and_boxes_come_from_tracks(live):
    rig, fake, _ = live
    first = ids(show(live, [ONE, TWO]))
    assert len(set(first)) == 2 and all(first)
    for i in range(1, 8):
        message = show(live, [(ONE[0] + 4 * i, *ONE[1:]), TWO], 0.1 * i)
        assert sorted(ids(message)) == sorted(first)
    assert fake.detections == 1  # of 8 images; detector_every_n is 10
    assert {person.track_state for person in message.people} == {WholebodyPose.TRACKED}
    assert len(fake.looked_at[-1]) == 2  # one call for both


def test_who_leaves_coasts_and_is_lost_once(live):
    for i in range(4):
        message = show(live, [ONE], 0.1 * i)
    name = ids(message)[0]
    states = []
    for i in range(4, 12):
        message = show(live, [], 0.1 * i)
        states += [person.track_state for person in message.people]
        for person in message.people:
            assert person.id == name and person.score == 0 and not any(person.keypoint_scores)
    assert states == [WholebodyPose.COASTING] * 5 + [WholebodyPose.LOST]


def test_stamps_that_go_back_start_anew(live):
    """A bag that is played in a loop."""
    before = ids(show(live, [ONE], 50.0))
    after = ids(show(live, [ONE], 10.0))
    assert len(after) == 1 and before != after
    assert ids(show(live, [ONE], 10.1)) == after


def test_images_of_one_stamp_are_told_and_time_goes_on_all_the_same(live):
    rig, fake, start = live
    count = len(rig.received["people"])

    def again(people):
        fake.people = [np.array(box, float) for box in people]
        rig.publish(IMAGE, stamp=(start, 0))
        wait_for(lambda: len(rig.received["people"]) > count + again.sent)
        again.sent += 1
        return rig.received["people"][-1].people

    again.sent = 0
    name = [again([ONE]) for _ in range(3)][-1][0].id
    rig.wait_status("input", WARN, "images have one and the same stamp")
    states, end = [], time.monotonic() + 5.0
    while WholebodyPose.LOST not in states and time.monotonic() < end:
        states += [person.track_state for person in again([]) if person.id == name]
        time.sleep(0.05)
    assert states[0] == WholebodyPose.COASTING and states[-1] == WholebodyPose.LOST


def test_reset_tracking(live):
    rig = live[0]
    before = ids(show(live, [ONE]))
    reply = rig.call(Trigger, "reset_tracking", Trigger.Request())
    assert reply.success and "next image" in reply.message
    assert ids(show(live, [ONE], 0.1)) != before


def test_unknown_keypoints_are_nan(live):
    rig, fake, _ = live
    pose = fake._pose

    def without_hands(box):
        person = pose(box)
        person.keypoints_xy[91:], person.keypoint_scores[91:] = np.nan, 0.0
        return person

    fake._pose = without_hands
    try:
        person = show(live, [ONE]).people[0]
    finally:
        fake._pose = pose
    assert np.isnan(person.xy[2 * 91:]).all() and np.isfinite(person.xy[:2 * 91]).all()
    assert not any(person.keypoint_scores[91:]) and len(person.keypoint_scores) == COUNT


def test_late_subscriber_learns_what_the_keypoints_mean(live):
    rig, received = live[0], []
    rig.client.create_subscription(SkeletonInfo, "wholebody_pose/skeleton_info", received.append,
                                   LATCHED)
    wait_for(lambda: received)
    info = received[0]
    assert tuple(info.keypoint_names) == COCO_WHOLEBODY_133.names
    assert [tuple(pair) for pair in np.reshape(info.edges, (-1, 2))] == [
        tuple(edge) for edge in COCO_WHOLEBODY_133.edges]
    mirror = np.arange(COUNT)
    for a, b in np.reshape(info.flip_pairs, (-1, 2)):
        mirror[a], mirror[b] = b, a
    np.testing.assert_array_equal(mirror, FLIP)
    assert [info.group[i] for i in (0, 17, 23, 91, 112)] == [
        SkeletonInfo.BODY, SkeletonInfo.FEET, SkeletonInfo.FACE, SkeletonInfo.LEFT_HAND,
        SkeletonInfo.RIGHT_HAND]


def test_a_worker_exception_is_counted_and_survived(live):
    rig, fake, start = live
    fake.failure = RuntimeError("the network fell over")
    rig.publish(IMAGE, stamp=(start, 0))
    rig.wait_status("inference", ERROR, "the network fell over")
    fake.failure = None
    assert len(show(live, [ONE], 0.1).people) == 1


def test_boxes_that_cannot_be_looked_at_are_told(live):
    rig, fake, _ = live
    fake.ignored_boxes = 2
    try:
        assert len(show(live, [ONE]).people) == 1
    finally:
        fake.ignored_boxes = 0
    rig.wait_status("input", WARN, "2 box(es) of an image were ignored: of a class that")


def test_enable_pauses_and_resumes(live):
    rig, fake, start = live
    assert rig.call(SetBool, "enable", SetBool.Request(data=False)).message == "paused"
    rig.publish(IMAGE, stamp=(start, 0))
    assert rig.call(SetBool, "enable", SetBool.Request(data=True)).success
    assert len(show(live, [ONE], 0.1).people) == 1
    assert not [m for m in rig.received["people"] if (m.header.stamp.sec,
                                                      m.header.stamp.nanosec) == (start, 0)]


def test_smoothing_is_switched_on_while_it_runs(live):
    rig = live[0]

    def third_x(moved):
        for i, x in enumerate(moved):
            person = show(live, [(100.0 + x, *ONE[1:])], 0.1 * i).people[0]
        return person.xy[2 * 5]

    expected = true_points((102.0, *ONE[1:]))[5, 0]
    assert third_x([0, 0, 2]) == pytest.approx(expected, abs=1e-3)
    on = [Parameter("smoothing.enable", value=True), Parameter("smoothing.beta", value=0.0)]
    assert rig.node.set_parameters_atomically(on).successful
    try:
        live = (rig, live[1], next(_seconds))
        assert expected - 1.9 < third_x([0, 0, 2]) < expected - 0.5
    finally:
        rig.node.set_parameters([Parameter("smoothing.enable", value=False)])


def test_parameters_are_checked_while_active(live):
    rig = live[0]

    def refuse(name, value):
        result = rig.node.set_parameters([Parameter(name, value=value)])[0]
        assert not result.successful
        return result.reason

    assert "clean up" in refuse("roi_source", "detector")
    assert "clean up" in refuse("use_depth", True)
    assert "must be one of tracks, detector, topic" in refuse("roi_source", "guess")
    assert "range" in refuse("detector_every_n", 0)
    assert "range" in refuse("tracking.max_coast_s", -1.0)
    assert "range" in refuse("keypoint_score_threshold", 1.5)
    assert "range" in refuse("smoothing.min_cutoff_hz", 0.0)
    good = [Parameter("max_people", value=3), Parameter("detector_score_threshold", value=0.4),
            Parameter("tracking.confirm_frames", value=2)]
    assert rig.node.set_parameters_atomically(good).successful
    options = rig.node.estimator.options
    assert (options.max_people, options.detector_score_threshold) == (3, 0.4)
    states = [show(live, [ONE], 0.1 * i).people[0].track_state for i in range(2)]
    assert states == [WholebodyPose.TENTATIVE, WholebodyPose.TRACKED]
    rig.node.set_parameters([Parameter("tracking.confirm_frames", value=3)])


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best_effort"])
def test_both_kinds_of_publisher_arrive_without_tracking(qos):
    values = {"tracking.enable": False, "roi_source": "detector"}
    with Rig(values, kind=fake_node(FakePeople([ONE]), WholebodyPoseNode), outputs=("people",),
             publisher_qos=qos) as rig:
        message = rig.start().publish_until("people", IMAGE, None)
        assert [(person.id, person.track_state) for person in message.people] == [
            ("", WholebodyPose.TENTATIVE)]
        reply = rig.call(Trigger, "reset_tracking", Trigger.Request())
        assert not reply.success and "tracking.enable is false" in reply.message


# --- estimate_once -------------------------------------------------------------------------------


def ask_once(rig, timeout_s=0.0):
    """The future of an answer."""
    client = rig.client.create_client(EstimatePeople, "wholebody_pose/estimate_once")
    assert client.wait_for_service(10)
    seconds, rest = divmod(timeout_s, 1)
    return client.call_async(EstimatePeople.Request(
        timeout=Duration(sec=int(seconds), nanosec=round(1e9 * rest))))


def test_estimate_once_answers_with_the_next_image(live):
    rig, fake, start = live
    future = ask_once(rig)
    another = ask_once(rig)
    wait_for(lambda: len(rig.node._once._waiting) == 2)
    assert not future.done()
    message = show(live, [ONE])
    wait_for(lambda: future.done() and another.done())
    assert future.result().success and future.result().message == ""
    assert future.result().result == another.result().result == message
    assert message.header.stamp.sec == start


def test_estimate_once_waits_for_an_image_that_is_newer_than_the_request(live):
    rig, fake, start = live
    fake.delay_s = 0.3
    try:
        rig.publish(IMAGE, stamp=(start, 0))
        wait_for(rig.node._busy.locked)
        future = ask_once(rig)
        wait_for(lambda: rig.node._once._waiting)
        show(live, [], 1.0)
        wait_for(future.done)
        assert future.result().result.header.stamp.sec == start + 1
    finally:
        fake.delay_s = 0.0


def test_estimate_once_says_why_there_is_no_answer(live):
    rig = live[0]
    for timeout, text in ((0.1, "no result within 0.1 s: "), (-1.0, "must not be negative")):
        future = ask_once(rig, timeout)
        wait_for(future.done)
        assert not future.result().success and text in future.result().message
        assert future.result().result.people == []
    rig.call(SetBool, "enable", SetBool.Request(data=False))
    future = ask_once(rig)
    wait_for(future.done)
    assert "paused" in future.result().message
    rig.call(SetBool, "enable", SetBool.Request(data=True))
    future = ask_once(rig)
    wait_for(lambda: rig.node._once._waiting)
    rig.node.trigger_deactivate()
    wait_for(future.done)
    assert future.result().message == "the node was deactivated"
    future = ask_once(rig)
    wait_for(future.done)
    assert future.result().message == "the node is not active"
    rig.start_again()
    assert len(show(live, [ONE]).people) == 1
