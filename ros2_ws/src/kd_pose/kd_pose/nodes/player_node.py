"""`player`: plays pictures, a video, a BOP scene or a rosbag2 as `image` and `camera_info`.

One thread reads and decodes ahead, another publishes at the due times; the executor only serves
parameters and signals. A frame that could not be read in time is published late and moves the rest
back: a player that hurries after a stall tests nothing. The process ends with 0 after the last
picture or on Ctrl-C, and with 1 and a sentence where the source cannot be played.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from kd_pose.geometry import make_pose
from kd_pose.nodes import parameters
from kd_pose.nodes import qos as qos_parameters
from kd_pose.nodes.conversions import NANOSECONDS, float_array, pose_message, vector
from kd_pose.nodes.images import byte_array
from kd_pose.nodes.parameters import Param
from kd_pose.nodes.process import run
from kd_pose.sources import (
    Calibration,
    Frame,
    Source,
    SourceError,
    TrueObject,
    TruePerson,
    open_source,
)
from kd_pose.wholebody_keypoints import NAME
from kd_pose_msgs.msg import ObjectPose, ObjectPoseArray, WholebodyPose, WholebodyPoseArray

PARAMETERS: tuple[Param, ...] = (
    Param("source", "", "What to play: a folder of pictures, a video, a BOP scene, or a rosbag2 "
          "(folder, .mcap or .db3)."),
    Param("rate_hz", 0.0, "Pictures per second; 0: as recorded, or 10 where there are no recorded "
          "times.", 0.0, 1000.0),
    Param("loop", False, "Begin again at the end."),
    Param("stamps", "now", "now: the node's clock; recorded: those of a rosbag2.",
          choices=("now", "recorded")),
    Param("frame_id", "", "Frame of the images; empty: as recorded, else camera_optical_frame."),
    Param("image_transport", "raw", "raw: topic image; compressed: topic image/compressed.",
          choices=("raw", "compressed")),
    Param("jpeg_quality", 90, "Of compressed images that are no JPEG or PNG already.", 1, 100),
    Param("wait_for_subscribers", False, "Do not begin before image has a subscriber; those of "
          "camera_info and of the truth, if it is published, are waited for 3 seconds more."),
    Param("publish_truth", False, "Publish the true poses of a BOP scene on ~/truth."),
    Param("truth_min_visible", 0.1, "Objects of which less is seen are left out of ~/truth, "
          "where scene_gt_info.json tells.", 0.0, 1.0),
    Param("people_file", "", "Annotations in COCO's or COCO-WholeBody's format (.json, .json.gz) "
          "of the people to publish on ~/true_people: of a folder's pictures by name, else in the "
          "order of the image ids. Empty: none."),
    Param("image_topic", "", "Topic of a rosbag2; empty: the only one with images."),
    Param("camera_info_topic", "", "Topic of a rosbag2; empty: the one beside image_topic, else "
          "the only one."),
    Param("camera_file", "", "Calibration (YAML) of pictures, a video or a rosbag2; empty: "
          "camera.yaml beside them, the bag's camera_info."),
    Param("horizontal_fov_deg", 0.0, "Where nothing says the calibration: a camera without "
          "distortion with this field of view; 0: refuse.", 0.0, 170.0),
)
DEFAULT_RATE_HZ = 10.0
DEFAULT_FRAME = "camera_optical_frame"
READ_AHEAD = 4  # pictures
MATCHING_S = 0.3  # what the other side of a new connection may need to see it
DELIVERY_S = 0.3  # best-effort messages that are on their way when the player ends
REMINDER_S = 5.0
PATIENCE_S = 3.0
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"


class PlayerNode(Node):
    """Plays on construction; `done` holds the exit code at the end."""

    def __init__(self, **kwargs) -> None:
        """Raises SourceError or ValueError for a source or parameter that cannot be."""
        super().__init__("player", **kwargs)
        self.done = Future()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        for item in PARAMETERS:
            descriptor = item.descriptor()
            descriptor.description, descriptor.read_only = item.description, True
            self.declare_parameter(item.name, item.default, descriptor)
        self.values = parameters.read(self, PARAMETERS)
        unknown = parameters.unknown_overrides(self, PARAMETERS, qos_parameters.parameters_of(
            self, ("image", "camera_info"), qos_parameters.PUBLISHER))
        if unknown:
            self.get_logger().warning(f"unknown parameter(s) given: {', '.join(unknown)}")
        self.source = self._open(self.values)
        self._rate_hz = self.values["rate_hz"] or (
            0.0 if self.source.has_times else DEFAULT_RATE_HZ)
        self._create_outputs()
        pace = f"at {self._rate_hz:g} Hz" if self._rate_hz else "at recorded times"
        self.get_logger().info(f"playing {self.source.description} {pace}")
        self._frames: queue.Queue = queue.Queue(READ_AHEAD)
        for target in (self._read, self._play):
            thread = threading.Thread(target=target, name=target.__name__, daemon=True)
            self._threads.append(thread)
            thread.start()

    def destroy_node(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)
        super().destroy_node()

    def _open(self, values: dict[str, Any]) -> Source:
        source = open_source(
            values["source"], image_topic=values["image_topic"],
            camera_info_topic=values["camera_info_topic"], camera_file=values["camera_file"],
            horizontal_fov_deg=values["horizontal_fov_deg"], truth=values["publish_truth"],
            min_visible=values["truth_min_visible"], people_file=values["people_file"],
        )
        if values["stamps"] == "recorded" and not source.has_stamps:
            raise SourceError(f"{source.path}: has no recorded stamps, only a rosbag2 has: set "
                              "stamps to now")
        return source

    def _create_outputs(self) -> None:
        compressed = self.values["image_transport"] == "compressed"
        # As image_transport does it: remapping `image` also moves `image/compressed`.
        name = self.resolve_topic_name("image") + ("/compressed" if compressed else "")
        for topic in (name, self.resolve_topic_name("camera_info")):
            qos_parameters.check(self, topic, qos_parameters.PUBLISHER)
        options = QoSOverridingOptions.with_default_policies()
        # Reliable matches every subscriber; a slow one that is reliable loses the oldest.
        qos = QoSProfile(depth=5)
        self._image = self.create_publisher(
            CompressedImage if compressed else Image, name, qos, qos_overriding_options=options)
        self._info = self.create_publisher(CameraInfo, "camera_info", qos,
                                           qos_overriding_options=options)
        self._truth = self._people = None
        if self.values["publish_truth"]:
            self._truth = self.create_publisher(ObjectPoseArray, "~/truth", QoSProfile(depth=50))
        if self.values["people_file"]:
            self._people = self.create_publisher(WholebodyPoseArray, "~/true_people",
                                                 QoSProfile(depth=50))

    # --- reading ahead -------------------------------------------------------------------------

    def _read(self) -> None:
        """Fill the queue; an exception in it, or None, is the end."""
        try:
            for item in self._passes():
                if not self._put(item):
                    return
            self._put(None)
        except Exception as error:
            self._put(error)

    def _passes(self) -> Iterator[tuple[Frame, Any, float | None]]:
        """Frames with their image message (stamp missing) and time; in a loop times go on."""
        offset = 0.0
        while True:
            last = step = 0.0
            for frame in self.source.frames():
                if frame.time_s is not None:
                    last, step = frame.time_s, frame.time_s - last or step
                time_s = None if frame.time_s is None else offset + frame.time_s
                # The pixels are in the message; what waits should not hold them twice.
                yield replace(frame, picture=None), self._image_message(frame), time_s
            if not self.values["loop"]:
                return
            offset += last + step

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._frames.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _image_message(self, frame: Frame) -> Image | CompressedImage:
        if self.values["image_transport"] == "compressed":
            data, kind = frame.picture.as_encoded(self.values["jpeg_quality"])
            return CompressedImage(format=kind, data=byte_array(data))
        raw = frame.picture.as_raw()
        return Image(height=raw.height, width=raw.width, encoding=raw.encoding, step=raw.step,
                     is_bigendian=int(raw.big_endian), data=byte_array(raw.data))

    # --- publishing ----------------------------------------------------------------------------

    def _play(self) -> None:
        code = 0
        try:
            if self.values["wait_for_subscribers"]:
                self._wait_for_subscribers()
            count = self._publish_all()
            if not self._stop.is_set():
                self._stop.wait(DELIVERY_S)
                self.get_logger().info(f"finished: {count} pictures played")
        except Exception as error:
            if not self.context.ok():  # Ctrl-C between two publications
                return
            expected = isinstance(error, SourceError)
            what = str(error) if expected else f"{type(error).__name__}: {error}"
            self.get_logger().error(f"stopped: {what}")
            code = 1
        self.done.set_result(code)

    def _publish_all(self) -> int:
        """Publish until the end or `_stop`; the number of pictures published."""
        count, start, late = 0, 0.0, 0.0
        while not self._stop.is_set():
            try:
                item = self._frames.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                break
            if isinstance(item, Exception):
                raise item
            frame, message, time_s = item
            start = start or time.monotonic()
            due = start + (count / self._rate_hz if self._rate_hz else time_s)
            delay = due - time.monotonic()
            if delay > 0 and self._stop.wait(delay):
                break
            if delay < -0.5 / (self._rate_hz or DEFAULT_RATE_HZ):
                start -= delay
                late -= delay
                self.get_logger().warning(f"{late:.2f} s behind: reading or this machine is too "
                                          "slow", throttle_duration_sec=REMINDER_S)
            self._publish(frame, message)
            count += 1
        return count

    def _publish(self, frame: Frame, message: Image | CompressedImage) -> None:
        """Camera and truth first, so that nobody has an image and waits for its company."""
        header = self._header(frame)
        self._info.publish(info_message(frame.calibration, header))
        if self._truth is not None:
            self._truth.publish(truth_message(frame.truth or (), header))
        if self._people is not None:
            calibration = frame.calibration
            self._people.publish(true_people_message(
                frame.people or (), header, (calibration.width, calibration.height)))
        message.header = header
        self._image.publish(message)

    def _header(self, frame: Frame) -> Header:
        frame_id = self.values["frame_id"] or frame.frame_id or DEFAULT_FRAME
        if self.values["stamps"] == "now":
            return Header(stamp=self.get_clock().now().to_msg(), frame_id=frame_id)
        seconds, rest = divmod(frame.stamp_ns, NANOSECONDS)
        return Header(stamp=Time(sec=seconds, nanosec=rest), frame_id=frame_id)

    def _wait_for_subscribers(self) -> None:
        reminder = time.monotonic() + REMINDER_S
        while missing := self._without_subscribers(self._image):
            if time.monotonic() > reminder:
                self.get_logger().info(f"waiting for subscribers of {', '.join(missing)}")
                reminder += REMINDER_S
            if self._stop.wait(0.05):
                return
        # Keypoints need no camera_info: a node may do without it.
        others = [item for item in (self._info, self._truth, self._people) if item is not None]
        end = time.monotonic() + PATIENCE_S
        while (missing := self._without_subscribers(*others)) and time.monotonic() < end:
            if self._stop.wait(0.05):
                return
        if missing:
            self.get_logger().warning(f"nobody subscribes to {', '.join(missing)}")
        self._stop.wait(MATCHING_S)

    def _without_subscribers(self, *publishers) -> list[str]:
        return [item.topic_name for item in publishers if not item.get_subscription_count()]


def info_message(calibration: Calibration, header: Header) -> CameraInfo:
    """Calibration -> CameraInfo with that header."""
    x, y, width, height, rectify = calibration.roi
    return CameraInfo(
        header=header, width=calibration.width, height=calibration.height,
        distortion_model=calibration.distortion_model, d=list(calibration.d),
        k=list(calibration.k), r=list(calibration.r), p=list(calibration.p),
        binning_x=calibration.binning[0], binning_y=calibration.binning[1],
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height,
                             do_rectify=rectify),
    )


def truth_message(objects: tuple[TrueObject, ...], header: Header) -> ObjectPoseArray:
    """True poses in the form of estimates: score 1, no keypoints, covariance unknown."""
    return ObjectPoseArray(header=header, objects=[_truth(item, header) for item in objects])


def _truth(item: TrueObject, header: Header) -> ObjectPose:
    message = ObjectPose(class_id=item.class_id, score=1.0, last_seen=header.stamp)
    message.pose.pose = pose_message(item.T_cam_obj)
    middle = [0.5 * (low + high) for low, high in zip(item.box_min, item.box_max)]
    message.box_center = _moved(item.T_cam_obj, middle)
    message.box_size = vector([high - low for low, high in zip(item.box_min, item.box_max)])
    return message


def _moved(T_cam_obj, middle: list[float]) -> Pose:
    """The pose of the box centre: the mesh's axes at the middle of the object's box."""
    R = T_cam_obj[:3, :3]
    return pose_message(make_pose(R, R @ middle + T_cam_obj[:3, 3]))


def true_people_message(people: tuple[TruePerson, ...], header: Header,
                        image_wh: tuple[int, int]) -> WholebodyPoseArray:
    """True people in the form of estimates: score 1, that of points 1 where they are labelled."""
    message = WholebodyPoseArray(header=header, skeleton=NAME, image_width=image_wh[0],
                                 image_height=image_wh[1])
    for person in people:
        labelled = np.isfinite(person.keypoints_xy).all(axis=1)
        message.people.append(WholebodyPose(
            id=person.id, track_state=WholebodyPose.TRACKED, score=1.0,
            bbox_xywh=np.array(person.box_xywh, dtype=np.float32),
            xy=float_array(person.keypoints_xy), keypoint_scores=float_array(labelled)))
    return message


def use_package_profile() -> None:
    """Fast DDS settings with room for images, unless the user or the launch file chose some.

    The shared memory that carries an image is the sender's, and its default is smaller than one
    VGA image (config/fastdds.xml says more).
    """
    if os.environ.get(PROFILE):
        return
    try:
        profile = Path(get_package_share_directory("kd_pose")) / "config" / "fastdds.xml"
    except PackageNotFoundError:
        return
    if profile.is_file():
        os.environ[PROFILE] = str(profile)


def main(args: list[str] | None = None) -> int:
    """Entry point of the `player` executable; returns the exit code."""
    use_package_profile()
    return run(PlayerNode, "player", args)


if __name__ == "__main__":
    sys.exit(main())
