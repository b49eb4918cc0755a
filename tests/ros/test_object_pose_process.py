"""The executable as a process: exit codes, and what a person reads."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

import kd_pose
from kd_pose.nodes import start


def command(node):
    return [sys.executable, "-c", f"import sys; from kd_pose.nodes.{node}_node import main; "
            "sys.exit(main())", "--ros-args"]


COMMAND = command("object_pose")


def environment():
    return {**os.environ, "ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}


def run(*parameters):
    arguments = [item for text in parameters for item in ("-p", text)]
    return subprocess.run(COMMAND + arguments, env=environment(), capture_output=True, text=True,
                          timeout=30)


def test_a_failed_start_ends_with_an_error_if_asked_to():
    result = run("exit_on_failure:=true", "model_path:=/no/such.onnx", "detector_path:=/no/d.onnx")
    assert result.returncode == 1
    assert "/no/such.onnx: no such model file" in result.stderr


def test_a_value_out_of_range_is_named():
    result = run("score_threshold:=7.5")
    assert result.returncode == 1
    assert "object_pose: " in result.stderr and "score_threshold" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments, code, text", [
    (["--params-file", "/no/such.yaml"], 1, "--params-file /no/such.yaml: there is no such file"),
    (["--params-file", "mixed.yaml"], 1, "--params-file mixed.yaml: is not a parameter file of "
     "ROS 2: Sequence should be of same type"),
    (["--params-file", "."], 1, "--params-file .: is not a file"),
    (["-p", "threads:="], 1, "'-p threads:=' is no parameter with a value: write -p name:=value"),
    (["-p", "threads"], 1, "'-p threads' is no parameter with a value"),
    (["-p", "sync_timeout_s:=1"], 1, "parameter sync_timeout_s must be a number with a point, "
     "got 1: write 1.0"),
    (["-p", "threads:=many"], 1, "parameter threads must be a whole number, got 'many'"),
    (["-p", "model_path:=5"], 1, "parameter model_path must be a text, got '5'"),
    (["-r", "__node:=bad name"], 1, "'-r __node:=bad name' is no remapping: write -r from:=to"),
    (["-r", "image:=bad topic"], 1, "'-r image:=bad topic' is no remapping"),
    (["--log-level", "loud"], 1, "'--log-level loud' is no log level"),
    (["--wrong"], 2, "unknown ROS argument(s) '--wrong'"),
    (["--", "foo"], 2, "unknown argument(s) foo"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_arguments_are_one_sentence(tmp_path, arguments, code, text):
    (tmp_path / "mixed.yaml").write_text('/**: {ros__parameters: {a: [1, "b"]}}')
    result = subprocess.run(COMMAND + arguments, env=environment(), capture_output=True, text=True,
                            timeout=30, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith(f"object_pose: {text}")
    assert result.stderr.count("\n") == 1 and "/rcl/" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_ends_it_quietly(models, number):
    arguments = [item for name in ("model_path", "detector_path")
                 for item in ("-p", f"{name}:={models[name]}")]
    process = subprocess.Popen(COMMAND + arguments, env=environment(), text=True,
                               stderr=subprocess.PIPE)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "configured" in line:
            break
    time.sleep(0.3)
    process.send_signal(number)
    rest = process.communicate(timeout=20)[1]
    assert process.returncode == 0, "".join(lines) + rest
    assert "Traceback" not in rest


HANGING = """
import sys, time
from rclpy.node import Node
from rclpy.task import Future
from kd_pose.nodes.process import run

class Hanging(Node):
    def __init__(self):
        super().__init__("hanging")
        self.done = Future()
        self.create_timer(0.0, self.hang)

    def hang(self):
        print("hangs", flush=True)
        while True:
            time.sleep(0.1)

sys.exit(run(Hanging, "hanging", []))
"""


def test_a_later_sigterm_ends_what_hangs():
    process = subprocess.Popen([sys.executable, "-c", HANGING], env=environment(), text=True,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == "hangs\n"
    for number in (signal.SIGTERM, signal.SIGINT):  # at once: one request
        process.send_signal(number)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
@pytest.mark.parametrize("node", ["object_pose", "wholebody_pose", "player", "monitor"])
def test_a_signal_during_the_imports_ends_it_quietly(tmp_path, node, number):
    """An rclpy that takes long to import, as on a slow disk."""
    (tmp_path / "rclpy.py").write_text("import time\nprint('importing', flush=True)\n"
                                       "time.sleep(20)\n")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    package = Path(kd_pose.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.append({str(package)!r}); "
         f"from kd_pose.nodes.start import {node}; sys.exit({node}())"],
        env={**environment(), "PYTHONPATH": path}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    assert process.communicate(timeout=10)[1] == ""
    assert process.returncode == 0


def test_every_executable_starts_there():
    """setup.py is what `make setup` installs."""
    text = (Path(__file__).parents[2] / "ros2_ws/src/kd_pose/setup.py").read_text()
    scripts = dict(re.findall(r'"(\w+) = kd_pose\.nodes\.start:(\w+)"', text))
    assert scripts and all(getattr(start, name) for name in scripts.values())
    assert set(scripts) == {"object_pose", "wholebody_pose", "player", "monitor"}
