"""The node's own cost and the freshness of its results, network and codec taken off.

    python benchmarks/node.py              both
    python benchmarks/node.py --seconds 5  longer

(a) Overhead: from the image's callback to the publication of results, without the estimator (a
    fake that answers with constants), in its own process, against one hop of the same typed VGA
    image through rclpy within one process. In one run, alternating, so that a busy machine slows
    both. Goal: ratio <= 1.0.
(b) Freshness: 30 Hz in, a network of 100 ms: age of results when they arrive, in network times.
    Goal: 95th percentile <= 2.2.
The last line of each part is the ratio.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "ros2_ws/src/kd_pose")]

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from helpers.ros_rig import RELIABLE, FakeEstimator, fake_node, image_message, info_message
from helpers.tiny_models import example_scene
from kd_pose.results import STAGES, ObjectPose, ObjectPoseFrame
from kd_pose_msgs.msg import ObjectPoseArray, Timing

NETWORK_S = 0.1
RATE_HZ = 30.0
NAMESPACE = "/bench"
PROFILE = ROOT / "ros2_ws/src/kd_pose/config/fastdds.xml"  # without it images get lost on the way
OVERHEAD_STAGES = ("wait", "convert", "publish")


def constant_result(scene) -> ObjectPoseFrame:
    """Two objects with everything filled in, so that messages have their usual size."""
    objects = [
        ObjectPose(spec.name, 0.9, pose, np.eye(6) * 1e-4, spec, scene.corners_px(index),
                   np.ones(8), 0.5, 60)
        for index, (spec, pose) in enumerate(zip(scene.specs, scene.poses))
    ]
    return ObjectPoseFrame(objects=objects, timing_ms=dict.fromkeys(STAGES, 0.0))


def summary(values) -> str:
    p10, median, p90, p95 = np.percentile(values, [10, 50, 90, 95])
    return (f"median {median:7.3f}  p10 {p10:7.3f}  p90 {p90:7.3f}  p95 {p95:7.3f} ms"
            f"  n={len(values)}")


def serve(delay_s: float) -> int:
    """The node alone in its process, as on a robot."""
    scene = example_scene()
    fake = FakeEstimator(scene.specs, delay_s=delay_s, result=constant_result(scene))
    rclpy.init()
    node = fake_node(fake)(namespace=NAMESPACE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


class Client:
    """Publishes images, and keeps when results arrived. Starts and stops the node's process."""

    def __init__(self, delay_s: float, outputs: dict[str, type]):
        environment = {**os.environ, "ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}
        environment.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(PROFILE))
        os.environ.update(environment)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(delay_s)], env=environment,
            stderr=subprocess.DEVNULL)
        rclpy.init()
        self.node = Node("client", namespace=NAMESPACE)
        self.image = self.node.create_publisher(Image, "image", RELIABLE)
        self.info = self.node.create_publisher(CameraInfo, "camera_info", RELIABLE)
        self.hop = self.node.create_publisher(Image, "hop", RELIABLE)
        self.arrived = {name: [] for name in ("hop", *outputs)}
        self.node.create_subscription(Image, "hop", lambda m: self._arrive("hop", m), RELIABLE)
        for name, kind in outputs.items():
            self.node.create_subscription(
                kind, f"object_pose/{name}", lambda m, name=name: self._arrive(name, m), RELIABLE)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.node.destroy_node()
        rclpy.try_shutdown()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def wait_ready(self):
        """Until the node is active, and its outputs have found us."""
        self.spin_until(lambda: self.image.get_subscription_count()
                        and self.info.get_subscription_count(), 20.0)
        end = time.monotonic() + 1.0
        self.spin_until(lambda: time.monotonic() > end)

    def _arrive(self, name, message):
        # Images are dropped at once: keeping them would make the next one pay for fresh memory.
        message = None if isinstance(message, Image) else message
        self.arrived[name].append((time.perf_counter(), message))

    def spin_until(self, condition, timeout=2.0):
        end = time.monotonic() + timeout
        while not condition():
            self.executor.spin_once(timeout_sec=0.02)
            if time.monotonic() > end:
                raise SystemExit("benchmark: a message was lost, or the node did not start")

    def wait_for(self, name, count):
        self.spin_until(lambda: len(self.arrived[name]) >= count)
        return self.arrived[name][count - 1]


def overhead(seconds: float) -> float:
    scene = example_scene()
    message, info = image_message(scene.image()), info_message(scene.camera)
    hops, costs, parts, whole = [], [], [], []
    with Client(0.0, {"timing": Timing}) as client:
        client.wait_ready()
        end, index = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            index += 1
            started = time.perf_counter()
            client.hop.publish(message)
            hops.append(1e3 * (client.wait_for("hop", index)[0] - started))
            message.header.stamp.sec = info.header.stamp.sec = index
            started = time.perf_counter()
            client.info.publish(info)
            client.image.publish(message)
            arrived, timing = client.wait_for("timing", index)
            whole.append(1e3 * (arrived - started))
            ms = dict(zip(timing.stages, timing.ms))
            parts.append([ms[name] for name in OVERHEAD_STAGES])
            costs.append(sum(parts[-1]))
    warm = len(hops) // 10
    hops, costs, whole = hops[warm:], costs[warm:], whole[warm:]
    print("(a) overhead of the node, 640x480 bgr8, 2 objects, node in its own process")
    print(f"  one typed hop in one process         {summary(hops)}")
    print(f"  node, callback to published results  {summary(costs)}")
    medians = np.median(parts[warm:], axis=0)
    print("    of these " + ", ".join(f"{name} {value:.3f}"
                                      for name, value in zip(OVERHEAD_STAGES, medians)))
    print(f"  image sent to timing received        {summary(whole)}")
    ratio = float(np.median(costs) / np.median(hops))
    print(f"  ratio node / hop                     {ratio:.2f}   (goal <= 1.0)")
    return ratio


def freshness(seconds: float) -> float:
    scene = example_scene()
    message, info = image_message(scene.image()), info_message(scene.camera)
    sent = {}
    with Client(NETWORK_S, {"objects": ObjectPoseArray, "timing": Timing}) as client:
        client.wait_ready()
        start = time.perf_counter()
        for index in range(1, int(seconds * RATE_HZ) + 1):
            due = start + index / RATE_HZ
            client.spin_until(lambda due=due: time.perf_counter() >= due)
            message.header.stamp.sec = info.header.stamp.sec = index
            sent[index] = time.perf_counter()
            client.info.publish(info)
            client.image.publish(message)
        end = time.perf_counter() + 3 * NETWORK_S
        client.spin_until(lambda: time.perf_counter() > end)
        last = client.arrived["timing"][-1][1]
        ages = [1e3 * (when - sent[result.header.stamp.sec])
                for when, result in client.arrived["objects"]]
    print(f"(b) freshness, {RATE_HZ:.0f} Hz in, network {1e3 * NETWORK_S:.0f} ms")
    print(f"  age of results at arrival            {summary(ages)}")
    print(f"  received {last.received}, processed {last.processed}, replaced {last.replaced}, "
          f"unsynced {last.unsynced}, rejected {last.rejected}")
    ratio = float(np.percentile(ages, 95) / (1e3 * NETWORK_S))
    print(f"  ratio p95 age / network              {ratio:.2f}   (goal <= 2.2)")
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each part")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        return serve(options.serve)
    good = (overhead(options.seconds) <= 1.0) & (freshness(max(options.seconds, 3.0)) <= 2.2)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
