"""What `kd-pose-train COMMAND --help` shows can be pasted into a shell."""

import re

import pytest

from kd_pose_training import cli


def help_of(capsys, *command):
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    return capsys.readouterr().out


def test_no_example_has_lost_the_end_of_its_lines(capsys):
    commands = re.findall(r"^    ([a-z-]+)", help_of(capsys), re.MULTILINE)
    assert {"train", "evaluate", "export"} <= set(commands)
    for command in commands:
        text = help_of(capsys, command)
        # Of a line that goes on: a break that Python took for its own leaves the indent behind.
        joined = re.search(r"^.*kd-pose-train .*\\S {4,}--.*$", text, re.MULTILINE)
        assert joined is None, f"{command}: {joined[0]}"
