"""The table of parameters, the file that shows them, and the node agree."""

# ruff: noqa: E402
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")

from rclpy.parameter import Parameter

from kd_pose.nodes.parameters import OBJECT_POSE, WHOLEBODY_POSE, Param, changed

FOLDER = Path(__file__).parents[2] / "ros2_ws/src/kd_pose/config"
TABLES = {"object_pose": OBJECT_POSE, "wholebody_pose": WHOLEBODY_POSE}
each_node = pytest.mark.parametrize("node", TABLES)


def flatten(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@each_node
def test_the_file_has_every_parameter_with_its_default_and_no_other(node):
    content = yaml.safe_load((FOLDER / f"{node}.yaml").read_text())
    assert list(content) == ["/**"]
    given = dict(flatten(content["/**"]["ros__parameters"]))
    expected = {
        item.name: list(item.default) if item.is_list else item.default for item in TABLES[node]
    }
    assert set(given) == set(expected)
    for name, value in expected.items():
        assert given[name] == value, name
        assert type(given[name]) is type(value), name  # 1 for 1.0 is refused by ROS 2


@each_node
def test_the_table_is_sound(node):
    names = [item.name for item in TABLES[node]]
    assert len(names) == len(set(names))
    for item in TABLES[node]:
        assert item.description and item.descriptor().description
        assert item.parse(list(item.default) if item.is_list else item.default) == item.default
        if item.low is not None:
            assert item.low <= item.default <= item.high, item.name
        if isinstance(item.default, (int, float)) and not isinstance(item.default, bool):
            assert item.low is not None, f"{item.name} has no range"


def test_lists_may_be_empty_in_every_way_that_ros_writes_them():
    item = Param("names", (), "Names.")
    assert item.parse(None) == item.parse([]) == item.parse([""]) == ()
    assert item.parse(["a", "b"]) == ("a", "b")
    for wrong in ("a", [1, 2], 3):
        with pytest.raises(ValueError, match="names must be a list of texts"):
            item.parse(wrong)


def test_changes_are_judged_together():
    table = (Param("a", 1, "A.", 0, 9), Param("b", "x", "B.", choices=("x", "y"), dynamic=True))
    values = {"a": 1, "b": "x"}
    new = [Parameter("b", value="y"), Parameter("foreign", value=3)]
    assert changed(table, values, new, configured=True) == {"a": 1, "b": "y"}
    assert values["b"] == "x"
    with pytest.raises(ValueError, match="b must be one of x, y, got 'z'"):
        changed(table, values, [Parameter("b", value="z")], configured=True)
    with pytest.raises(ValueError, match="clean up first"):
        changed(table, values, [Parameter("a", value=2)], configured=True)
    assert changed(table, values, [Parameter("a", value=1)], configured=True) == values
    assert changed(table, values, [Parameter("a", value=2)], configured=False)["a"] == 2


def test_unknown_keys_of_a_file_are_reported():
    pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")
    from helpers.ros_rig import FakeEstimator, Rig, fake_node

    with Rig({"score_treshold": 0.3}, kind=fake_node(FakeEstimator())) as rig:
        rig.start()
        rig.wait_status("model", b"\x01", "score_treshold")


@each_node
def test_the_file_itself_configures_a_node(node):
    pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")
    from helpers.fake_people import FakePeople
    from helpers.ros_rig import FakeEstimator, Rig, fake_node
    from kd_pose.nodes.wholebody_pose_node import WholebodyPoseNode

    kind = fake_node(FakeEstimator()) if node == "object_pose" else (
        fake_node(FakePeople(), WholebodyPoseNode))
    with Rig({"autostart": False}, kind=kind, outputs=("timing",),
             cli_args=["--ros-args", "--params-file", str(FOLDER / f"{node}.yaml")]) as rig:
        rig.start()
        rig.wait_status("model", b"\x00", "fake")
        expected = {item.name: item.default for item in TABLES[node]}
        assert rig.node.values == {**expected, "autostart": False}
        assert rig.node.health.unknown == []
