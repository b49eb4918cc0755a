"""Parameters as one table a node: name, default, limits, meaning, and when they may change.

The table is the only place where a parameter is described: declaration and validation are made
from it, and the YAML file is tested against it. A parameter's type is that of its default. Ranges
are in the ROS descriptors, so that `ros2 param describe` and rqt show them; choices and lists are
checked here, with a reason, because rclpy has no descriptor for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

# Parameters that every node's rclpy declares, or its C++ sibling, from the same file.
FOREIGN_PREFIXES = ("use_sim_time", "qos_overrides./clock.", "qos_overrides./parameter_events.",
                    "start_type_description_service")


@dataclass(frozen=True)
class Param:
    """One parameter. A tuple as default means a list of texts.

    low, high: limits, both included. choices: the texts allowed. dynamic: may be set while the
    node is configured; the others are read when it is configured.
    """

    name: str
    default: bool | int | float | str | tuple
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False

    @property
    def is_list(self) -> bool:
        return isinstance(self.default, tuple)

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows; rclpy enforces the range by itself."""
        when = "May be set at any time." if self.dynamic else "Read when the node is configured."
        descriptor = ParameterDescriptor(description=f"{self.description} {when}")
        # An empty list has no type in ROS 2 ([] in YAML or on the command line): checked here.
        descriptor.dynamic_typing = self.is_list
        if self.choices:
            descriptor.additional_constraints = "one of " + ", ".join(self.choices)
        if self.low is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)
                ]
        return descriptor

    def parse(self, value: Any) -> Any:
        """The value as the node uses it; ValueError that names the parameter."""
        if self.is_list:
            items = () if value is None else value
            if isinstance(items, (str, bytes)) or not hasattr(items, "__iter__"):
                raise ValueError(f"{self.name} must be a list of texts, got {value!r}")
            items = tuple(items)
            if not all(isinstance(item, str) for item in items):
                raise ValueError(f"{self.name} must be a list of texts, got {list(items)!r}")
            return tuple(item for item in items if item)
        if self.choices and value not in self.choices:
            raise ValueError(
                f"{self.name} must be one of {', '.join(self.choices)}, got {value!r}"
            )
        return value


COMMON: tuple[Param, ...] = (
    Param("autostart", True, "Configure and activate without a lifecycle manager."),
    Param("exit_on_failure", False, "End the process with an error if autostart fails."),
    Param("model_path", "", "The .onnx file of the pose network."),
    Param("detector_path", "", "The .onnx file of the detector; not needed if boxes come from a "
          "topic."),
    Param("backend", "auto", "Engine that runs the networks.",
          choices=("auto", "onnxruntime", "openvino", "tensorrt", "torch")),
    Param("device", "auto", "auto, cpu, cuda or cuda:<number>."),
    Param("precision", "fp32", "Arithmetic of the networks.",
          choices=("auto", "fp32", "fp16", "bf16")),
    Param("threads", 0, "CPU threads of the engine; 0: its own choice.", 0, 256),
    Param("warmup_iterations", 3, "Runs on an empty image while configuring.", 0, 50),
    Param("image_transport", "raw", "raw: topic image; compressed: topic image/compressed.",
          choices=("raw", "compressed")),
    Param("camera_info_sync", "exact", "exact: camera_info must have the image's stamp; latest: "
          "the last one counts.", choices=("exact", "latest")),
    Param("input_is_rectified", False, "Images are rectified: P of camera_info is used, not K "
          "and D."),
    Param("sync_timeout_s", 1.0, "An image whose camera_info, depth or boxes have not come "
          "after this long is given up.", 0.05, 60.0, dynamic=True),
    Param("max_image_age_s", 0.0, "Images older than this are rejected; 0: never.", 0.0, 3600.0,
          dynamic=True),
    Param("markers.lifetime_s", 0.5, "Markers vanish after this long; 0: never.", 0.0, 60.0,
          dynamic=True),
    Param("annotate.jpeg_quality", 85, "JPEG quality of ~/image_annotated/compressed.", 1, 100,
          dynamic=True),
    Param("diagnostics.period_s", 1.0, "Time between diagnostics.", 0.1, 60.0),
    Param("diagnostics.input_timeout_s", 2.0, "Warn if no input came for this long.", 0.1, 3600.0,
          dynamic=True),
    Param("diagnostics.max_processing_time_ms", 200.0, "Warn if a frame takes longer; 0: never.",
          0.0, 60000.0, dynamic=True),
    Param("diagnostics.max_latency_ms", 0.0, "Warn if results come later than this after the "
          "image's stamp; 0: never.", 0.0, 60000.0, dynamic=True),
)

