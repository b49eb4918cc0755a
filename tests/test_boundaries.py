"""The house rules that a machine can check: who imports whom, where files are, how long they get.

Imports are read from the source, also those inside functions, so that nothing has to be installed;
one subprocess then loads the runtime library with everything it must not need blocked.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ros2_ws/src/kd_pose"
RUNTIME = PACKAGE / "kd_pose"
TRAINING = ROOT / "kd_pose_training"
# Longer files want to be two; a little more than the 400 lines that are aimed at.
LONGEST_FILE = 450

ROS = {"rclpy", "kd_pose_msgs", "vision_msgs", "cv_bridge", "tf2_msgs", "tf2_ros", "launch",
       "launch_ros", "ament_index_python", "std_msgs", "sensor_msgs", "geometry_msgs",
       "visualization_msgs", "diagnostic_msgs", "rcl_interfaces", "lifecycle_msgs",
       "builtin_interfaces", "std_srvs"}
ENGINES = {"onnxruntime", "openvino", "tensorrt", "torch"}
TRAINER_ONLY = {"torch", "onnx", "scipy", "trimesh", "moderngl", "embreex", "tensorboard", "PIL"}

# A module may import those on its own floor and below while it is loaded.
FLOORS = (
    ("keypoints", "wholebody_keypoints", "geometry", "camera", "symmetry", "scoring",
     "person_scoring", "body_frame", "stillness", "assignment", "appearance"),
    ("crop", "boxes", "votes", "codes", "simcc", "pnp", "detector_outputs"),
    ("manifest", "onnx_metadata", "results"),
    ("backends",),
    ("network", "estimator", "simcc_network", "object_network", "vote_network", "dense_network",
     "object_pose", "wholebody_pose", "person_detector", "tracking", "smoothing", "lifting",
     "people_stream", "pose_overlap", "refine", "drawing", "skeleton_drawing", "sources",
     "track_scoring", "recording"),
    ("nodes",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    """kd_pose/nodes/images.py -> kd_pose.nodes.images, for both packages."""
    base = PACKAGE if path.is_relative_to(PACKAGE) else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_load_only: bool = False) -> set[str]:
    """Full names of modules imported anywhere in a file, `from a import b` as a and a.b.

    at_load_only: not those inside functions or under `if TYPE_CHECKING`.
    """
    found = set()

    def visit(node: ast.AST) -> None:
        if at_load_only:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                return
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full, not relative"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return found


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def under(names: set[str], *packages: str) -> set[str]:
    """Those names that are one of the packages or inside it."""
    return {name for name in names
            for package in packages if name == package or name.startswith(package + ".")}


def room(path: Path) -> str:
    """Folder or module directly in kd_pose that a file belongs to; "" for its __init__."""
    parts = module_name(path).split(".")
    return parts[1] if len(parts) > 1 else ""


RUNTIME_FILES = python_files(RUNTIME)
TRAINING_FILES = python_files(TRAINING)
each = pytest.mark.parametrize


def test_the_rules_see_the_code():
    assert len(RUNTIME_FILES) > 20 and len(TRAINING_FILES) > 30
    assert "rclpy" in tops(RUNTIME / "nodes/estimator_node.py")
    assert "torch" in tops(TRAINING / "export.py")
    assert "onnxruntime" in tops(RUNTIME / "backends/onnxruntime.py")


def test_imports_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("import a.b\nfrom typing import TYPE_CHECKING\n"
                    "if TYPE_CHECKING:\n    import c\n"
                    "class D:\n    import d\ndef f():\n    from e.f import g\n")
    assert imports(path) == {"a.b", "typing", "typing.TYPE_CHECKING", "c", "d", "e.f", "e.f.g"}
    assert imports(path, at_load_only=True) == {"a.b", "typing", "typing.TYPE_CHECKING", "d"}


@each("path", RUNTIME_FILES, ids=module_name)
def test_runtime_imports_only_what_a_robot_has(path):
    assert "kd_pose_training" not in tops(path), "the runtime never imports the trainer"
    ros = tops(path) & ROS
    assert not ros or room(path) == "nodes", f"{sorted(ros)}: ROS belongs in nodes/"
    engines = tops(path) & ENGINES
    assert not engines or room(path) == "backends", f"{sorted(engines)}: belongs in backends/"
    # onnx is optional there: an engine may rewrite what it runs
    trainer = tops(path) & (TRAINER_ONLY - ENGINES)
    if room(path) == "backends":
        trainer.discard("onnx")
    assert not trainer, f"{sorted(trainer)}: only the trainer has these"


@each("path", [p for p in RUNTIME_FILES if room(p)], ids=module_name)
def test_runtime_imports_downwards(path):
    assert room(path) in FLOOR, f"say in FLOORS of this file where {room(path)} belongs"
    own = FLOOR[room(path)]
    for name in under(imports(path, at_load_only=True), "kd_pose"):
        target = name.split(".")[1] if "." in name else ""
        if target in FLOOR:
            assert FLOOR[target] <= own, f"{name} is above {room(path)}"


@each("path", TRAINING_FILES, ids=module_name)
def test_training_stays_offline(path):
    assert not tops(path) & ROS, f"{sorted(tops(path) & ROS)}: the trainer knows no ROS"
    assert not under(imports(path), "kd_pose.nodes"), "nodes are not for the trainer"


@each("path", python_files(TRAINING / "losses"), ids=module_name)
def test_losses_are_pure(path):
    others = under(imports(path), "kd_pose_training") - under(
        imports(path), "kd_pose_training.losses")
    assert not others, "losses import no engine, data or models"


@each("path", python_files(TRAINING / "engine"), ids=module_name)
def test_engine_knows_no_pose(path):
    assert not under(imports(path), "kd_pose", *(
        f"kd_pose_training.{name}" for name in
        ("data", "models", "losses", "tasks", "evaluation", "synthetic", "commands")))


@each("path", [*RUNTIME_FILES, *TRAINING_FILES], ids=module_name)
def test_files_are_short_and_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= LONGEST_FILE, f"{lines} lines: this wants to be two files"
    if lines > 3:
        assert ast.get_docstring(ast.parse(text)), "a module starts with what it is"


BLOCKED_IMPORTS = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Refuse())
import kd_pose
names = [module.name for module in pkgutil.walk_packages(kd_pose.__path__, "kd_pose.",
                                                        onerror=lambda name: None)]
names = [name for name in names if not name.startswith("kd_pose.nodes")]
for name in names:
    importlib.import_module(name)
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
print(len(names))
"""


