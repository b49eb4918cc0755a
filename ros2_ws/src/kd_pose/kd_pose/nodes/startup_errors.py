"""What is wrong with ROS arguments and parameters, as sentences for those who typed them.

rcl and rclpy tell it in exceptions of several kinds, with the line of their own source in the
text. What is known is said with what would be right; the rest as they say it, on one line.
"""

from __future__ import annotations

import re
from pathlib import Path

from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.impl.implementation_singleton import rclpy_implementation

UnknownArguments = rclpy_implementation.UnknownROSArgsError
# Of arguments, names, parameter files and values. RCLError: also of a name that is only found to
# be wrong when node or topic are made.
ERRORS = (rclpy_implementation.RCLError, UnknownArguments, ParameterException, ValueError)

_SOURCE_LINE = re.compile(r",? at \S+:\d+")
_RULE = re.compile(r"Couldn't parse (?P<what>[a-z ]+): '(?P<given>.*)'\. Error: (?P<why>.*)")
_NO_REASON = "error not set"
_ALLOWED = {
    "parameter override rule": "is no parameter with a value: write -p name:=value "
                               "(-p name:=\"''\" for an empty text)",
    "remap rule": "is no remapping: write -r from:=to, where names begin with a letter, / or ~ "
                  "and hold letters, digits, _ and /",
    "log level": "is no log level: write --log-level debug, info, warn, error or fatal, or "
                 "<logger>:=<level>",
}
_WORDS = {"BOOL": "true or false", "INTEGER": "a whole number", "DOUBLE": "a number with a point",
          "STRING": "a text"}


def sentence(error: Exception) -> str:
    """One line that says what was given and what is allowed."""
    if isinstance(error, InvalidParameterTypeException):
        return _wrong_type(error)
    if isinstance(error, ValueError):
        return str(error)
    text = " ".join(_SOURCE_LINE.sub("", str(error)).split())
    if isinstance(error, UnknownArguments):
        return f"unknown ROS argument(s) {text.strip('[]')} (see docs.ros.org, Node arguments)"
    rule = _RULE.search(text)
    if rule is None:
        return text
    what, given, why = rule.group("what", "given", "why")
    if what == "params file":
        return _parameter_file(given, why)
    if what in _ALLOWED:
        return f"'{given}' {_ALLOWED[what]}"
    return f"'{given}': {what} cannot be read" + ("" if why == _NO_REASON else f": {why}")


def _parameter_file(given: str, why: str) -> str:
    path = given.partition(" ")[2]
    if not Path(path).exists():
        return f"{given}: there is no such file"
    if not Path(path).is_file():
        return f"{given}: is not a file"
    reason = "" if why == _NO_REASON else f": {why}"
    return f"{given}: is not a parameter file of ROS 2{reason}"


def _wrong_type(error: InvalidParameterTypeException) -> str:
    # The exception keeps the name alone; value and types are in its text.
    text = str(error)
    found = re.search(r"' to '(.*)' of type '(\w+)', expecting type '(?:Type\.)?(\w+)'", text,
                      re.DOTALL)
    name = re.search(r"parameter '([^']*)'", text)
    if found is None or name is None:
        return " ".join(text.split())
    value, given, wanted = found.groups()
    if (given, wanted) == ("INTEGER", "DOUBLE"):
        return f"parameter {name[1]} must be a number with a point, got {value}: write {value}.0"
    return f"parameter {name[1]} must be {_WORDS.get(wanted, wanted)}, got {value!r}"
