"""The launch files: what they choose and refuse, and, where `ros2 launch` is there, that they run.

launch, launch_ros and ros2cli come with a ROS 2 distribution but not with its wheels. The choices
are tested everywhere, with stand-ins for the imports; the rest is skipped where it cannot run.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import kd_pose.nodes

pytest.importorskip("ament_index_python")

PACKAGE = Path(__file__).parents[2] / "ros2_ws/src/kd_pose"
LAUNCH_FILES = ("object_pose.launch.py", "wholebody_pose.launch.py", "pose.launch.py")
STAND_INS = {
    "launch": ("LaunchDescription",),
    "launch.actions": ("DeclareLaunchArgument", "OpaqueFunction"),
    "launch.substitutions": ("LaunchConfiguration",),
    "launch_ros": (),
    "launch_ros.actions": ("Node",),
    "launch_ros.parameter_descriptions": ("ParameterValue",),
}


def importable(*names):
    try:
        return all(importlib.util.find_spec(name) for name in names)
    except ModuleNotFoundError:
        return False


REAL = importable("launch.actions", "launch_ros.actions", "composition_interfaces")
needs_launch = pytest.mark.skipif(not REAL, reason="launch and launch_ros are not installed (they "
                                  "come with a ROS 2 distribution)")


class Action:
    """Stands in for every action: keeps what it was made of."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


class Configuration(Action):
    def perform(self, context):
        return context.launch_configurations[self.args[0]]


class Context:
    """Stands in for launch's: what was given, and the defaults."""

    def __init__(self, configurations):
        self.launch_configurations = configurations


@pytest.fixture
def launch_file(monkeypatch):
    """Loads a launch file with stand-ins, so that a Node shows its arguments."""
    for name, members in STAND_INS.items():
        stand_in = ModuleType(name)
        for member in members:
            kind = Configuration if member == "LaunchConfiguration" else Action
            setattr(stand_in, member, kind)
        monkeypatch.setitem(sys.modules, name, stand_in)
    # It keeps what it has imported: real things before and after, stand-ins here.
    monkeypatch.delitem(sys.modules, "kd_pose.nodes.launching", raising=False)
    monkeypatch.delattr(kd_pose.nodes, "launching", raising=False)
    yield load
    del sys.modules["kd_pose.nodes.launching"], kd_pose.nodes.launching


@pytest.fixture
def module(launch_file):
    return launch_file("object_pose.launch.py")


