"""docs/ros_interface.md lists every parameter with the default and range that the nodes have."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("kd_pose_msgs", reason="build the workspace and source it first")

from kd_pose.nodes.monitor_node import PARAMETERS as MONITOR
from kd_pose.nodes.parameters import COMMON, OBJECT_POSE, WHOLEBODY_POSE
from kd_pose.nodes.player_node import PARAMETERS as PLAYER
from kd_pose.people_stream import STREAM_STAGES
from kd_pose.results import STAGES

TEXT = (Path(__file__).parents[2] / "docs/ros_interface.md").read_text()
BOTH_PARTS, REST = TEXT.split("## Node `player`")
PLAYER_PART, MONITOR_PART = REST.split("## Node `monitor`")
OBJECT_PART, PEOPLE_PART = BOTH_PARTS.split("## Node `wholebody_pose`")
PEOPLE = [item for item in WHOLEBODY_POSE if item not in COMMON]  # the others: as for objects


def default_text(item) -> str:
    if item.is_list:
        return "[]"
    if isinstance(item.default, bool):
        return str(item.default).lower()
    return '""' if item.default == "" else str(item.default)


@pytest.mark.parametrize(
    ("part", "item"),
    [*((OBJECT_PART, item) for item in OBJECT_POSE), *((PEOPLE_PART, item) for item in PEOPLE),
     *((PLAYER_PART, item) for item in PLAYER), *((MONITOR_PART, item) for item in MONITOR)],
    ids=lambda value: getattr(value, "name", ""))
def test_parameter_is_documented_as_it_is(part, item):
    rows = [line for line in part.splitlines() if line.startswith(f"| `{item.name}` |")]
    assert len(rows) == 1, f"{item.name}: {len(rows)} rows"
    cells = [cell.strip() for cell in rows[0].strip("|").split(" | ")]
    assert cells[1] == f"`{default_text(item)}`"
    if item.choices:
        assert cells[2] == ", ".join(item.choices)
    elif item.low is not None:
        assert cells[2] == f"{item.low:g} to {item.high:g}"
    if part not in (PLAYER_PART, MONITOR_PART):
        assert cells[3] == ("any time" if item.dynamic else "configure")


def test_no_other_parameter_is_documented():
    names = {line.split("`")[1] for line in TEXT.splitlines()
             if line.startswith("| `") and line.count(" | ") >= 3
             and line.split("`")[1].replace(".", "_").isidentifier()}
    topics = {"image", "camera_info", "boxes", "depth"}
    known = {item.name for item in (*OBJECT_POSE, *PEOPLE, *PLAYER, *MONITOR)} | topics
    assert names <= known | {"input", "calibration", "inference", "model"}


def test_stages_are_documented():
    for stage in STAGES:
        assert f"`{stage}`" in OBJECT_PART
    for stage in STREAM_STAGES:
        assert f"`{stage}`" in BOTH_PARTS
