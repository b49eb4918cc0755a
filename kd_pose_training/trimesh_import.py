"""trimesh, whose optional imports (``except BaseException``) would swallow a Ctrl-C."""

from __future__ import annotations

from types import ModuleType

from kd_pose_training.engine import signals


def import_trimesh() -> ModuleType:
    """The module; a signal that comes while it is loaded takes effect afterwards."""
    with signals.deferred():
        import trimesh
    return trimesh
