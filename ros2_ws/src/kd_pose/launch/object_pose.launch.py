"""`object_pose`, and on request a player beside it and RViz.

    ros2 launch kd_pose object_pose.launch.py image:=/camera/color/image_raw \
        camera_info:=/camera/color/camera_info

Model and detector are the shipped ones unless an argument or the parameter file names others. An
argument left empty leaves the parameter file's value alone. Nothing is downloaded or executed but
the nodes. The value of every argument is checked before a process starts, so that a wrong one ends
the launch with a sentence instead of a node that waits for ever.
"""

import os
from pathlib import Path

import yaml
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = "kd_pose"
NODE = "object_pose"
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
BOOLEANS = ("true", "false")
# name, default, choices or None, description
ARGUMENTS = (
    ("namespace", "", None, "Namespace of the nodes and of topics that do not begin with /."),
    ("params_file", "", None, "Parameter file of the node; empty: config/object_pose.yaml of the "
     "package."),
    ("model", "", None, "The .onnx file of the pose network; empty: model_path of params_file, "
     "else the shipped one."),
    ("detector", "", None, "The .onnx file of the detector; empty: detector_path of params_file, "
     "else the shipped one if the model is the shipped one."),
    ("image", "image", None, "Topic of the images (for compressed ones without /compressed)."),
    ("camera_info", "camera_info", None, "Topic of their camera_info."),
    ("boxes", "boxes", None, "Topic of boxes, where roi_source of params_file is topic."),
    ("image_transport", "", ("", "raw", "compressed"), "raw or compressed; empty: as in "
     "params_file."),
    ("backend", "", ("", "auto", "onnxruntime", "openvino", "tensorrt", "torch"),
     "Engine that runs the networks; empty: as in params_file."),
    ("device", "", None, "auto, cpu, cuda or cuda:<number>; empty: as in params_file."),
    ("autostart", "", ("", *BOOLEANS), "Configure and activate without a lifecycle manager; "
     "empty: as in params_file."),
    ("use_sim_time", "false", BOOLEANS, "Take the time from /clock."),
    ("log_level", "info", ("debug", "info", "warn", "error", "fatal"), "Of the nodes."),
    ("rviz", "false", BOOLEANS, "Also start RViz with the package's configuration."),
    ("source", "", None, "Also play this: a folder of pictures, a video, a BOP scene or a "
     "rosbag2; empty: the images come from elsewhere."),
    ("rate_hz", "0.0", None, "Pictures per second of the player; 0: as recorded."),
    ("loop", "false", BOOLEANS, "The player begins again at the end."),
    ("publish_truth", "false", BOOLEANS, "The player also publishes the true poses of a BOP "
     "scene."),
    ("frame_id", "", None, "Frame of the player's images and of RViz; empty: as recorded, else "
     "camera_optical_frame."),
)


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description,
                              **({"choices": list(choices)} if choices else {}))
        for name, default, choices, description in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])


def nodes(context):
    """The actions for the arguments in `context`; RuntimeError that names the argument."""
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    share = Path(get_package_share_directory(PACKAGE))
    common = {
        "namespace": given["namespace"],
        "output": "screen",
        "emulate_tty": True,
        "ros_arguments": ["--log-level", given["log_level"]],
        "additional_env": middleware_profile(share),
    }
    actions = [object_pose(given, share, common)]
    if given["source"]:
        actions.append(player(given, common))
    if given["rviz"] == "true":
        actions.append(rviz(given, share, common))
    return actions


def object_pose(given, share, common):
    file = absolute(given["params_file"]) if given["params_file"] else (
        share / "config" / "object_pose.yaml")
    in_file = read_parameters(file)
    model, detector = models(given, in_file, share / "models")
    values = {name: given[name] for name in ("image_transport", "backend", "device")}
    values |= {"model_path": model, "detector_path": detector}
    parameters = {name: ParameterValue(value, value_type=str)
                  for name, value in values.items() if value}
    if given["autostart"]:
        parameters["autostart"] = given["autostart"] == "true"
    parameters["use_sim_time"] = given["use_sim_time"] == "true"
    remappings = [(name, given[name]) for name in ("image", "camera_info", "boxes")]
    return Node(package=PACKAGE, executable=NODE, name=NODE,
                parameters=[str(file), parameters], remappings=remappings, **common)