def load(name):
    spec = importlib.util.spec_from_file_location(name.split(".")[0], PACKAGE / "launch" / name)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def share(tmp_path, module, monkeypatch):
    """A share folder with shipped models; also the current folder."""
    folder = tmp_path / "share"
    shutil.copytree(PACKAGE / "config", folder / "config")
    (folder / "models").mkdir()
    for name in ("objects_student.onnx", "objects_detector.onnx", "wholebody_student.onnx",
                 "person_detector.onnx"):
        (folder / "models" / name).write_bytes(b"x")
    launching = module.launching
    monkeypatch.setattr(launching, "get_package_share_directory", lambda name: str(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(launching.PROFILE, raising=False)
    return folder


def start(module, **given):
    """The nodes for these arguments, as keyword dictionaries."""
    context = Context({**{item.name: item.default for item in module.ARGUMENTS}, **given})
    return [action.kwargs for action in module.nodes(context)]


def values(node):
    """Parameters of a node; those of the file are left out."""
    return {name: value.args[0] if isinstance(value, Action) else value
            for name, value in node["parameters"][-1].items()}


# --- choices -------------------------------------------------------------------------------------


def test_without_arguments_the_shipped_models_and_the_files_values(module, share):
    nodes = start(module)
    assert [node["executable"] for node in nodes] == ["object_pose"]
    assert nodes[0]["parameters"][0] == str(share / "config/object_pose.yaml")
    assert values(nodes[0]) == {
        "model_path": str(share / "models/objects_student.onnx"),
        "detector_path": str(share / "models/objects_detector.onnx"),
        "use_sim_time": False,
    }
    assert nodes[0]["additional_env"] == {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(share / "config/fastdds.xml")}


def test_arguments_reach_node_player_and_topics(module, share, tmp_path, monkeypatch):
    monkeypatch.setenv(module.launching.PROFILE, "/my/own.xml")
    for name in ("m.onnx", "d.onnx", "clip.mp4"):
        (tmp_path / name).write_bytes(b"x")
    node, player = start(
        module, namespace="robot1", model="m.onnx", detector="d.onnx", image="/cam/image",
        camera_info="/cam/info", boxes="/cam/boxes", image_transport="compressed", device="cpu",
        backend="openvino", autostart="false", use_sim_time="true", log_level="warn",
        source="clip.mp4", rate_hz="5", loop="true", frame_id="cam")
    assert values(node) == {
        "image_transport": "compressed", "backend": "openvino", "device": "cpu",
        "model_path": str(tmp_path / "m.onnx"), "detector_path": str(tmp_path / "d.onnx"),
        "autostart": False, "use_sim_time": True,
    }
    assert node["remappings"] == [("image", "/cam/image"), ("camera_info", "/cam/info"),
                                  ("boxes", "/cam/boxes")]
    assert values(player) == {
        "source": str(tmp_path / "clip.mp4"), "rate_hz": 5.0, "loop": True,
        "publish_truth": False, "frame_id": "cam", "image_transport": "compressed",
        "wait_for_subscribers": True, "use_sim_time": True,
    }
    assert player["remappings"] == node["remappings"][:2]
    for item in (node, player):
        assert item["namespace"] == "robot1" and item["additional_env"] == {}
        assert item["ros_arguments"] == ["--log-level", "warn"]


@pytest.mark.parametrize("text", [
    "/**: {ros__parameters: {model_path: own.onnx, detector_path: own_d.onnx}}",
    "object_pose: {ros__parameters: {model_path: own.onnx, detector_path: own_d.onnx}}",
    "robot1: {object_pose: {ros__parameters: {model_path: own.onnx, roi_source: topic}}}",
])
def test_a_file_with_its_own_model_is_left_alone(module, share, tmp_path, text):
    (tmp_path / "own.yaml").write_text(text)
    node, = start(module, params_file="own.yaml")
    assert node["parameters"][0] == str(tmp_path / "own.yaml")
    assert values(node) == {"use_sim_time": False}


def test_another_nodes_parameters_are_not_this_ones(module, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("/**: {ros__parameters: {a: 1, b: 1}}\n"
                    "object_pose: {ros__parameters: {b: 2}}\n"
                    "player: {ros__parameters: {a: 3, source: x}}\n")
    assert module.launching.read_parameters(path, "object_pose") == {"a": 1, "b": 2}


@pytest.mark.parametrize("given, text", [
    ({"model": "no.onnx"}, "model:=no.onnx: there is no file"),
    ({"model": "m.onnx"}, "detector is missing: the shipped detector does not know"),
    ({"model": "m.onnx", "detector": "no.onnx"}, "detector:=no.onnx: there is no file"),
    ({"params_file": "no.yaml"}, "params_file: there is no file"),
    ({"params_file": "m.onnx"}, "must begin with"),
    ({"params_file": "broken.yaml"}, "is not a YAML file"),
    ({"params_file": "flat.yaml"}, "backend has no `ros__parameters:`"),
    ({"source": "no/such"}, "source:=no/such: there is no"),
    ({"source": "m.onnx", "rate_hz": "fast"}, "rate_hz:=fast: must be a number from 0 to 1000"),
    ({"source": "m.onnx", "rate_hz": "nan"}, "rate_hz:=nan: must be a number from 0 to 1000"),
    ({"source": "m.onnx", "rate_hz": "-1"}, "rate_hz:=-1: must be a number from 0 to 1000"),
    ({"source": "m.onnx", "rate_hz": "inf"}, "rate_hz:=inf: must be a number from 0 to 1000"),
    ({"device": "foo"}, "device:=foo: must be auto, cpu, cuda or cuda:<number>"),
    ({"device": "cuda:"}, "device:=cuda:: must be auto"),
])
def test_wrong_arguments_are_named(module, share, tmp_path, given, text):
    (tmp_path / "m.onnx").write_bytes(b"x")
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "flat.yaml").write_text("backend: auto")
    with pytest.raises(RuntimeError, match=text.replace("[", r"\[")):
        start(module, **given)


@pytest.mark.parametrize("device", ["", "auto", "cpu", "cuda", "cuda:1"])
def test_devices_that_may_be(module, share, device):
    node, = start(module, device=device)
    assert values(node).get("device", "") == device


@pytest.mark.parametrize("text, complaint", [
    ("/**: {ros__parameters: 5}", "`ros__parameters:` of /[*][*] must hold names and values, "
     "holds 5"),
    ("/**: {ros__parameters: text}", ".* must hold names and values, holds 'text'"),
    ("/**: {ros__parameters: }", "`ros__parameters:` of /[*][*] is empty"),
    ("5: {ros__parameters: {threads: 1}}", "5 must be the name of a node or a namespace"),
    ("robot: {5: {ros__parameters: {threads: 1}}}", "5 must be the name of a node"),
    ("/**: {ros__parameters: {model_path: 5}}", "model_path must be a text, is 5"),
    ("/**: {ros__parameters: {detector_path: [a]}}", "detector_path must be a text, is "),
    ("object_pose: {ros__parameters: {roi_source: }}", "roi_source must be a text, is None"),
])
def test_odd_parameter_files_are_named(module, share, tmp_path, text, complaint):
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(RuntimeError, match=f"^params_file: .*odd.yaml: {complaint}"):
        start(module, params_file="odd.yaml")


def test_a_file_without_parameters_is_fine(module, tmp_path):
    (tmp_path / "none.yaml").write_text("/**: {ros__parameters: {}}")
    assert module.launching.read_parameters(tmp_path / "none.yaml", "object_pose") == {}


def test_an_argument_that_is_not_there_is_refused_with_the_nearest(module, share, monkeypatch):
    ros2 = ["/opt/bin/ros2", "launch", "kd_pose", "object_pose.launch.py"]
    monkeypatch.setattr(sys, "argv", [*ros2, "mdoel:=x"])
    with pytest.raises(RuntimeError, match="object_pose.launch.py has no argument 'mdoel': do you "
                       "mean model?"):
        start(module, mdoel="x")
    with pytest.raises(RuntimeError, match="no argument 'nosuch'; --show-args lists"):
        start(module, nosuch="1")
    start(module, **{"launch-prefix": "nice", "sigterm_timeout": "9"})  # launch's own
    path = PACKAGE / "launch/object_pose.launch.py"
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", str(path), "mdoel:=x"])
    with pytest.raises(RuntimeError, match="mdoel"):
        start(module, mdoel="x")


@pytest.mark.parametrize("command", [
    ["ros2", "launch", "robot", "robot.launch.py"],
    ["ros2", "launch", "robot", "object_pose.launch.py"],  # of the same name, which includes ours
    ["pytest"]])
def test_a_launch_file_that_includes_this_one_has_its_own(module, share, monkeypatch, capsys,
                                                          command):
    monkeypatch.setattr(sys, "argv", command)
    start(module, mdoel="x", robot="r2", gripper="left")
    assert capsys.readouterr().err == (
        "kd_pose: warning: object_pose.launch.py has no argument 'mdoel': do you mean model?\n")


def test_without_shipped_models_the_argument_is_named(module, share):
    (share / "models/objects_student.onnx").unlink()
    with pytest.raises(RuntimeError, match="model: the shipped .* is not there"):
        start(module)


def test_rviz_shows_the_topics_of_the_namespace(module, share, monkeypatch):
    monkeypatch.setattr(module.launching, "get_package_prefix", lambda name: "/opt")
    _, rviz = start(module, rviz="true", namespace="/robot1", frame_id="cam")
    assert ("/object_pose/markers", "/robot1/object_pose/markers") in rviz["remappings"]
    assert rviz["arguments"] == ["-d", str(share / "rviz/pose.rviz"), "-f", "cam"]

    def missing(name):
        raise module.launching.PackageNotFoundError

    monkeypatch.setattr(module.launching, "get_package_prefix", missing)
    with pytest.raises(RuntimeError, match="rviz2 is not installed"):
        start(module, rviz="true")


def test_the_rviz_configuration_shows_what_the_node_publishes():
    content = yaml.safe_load((PACKAGE / "rviz/pose.rviz").read_text())
    topics = {display["Topic"]["Value"] for display in content["Visualization Manager"]["Displays"]
              if "Topic" in display}
    assert topics == {f"/{node}/{topic}" for node in ("object_pose", "wholebody_pose")
                      for topic in ("markers", "image_annotated")}


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_every_argument_is_documented(launch_file, name):
    text = (PACKAGE.parents[2] / "docs/player.md").read_text()
    for item in launch_file(name).ARGUMENTS:
        assert f"`{item.name}`" in text, item.name


# --- people and both -----------------------------------------------------------------------------


def test_people_take_the_shipped_models_and_depth(launch_file, share):
    module = launch_file("wholebody_pose.launch.py")
    node, = start(module)
    assert node["executable"] == node["name"] == "wholebody_pose"
    assert node["parameters"][0] == str(share / "config/wholebody_pose.yaml")
    assert values(node) == {
        "model_path": str(share / "models/wholebody_student.onnx"),
        "detector_path": str(share / "models/person_detector.onnx"), "use_sim_time": False}
    node, = start(module, use_depth="true", depth="/cam/depth", image="/cam/image")
    assert values(node)["use_depth"] is True
    assert dict(node["remappings"]) == {"image": "/cam/image", "camera_info": "camera_info",
                                        "boxes": "boxes", "depth": "/cam/depth"}


def test_the_shipped_person_detector_serves_other_models(launch_file, share, tmp_path):
    """People are people: unlike objects, they are known to it whatever estimates their pose."""
    module = launch_file("wholebody_pose.launch.py")
    (tmp_path / "m.onnx").write_bytes(b"x")
    node, = start(module, model="m.onnx")
    assert values(node)["model_path"] == str(tmp_path / "m.onnx")
    assert values(node)["detector_path"] == str(share / "models/person_detector.onnx")
    (tmp_path / "own.yaml").write_text("/**: {ros__parameters: {roi_source: topic}}")
    node, = start(module, model="m.onnx", params_file="own.yaml")
    assert "detector_path" not in values(node)


def test_both_nodes_one_player(launch_file, share, tmp_path):
    module = launch_file("pose.launch.py")
    for name in ("m.onnx", "clip.mp4"):
        (tmp_path / name).write_bytes(b"x")
    objects, people, player = start(
        module, namespace="robot1", image="/cam/image", camera_info="/cam/info", boxes="/b",
        wholebody_boxes="/people", wholebody_model="m.onnx", wholebody_use_depth="true",
        wholebody_depth="/cam/depth", device="cpu", source="clip.mp4")
    assert [node["executable"] for node in (objects, people, player)] == [
        "object_pose", "wholebody_pose", "player"]
    assert values(objects)["model_path"] == str(share / "models/objects_student.onnx")
    assert values(people)["model_path"] == str(tmp_path / "m.onnx")
    assert "use_depth" not in values(objects) and values(people)["use_depth"] is True
    assert dict(objects["remappings"])["boxes"] == "/b"
    assert dict(people["remappings"])["boxes"] == "/people"
    for node in (objects, people):
        assert node["namespace"] == "robot1" and values(node)["device"] == "cpu"
        assert dict(node["remappings"])["image"] == "/cam/image"


@pytest.mark.parametrize("given, executables", [
    ({"wholebody": "false"}, ["object_pose"]), ({"objects": "false"}, ["wholebody_pose"])])
def test_one_of_both(launch_file, share, given, executables):
    nodes = start(launch_file("pose.launch.py"), **given)
    assert [node["executable"] for node in nodes] == executables


@pytest.mark.parametrize("given, text", [
    ({"objects": "false", "wholebody": "false"}, "nothing to start"),
    ({"wholebody_model": "no.onnx"}, "wholebody_model:=no.onnx: there is no file"),
    ({"wholebody_detector": "no.onnx"}, "wholebody_detector:=no.onnx: there is no file"),
    ({"wholebody_params_file": "no.yaml"}, "wholebody_params_file: there is no file"),
    ({"model": "no.onnx"}, "^model:=no.onnx: there is no file"),
])
def test_wrong_arguments_of_both_are_named(launch_file, share, given, text):
    with pytest.raises(RuntimeError, match=text):
        start(launch_file("pose.launch.py"), **given)


# --- the real thing ------------------------------------------------------------------------------


@needs_launch
@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_the_description_declares_its_arguments(name):
    from launch import LaunchDescription

    module = load(name)
    description = module.generate_launch_description()
    assert isinstance(description, LaunchDescription)
    names = {item.name for item in description.get_launch_arguments()}
    assert names == {item.name for item in module.ARGUMENTS}
    assert {"model", "detector", "image", "camera_info", "params_file", "source"} <= names
    assert ("wholebody" in names) == (name == "pose.launch.py")


@pytest.fixture
def ros2_launch():
    """The command, where it and the built package are there."""
    if not (REAL and importable("ros2cli", "ros2launch")):
        pytest.skip("ros2 launch is not installed (it comes with a ROS 2 distribution)")
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        get_package_share_directory("kd_pose")
    except PackageNotFoundError:
        pytest.skip("the workspace is not built or not sourced")
    return [sys.executable, "-c", "import sys; from ros2cli.cli import main; sys.exit(main())",
            "launch", "kd_pose"]


def environment():
    return {**os.environ, "ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}


@pytest.mark.parametrize("arguments, text", [
    (["pose.launch.py", "objects:=false", "wholebody:=false"], "nothing to start"),
    (["wholebody_pose.launch.py", "model:=/no/such.onnx"], "there is no file /no/such.onnx"),
    (["pose.launch.py", "model:=/no/such.onnx"], "model:=/no/such.onnx: there is no file"),
    (["object_pose.launch.py", "backend:=magic"], '"backend" provided value "magic"'),
    (["object_pose.launch.py", "mdoel:=x"], "has no argument 'mdoel': do you mean model?"),
])
def test_ros2_launch_refuses_in_a_sentence(ros2_launch, arguments, text):
    result = subprocess.run([*ros2_launch, *arguments], env=environment(), capture_output=True,
                            text=True, timeout=30)
    assert result.returncode == 1
    assert text in result.stdout + result.stderr


def test_ros2_launch_runs_player_and_both_nodes(ros2_launch, models, scene, tmp_path):
    """Pictures in at one end, poses out at the other, all by pose.launch.py; Ctrl-C ends it."""
    pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")
    pytest.importorskip("rclpy")
    import cv2

    from helpers.people_models import make_people_models
    from kd_pose_msgs.msg import ObjectPoseArray, WholebodyPoseArray

    people = make_people_models(tmp_path)
    camera = scene.camera
    cv2.imwrite(str(tmp_path / "picture.png"), scene.image())
    (tmp_path / "camera.json").write_text(
        f'{{"fx": {camera.K[0, 0]}, "fy": {camera.K[1, 1]}, "cx": {camera.K[0, 2]}, '
        f'"cy": {camera.K[1, 2]}, "width": {camera.width}, "height": {camera.height}}}')
    process = subprocess.Popen(
        [*ros2_launch, "pose.launch.py", "namespace:=launched", "image:=/cam/image",
         "camera_info:=/cam/info", f"model:={models['model_path']}",
         f"detector:={models['detector_path']}", f"source:={tmp_path}", "rate_hz:=10",
         f"wholebody_model:={people['model_path']}",
         f"wholebody_detector:={people['detector_path']}",
         "loop:=true", "frame_id:=cam"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True)
    try:
        message = first_message("/launched/object_pose/objects", ObjectPoseArray)
        persons = first_message("/launched/wholebody_pose/people", WholebodyPoseArray)
    finally:
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=20)[0]
    assert message is not None, output
    assert {item.class_id for item in message.objects} == {"block", "can"}, output
    assert message.header.frame_id == "cam"
    assert persons is not None and persons.header.frame_id == "cam", output
    assert persons.image_width == camera.width and persons.people, output
    assert process.returncode == 0 and output.count("finished cleanly") == 3, output


def first_message(topic, kind, timeout_s=15.0):
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    context = Context()
    rclpy.init(context=context, domain_id=int(environment()["ROS_DOMAIN_ID"]))
    node, received = Node("audience", context=context), []
    node.create_subscription(kind, topic, received.append, 5)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    end = time.monotonic() + timeout_s
    while not received and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.2)
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
    return received[0] if received else None
