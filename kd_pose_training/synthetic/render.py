"""What renderers return and how one is chosen."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from kd_pose_training.synthetic.scene import Scene

NEAR_M, FAR_M = 0.02, 50.0


class RendererError(ImportError):
    """This machine lacks what a renderer needs; the message says how to install it."""


@dataclass(frozen=True)
class Buffers:
    """A drawn scene. colour: RGB uint8 (H, W, 3). depth: float32 (H, W), metres along z, 0 where
    there is only backdrop. ids: int16 (H, W), number of the instance seen at the pixel's centre
    (index into ``scene.objects``), -1 elsewhere. whole: bool (I, H, W), every instance alone, or
    (0, H, W) where it was not asked for."""

    colour: np.ndarray
    depth: np.ndarray
    ids: np.ndarray
    whole: np.ndarray


class Renderer(Protocol):
    """A way to draw scenes; pixel centres are at integer coordinates."""

    name: str

    def render(self, scene: Scene, whole: bool = True) -> Buffers:
        """Draw; without ``whole`` the masks of every instance alone are left out."""

    def area(self, scene: Scene, row: int) -> int:
        """Pixels of instance ``row`` alone, those outside the frame included."""


def centred_on(scene: Scene, row: int) -> tuple[Scene, float]:
    """The scene of instance ``row`` alone, with the picture moved (and if need be made smaller) so
    that all of it is inside; and by how much its area is to be multiplied."""
    thing = scene.objects[row]
    T = scene.pose(thing)
    camera = thing.mesh.vertices @ T[:3, :3].T + T[:3, 3]
    camera[:, 2] = np.maximum(camera[:, 2], NEAR_M)
    pixels = camera @ scene.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    size = np.array([scene.width, scene.height])
    scale = float(min(1.0, ((size - 4) / np.maximum(high - low, 1e-6)).min()))
    move = (size - 1) / 2 - scale * (low + high) / 2
    K = np.array([[scale, 0, move[0]], [0, scale, move[1]], [0, 0, 1.0]]) @ scene.K
    return replace(scene, K=K, things=(thing,)), 1.0 / scale**2


def open_renderer(name: str) -> Renderer:
    """``gl``, ``rays``, or ``auto``: gl where there is EGL, rays elsewhere (a warning says why).

    Raises:
        RendererError: what was asked for is not there.
    """
    if name in ("gl", "auto"):
        from kd_pose_training.synthetic.render_gl import GlRenderer
        try:
            return GlRenderer()
        except RendererError as error:
            if name == "gl":
                raise
            logging.getLogger(__name__).warning("rendering with rays instead of gl: %s", error)
    from kd_pose_training.synthetic.render_rays import RayRenderer
    return RayRenderer()
