"""A node under test and a client beside it, over real DDS, in one process.

    with Rig(overrides) as rig:
        rig.node.trigger_configure(); rig.node.trigger_activate()
        rig.wait_connected()
        rig.publish(image, camera)
        objects = rig.wait_message("objects")

Each run has its own domain and each rig its own namespace, so that nothing else is met.
"""

from __future__ import annotations

import array
import itertools
import os
import threading
import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from kd_pose.geometry import make_pose, matrix_from_quaternion
from kd_pose.nodes.object_pose_node import ObjectPoseNode
from kd_pose.results import STAGES, ObjectPoseFrame
from kd_pose_msgs.msg import (
    ObjectInfoArray,
    ObjectPoseArray,
    SkeletonInfo,
    Timing,
    WholebodyPoseArray,
)

TIMEOUT_S = 10.0
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=5)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
OUTPUTS = {
    "objects": (ObjectPoseArray, RELIABLE),
    "target_pose": (PoseWithCovarianceStamped, RELIABLE),
    "timing": (Timing, RELIABLE),
    "markers": (MarkerArray, RELIABLE),
    "image_annotated": (Image, RELIABLE),
    "image_annotated/compressed": (CompressedImage, RELIABLE),
    "object_info": (ObjectInfoArray, LATCHED),
}
PEOPLE_OUTPUTS = {
    "people": (WholebodyPoseArray, RELIABLE),
    "skeleton_info": (SkeletonInfo, LATCHED),
}
_numbers = itertools.count()


class FakeEstimator:
    """Answers with `result` after `delay_s`; an exception as `result` is raised."""

    description = "fake estimator"

    def __init__(self, objects=(), delay_s=0.0, result=None):
        self.objects, self.delay_s, self.result = tuple(objects), delay_s, result
        self.calls, self.closed, self.options = 0, False, None

    def warm_up(self, n):
        pass

    def close(self):
        self.closed = True

    def estimate(self, image, camera, *, channel_order="bgr", boxes=None):
        self.calls += 1
        self.seen = (image, channel_order, camera, boxes)
        if self.delay_s:
            time.sleep(self.delay_s)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result or ObjectPoseFrame(timing_ms=dict.fromkeys(STAGES, 0.0))


def fake_node(fake, base=ObjectPoseNode):
    """A class of node whose model is `fake`."""

    class FakeModelNode(base):
        def load(self, values):
            return fake

    return FakeModelNode


class SpinThread(threading.Thread):
    """Serves an executor. Not `executor.spin`: a shutdown under it raises in its thread."""

    def __init__(self, executor):
        super().__init__(daemon=True)
        self.executor, self._over = executor, False

    def run(self):
        while not self._over:
            self.executor.spin_once(timeout_sec=0.05)

    def stop(self):
        """Ends the thread, then the executor."""
        self._over = True
        self.join(TIMEOUT_S)
        self.executor.shutdown()


