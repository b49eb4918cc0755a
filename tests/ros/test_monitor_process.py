"""The monitor as a process: exit codes, sentences, signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

COMMAND = [sys.executable, "-c", "import sys; from kd_pose.nodes.monitor_node import main; "
           "sys.exit(main())"]


def environment():
    return {**os.environ, "ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}


@pytest.mark.parametrize("arguments, code, text", [
    (["-p", "watch:=foo"], 1, "watch must be one of objects, people, got 'foo'"),
    (["-p", "idle_timeout_s:=5"], 1, "parameter idle_timeout_s must be a number with a point"),
    (["-p", "idle_timeout_s:=-1.0"], 1, "idle_timeout_s"),
    (["-p", "output_dir:=/proc/nothere"], 1, "output_dir '/proc/nothere' must be a folder that"),
    (["--", "foo"], 2, "unknown argument(s) foo"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_arguments_are_one_sentence(arguments, code, text):
    result = subprocess.run([*COMMAND, "--ros-args", *arguments], env=environment(), text=True,
                            capture_output=True, timeout=30)
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("monitor: ") and text in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_ends_it_with_a_summary(tmp_path, number):
    process = subprocess.Popen([*COMMAND, "--ros-args", "-p", f"output_dir:={tmp_path}", "-p",
                                "foo:=1"], env=environment(), text=True, stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    for line in process.stderr:
        if "unknown parameter(s) given: foo" in line:
            break
    time.sleep(0.3)
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # people press it twice: it is writing
    out, rest = process.communicate(timeout=20)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest and "0 frames scored" in out
    assert json.loads((tmp_path / "summary.json").read_text())["frames"] == 0
