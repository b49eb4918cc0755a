"""What the launch files share: arguments, their checks, and the actions that come of them.

The value of every argument is checked before a process starts, so that a wrong one ends the launch
with a sentence instead of a node that waits for ever. Nothing is downloaded or executed but nodes.
An argument left empty leaves the parameter file's value alone.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = "kd_pose"
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
BOOLEANS = ("true", "false")
# Configurations that launch itself reads, which may be given beside every file's own.
OF_LAUNCH = ("launch-prefix", "launch-prefix-filter", "emulate_tty", "sigterm_timeout",
             "sigkill_timeout")
DEVICE = re.compile(r"(auto|cpu|cuda(:[0-9]+)?)?")
MAX_RATE_HZ = 1000.0  # the player's limit
# What a file may say that decides on models.
TEXTS = ("model_path", "detector_path", "roi_source")


class Argument(NamedTuple):
    """choices: what is allowed, None for anything."""

    name: str
    default: str
    choices: tuple[str, ...] | None
    description: str


@dataclass(frozen=True)
class Estimator:
    """A node that estimates, as a launch file sees it.

    model, detector: the shipped files. knows: what the shipped detector does not know where the
    model is another one; "" if that does not matter. own: arguments that only this node has.
    roi_source: its default. overrides: switches among `own` that are parameters.
    """

    name: str
    model: str
    detector: str
    knows: str
    own: tuple[Argument, ...]
    roi_source: str
    overrides: tuple[str, ...] = ()

    def arguments(self, prefix: str = "") -> tuple[Argument, ...]:
        """Its own arguments, with a prefix where another node is launched beside it."""
        fixed = (
            Argument("params_file", "", None, f"Parameter file of {self.name}; empty: "
                     f"config/{self.name}.yaml of the package."),
            Argument("model", "", None, "The .onnx file of the pose network; empty: model_path of "
                     "the parameter file, else the shipped one."),
            Argument("detector", "", None, "The .onnx file of the detector; empty: detector_path "
                     "of the parameter file, else the shipped one if the model is the shipped "
                     "one."),
            Argument("boxes", "boxes", None, "Topic of boxes, where roi_source of the parameter "
                     "file is topic."),
        )
        return tuple(item._replace(name=prefix + item.name) for item in (*fixed, *self.own))


OBJECTS = Estimator("object_pose", "objects_student.onnx", "objects_detector.onnx",
                    "the objects of another model", (), "detector")
PEOPLE = Estimator(
    "wholebody_pose", "wholebody_student.onnx", "person_detector.onnx", "", (
        Argument("depth", "depth", None, "Topic of depth images registered to the image, with "
                 "use_depth."),
        Argument("use_depth", "", ("", *BOOLEANS), "Keypoints in metres from depth; empty: as in "
                 "the parameter file."),
    ), "tracks", ("use_depth",))

SHARED = (
    Argument("namespace", "", None, "Namespace of the nodes and of topics that do not begin "
             "with /."),
    Argument("image", "image", None, "Topic of the images (for compressed ones without "
             "/compressed)."),
    Argument("camera_info", "camera_info", None, "Topic of their camera_info."),
    Argument("image_transport", "", ("", "raw", "compressed"), "raw or compressed; empty: as in "
             "the parameter file."),
    Argument("backend", "", ("", "auto", "onnxruntime", "openvino", "tensorrt", "torch"),
             "Engine that runs the networks; empty: as in the parameter file."),
    Argument("device", "", None, "auto, cpu, cuda or cuda:<number>; empty: as in the parameter "
             "file."),
    Argument("autostart", "", ("", *BOOLEANS), "Configure and activate without a lifecycle "
             "manager; empty: as in the parameter file."),
    Argument("use_sim_time", "false", BOOLEANS, "Take the time from /clock."),
    Argument("log_level", "info", ("debug", "info", "warn", "error", "fatal"), "Of the nodes."),
    Argument("rviz", "false", BOOLEANS, "Also start RViz with the package's configuration."),
    Argument("source", "", None, "Also play this: a folder of pictures, a video, a BOP scene or a "
             "rosbag2; empty: the images come from elsewhere."),
    Argument("rate_hz", "0.0", None, "Pictures per second of the player; 0: as recorded."),
    Argument("loop", "false", BOOLEANS, "The player begins again at the end."),
    Argument("publish_truth", "false", BOOLEANS, "The player also publishes the true poses of a "
             "BOP scene."),
    Argument("frame_id", "", None, "Frame of the player's images and of RViz; empty: as recorded, "
             "else camera_optical_frame."),
)
# Where RViz's configuration looks, by node.
SHOWN = ("markers", "image_annotated")


def declarations(arguments: Iterable[Argument]) -> list[DeclareLaunchArgument]:
    return [
        DeclareLaunchArgument(name, default_value=default, description=description,
                              **({"choices": list(choices)} if choices else {}))
        for name, default, choices, description in arguments
    ]


def values(context: Any, arguments: Iterable[Argument], file: str) -> dict[str, str]:
    """The arguments of the launch file `file`; RuntimeError that names one that it does not have.

    A launch file that includes `file` may have further configurations of its own; there one that
    looks like a misspelling is only told.
    """
    names = [item.name for item in arguments]
    unknown = [name for name in context.launch_configurations
               if name not in names and name not in OF_LAUNCH]
    direct = launched_directly(Path(file), sys.argv)
    for name in unknown:
        near = get_close_matches(name, names, n=1, cutoff=0.6 if direct else 0.75)
        text = f"{Path(file).name} has no argument {name!r}" + (
            f": do you mean {near[0]}?" if near else "; --show-args lists those that it has")
        if direct:
            raise RuntimeError(text)
        if near:
            print(f"{PACKAGE}: warning: {text}", file=sys.stderr)
    return {name: LaunchConfiguration(name).perform(context) for name in names}


def launched_directly(file: Path, command: Sequence[str]) -> bool:
    """Whether `ros2 launch` was given this file, by path or package, and not one including it."""
    if "launch" not in command:
        return False
    words = command[command.index("launch") + 1:]
    by_name = (PACKAGE, file.name) in zip(words, words[1:])
    return by_name or any(Path(word).is_file() and file.exists() and file.samefile(word)
                          for word in words)


def actions(given: Mapping[str, str], estimators: Sequence[tuple[Estimator, str]]) -> list[Node]:
    """The nodes for these values; RuntimeError that names the argument.

    estimators: each with the prefix of its own arguments.
    """
    if not DEVICE.fullmatch(given["device"]):
        raise RuntimeError(f"device:={given['device']}: must be auto, cpu, cuda or cuda:<number>")
    share = Path(get_package_share_directory(PACKAGE))
    common = {
        "namespace": given["namespace"],
        "output": "screen",
        "emulate_tty": True,
        "ros_arguments": ["--log-level", given["log_level"]],
        "additional_env": middleware_profile(share),
    }
    result = [estimator_node(estimator, prefix, given, share, common)
              for estimator, prefix in estimators]
    if given["source"]:
        result.append(player(given, common))
    if given["rviz"] == "true":
        names = [estimator.name for estimator, _ in estimators]
        result.append(rviz(given, names, share, common))
    return result


def estimator_node(estimator: Estimator, prefix: str, given: Mapping[str, str], share: Path,
                   common: Mapping[str, Any]) -> Node:
    own = {item.name: given[prefix + item.name] for item in estimator.arguments()}
    file = absolute(own["params_file"]) if own["params_file"] else (
        share / "config" / f"{estimator.name}.yaml")
    in_file = read_parameters(file, estimator.name, prefix)
    model, detector = models(estimator, prefix, own, in_file, share / "models")
    texts = {name: given[name] for name in ("image_transport", "backend", "device")}
    texts |= {"model_path": model, "detector_path": detector}
    parameters = {name: ParameterValue(value, value_type=str)
                  for name, value in texts.items() if value}
    switches = {"autostart": given["autostart"], **{name: own[name]
                                                    for name in estimator.overrides}}
    parameters |= {name: value == "true" for name, value in switches.items() if value}
    parameters["use_sim_time"] = given["use_sim_time"] == "true"
    topics = {"image": given["image"], "camera_info": given["camera_info"], "boxes": own["boxes"]}
    if "depth" in own:
        topics["depth"] = own["depth"]
    return Node(package=PACKAGE, executable=estimator.name, name=estimator.name,
                parameters=[str(file), parameters], remappings=list(topics.items()), **common)


def player(given: Mapping[str, str], common: Mapping[str, Any]) -> Node:
    source = absolute(given["source"])
    if not source.exists():
        raise RuntimeError(f"source:={given['source']}: there is no {source}")
    try:
        rate = float(given["rate_hz"])
    except ValueError:
        rate = math.nan
    if not 0.0 <= rate <= MAX_RATE_HZ:  # nor is NaN
        raise RuntimeError(f"rate_hz:={given['rate_hz']}: must be a number from 0 to "
                           f"{MAX_RATE_HZ:g}")
    parameters = {
        "source": ParameterValue(str(source), value_type=str),
        "rate_hz": rate,
        "loop": given["loop"] == "true",
        "publish_truth": given["publish_truth"] == "true",
        "frame_id": ParameterValue(given["frame_id"], value_type=str),
        "image_transport": given["image_transport"] or "raw",
        # The first pictures would be over before the networks are loaded.
        "wait_for_subscribers": True,
        "use_sim_time": given["use_sim_time"] == "true",
    }
    remappings = [(name, given[name]) for name in ("image", "camera_info")]
    return Node(package=PACKAGE, executable="player", name="player", parameters=[parameters],
                remappings=remappings, **common)


def rviz(given: Mapping[str, str], names: Sequence[str], share: Path, common: Mapping[str, Any]
         ) -> Node:
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError("rviz:=true, but rviz2 is not installed "
                           "(apt install ros-<distro>-rviz2)") from None
    # RViz has absolute names in its configuration.
    space = given["namespace"].strip("/")
    prefix = f"/{space}" if space else ""
    remappings = [(f"/{name}/{topic}", f"{prefix}/{name}/{topic}")
                  for name in names for topic in SHOWN]
    frame = given["frame_id"] or "camera_optical_frame"
    return Node(package="rviz2", executable="rviz2", name="rviz", remappings=remappings,
                arguments=["-d", str(share / "rviz" / "pose.rviz"), "-f", frame],
                parameters=[{"use_sim_time": given["use_sim_time"] == "true"}], **common)


def models(estimator: Estimator, prefix: str, own: Mapping[str, str], in_file: Mapping[str, Any],
           shipped: Path) -> tuple[str, str]:
    """Paths for model and detector; empty where the parameter file's own value is to stand."""
    own_model = bool(own["model"] or in_file.get("model_path"))
    model = existing_model(f"{prefix}model", own["model"] or (
        "" if own_model else str(shipped / estimator.model)), shipped)
    detector = own["detector"]
    if not detector and not in_file.get("detector_path"):
        needed = in_file.get("roi_source", estimator.roi_source) != "topic"
        if not own_model or (needed and not estimator.knows):
            detector = str(shipped / estimator.detector)
        elif needed:
            raise RuntimeError(
                f"{prefix}detector is missing: the shipped detector does not know "
                f"{estimator.knows}. Give {prefix}detector:=<file>.onnx, or set roi_source to "
                f"topic in {prefix}params_file"
            )
    return model, existing_model(f"{prefix}detector", detector, shipped)


