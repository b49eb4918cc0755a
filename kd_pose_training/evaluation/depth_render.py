"""Depth pictures of single objects for VSD: only the part of the picture where the object is.

As in the benchmark's own renderers a pixel is seen through its middle, half a pixel right of and
below its whole number (github.com/thodan/bop_toolkit, rendering/renderer_vispy.py), unlike
elsewhere in this project. OpenGL over EGL, or rays where there is none.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import numpy as np

from kd_pose_training.evaluation.bop_errors import DepthPatch, hull_points
from kd_pose_training.synthetic.render import FAR_M, NEAR_M, RendererError

_VERTEX = """
#version 330
uniform mat4 clip;
uniform vec4 axis;
in vec3 position;
out float z;
void main() {
    z = dot(axis, vec4(position, 1.0));
    gl_Position = clip * vec4(position, 1.0);
}
"""
_FRAGMENT = """
#version 330
in float z;
out float depth;
void main() { depth = z; }
"""


class DepthRenderer(Protocol):
    """Draws the objects that it has been given."""

    name: str

    def add_object(self, key: int, vertices: np.ndarray, faces: np.ndarray) -> None:
        """Keep a mesh: vertices (n, 3) metres, faces (F, 3)."""

    def render(self, key: int, T_cam_obj: np.ndarray, K: np.ndarray,
               size_wh: tuple[int, int]) -> DepthPatch:
        """Depth in metres of an object alone, at most of the whole picture."""


def open_depth_renderer(name: str = "auto") -> DepthRenderer:
    """``gl``, ``rays``, or ``auto``: gl where there is EGL, rays elsewhere (a warning says why).

    Raises:
        RendererError: what was asked for is not there.
    """
    if name in ("gl", "auto"):
        try:
            return GlDepth()
        except RendererError as error:
            if name == "gl":
                raise
            logging.getLogger(__name__).warning("rendering with rays instead of gl: %s", error)
    return RayDepth()


def window_of(T_cam_obj: np.ndarray, hull: np.ndarray, K: np.ndarray,
              size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """left, top, width, height of the part of the picture that an object can be in; (0, 0, 0, 0)
    where it is outside."""
    camera = hull @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3]
    low, high = np.zeros(2), np.array(size_wh, float)
    if camera[:, 2].min() > NEAR_M:
        pixels = camera @ K.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        low = np.clip(np.floor(pixels.min(axis=0)) - 1, 0, high)
        high = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, high)
    elif camera[:, 2].max() <= NEAR_M:
        return 0, 0, 0, 0
    if (high <= low).any():
        return 0, 0, 0, 0
    left, top = low.astype(int).tolist()
    width, height = (high - low).astype(int).tolist()
    return left, top, width, height


class GlDepth:
    """Draws with OpenGL. One context, not to be shared between threads.

    Raises:
        RendererError: moderngl or EGL is missing.
    """

    name = "gl"

    def __init__(self) -> None:
        try:
            import moderngl
            self._context = moderngl.create_context(standalone=True, backend="egl")
        except Exception as error:  # moderngl raises plain Exception without a driver
            raise RendererError(
                f"no OpenGL over EGL here ({error}); pip install moderngl, and on Debian and "
                "Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri") from error
        self._program = self._context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self._context.enable_only(moderngl.DEPTH_TEST)
        self._objects: dict[int, tuple[Any, np.ndarray]] = {}
        self._targets: dict[tuple[int, int], Any] = {}

    def add_object(self, key: int, vertices: np.ndarray, faces: np.ndarray) -> None:
        """See :class:`DepthRenderer`."""
        gl = self._context
        array = gl.vertex_array(self._program,
                                [(gl.buffer(vertices.astype("f4").tobytes()), "3f", "position")],
                                gl.buffer(faces.astype("i4").tobytes()))
        self._objects[key] = array, hull_points(vertices)

    def render(self, key: int, T_cam_obj: np.ndarray, K: np.ndarray,
               size_wh: tuple[int, int]) -> DepthPatch:
        """See :class:`DepthRenderer`."""
        array, hull = self._objects[key]
        left, top, width, height = window_of(T_cam_obj, hull, K, size_wh)
        if not width:
            return DepthPatch(np.zeros((0, 0), np.float32))
        if size_wh not in self._targets:
            gl = self._context
            self._targets[size_wh] = gl.framebuffer([gl.renderbuffer(size_wh, 1, dtype="f4")],
                                                    gl.depth_renderbuffer(size_wh))
        target = self._targets[size_wh]
        target.use()
        target.clear(0.0, depth=1.0)
        target.viewport = (0, 0, width, height)
        clip = _projection(K, left, top, width, height) @ T_cam_obj
        self._program["clip"].write(np.ascontiguousarray(clip.T, "f4").tobytes())
        self._program["axis"].write(np.ascontiguousarray(T_cam_obj[2], "f4").tobytes())
        array.render()
        data = target.read(viewport=(0, 0, width, height), components=1, dtype="f4", alignment=1)
        # Row 0 of OpenGL is at the bottom; the projection puts the picture's first row there.
        return DepthPatch(np.frombuffer(data, np.float32).reshape(height, width), left, top)


class RayDepth:
    """Casts rays on embreex.

    Raises:
        RendererError: embreex is missing.
    """

    name = "rays"

    def __init__(self) -> None:
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError as error:
            raise RendererError("the rays renderer needs embreex: pip install embreex") from error
        self._scene, self._mesh = rtcore_scene.EmbreeScene, TriangleMesh
        self._objects: dict[int, tuple[Any, np.ndarray]] = {}

    def add_object(self, key: int, vertices: np.ndarray, faces: np.ndarray) -> None:
        """See :class:`DepthRenderer`."""
        scene = self._scene()
        self._mesh(scene, np.ascontiguousarray(vertices[faces], np.float32))
        self._objects[key] = scene, hull_points(vertices)

    def render(self, key: int, T_cam_obj: np.ndarray, K: np.ndarray,
               size_wh: tuple[int, int]) -> DepthPatch:
        """See :class:`DepthRenderer`."""
        scene, hull = self._objects[key]
        left, top, width, height = window_of(T_cam_obj, hull, K, size_wh)
        if not width:
            return DepthPatch(np.zeros((0, 0), np.float32))
        u, v = np.meshgrid(np.arange(left, left + width) + 0.5,
                           np.arange(top, top + height) + 0.5)
        pixels = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=1)
        R, t = T_cam_obj[:3, :3], T_cam_obj[:3, 3]
        # Rays of depth 1 a unit, in the object's frame.
        directions = pixels @ np.linalg.inv(K).T @ R
        starts = NEAR_M * directions - t @ R
        found = scene.run(starts.astype(np.float32), directions.astype(np.float32), output=1)
        depth = np.where(found["primID"] >= 0, found["tfar"] + NEAR_M, 0.0)
        return DepthPatch(depth.astype(np.float32).reshape(height, width), left, top)


def _projection(K: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Camera coordinates -> clip space (4, 4) of a part of the picture."""
    n, f = NEAR_M, FAR_M
    return np.array([
        [2 * K[0, 0] / width, 2 * K[0, 1] / width, 2 * (K[0, 2] - left) / width - 1, 0],
        [0, 2 * K[1, 1] / height, 2 * (K[1, 2] - top) / height - 1, 0],
        [0, 0, (f + n) / (f - n), -2 * f * n / (f - n)],
        [0, 0, 1, 0]])
