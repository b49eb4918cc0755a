"""tools/setup.sh, env.sh and demo.sh say what is missing or wrong, before they change anything.

They run on copies in a folder of their own, with a PATH on which only the tools named are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("bash", "cat", "cut", "dirname", "find", "flock", "grep", "mkdir", "sed", "sha256sum",
         "sort", "uname", "xargs")


@pytest.fixture
def checkout(tmp_path):
    """Copies of the scripts, and an empty folder bin/ with nothing but `TOOLS` and this Python."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    (tmp_path / "bin/python3").symlink_to(os.path.realpath(sys.executable))
    return tmp_path


def run(checkout, *command, **variables):
    return subprocess.run(
        ["bash", *command], cwd=checkout, capture_output=True, text=True, timeout=60,
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout), **variables})


def add(checkout, *tools):
    for tool in tools:
        (checkout / "bin" / tool).symlink_to("/bin/true")


def test_missing_packages_are_named_with_one_command(checkout):
    result = run(checkout, "tools/setup.sh")
    assert result.returncode == 1
    assert "apt-get install -y g++ cmake make\n" in result.stderr
    add(checkout, "c++", "make")
    result = run(checkout, "tools/setup.sh")
    assert "apt-get install -y cmake\n" in result.stderr
    assert not (checkout / ".venv").exists()


def test_a_sourced_distribution_without_rclpy_is_said(checkout):
    result = run(checkout, "tools/setup.sh", ROS_DISTRO="nowhere")
    assert result.returncode == 1
    assert "ros-nowhere-rclpy" in result.stderr
    assert not (checkout / ".venv").exists()


def test_an_environment_for_another_ros_is_left_alone(checkout):
    add(checkout, "c++", "cmake", "make")
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(os.path.realpath(sys.executable))
    (checkout / ".venv/kd_pose_mode").write_text("distribution nowhere\n")
    result = run(checkout, "tools/setup.sh")
    assert result.returncode == 1
    assert "distribution nowhere" in result.stderr and "make distclean" in result.stderr


def test_unknown_option_is_refused(checkout):
    result = run(checkout, "tools/setup.sh", "--quick")
    assert result.returncode == 1 and "--quick" in result.stderr


def test_environment_without_set_up_says_what_to_run(checkout):
    result = run(checkout, "-euc", "source tools/env.sh; echo went on")
    assert result.returncode == 1
    assert f"make -C {checkout} setup" in result.stderr and "went on" not in result.stdout


@pytest.mark.parametrize("options, message", [
    (["--only", "cats"], "--only is 'cats'; allowed: objects, people"),
    (["--loop"], "--loop needs --only objects or --only people"),
    (["--fast"], "unknown option --fast"), (["--rate"], "--rate needs a number")])
def test_the_demonstration_refuses(checkout, options, message):
    result = run(checkout, "tools/demo.sh", *options)
    assert result.returncode != 0 and message in result.stderr
    assert not (checkout / "demo_output").exists()


def test_the_demonstration_names_a_model_that_is_missing(checkout):
    (checkout / "tools/env.sh").write_text("")
    result = run(checkout, "tools/demo.sh", "--only", "people")
    assert result.returncode == 1
    assert "demo: models/wholebody_student.onnx is missing; is the clone" in result.stderr


def test_help_lists_every_target():
    result = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    for target in ("setup", "demo", "test", "test-all", "bench", "lint", "clean"):
        assert f"\n  {target} " in result.stdout
