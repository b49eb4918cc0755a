"""Subscriptions of a node: they store messages and know what is wrong with their topics.

Notable: inputs are best effort, so they match every publisher; parameters
`qos_overrides.<topic>.subscription.*` change that, and a mismatch that results is put into words.
With the policy "latest" a second, latched subscription also takes a camera_info that was published
once, long ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from kd_pose.nodes import qos
from kd_pose.nodes.conversions import stamp_nanoseconds
from kd_pose.nodes.diagnostics import ERROR, OK, WARN, Status
from kd_pose.nodes.sync import IMAGE, FrameSync

CAMERA_INFO, BOXES, DEPTH = "camera_info", "boxes", "depth"
# So many images in a row without their partners are no accident.
GIVEN_UP = 3
# What helps where a topic's stamps are not those of the images.
REMEDIES = {CAMERA_INFO: "camera_info_sync to latest", DEPTH: "depth_tolerance_s higher"}


class Topic:
    """What is known about one input: its name, how much came, and what went wrong."""

    def __init__(self, key: str, kind: type, depth: int) -> None:
        self.key, self.kind, self.depth = key, kind, depth
        self.name = key
        self.received = 0
        self.lost = 0
        self.mismatch = ""
        self.qos: QoSProfile | None = None
        self.last = time.monotonic()

    @property
    def type_name(self) -> str:
        """As ROS writes it, e.g. sensor_msgs/msg/Image."""
        return f"{self.kind.__module__.split('.')[0]}/msg/{self.kind.__name__}"

    def silent_for(self) -> float:
        """Seconds since the last message, or since the subscription was made."""
        return time.monotonic() - self.last


class Inputs:
    """Subscribes on construction, stores everything in a FrameSync, unsubscribes on `close`."""

    def __init__(self, node: Node, sync: FrameSync, values: dict[str, Any], camera: bool) -> None:
        """values: the node's parameters. camera: whether camera_info is needed."""
        self.paused = False
        self._node, self._sync = node, sync
        compressed = values["image_transport"] == "compressed"
        self.image = Topic(IMAGE, CompressedImage if compressed else Image, depth=1)
        self.topics = [self.image]
        self._subscriptions: list = []
        # When an image last had its partners, and what had been given up by then, as far as the
        # last status knows: time, images, and for lack of what.
        self._before: tuple[float, int, dict[str, int]] = (-float("inf"), 0, {})
        if camera:
            self.topics.append(Topic(CAMERA_INFO, CameraInfo, depth=5))
        if values["use_depth"]:
            self.topics.append(Topic(DEPTH, Image, depth=5))
        if values["roi_source"] == "topic":
            from vision_msgs.msg import Detection2DArray

            self.topics.append(Topic(BOXES, Detection2DArray, depth=5))
        # As image_transport does it: remapping `image` also moves `image/compressed`.
        suffix = "/compressed" if compressed else ""
        for topic in self.topics:
            base = node.resolve_topic_name(topic.key)
            self._subscribe(topic, base + (suffix if topic is self.image else ""))
        if camera and values["camera_info_sync"] == "latest":
            self._subscribe_latched(self.topics[1])

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _subscribe(self, topic: Topic, name: str) -> None:
        def lost(info) -> None:
            topic.lost += info.total_count_change

        try:
            qos.check(self._node, self._node.resolve_topic_name(name), qos.SUBSCRIPTION)
        except ValueError:
            self.close()  # those before this one
            raise
        subscription = self._node.create_subscription(
            topic.kind,
            name,
            self._receiver(topic),
            QoSProfile(depth=topic.depth, reliability=ReliabilityPolicy.BEST_EFFORT),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda info: self._on_mismatch(topic, info), message_lost=lost
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        topic.name, topic.qos = subscription.topic_name, subscription.qos_profile
        self._subscriptions.append(subscription)

    def _subscribe_latched(self, topic: Topic) -> None:
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._subscriptions.append(
            self._node.create_subscription(
                topic.kind,
                topic.name,
                self._receiver(topic),
                latched,
                # Publishers that do not latch are what the other subscription is for.
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=lambda info: None),
            )
        )

    def _receiver(self, topic: Topic) -> Callable[[Any], None]:
        """The callback of a topic: it only stores."""
        sync = self._sync

        def store_image(message) -> None:
            topic.received += 1
            topic.last = time.monotonic()
            if not self.paused:
                sync.add_image(stamp_nanoseconds(message.header), message)

        def store_partner(message) -> None:
            topic.received += 1
            topic.last = time.monotonic()
            if not self.paused or sync.uses_latest(topic.key):
                sync.add_partner(topic.key, stamp_nanoseconds(message.header), message)

        return store_image if topic is self.image else store_partner

    def _on_mismatch(self, topic: Topic, info) -> None:
        policy = qos_policy_name_from_kind(info.last_policy_kind).lower()
        topic.mismatch = (
            f"a publisher on {topic.name} offers another {policy} than this subscription asks "
            f"for, so its messages do not arrive: change "
            f"qos_overrides.{topic.name}.subscription.{policy}, or the publisher's {policy}"
        )
        self._node.get_logger().warning(topic.mismatch)

    def status(self, timeout_s: float) -> Status:
        """Which topics are silent, mismatched or out of step, and what to do about it."""
        self._sync.expire()
        status = Status(OK, "images arrive")
        for topic in self.topics:
            self._judge_topic(topic, timeout_s, status)
        self._judge_stamps(timeout_s, status)
        for name in vars(self._sync.counters):
            status.values[name] = getattr(self._sync.counters, name)
        return status

    def _judge_stamps(self, timeout_s: float, status: Status) -> None:
        """Whether images have gone without their partners since the last one that had them."""
        sync, missing = self._sync, dict(self._sync.missing)
        completed, unsynced, lacked = self._before
        if sync.completed_at != completed or sync.counters.unsynced < unsynced:
            self._before = completed, unsynced, lacked = (
                sync.completed_at, sync.counters.unsynced, missing)
        waiting = sync.counters.unsynced - unsynced
        never = completed == -float("inf")
        # Boxes and depth may come more rarely than images.
        recent = time.perf_counter() - completed <= max(timeout_s, sync.timeout_s)
        flowing = all(topic.silent_for() <= timeout_s or self._silent_by_design(topic)
                      for topic in self.topics)
        if not flowing or recent or waiting < (1 if never else GIVEN_UP):
            return
        names = ", ".join(name for name, count in missing.items()
                          if count > lacked.get(name, 0)) or CAMERA_INFO
        advice = "".join(f", or set {setting}" for name, setting in REMEDIES.items()
                         if name in names)
        status.worsen(
            WARN,
            f"no image has found a {names} with the same stamp ({waiting} given up): publish "
            f"them with one stamp{advice}",
        )

    def _judge_topic(self, topic: Topic, timeout_s: float, status: Status) -> None:
        silent = topic.silent_for() > timeout_s
        status.values[f"{topic.key} topic"] = topic.name
        status.values[f"{topic.key} messages"] = topic.received
        if topic.lost:
            status.values[f"{topic.key} lost by the middleware"] = topic.lost
        publishers = self._node.get_publishers_info_by_topic(topic.name)
        # The event comes once, and never that the publisher has gone.
        if topic.mismatch and not any(_incompatible(item, topic) for item in publishers):
            topic.mismatch = ""
        if topic.mismatch:
            status.worsen(ERROR if silent else WARN, topic.mismatch)
        elif silent and not self._silent_by_design(topic):
            status.worsen(WARN, f"nothing on {topic.name} for {topic.silent_for():.1f} s "
                                f"({_advice(topic, [item.topic_type for item in publishers])})")

    def _silent_by_design(self, topic: Topic) -> bool:
        """camera_info that is sent once."""
        return topic.key == CAMERA_INFO and topic.received > 0 and self._is_latest()

    def _is_latest(self) -> bool:
        return self._sync.uses_latest(CAMERA_INFO)


def _incompatible(publisher: Any, topic: Topic) -> bool:
    verdict, _ = qos_check_compatible(publisher.qos_profile, topic.qos)
    return publisher.topic_type == topic.type_name and verdict == QoSCompatibility.ERROR


def _advice(topic: Topic, types: list[str]) -> str:
    """What to do about a topic on which nothing comes from publishers of these types."""
    if not types:
        return (f"nobody publishes it: start the camera, or remap '{topic.key}' to its topic")
    others = sorted({name for name in types if name != topic.type_name})
    if len(others) < len(set(types)):
        return f"{len(types)} publisher(s) are there but send nothing"
    advice = f"it is published as {', '.join(others)}, not {topic.type_name}: remap '{topic.key}'"
    if topic.key != IMAGE or topic.kind is CompressedImage:
        return advice
    return (f"{advice}, without the /compressed of its name if it has one, and set "
            "image_transport to compressed")
