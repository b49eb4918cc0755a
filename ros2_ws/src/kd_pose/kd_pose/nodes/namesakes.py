"""Other nodes of one's own full name: they publish on the same topics, and nobody else says so.

Notable: it is looked for again and again, because discovery takes its time and the other one may
come later; so the warning goes when it goes. A process that was killed is seen for some more
seconds, until the middleware gives it up.
"""

from __future__ import annotations

import time

from rclpy.node import Node

from kd_pose.nodes.diagnostics import WARN, Status

LOOK_PERIOD_S = 2.0


class Namesakes:
    """Asks the graph every `LOOK_PERIOD_S` at most."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._looked = -float("inf")
        self._text = ""

    def judge(self, status: Status) -> Status:
        """`status`, worsened where there are others."""
        if time.monotonic() - self._looked > LOOK_PERIOD_S:
            self._looked = time.monotonic()
            self._look()
        if self._text:
            status.worsen(WARN, self._text)
        return status

    def _look(self) -> None:
        own = (self._node.get_name(), self._node.get_namespace())
        count = self._node.get_node_names_and_namespaces().count(own)
        before, self._text = self._text, ""
        if count <= 1:
            return
        name = self._node.get_fully_qualified_name()
        self._text = (f"{count} nodes are named {name} and publish on the same topics: start one "
                      "under another name or namespace (-r __node:=... or -r __ns:=/...), or end "
                      "the other")
        if not before:
            self._node.get_logger().warning(self._text)