def existing_model(argument: str, path: str, shipped: Path) -> str:
    if not path:
        return ""
    file = absolute(path)
    if file.is_file():
        return str(file)
    if file.parent == shipped:
        raise RuntimeError(f"{argument}: the shipped {file} is not there (was the package built "
                           f"from a complete checkout?); give {argument}:=<file>.onnx")
    raise RuntimeError(f"{argument}:={path}: there is no file {file}")


def read_parameters(file: Path, node: str, prefix: str = "") -> dict[str, Any]:
    """What a parameter file says to a node of this name in any namespace, top-level names only."""
    argument = f"{prefix}params_file"
    if not file.is_file():
        raise RuntimeError(f"{argument}: there is no file {file}")
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RuntimeError(f"{argument}: {file} is not a YAML file: {error}") from None
    if not isinstance(content, dict):
        raise RuntimeError(f"{argument}: {file} must begin with `/**:` and `ros__parameters:`")
    for_all, for_node = {}, {}
    for name, values in parameter_blocks(content, f"{argument}: {file}"):
        if name.split("/")[-1] in ("*", "**"):
            for_all |= values
        elif name.split("/")[-1] == node:
            for_node |= values
    result = for_all | for_node
    for key in TEXTS:
        if not isinstance(result.get(key, ""), str):
            raise RuntimeError(f"{argument}: {file}: {key} must be a text, is {result[key]!r}")
    return result


