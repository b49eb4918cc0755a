"""`monitor`: watches a node live, and scores it where the truth is published.

Of `object_pose` it takes the estimates (`objects`) and the truth (`truth`, as the player publishes
it for BOP scenes) and pairs them by exact stamp; of `wholebody_pose` the `people`, and the
`true_people` if there are any. With the stage times (`timing`) and the annotated pictures it
prints one line a frame, and at the end leaves a summary, a video and a picture sheet. It changes
nothing and can be started beside a robot at any time.

Notable: a result waits for its truth only where somebody publishes truths; a live camera has none.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from time import monotonic

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage

from kd_pose.nodes import parameters
from kd_pose.nodes.monitor_boards import ObjectBoard, PeopleBoard, Spec
from kd_pose.nodes.parameters import Param
from kd_pose.nodes.process import run
from kd_pose.recording import Recording
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
PATIENCE_S = 5.0  # a truth is sent with its image: after this long none is to come any more
IDLE_CHECK_S = 0.2


def stamp_ns(header) -> int:
    """The stamp of a std_msgs/Header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


class MonitorNode(Node):
    """Wires the topics to a board and a recording; `done` holds the exit code at the end."""

    def __init__(self, **kwargs) -> None:
        """Raises ValueError for a parameter that cannot be."""
        super().__init__("monitor", **kwargs)
        self.done = Future()
        for item in PARAMETERS:
            descriptor = item.descriptor()
            descriptor.description, descriptor.read_only = item.description, True
            self.declare_parameter(item.name, item.default, descriptor)
        values = parameters.read(self, PARAMETERS)
        unknown = parameters.unknown_overrides(self, PARAMETERS)
        if unknown:
            self.get_logger().warning(f"unknown parameter(s) given: {', '.join(unknown)}")
        self.idle_timeout = values["idle_timeout_s"]
        self.recording = None
        if values["output_dir"]:
            folder = Path(values["output_dir"]).expanduser()
            try:
                self.recording = Recording(folder, values["video_rate_hz"])
            except ValueError as error:
                raise ValueError(f"output_dir {error}") from None
        objects = values["watch"] == "objects"
        self.board = ObjectBoard() if objects else PeopleBoard()
        self.pending: dict[str, OrderedDict] = {"result": OrderedDict(), "truth": OrderedDict()}
        self.knows_truth = self.gave_up = False
        self.waits_since = 0.0  # for the truth of a result, by the monotonic clock
        self.last_result = None
        self.timing: dict[str, float] = {}
        self.counters: dict[str, int] = {}
        self._subscribe(NODES[values["watch"]], objects)
        # On the steady clock: simulated time may stand still.
        self.create_timer(IDLE_CHECK_S, self._on_timer,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _subscribe(self, name: str, objects: bool) -> None:
        kind = ObjectPoseArray if objects else WholebodyPoseArray
        self._listen(kind, f"{name}/{'objects' if objects else 'people'}", self._on_result)
        self._truth_topic = self._listen(
            kind, f"player/{'truth' if objects else 'true_people'}", self._on_truth)
        if objects:
            latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                                 durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._listen(ObjectInfoArray, f"{name}/object_info", self._on_info, latched)
        self._listen(Timing, f"{name}/timing", self._on_timing)
        if self.recording:
            self._listen(CompressedImage, f"{name}/image_annotated/compressed", self._on_picture)

    def _listen(self, kind, topic, callback, qos=None) -> str:
        qos = qos or QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        return self.create_subscription(kind, topic, callback, qos).topic_name

    def _on_info(self, message) -> None:
        self.board.specs = {info.class_id: Spec(info) for info in message.objects}

    def _on_result(self, message) -> None:
        now = self.get_clock().now().nanoseconds
        self.last_result = self.board.arrived((now - stamp_ns(message.header)) * 1e-6)
        if self._waits_for_truth():
            self._pair("result", message)
        else:
            self._score(message)

    def _on_truth(self, message) -> None:
        self.knows_truth, self.gave_up = True, False
        self._pair("truth", message)

    def _waits_for_truth(self) -> bool:
        """Whether a truth can be expected for a result."""
        return not self.gave_up and (
            self.knows_truth or self.count_publishers(self._truth_topic) > 0)

    def _pair(self, kind: str, message) -> None:
        """Wait for the other half of a pair: the result or the truth of the same stamp."""
        other = "truth" if kind == "result" else "result"
        key = stamp_ns(message.header)
        partner = self.pending[other].pop(key, None)
        if partner is not None:
            self.waits_since = monotonic()
            pair = (message, partner) if kind == "result" else (partner, message)
            self._score(*pair)
            return
        if kind == "result" and not self.pending[kind]:
            self.waits_since = monotonic()
        self.pending[kind][key] = message
        if len(self.pending[kind]) <= MAX_PENDING:
            return
        if kind == "result":
            self._give_up()
        else:
            self.pending[kind].popitem(last=False)

    def _give_up(self) -> None:
        """Truths have ended, or have other stamps."""
        self.gave_up = True
        self._count_unpaired()

    def _count_unpaired(self) -> None:
        """Results that still wait for a truth count as those without one."""
        while self.pending["result"]:
            self._score(self.pending["result"].popitem(last=False)[1])

    def _score(self, *messages) -> None:
        try:
            line = self.board.update(*messages)
        except Exception as error:  # of a message that is not as it should be; the rest is kept
            self.get_logger().error(f"a result could not be counted: {error}",
                                    throttle_duration_sec=5.0)
        else:
            print(self.board.prefix() + line, flush=True)

    def _on_timing(self, message) -> None:
        self.timing = dict(zip(message.stages, message.ms))
        self.counters = {"received": message.received, "processed": message.processed,
                         "replaced": message.replaced, "unsynced": message.unsynced,
                         "rejected": message.rejected}

    def _on_picture(self, message) -> None:
        self.recording.add(bytes(message.data))

    def _on_timer(self) -> None:
        if self.pending["result"] and monotonic() - self.waits_since > PATIENCE_S:
            self._give_up()
        if self.finished() and not self.done.done():
            self.done.set_result(0)

    def finished(self) -> bool:
        """True once results have come and then stopped for `idle_timeout_s`."""
        return bool(self.idle_timeout and self.last_result
                    and monotonic() - self.last_result > self.idle_timeout)

    def finish(self) -> dict:
        """Print the summary and write what was asked for; returns the summary.

        Raises OSError where a file cannot be written.
        """
        self._count_unpaired()
        summary = self.board.summary()
        summary["rate_hz"] = self.board.rate_hz()
        summary["last_stage_ms"] = {k: float(v) for k, v in self.timing.items()}
        summary["counters"] = {k: int(v) for k, v in self.counters.items()}
        print("\n" + self.board.table(summary), flush=True)
        for line in self.recording.close(summary) if self.recording else ():
            print(line, flush=True)
        return summary


def end(node: MonitorNode) -> int:
    """What remains to be done when nothing is watched any more; the exit code."""
    try:
        node.finish()
    except OSError as error:
        print(f"monitor: the recording could not be written: {error}", file=sys.stderr)
        return 1
    return 0


def main(args: list[str] | None = None) -> int:
    """Entry point of the `monitor` executable; returns the exit code."""
    return run(MonitorNode, "monitor", args, at_end=end)


if __name__ == "__main__":
    sys.exit(main())
