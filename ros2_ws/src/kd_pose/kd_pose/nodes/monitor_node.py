"""`monitor`: watches a node live, and scores it where the truth is published.

Of `object_pose` it takes the estimates (`objects`) and the truth (`truth`, as the player publishes
it for BOP scenes) and pairs them by exact stamp; of `wholebody_pose` the `people`, and the
`true_people` if there are any. With
the stage times (`timing`) and the annotated pictures it prints one line a frame, and on shutdown
leaves a summary, a video and a picture sheet. It changes nothing and can be started beside a robot
at any time.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from time import monotonic

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from kd_pose.nodes import parameters
from kd_pose.nodes.monitor_boards import ObjectBoard, PeopleBoard, Spec
from kd_pose.nodes.parameters import Param
from kd_pose_msgs.msg import ObjectInfoArray, ObjectPoseArray, Timing, WholebodyPoseArray

PARAMETERS: tuple[Param, ...] = (
    Param("watch", "objects", "objects: the node object_pose, and player/truth; people: the node "
          "wholebody_pose, and player/true_people where it is published.",
          choices=("objects", "people")),
    Param("output_dir", "", "Folder for summary.json, annotated.mp4 and sheet.jpg; empty: print "
          "only."),
    Param("idle_timeout_s", 0.0, "Stop this many seconds after the last result; 0: run until "
          "interrupted.", 0.0, 86400.0),
    Param("video_rate_hz", 10.0, "Frame rate of the video written.", 0.1, 1000.0),
)
NODES = {"objects": "object_pose", "people": "wholebody_pose"}
MAX_PENDING = 200  # stamps kept while waiting for the other half of a pair
SHEET_COLUMNS, SHEET_ROWS = 4, 3


def stamp_ns(header) -> int:
    """The stamp of a std_msgs/Header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


class MonitorNode(Node):
    """Wires the topics to a board and keeps the annotated pictures."""

    def __init__(self, **kwargs):
        super().__init__("monitor", **kwargs)
        for item in PARAMETERS:
            descriptor = item.descriptor()
            descriptor.description, descriptor.read_only = item.description, True
            self.declare_parameter(item.name, item.default, descriptor)
        values = parameters.read(self, PARAMETERS)
        self.output_dir = values["output_dir"]
        self.idle_timeout = values["idle_timeout_s"]
        self.video_rate = values["video_rate_hz"]
        self.board = ObjectBoard() if values["watch"] == "objects" else PeopleBoard()
        self.pending: dict[str, OrderedDict] = {"result": OrderedDict(), "truth": OrderedDict()}
        self.knows_truth = False
        self.pictures: list[bytes] = []
        self.last_result = None
        self._subscriptions_kept: list = []
        name = NODES[values["watch"]]
        if values["watch"] == "objects":
            self._watch_objects(name)
        else:
            self._listen(WholebodyPoseArray, f"{name}/people", self._on_people)
            self._listen(WholebodyPoseArray, "player/true_people",
                         lambda m: self._on_pose("truth", m))
        self._listen(Timing, f"{name}/timing", self._on_timing)
        if self.output_dir:
            self._listen(CompressedImage, f"{name}/image_annotated/compressed", self._on_picture)

    def _watch_objects(self, name):
        latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                             durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._listen(ObjectPoseArray, f"{name}/objects", lambda m: self._on_pose("result", m))
        self._listen(ObjectPoseArray, "player/truth", lambda m: self._on_pose("truth", m))
        self._listen(ObjectInfoArray, f"{name}/object_info", self._on_info, latched)

    def _listen(self, kind, topic, callback, qos=None):
        qos = qos or QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        self._subscriptions_kept.append(self.create_subscription(kind, topic, callback, qos))

    def _on_info(self, message):
        self.board.specs = {info.class_id: Spec(info) for info in message.objects}

    def _arrived(self, message):
        now = self.get_clock().now().nanoseconds
        self.last_result = self.board.arrived((now - stamp_ns(message.header)) * 1e-6)

    def _on_people(self, message):
        if self.knows_truth:
            self._on_pose("result", message)
            return
        self._arrived(message)
        self._show(self.board.update(message))

    def _on_pose(self, kind, message):
        """Wait for the other half of a pair: the result or the truth of the same stamp."""
        if kind == "result":
            self._arrived(message)
        else:
            self.knows_truth = True
        other = "truth" if kind == "result" else "result"
        key = stamp_ns(message.header)
        partner = self.pending[other].pop(key, None)
        if partner is None:
            self.pending[kind][key] = message
            if len(self.pending[kind]) > MAX_PENDING:
                self.pending[kind].popitem(last=False)
            return
        pair = (message, partner) if kind == "result" else (partner, message)
        self._show(self.board.update(*pair))

    def _show(self, line):
        print(self.board.prefix() + line, flush=True)

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
                    and monotonic() - self.last_result > self.idle_timeout)

    def finish(self) -> dict:
        """Print the summary and write what was asked for; returns the summary."""
        summary = self.board.summary()
        summary["rate_hz"] = self.board.rate_hz()
        summary["last_stage_ms"] = {k: float(v) for k, v in getattr(self, "timing", {}).items()}
        summary["counters"] = {k: int(v) for k, v in getattr(self, "counters", {}).items()}
        print("\n" + self.board.table(summary), flush=True)
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