def parameter_blocks(content: Mapping[Any, Any], where: str) -> list[tuple[str, dict]]:
    """Names of nodes, with namespaces, and their parameters; RuntimeError that names the key."""
    result = []
    blocks = list(content.items())
    for name, block in blocks:
        if not isinstance(name, str):
            raise RuntimeError(f"{where}: {name!r} must be the name of a node or a namespace: a "
                               "text that does not begin with a number")
        if not isinstance(block, dict):
            raise RuntimeError(f"{where}: {name} has no `ros__parameters:`")
        if "ros__parameters" not in block:  # a namespace
            blocks += [(f"{name}/{inner}" if isinstance(inner, str) else inner, values)
                       for inner, values in block.items()]
            continue
        values = block["ros__parameters"]
        if values is None:
            raise RuntimeError(f"{where}: `ros__parameters:` of {name} is empty; leave it out or "
                               "give parameters")
        if not isinstance(values, dict):
            raise RuntimeError(f"{where}: `ros__parameters:` of {name} must hold names and "
                               f"values, holds {values!r}")
        result.append((name, values))
    return result


def middleware_profile(share: Path) -> dict[str, str]:
    """Fast DDS settings with which images between processes arrive, unless the user has some."""
    return {} if os.environ.get(PROFILE) else {PROFILE: str(share / "config" / "fastdds.xml")}


def absolute(path: str) -> Path:
    """Relative paths are those of the person who launches; ~ is the home folder."""
    return Path(path).expanduser().absolute()
