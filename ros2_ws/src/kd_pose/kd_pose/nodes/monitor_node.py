"""`monitor`: watches an object_pose node live, and scores it where the truth is published.

It subscribes to the estimates (`objects`), the truth (`truth`, as the player publishes it for BOP
scenes), the stage times (`timing`) and the annotated pictures, pairs everything by exact stamp,
prints one line a frame, and on shutdown leaves a summary, a video and a picture sheet. It changes
nothing and can be started beside a robot at any time.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict, deque
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from kd_pose.geometry import make_pose, matrix_from_quaternion
from kd_pose.scoring import match_poses, pose_error
from kd_pose.symmetry import symmetry_transforms
from kd_pose_msgs.msg import ObjectInfoArray, ObjectPoseArray, Timing

MAX_PENDING = 200  # stamps kept while waiting for the other half of a pair
SHEET_COLUMNS, SHEET_ROWS = 4, 3


def stamp_ns(header) -> int:
    """The stamp of a std_msgs/Header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def pose_matrix(pose) -> np.ndarray:
    """geometry_msgs/Pose -> (4, 4) transform, metres."""
    q, p = pose.orientation, pose.position
    return make_pose(matrix_from_quaternion([q.x, q.y, q.z, q.w]), [p.x, p.y, p.z])


class _Spec:
    """What scoring needs of a kd_pose_msgs/ObjectInfo: box corners and symmetry transforms."""

    def __init__(self, info):
        self.diameter = float(info.diameter)
        centre = np.array([info.box_center.position.x, info.box_center.position.y,
                           info.box_center.position.z])
        half = 0.5 * np.array([info.box_size.x, info.box_size.y, info.box_size.z])
        self.box_min, self.box_max = centre - half, centre + half
        self.symmetries_discrete = tuple(
            tuple(pose_matrix(p).ravel()) for p in info.symmetries_discrete
        )
        self.symmetries_continuous = tuple(
            ((a.x, a.y, a.z), (o.x, o.y, o.z))
            for a, o in zip(info.symmetry_axes, info.symmetry_offsets)
        )
        self.symmetries = symmetry_transforms(self, step_deg=5.0)


class Scoreboard:
    """Errors and rates of all frames so far, by class; knows nothing of ROS but the messages."""

    def __init__(self):
        self.specs: dict[str, _Spec] = {}
        self.errors: dict[str, list] = {}
        self.truths: dict[str, int] = {}
        self.found: dict[str, int] = {}
        self.extra = 0
        self.frames = 0
        self.latency_ms: list[float] = []
        self.arrivals: deque = deque(maxlen=30)

    def update(self, objects, truth) -> str:
        """Score one frame (two ObjectPoseArrays with one stamp) and return its line."""
        estimates = [(o.class_id, pose_matrix(o.pose.pose)) for o in objects.objects]
        truths = [(o.class_id, pose_matrix(o.pose.pose)) for o in truth.objects]
        pairs = match_poses(estimates, truths)
        self.frames += 1
        self.extra += len(estimates) - len(pairs)
        for name, _ in truths:
            self.truths[name] = self.truths.get(name, 0) + 1
        parts = []
        for i, j in pairs:
            name = estimates[i][0]
            spec = self.specs.get(name)
            if spec is None:
                continue
            error = pose_error(estimates[i][1], truths[j][1], spec.box_min, spec.box_max,
                               spec.symmetries)
            self.errors.setdefault(name, []).append(error)
            good = error.corners <= 0.1 * spec.diameter
            self.found[name] = self.found.get(name, 0) + int(good)
            parts.append(f"{name} {error.translation * 1e3:.1f}mm/{error.rotation_deg:.1f}deg"
                         f"{'' if good else '!'}")
        return f"{len(pairs)}/{len(truths)} found  " + "  ".join(sorted(parts))

    def rate_hz(self) -> float:
        """Results per second over the last 30 of them."""
        if len(self.arrivals) < 2:
            return 0.0
        return (len(self.arrivals) - 1) / max(self.arrivals[-1] - self.arrivals[0], 1e-9)

    def summary(self) -> dict:
        """Medians and recall by class, rate and latency."""
        classes = {}
        for name in sorted(self.truths):
            errors = self.errors.get(name, [])
            median = lambda values: float(np.median(values)) if values else None  # noqa: E731
            classes[name] = {
                "truth_instances": self.truths[name],
                "estimated": len(errors),
                "recall_corners_0.1d": self.found.get(name, 0) / self.truths[name],
                "median_translation_mm": median([e.translation * 1e3 for e in errors]),
                "median_rotation_deg": median([e.rotation_deg for e in errors]),
            }
        latency = np.array(self.latency_ms) if self.latency_ms else np.array([np.nan])
        return {
            "frames": self.frames,
            "unmatched_estimates": self.extra,
            "latency_ms_median": float(np.median(latency)),
            "latency_ms_p95": float(np.percentile(latency, 95)),
            "classes": classes,
        }


