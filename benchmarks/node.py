"""The node's own cost and the freshness of its results, network and codec taken off.

    python benchmarks/node.py              both
    python benchmarks/node.py --seconds 5  longer

(a) Overhead: from the image's callback to the publication of results, without the estimator (a fake
    that answers with constants), against one hop of the same typed VGA image through rclpy within
    one process. In one run, alternating, so that a busy machine slows both. Goal: ratio <= 1.0.
(b) Freshness: 30 Hz in, a network of 100 ms: age of results when they arrive, in network times.
    Goal: 95th percentile <= 2.2.
The last line of each part is the ratio.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "ros2_ws/src/kd_pose")]

from helpers.ros_rig import RELIABLE, FakeEstimator, Rig, fake_node, image_message, info_message
from helpers.tiny_models import example_scene
from kd_pose.results import STAGES, ObjectPose, ObjectPoseFrame
from sensor_msgs.msg import Image

NETWORK_S = 0.1
RATE_HZ = 30.0


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


class Hop:
    """The same image from a publisher to a callback of the same process, nothing else."""

    def __init__(self, rig: Rig):
        self.arrived = None
        self.publisher = rig.client.create_publisher(Image, "hop", RELIABLE)
        rig.client.create_subscription(Image, "hop", self._arrive, RELIABLE)

    def _arrive(self, message):
        self.arrived = time.perf_counter()

    def measure(self, message) -> float:
        self.arrived = None
        started = time.perf_counter()
        self.publisher.publish(message)
        while self.arrived is None:
            time.sleep(0.0002)
            if time.perf_counter() - started > 2.0:
                raise SystemExit("the hop lost an image")
        return 1e3 * (self.arrived - started)


def node_cost(timing) -> float:
    """Callback to published result without the estimator's own stages, milliseconds."""
    ms = dict(zip(timing.stages, timing.ms))
    return ms["wait"] + ms["convert"] + ms["publish"]


def overhead(seconds: float) -> float:
    scene = example_scene()
    fake = FakeEstimator(scene.specs, result=constant_result(scene))
    message, info = image_message(scene.image()), info_message(scene.camera)
    hops, costs, whole = [], [], []
    with Rig(kind=fake_node(fake)) as rig:
        rig.start()
        hop = Hop(rig)
        time.sleep(0.5)
        end = time.monotonic() + seconds
        index = 0
        while time.monotonic() < end:
            index += 1
            hops.append(hop.measure(message))
            before = len(rig.received["timing"])
            started = time.perf_counter()
            rig.publish(message, info, (index, 0))
            while len(rig.received["timing"]) == before:
                time.sleep(0.0002)
                if time.perf_counter() - started > 2.0:
                    raise SystemExit("the node lost an image")
            whole.append(1e3 * (time.perf_counter() - started))
            costs.append(node_cost(rig.received["timing"][-1]))
            time.sleep(0.005)
    warm = len(hops) // 10
    hops, costs, whole = hops[warm:], costs[warm:], whole[warm:]
    print("(a) overhead of the node, 640x480 bgr8, 2 objects")
    print(f"  one typed hop in one process         {summary(hops)}")
    print(f"  node, callback to published results  {summary(costs)}")
    print(f"  image sent to timing received        {summary(whole)}")
    ratio = float(np.median(costs) / np.median(hops))
    print(f"  ratio node / hop                     {ratio:.2f}   (goal <= 1.0)")
    return ratio


def freshness(seconds: float) -> float:
    scene = example_scene()
    fake = FakeEstimator(scene.specs, delay_s=NETWORK_S, result=constant_result(scene))
    message, info = image_message(scene.image()), info_message(scene.camera)
    with Rig(kind=fake_node(fake), outputs=("timing",)) as rig:
        sent, ages = {}, []

        def arrive(result):
            ages.append(1e3 * (time.perf_counter() - sent[result.header.stamp.sec]))

        from kd_pose_msgs.msg import ObjectPoseArray

        rig.client.create_subscription(ObjectPoseArray, "object_pose/objects", arrive, RELIABLE)
        rig.start()
        time.sleep(0.3)
        start = time.perf_counter()
        for index in range(1, int(seconds * RATE_HZ) + 1):
            time.sleep(max(0.0, start + index / RATE_HZ - time.perf_counter()))
            sent[index] = time.perf_counter()
            rig.publish(message, info, (index, 0))
        time.sleep(3 * NETWORK_S)
        last = rig.received["timing"][-1]
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
    seconds = parser.parse_args().seconds
    good = (overhead(seconds) <= 1.0) & (freshness(max(seconds, 3.0)) <= 2.2)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