OBJECT_POSE: tuple[Param, ...] = COMMON + (
    Param("roi_source", "detector", "Where regions come from: the built-in detector, or the topic "
          "boxes (vision_msgs/Detection2DArray).", choices=("detector", "topic")),
    Param("use_depth", False, "Use the topic depth. Not in this version."),
    Param("publish_tf", False, "Publish tracked objects on /tf. Not in this version."),
    Param("tracking.enable", False, "Track over time. Not in this version."),
    Param("target_objects", (), "Names of the objects to look for; empty: all that the model "
          "knows.", dynamic=True),
    Param("primary_target", "", "Object whose best instance is published on ~/target_pose; "
          "empty: none.", dynamic=True),
    Param("score_threshold", 0.0, "Votes, or mask pixels of a dense network, below are not "
          "used; 0: the model's own threshold.", 0.0, 1.0, dynamic=True),
    Param("detector_score_threshold", 0.0, "Boxes below are not used; 0: the detector's own "
          "threshold.", 0.0, 1.0, dynamic=True),
    Param("object_score_threshold", 0.0, "Objects with a lower score are left out.", 0.0, 1.0,
          dynamic=True),
    Param("max_instances", 20, "Objects per image at most.", 1, 200, dynamic=True),
    Param("min_inliers", 6, "Votes, or pixels of a dense network, that must agree on a pose.",
          4, 1000, dynamic=True),
    Param("max_reprojection_error_px", 6.0, "How far a vote or pixel may be from the pose that "
          "explains it, in pixels of the network's input.", 0.1, 100.0, dynamic=True),
)

