"""The executable as a process: exit codes, and what a person reads."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

COMMAND = [sys.executable, "-c", "import sys; from kd_pose.nodes.object_pose_node import main; "
           "sys.exit(main())", "--ros-args"]


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