def format_summary(summary: dict) -> str:
    """The summary as a table for a terminal."""
    lines = [f"{'object':14s} {'seen':>6s} {'recall':>7s} {'median mm':>10s} {'median deg':>11s}"]
    for name, row in summary["classes"].items():
        mm, deg = row["median_translation_mm"], row["median_rotation_deg"]
        lines.append(
            f"{name:14s} {row['estimated']:3d}/{row['truth_instances']:<3d}"
            f"{100 * row['recall_corners_0.1d']:7.1f}%"
            f" {mm if mm is not None else float('nan'):9.2f} "
            f"{deg if deg is not None else float('nan'):11.2f}"
        )
    lines.append(
        f"{summary['frames']} frames scored, {summary['unmatched_estimates']} estimates without a"
        f" truth, image-to-result latency median {summary['latency_ms_median']:.0f} ms,"
        f" p95 {summary['latency_ms_p95']:.0f} ms"
    )
    lines.append("recall: mean distance of the 8 box corners within 10 % of the diameter")
    return "\n".join(lines)


class MonitorNode(Node):
    """Wires the topics to the scoreboard and keeps the annotated pictures."""

    def __init__(self):
        super().__init__("monitor")

        def text(name, default, description):
            self.declare_parameter(name, default, ParameterDescriptor(description=description))
            return self.get_parameter(name).value

        self.output_dir = text("output_dir", "", "folder for summary.json, video and sheet; "
                               "empty: print only")
        self.idle_timeout = text("idle_timeout_s", 0.0, "stop this many seconds after the last "
                                 "result; 0: run until interrupted")
        self.video_rate = text("video_rate_hz", 10.0, "frame rate of the video written")
        self.board = Scoreboard()
        self.pending: dict[str, OrderedDict] = {"objects": OrderedDict(), "truth": OrderedDict()}
        self.pictures: list[bytes] = []
        self.last_result = None
        reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                             durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions_kept = [
            self.create_subscription(ObjectPoseArray, "object_pose/objects",
                                     lambda m: self._on_pose("objects", m), reliable),
            self.create_subscription(ObjectPoseArray, "player/truth",
                                     lambda m: self._on_pose("truth", m), reliable),
            self.create_subscription(Timing, "object_pose/timing", self._on_timing, reliable),
            self.create_subscription(ObjectInfoArray, "object_pose/object_info", self._on_info,
                                     latched),
        ]
        if self.output_dir:
            self._subscriptions_kept.append(self.create_subscription(
                CompressedImage, "object_pose/image_annotated/compressed", self._on_picture,
                reliable))

    def _on_info(self, message):
        self.board.specs = {info.class_id: _Spec(info) for info in message.objects}

    def _on_pose(self, kind, message):
        if kind == "objects":
            self.last_result = time.monotonic()
            self.board.arrivals.append(self.last_result)
            age = (self.get_clock().now().nanoseconds - stamp_ns(message.header)) * 1e-6
            if 0 <= age < 10_000:  # a bag from last week has stamps of last week
                self.board.latency_ms.append(age)
        other = "truth" if kind == "objects" else "objects"
        key = stamp_ns(message.header)
        partner = self.pending[other].pop(key, None)
        if partner is None:
            self.pending[kind][key] = message
            if len(self.pending[kind]) > MAX_PENDING:
                self.pending[kind].popitem(last=False)
            return
        pair = (message, partner) if kind == "objects" else (partner, message)
        line = self.board.update(*pair)
        latency = self.board.latency_ms[-1] if self.board.latency_ms else float("nan")
        print(f"[{self.board.frames:4d}] {self.board.rate_hz():5.1f} Hz {latency:5.0f} ms  {line}",
              flush=True)

    def _on_timing(self, message):
        self.timing = dict(zip(message.stages, message.ms))
        self.counters = {"received": message.received, "processed": message.processed,
                         "replaced": message.replaced, "unsynced": message.unsynced,
                         "rejected": message.rejected}

    def _on_picture(self, message):
        self.pictures.append(bytes(message.data))

    def finished(self) -> bool:
        """True once results have come and then stopped for `idle_timeout_s`."""
        return bool(self.idle_timeout and self.last_result
                    and time.monotonic() - self.last_result > self.idle_timeout)

    def finish(self) -> dict:
        """Print the summary and write what was asked for; returns the summary."""
        summary = self.board.summary()
        summary["rate_hz"] = self.board.rate_hz()
        summary["last_stage_ms"] = {k: float(v) for k, v in getattr(self, "timing", {}).items()}
        summary["counters"] = {k: int(v) for k, v in getattr(self, "counters", {}).items()}
        print("\n" + format_summary(summary), flush=True)
        if self.output_dir:
            folder = Path(self.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "summary.json").write_text(
                json.dumps(summary, indent=2, default=float) + "\n")
            write_pictures(self.pictures, folder, self.video_rate)
        return summary