WHOLEBODY_POSE: tuple[Param, ...] = COMMON + (
    Param("roi_source", "tracks", "Where people are looked for. tracks: where those of the last "
          "image are, with the detector now and then; detector: where it finds them, in every "
          "image; topic: in boxes (vision_msgs/Detection2DArray, class_id person).",
          choices=("tracks", "detector", "topic")),
    Param("detector_every_n", 10, "With roi_source tracks: the detector runs every so many "
          "images, while nobody is tracked, and when somebody was not found.", 1, 1000,
          dynamic=True),
    Param("detector_still_n", 30, "The same while nothing moves but those who are tracked; twice, "
          "then four times as many when the detector then finds nobody new. Not above "
          "detector_every_n: no difference is made.", 1, 1000, dynamic=True),
    Param("detector_score_threshold", 0.0, "Boxes below are not used; 0: the detector's own "
          "threshold.", 0.0, 1.0, dynamic=True),
    Param("max_people", 20, "People per image at most.", 1, 200, dynamic=True),
    Param("person_score_threshold", 0.0, "People with a lower score are left out.", 0.0, 1.0,
          dynamic=True),
    Param("keypoint_score_threshold", 0.3, "Keypoints below are not drawn, not lifted to 3-D and "
          "do not count for tracking; ~/people has them all the same.", 0.0, 1.0, dynamic=True),
    Param("duplicate_oks", 0.9, "Of two people whose keypoints are more alike (OKS) one is left "
          "out; 1: nobody is.", 0.0, 1.0, dynamic=True),
    Param("use_depth", False, "Use the topic depth (16UC1 or 32FC1, registered to the image) for "
          "keypoints in metres; needs camera_info."),
    Param("depth_scale", 0.001, "Metres per unit of a 16UC1 depth image.", 0.000001, 1.0,
          dynamic=True),
    Param("depth_max_m", 15.0, "Depths beyond count as unknown.", 0.2, 1000.0, dynamic=True),
    Param("depth_tolerance_s", 0.01, "How far the stamp of a depth image may be from that of its "
          "image; 0: equal.", 0.0, 1.0),
    Param("publish_tf", False, "Publish the frames body_<id> of people who are TRACKED and seen "
          "on /tf; needs use_depth, tracking.enable and the package tf2_msgs."),
    Param("tracking.enable", True, "Follow people over time: ids and states."),
    Param("tracking.confirm_frames", 3, "Sightings until a person is TRACKED.", 1, 1000,
          dynamic=True),
    Param("tracking.max_coast_s", 0.5, "How long a person who is not seen is kept, COASTING, "
          "before it is LOST.", 0.0, 60.0, dynamic=True),
    Param("tracking.min_overlap", 0.1, "People who overlap less with where a track is expected "
          "are somebody else.", 0.0, 1.0, dynamic=True),
    Param("tracking.appearance", True, "The colours of people's clothes have a say in who is who.",
          dynamic=True),
    Param("tracking.remember_s", 10.0, "How long after the last sighting a person who is LOST has "
          "the old id again when the clothes are the same; needs tracking.appearance. 0: never.",
          0.0, 3600.0, dynamic=True),
    Param("smoothing.enable", False, "Smooth keypoints of tracked people (One Euro filter).",
          dynamic=True),
    Param("smoothing.min_cutoff_hz", 1.0, "Cutoff at rest; lower is calmer.", 0.001, 1000.0,
          dynamic=True),
    Param("smoothing.beta", 10.0, "How fast the cutoff grows with speed, in Hz per person size "
          "(or metre) and second; higher lags less.", 0.0, 10000.0, dynamic=True),
    Param("smoothing.derivative_cutoff_hz", 1.0, "Cutoff of the speed itself.", 0.001, 1000.0,
          dynamic=True),
    Param("annotate.labels", True, "Write ids on ~/image_annotated.", dynamic=True),
)


def declare(node: Node, table: Sequence[Param]) -> None:
    """Declare every parameter of the table.

    Raises rclpy's InvalidParameter... exceptions for a value of a wrong type or out of range.
    """
    for item in table:
        default = list(item.default) if item.is_list else item.default
        node.declare_parameter(item.name, default, item.descriptor())


def read(node: Node, table: Sequence[Param]) -> dict[str, Any]:
    """Values by name; ValueError that names the parameter where one is not allowed."""
    return {item.name: item.parse(node.get_parameter(item.name).value) for item in table}


def changed(
    table: Sequence[Param],
    values: Mapping[str, Any],
    parameters: Iterable[Parameter],
    configured: bool,
) -> dict[str, Any]:
    """`values` with the new `parameters` in; those that the table does not have are ignored.

    configured: the node holds a model, so that only dynamic parameters may change.
    Raises ValueError with the reason for a refusal.
    """
    by_name = {item.name: item for item in table}
    result = dict(values)
    for parameter in parameters:
        item = by_name.get(parameter.name)
        if item is None:
            continue
        value = item.parse(parameter.value)
        if configured and not item.dynamic and value != values.get(item.name):
            raise ValueError(
                f"{item.name} is read when the node is configured: deactivate and clean up first "
                "(ros2 lifecycle set <node> deactivate, then cleanup), set it, and configure again"
            )
        result[item.name] = value
    return result


def unknown_overrides(node: Node, table: Sequence[Param], others: Iterable[str] = ()
                      ) -> list[str]:
    """Names given in a parameter file or on the command line that nothing reads: misspellings.

    others: names that are read and are not in the table.
    """
    given = getattr(node, "_parameter_overrides", {})
    known = {item.name for item in table} | set(others)
    return sorted(
        name for name in given if name not in known and not name.startswith(FOREIGN_PREFIXES)
    )