class Rig:
    """node: under test, in `namespace`. client: publishes inputs, `received` keeps outputs."""

    def __init__(self, overrides=None, *, kind=ObjectPoseNode, outputs=("objects", "timing"),
                 publisher_qos=RELIABLE, compressed=False, namespace=None, **node_args):
        self.context = Context()
        # 0..101 are the domains whose ports every system leaves free.
        rclpy.init(context=self.context, domain_id=1 + os.getpid() % 100)
        self.namespace = namespace or f"/rig{os.getpid()}_{next(_numbers)}"
        values = {"autostart": False, **(overrides or {})}
        self.node = kind(
            context=self.context, namespace=self.namespace,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
            **node_args,
        )
        self.name = self.node.get_name()
        self.client = Node("client", context=self.context, namespace=self.namespace)
        self.received = {name: [] for name in (*outputs, "diagnostics")}
        for name in outputs:
            type_, qos = {**OUTPUTS, **PEOPLE_OUTPUTS}[name]
            self.client.create_subscription(
                type_, f"{self.name}/{name}", self.received[name].append, qos)
        self.client.create_subscription(
            DiagnosticArray, "/diagnostics", self.received["diagnostics"].append, 50)
        self.image_type = CompressedImage if compressed else Image
        topic = "image/compressed" if compressed else "image"
        self.image = self.client.create_publisher(self.image_type, topic, publisher_qos)
        self.info = self.client.create_publisher(CameraInfo, "camera_info", publisher_qos)
        self.depth = self.client.create_publisher(Image, "depth", publisher_qos)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.client)
        self.thread = SpinThread(self.executor)
        for name in ("configure", "activate", "deactivate", "cleanup", "shutdown"):
            trigger = f"trigger_{name}"
            setattr(self.node, trigger, self._in_executor(getattr(self.node, trigger)))
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.thread.stop()
        self.node.destroy_node()
        self.client.destroy_node()
        self.context.try_shutdown()

    def _in_executor(self, transition):
        """As a service would: what a transition destroys must not be waited for meanwhile."""
        def run():
            if threading.current_thread() is self.thread:
                return transition()
            task = self.executor.create_task(transition)
            wait_for(task.done, 3 * TIMEOUT_S)
            return task.result()
        return run

    def start(self):
        """Configure, activate, and wait until inputs and outputs are connected."""
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        return self.start_again()

    def start_again(self):
        """Activate, and wait until inputs and outputs are connected."""
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.wait_connected()
        return self

    def wait_connected(self):
        wait_for(lambda: self.node._inputs)
        wanted = {topic.key for topic in self.node._inputs.topics}
        for key in wanted & {"image", "camera_info", "depth"}:
            publisher = self.info if key == "camera_info" else getattr(self, key)
            wait_for(publisher.get_subscription_count)
        names = [name for name in self.received if name != "diagnostics"]
        prefix = f"{self.namespace}/{self.name}"
        wait_for(lambda: all(
            self.client.count_publishers(f"{prefix}/{name}")
            and self.node.count_subscribers(f"{prefix}/{name}") for name in names))
        time.sleep(0.1)  # the publisher's own matching follows the graph

    def publish(self, image, info=None, stamp=(100, 5), frame_id="camera_optical", depth=None,
                **changes):
        """Publish an image (array or message) and, unless None, its camera_info and its depth."""
        message = image if not isinstance(image, np.ndarray) else image_message(image, **changes)
        for item in (message, info, depth):
            if item is not None:
                item.header.stamp.sec, item.header.stamp.nanosec = stamp
                item.header.frame_id = frame_id
        if depth is not None:
            self.depth.publish(depth)
        if info is not None:
            self.info.publish(info)
        if message is not None:
            self.image.publish(message)

    def wait_message(self, name, count=1, timeout=TIMEOUT_S):
        wait_for(lambda: len(self.received[name]) >= count, timeout)
        return self.received[name][count - 1]

    def publish_until(self, name, image, info, **kwargs):
        """For best-effort publishers: publish again until something arrives."""
        for _ in range(100):
            self.publish(image, info, **kwargs)
            if wait_for(lambda: self.received[name], 0.1, check=False):
                return self.received[name][0]
        raise AssertionError(f"nothing on {name}")

    def call(self, kind, name, request, timeout=TIMEOUT_S):
        """The answer of one of the node's services."""
        client = self.client.create_client(kind, f"{self.name}/{name}")
        assert client.wait_for_service(timeout)
        future = client.call_async(request)
        wait_for(future.done, timeout)
        return future.result()

    def state(self):
        """Name of the lifecycle state."""
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def statuses(self, part):
        """All statuses of a part of this rig's node so far."""
        hardware = f"{self.namespace.strip('/')}/{self.name}"
        return [status for message in tuple(self.received["diagnostics"])
                for status in message.status
                if status.hardware_id == hardware and status.name.endswith(f": {part}")]

    def wait_status(self, part, level, text="", timeout=TIMEOUT_S):
        """The first status of that level whose message has `text` in it."""
        def found():
            return [status for status in self.statuses(part)
                    if status.level == level and text in status.message]
        seen = [(status.level, status.message) for status in self.statuses(part)[-3:]]
        assert wait_for(found, timeout, check=False), (
            f"no status {part} {level} {text!r}; last: "
            f"{[(s.level, s.message) for s in self.statuses(part)[-3:]] or seen}")
        return found()[0]


def wait_for(condition, timeout=TIMEOUT_S, check=True):
    """Wait until `condition()` is true; with `check`, fail where it does not come true."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    assert not check, f"not within {timeout} s"
    return False


def matrix(pose):
    """geometry_msgs/Pose -> (4, 4)."""
    q, p = pose.orientation, pose.position
    return make_pose(matrix_from_quaternion([q.x, q.y, q.z, q.w]), [p.x, p.y, p.z])


def image_message(image, encoding="bgr8", step=None, **fields):
    """uint8 (H, W[, C]) -> Image; a larger `step` pads the rows."""
    height, width = image.shape[:2]
    rows = np.ascontiguousarray(image).reshape(height, -1).view(np.uint8)
    step = step or rows.shape[1]
    padded = np.full((height, step), 77, dtype=np.uint8)
    padded[:, : rows.shape[1]] = rows
    return Image(encoding=encoding, height=height, width=width, step=step,
                 data=array.array("B", padded.tobytes()), **fields)


def info_message(camera, **fields):
    """CameraInfo of a `kd_pose.camera.Camera` without ROI and binning."""
    P = np.zeros((3, 4))
    P[:, :3] = camera.K
    model = "plumb_bob" if camera.model == "none" else camera.model
    values = dict(width=camera.width, height=camera.height, k=camera.K.reshape(9),
                  p=P.reshape(12), d=list(camera.distortion), distortion_model=model)
    return CameraInfo(**{**values, **fields})