def write_pictures(jpegs: list[bytes], folder: Path, rate_hz: float) -> list[Path]:
    """Write `annotated.mp4` and `sheet.jpg` (evenly spaced frames) from JPEG or PNG buffers."""
    if not jpegs:
        return []
    decode = lambda buffer: cv2.imdecode(np.frombuffer(buffer, np.uint8), cv2.IMREAD_COLOR)  # noqa: E731
    first = decode(jpegs[0])
    height, width = first.shape[:2]
    video_path = folder / "annotated.mp4"
    writer = cv2.VideoWriter(str(video_path), cv2.VideoWriter_fourcc(*"mp4v"), rate_hz,
                             (width, height))
    written = []
    if writer.isOpened():
        for buffer in jpegs:
            writer.write(decode(buffer))
        writer.release()
        written.append(video_path)
    count = min(SHEET_COLUMNS * SHEET_ROWS, len(jpegs))
    chosen = np.linspace(0, len(jpegs) - 1, count).round().astype(int)
    tile_width = 480
    tile_size = (tile_width, round(tile_width * height / width))
    tiles = [cv2.resize(decode(jpegs[i]), tile_size, interpolation=cv2.INTER_AREA)
             for i in chosen]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % SHEET_COLUMNS)
    rows = [np.hstack(tiles[i:i + SHEET_COLUMNS]) for i in range(0, len(tiles), SHEET_COLUMNS)]
    sheet_path = folder / "sheet.jpg"
    cv2.imwrite(str(sheet_path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])
    written.append(sheet_path)
    print("pictures: " + ", ".join(str(p) for p in written), flush=True)
    return written


def main(args=None):
    """Entry point of the `monitor` executable."""
    rclpy.init(args=args)
    node = MonitorNode()
    try:
        while rclpy.ok() and not node.finished():
            rclpy.spin_once(node, timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.finish()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