def test_runtime_loads_without_ros_engines_and_trainer():
    blocked = ROS | ENGINES | TRAINER_ONLY | {"kd_pose_training", "poselib", "rosbags"}
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED_IMPORTS, ",".join(sorted(blocked))],
        capture_output=True, text=True, timeout=60, env=environment())
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 15


def environment() -> dict[str, str]:
    """That of this process, with this checkout's runtime first."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE)}


def test_root_layout():
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "Makefile", ".ci/run",
                 "config/training", "ros2_ws/src/kd_pose_msgs", "kd_pose_training", "benchmarks",
                 "tests/runtime", "tests/training", "tests/ros", "docs", "tools"):
        assert (ROOT / name).exists(), f"{name} is missing"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111, ".ci/run must be executable"


@each("name", ["launch", "config/object_pose.yaml", "config/wholebody_pose.yaml"])
def test_what_a_user_edits_is_a_link_into_the_package(name):
    link = ROOT / name
    assert link.is_symlink() and link.exists(), f"{name}: the package keeps the file, this links"
    assert not link.readlink().is_absolute()
    assert link.resolve().is_relative_to(PACKAGE)


def test_versions_agree():
    pattern = {
        ROOT / "pyproject.toml": r'^version = "([^"]+)"',
        PACKAGE / "setup.py": r'version="([^"]+)"',
        PACKAGE / "package.xml": r"<version>([^<]+)<",
        ROOT / "ros2_ws/src/kd_pose_msgs/package.xml": r"<version>([^<]+)<",
    }
    found = {path.relative_to(ROOT): re.search(rule, path.read_text(), re.MULTILINE)[1]
             for path, rule in pattern.items()}
    assert len(set(found.values())) == 1, found