def player(given, common):
    source = absolute(given["source"])
    if not source.exists():
        raise RuntimeError(f"source:={given['source']}: there is no {source}")
    try:
        rate = float(given["rate_hz"])
    except ValueError:
        raise RuntimeError(f"rate_hz:={given['rate_hz']}: must be a number") from None
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


def rviz(given, share, common):
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError("rviz:=true, but rviz2 is not installed "
                           "(apt install ros-<distro>-rviz2)") from None
    # RViz has absolute names in its configuration.
    prefix = "/" + given["namespace"].strip("/") if given["namespace"].strip("/") else ""
    topics = ("markers", "image_annotated")
    remappings = [(f"/{NODE}/{topic}", f"{prefix}/{NODE}/{topic}") for topic in topics]
    frame = given["frame_id"] or "camera_optical_frame"
    return Node(package="rviz2", executable="rviz2", name="rviz", remappings=remappings,
                arguments=["-d", str(share / "rviz" / "pose.rviz"), "-f", frame],
                parameters=[{"use_sim_time": given["use_sim_time"] == "true"}], **common)


def models(given, in_file, shipped):
    """Paths for model and detector; empty where the parameter file's own value is to stand."""
    own_model = bool(given["model"] or in_file.get("model_path"))
    model = existing_model("model", given["model"] or (
        "" if own_model else str(shipped / "objects_student.onnx")), shipped)
    detector = given["detector"]
    if not detector and not in_file.get("detector_path"):
        if not own_model:
            detector = str(shipped / "objects_detector.onnx")
        elif in_file.get("roi_source", "detector") == "detector":
            raise RuntimeError(
                "detector is missing: the shipped detector does not know the objects of another "
                "model. Give detector:=<file>.onnx, or set roi_source to topic in params_file"
            )
    return model, existing_model("detector", detector, shipped)


def existing_model(argument, path, shipped):
    if not path:
        return ""
    file = absolute(path)
    if file.is_file():
        return str(file)
    if file.parent == shipped:
        raise RuntimeError(f"{argument}: the shipped {file} is not there (was the package built "
                           f"from a complete checkout?); give {argument}:=<file>.onnx")
    raise RuntimeError(f"{argument}:={path}: there is no file {file}")


def read_parameters(file):
    """What a parameter file says to a node of this name in any namespace, top-level names only."""
    if not file.is_file():
        raise RuntimeError(f"params_file: there is no file {file}")
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RuntimeError(f"params_file: {file} is not a YAML file: {error}") from None
    if not isinstance(content, dict):
        raise RuntimeError(f"params_file: {file} must begin with `/**:` and `ros__parameters:`")
    for_all, for_node = {}, {}
    blocks = list(content.items())
    for name, block in blocks:
        if not isinstance(block, dict):
            raise RuntimeError(f"params_file: {file}: {name} has no `ros__parameters:`")
        values = block.get("ros__parameters")
        if values is None:  # a namespace
            blocks += [(f"{name}/{inner}", values) for inner, values in block.items()]
        elif name.split("/")[-1] in ("*", "**"):
            for_all |= values
        elif name.split("/")[-1] == NODE:
            for_node |= values
    return for_all | for_node


def middleware_profile(share):
    """Fast DDS settings with which images between processes arrive, unless the user has some."""
    return {} if os.environ.get(PROFILE) else {PROFILE: str(share / "config" / "fastdds.xml")}


def absolute(path):
    """Relative paths are those of the person who launches; ~ is the home folder."""
    return Path(path).expanduser().absolute()
