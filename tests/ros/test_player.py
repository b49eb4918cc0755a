"""`player` over DDS: pictures, cameras, stamps, truth, rates, and what it says of bad sources.

A busy machine makes a player late but never early: times are checked from below.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from helpers.bop_folder import write_set
from helpers.recordings import (
    CALIBRATION,
    K,
    write_bag,
    write_folder,
    write_true_people,
    write_video,
)
from helpers.ros_rig import BEST_EFFORT, RELIABLE, SpinThread, wait_for
from kd_pose.nodes import player_node
from kd_pose.nodes.conversions import stamp_nanoseconds
from kd_pose.nodes.player_node import PARAMETERS, PlayerNode
from kd_pose_msgs.msg import ObjectPoseArray, WholebodyPose, WholebodyPoseArray

COMMAND = [sys.executable, "-c", "import sys; from kd_pose.nodes.player_node import main; "
           "sys.exit(main())"]
_numbers = itertools.count()


class Player:
    """A player and its audience: `with Player(source=folder) as p: p.wait_done()`.

    The player waits for its subscribers, so that every message counts.
    """

    def __init__(self, qos=RELIABLE, truth=False, info=True, **values):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=1 + os.getpid() % 100)
        namespace = f"/player{os.getpid()}_{next(_numbers)}"
        self.client = Node("client", context=self.context, namespace=namespace)
        self.infos, self.images, self.truths, self.people = [], [], [], []
        compressed = values.get("image_transport") == "compressed"
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        self.client.create_subscription(kind, topic, self.images.append, qos)
        if info:
            self.client.create_subscription(CameraInfo, "camera_info", self.infos.append,
                                            QoSProfile(depth=100))
        if truth:
            self.client.create_subscription(ObjectPoseArray, "player/truth", self.truths.append,
                                            QoSProfile(depth=100))
        if "people_file" in values:
            self.client.create_subscription(WholebodyPoseArray, "player/true_people",
                                            self.people.append, QoSProfile(depth=100))
        values = {"wait_for_subscribers": True, "publish_truth": truth, **values}
        self.node = PlayerNode(context=self.context, namespace=namespace, parameter_overrides=[
            Parameter(name, value=str(value) if name == "source" else value)
            for name, value in values.items()])
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.client)
        self.executor.add_node(self.node)
        self.thread = SpinThread(self.executor)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.thread.stop()
        self.node.destroy_node()
        self.client.destroy_node()
        self.context.try_shutdown()

    def wait_done(self, count=3):
        """The exit code, after the pictures have come with their camera_info and truth."""
        wait_for(self.node.done.done)
        parts = [self.images, *(part for part in (self.infos, self.truths) if part)]
        wait_for(lambda: all(len(part) >= count for part in parts))
        return self.node.done.result()

    def blues(self):
        """The first byte of every picture: which one it is."""
        return [image.data[0] for image in self.images]

    def stamps(self):
        return [stamp_nanoseconds(message.header) for message in self.images]


def test_a_folder_is_played_once_in_order(tmp_path):
    before = time.time_ns()
    with Player(source=write_folder(tmp_path), rate_hz=20.0) as player:
        assert player.wait_done() == 0
        assert player.blues() == [1, 2, 10]
        image, info = player.images[1], player.infos[1]
        assert (image.encoding, image.width, image.height, image.step) == ("bgr8", 8, 6, 24)
        assert image.header.frame_id == "camera_optical_frame"
        assert [message.header for message in player.infos] == [
            message.header for message in player.images]
        assert (info.width, info.height, info.distortion_model) == (8, 6, "plumb_bob")
        assert info.k.tolist() == list(K) and info.d.tolist()[:2] == [0.1, -0.2]
        assert info.p[0] == 9.0 and info.r.tolist() == np.eye(3).reshape(9).tolist()
        stamps = player.stamps()
        assert before < stamps[0] < stamps[1] < stamps[2] < time.time_ns()
        assert stamps[2] - stamps[0] > 0.09e9


def test_a_best_effort_audience_is_served(tmp_path):
    with Player(BEST_EFFORT, source=write_folder(tmp_path), rate_hz=50.0, loop=True) as player:
        wait_for(lambda: len(player.images) >= 6)
        assert set(player.blues()) <= {1, 2, 10}


def test_a_loop_goes_on_and_frame_id_is_the_given_one(tmp_path):
    folder = write_folder(tmp_path)
    with Player(source=folder, rate_hz=50.0, loop=True, frame_id="front_optical") as player:
        wait_for(lambda: len(player.images) >= 8)
        assert not player.node.done.done()
        assert player.blues()[:7] == [1, 2, 10, 1, 2, 10, 1]
        assert player.images[7].header.frame_id == "front_optical"


def test_a_scene_with_its_truth(tmp_path):
    with Player(source=write_set(tmp_path), rate_hz=50.0, truth=True,
                truth_min_visible=0.0) as player:
        assert player.wait_done() == 0
        assert [len(message.objects) for message in player.truths] == [2, 0, 2]
        assert [message.header for message in player.truths] == [
            message.header for message in player.images]
        disc, block = player.truths[2].objects
        assert (disc.class_id, block.class_id, block.score) == ("disc", "block", 1.0)
        position, turn = block.pose.pose.position, block.pose.pose.orientation
        assert (position.x, position.y, position.z) == pytest.approx((0.1, -0.05, 0.75))
        # 90 degrees about z
        assert (turn.z, turn.w) == pytest.approx((0.5 ** 0.5, 0.5 ** 0.5))
        assert not block.covariance_valid and list(block.keypoints_xy) == []
        center, size = disc.box_center.position, disc.box_size
        assert (center.x, center.y, center.z) == pytest.approx((0.0, 0.0, 0.802))
        assert (size.x, size.y, size.z) == pytest.approx((0.1, 0.1, 0.004))
        assert block.last_seen == player.images[2].header.stamp


def test_a_folder_with_its_true_people(tmp_path):
    names = {1: "img1.png", 2: "img2.png", 9: "img10.png"}
    people = [{"image_id": 2, "x": 5, "track_id": 4}]
    file = write_true_people(tmp_path / "people.json", names, people)
    with Player(source=write_folder(tmp_path / "folder"), rate_hz=50.0,
                people_file=str(file)) as player:
        assert player.wait_done() == 0
        assert [len(message.people) for message in player.people] == [0, 1, 0]
        assert [message.header for message in player.people] == [
            message.header for message in player.images]
        message = player.people[1]
        assert (message.image_width, message.image_height) == (8, 6)
        person, = message.people
        assert (person.id, person.track_state, person.score) == ("4", WholebodyPose.TRACKED, 1.0)
        assert list(person.bbox_xywh) == [5, 0, 4, 5]
        xy, scores = np.array(person.xy).reshape(133, 2), np.array(person.keypoint_scores)
        assert np.isnan(xy[0]).all() and (xy[1:17] == [5, 2]).all() and np.isnan(xy[17:]).all()
        assert scores.tolist() == [0] + 16 * [1] + 116 * [0]


def test_a_bag_at_recorded_times_with_recorded_stamps(tmp_path):
    pytest.importorskip("rosbags")
    bag = write_bag(tmp_path / "bag", "mcap")
    start = time.monotonic()
    with Player(source=bag, stamps="recorded") as player:
        assert player.wait_done(4) == 0
        waits = player_node.MATCHING_S + player_node.DELIVERY_S
        assert time.monotonic() - start > 0.3 + waits
        assert player.stamps() == [50_000_000_000 + i * 100_000_000 for i in range(4)]
        assert player.images[0].header.frame_id == "bag_optical"
        assert (player.images[2].encoding, player.images[2].step) == ("rgb8", 22)
        assert [info.k[0] for info in player.infos] == [10.0, 11.0, 12.0, 13.0]
        roi = player.infos[0].roi
        assert (roi.x_offset, roi.y_offset, roi.width, roi.height, roi.do_rectify) == (
            1, 2, 3, 4, True)


def test_a_bag_at_another_rate_with_new_stamps(tmp_path):
    pytest.importorskip("rosbags")
    bag = write_bag(tmp_path / "bag", step_s=5.0)
    start = time.monotonic()
    with Player(source=bag, rate_hz=50.0, frame_id="x") as player:
        assert player.wait_done(4) == 0
        assert time.monotonic() - start < 12  # recorded: 15
        assert abs(player.stamps()[0] - time.time_ns()) < 5e9
        assert player.images[0].header.frame_id == "x"


def test_a_video_at_recorded_times_goes_on_in_a_loop(tmp_path):
    video = write_video(tmp_path / "clip.avi", count=4, rate_hz=40.0)
    with Player(source=video, horizontal_fov_deg=60.0, loop=True) as player:
        wait_for(lambda: len(player.images) >= 17)
        assert 1e-9 * (player.stamps()[16] - player.stamps()[0]) > 0.38  # 16 steps of 1/40 s


def test_compressed_pictures_are_the_files_or_jpeg(tmp_path):
    folder = write_folder(tmp_path / "png")
    with Player(source=folder, rate_hz=50.0, image_transport="compressed") as player:
        assert player.wait_done() == 0
        assert player.images[0].data.tobytes() == (folder / "img1.png").read_bytes()
        assert "png" in player.images[0].format
    video = write_video(tmp_path / "clip.avi")
    with Player(source=video, horizontal_fov_deg=60.0, image_transport="compressed") as player:
        assert player.wait_done(5) == 0
        decoded = cv2.imdecode(np.frombuffer(player.images[1].data, np.uint8), 1)
        assert decoded.shape == (48, 64, 3) and player.images[1].format == "jpeg"


def test_nothing_is_played_before_somebody_listens(tmp_path):
    scene = write_set(tmp_path)
    with Player(source=scene, rate_hz=50.0, publish_truth=True) as player:
        time.sleep(0.6)  # a subscriber of the truth is waited for a while
        assert player.images == [] and not player.node.done.done()
        player.client.create_subscription(ObjectPoseArray, "player/truth", player.truths.append,
                                          10)
        assert player.wait_done() == 0
        assert len(player.truths) == len(player.images) == 3


def test_without_an_audience_for_the_truth_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(player_node, "PATIENCE_S", 0.2)
    with Player(source=write_set(tmp_path), rate_hz=50.0, publish_truth=True) as player:
        assert player.wait_done() == 0
        assert len(player.images) == 3


def test_without_an_audience_for_camera_info_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(player_node, "PATIENCE_S", 0.2)
    with Player(source=write_set(tmp_path), rate_hz=50.0, info=False) as player:
        assert player.wait_done() == 0
        assert len(player.images) == 3 and not player.infos


def test_vga_at_30_hz_takes_less_than_a_core(tmp_path):
    for index in range(5):
        noise = np.random.default_rng(index).integers(0, 256, (480, 640, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), noise)
    with Player(source=tmp_path, horizontal_fov_deg=60.0, rate_hz=30.0, loop=True) as player:
        wait_for(lambda: player.images)
        used, count = time.process_time(), len(player.images)
        wait_for(lambda: len(player.images) >= count + 30)
        # player and audience together; wait_for takes some, too
        assert time.process_time() - used < 1.0


def test_a_picture_that_breaks_on_the_way_ends_with_an_error(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "img10.png").write_bytes(b"cut")
    with Player(source=folder, rate_hz=50.0) as player:
        assert player.wait_done(2) == 1
        assert player.blues() == [1, 2]


def test_every_parameter_is_documented():
    text = (Path(__file__).parents[2] / "docs/player.md").read_text()
    for item in PARAMETERS:
        default = f"`{str(item.default).lower()}`" if item.default != "" else "empty"
        assert f"| `{item.name}` | {default} |" in text, item.name


def test_the_parameters_are_described_and_fixed(tmp_path):
    with Player(source=write_folder(tmp_path), loop=True, rate_hz=50.0) as player:
        for item in PARAMETERS:
            descriptor = player.node.describe_parameter(item.name)
            assert descriptor.description and descriptor.read_only
            number = isinstance(item.default, (int, float)) and not isinstance(item.default, bool)
            assert bool(descriptor.floating_point_range or descriptor.integer_range) == number
        assert not player.node.set_parameters([Parameter("loop", value=False)])[0].successful


# --- as a process --------------------------------------------------------------------------------


def command(*parameters):
    return [*COMMAND, "--ros-args", *(item for text in parameters for item in ("-p", text))]


def environment():
    return {**os.environ, "ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}


def run(*parameters):
    return subprocess.run(command(*parameters), env=environment(), capture_output=True, text=True,
                          timeout=20)


def test_the_process_ends_with_0_after_the_last_picture(tmp_path):
    result = run(f"source:={write_folder(tmp_path)}", "rate_hz:=50.0")
    assert result.returncode == 0, result.stderr
    assert "finished: 3 pictures played" in result.stderr


def test_names_that_nothing_reads_are_reported(tmp_path):
    rest = "image.publisher.depth:=3"
    result = run(f"source:={write_folder(tmp_path)}", "rate_hz:=50.0", f"qos_overrides./{rest}",
                 f"qos_overrides.{rest}")
    assert result.returncode == 0, result.stderr
    assert "unknown parameter(s) given: qos_overrides.image.publisher.depth\n" in result.stderr


@pytest.mark.parametrize("parameters, text", [
    (["source:=''"], "source is empty"),
    (["source:=/no/such/folder"], "there is no file or folder /no/such/folder"),
    (["source:={folder}", "publish_truth:=true"], "set publish_truth to false"),
    (["source:={folder}", "people_file:=/no/people.json"],
     "people_file: there is no file /no/people.json"),
    (["source:={folder}", "stamps:=recorded"], "has no recorded stamps"),
    (["source:={folder}", "stamps:=yesterday"], "stamps must be one of now, recorded"),
    (["source:={folder}", "rate_hz:=-1.0"], "rate_hz"),
    (["source:={folder}", "rate_hz:=5"], "rate_hz must be a number with a point, got 5: write 5."),
    (["source:={folder}", "qos_overrides./image.publisher.depth:=-3"],
     "qos_overrides./image.publisher.depth must be a whole number from 0 to 1000000, got -3"),
    (["source:={folder}", "qos_overrides./camera_info.publisher.reliability:=foo"],
     "qos_overrides./camera_info.publisher.reliability must be one of system_default, reliable"),
])
def test_what_cannot_be_played_is_said_in_a_sentence(tmp_path, parameters, text):
    folder = write_folder(tmp_path, calibration=CALIBRATION)
    result = run(*(item.format(folder=folder) for item in parameters))
    assert result.returncode == 1
    assert text in result.stderr and "player: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_ends_it_quietly(tmp_path, number):
    process = subprocess.Popen(
        command(f"source:={write_folder(tmp_path)}", "loop:=true", "rate_hz:=100.0"),
        env=environment(), text=True, stderr=subprocess.PIPE)
    lines = [process.stderr.readline()]
    time.sleep(0.3)
    process.send_signal(number)
    rest = process.communicate(timeout=10)[1]
    assert process.returncode == 0, "".join(lines) + rest
    assert "Traceback" not in rest and "error" not in rest.lower()
