"""Quality of service by parameters `qos_overrides.<topic>.<role>.<policy>`, checked beforehand.

Notable: rclpy declares these parameters, read-only, when it makes the subscription or publisher.
A wrong value ends in an error of the middleware that names neither topic nor parameter, and a name
of a topic that is not there is read by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, ReliabilityPolicy

SUBSCRIPTION, PUBLISHER = "subscription", "publisher"  # roles
INPUTS = ("image", "camera_info", "depth", "boxes")  # of every estimator
MAX_DEPTH = 1_000_000
# The policies of rclpy's QoSOverridingOptions.with_default_policies, and what they may be.
CHOICES = {
    name: tuple(item.lower() for item in kind.__members__
                if item != "UNKNOWN" and not item.startswith("RMW_"))
    for name, kind in (("history", HistoryPolicy), ("reliability", ReliabilityPolicy))
}
POLICIES = (*CHOICES, "depth")


def check(node: Node, topic: str, role: str) -> None:
    """Raise ValueError for a value that cannot be. topic: as resolved."""
    given = node._parameter_overrides
    for policy in POLICIES:
        name = parameter(topic, role, policy)
        if name in given:
            _check_value(name, policy, given[name].value)


def _check_value(name: str, policy: str, value: object) -> None:
    if policy == "depth":
        good = type(value) is int and 0 <= value <= MAX_DEPTH
        allowed = f"a whole number from 0 to {MAX_DEPTH}"
    else:
        good = isinstance(value, str) and value.lower() in CHOICES[policy]
        allowed = f"one of {', '.join(CHOICES[policy])}"
    if not good:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def parameters_of(node: Node, keys: Iterable[str], role: str) -> set[str]:
    """Names that are read for these topics, as they are called before remapping."""
    topics = [node.resolve_topic_name(key) for key in keys]
    topics += [f"{node.resolve_topic_name('image')}/compressed"]
    return {parameter(topic, role, policy) for topic in topics for policy in POLICIES}


def parameter(topic: str, role: str, policy: str) -> str:
    return f"qos_overrides.{topic}.{role}.{policy}"
