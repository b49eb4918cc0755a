"""Renderer on moderngl over EGL: four samples a pixel, shadows, and exact ids and depth.

Two passes: colour with multisampling, then depth and ids at the pixel centres without, so that no
mask or depth is a mixture of two surfaces. On machines without a GPU Mesa's llvmpipe draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kd_pose_training.synthetic.meshes import Mesh
from kd_pose_training.synthetic.render import FAR_M, NEAR_M, Buffers, RendererError, centred_on
from kd_pose_training.synthetic.scene import TABLE, Scene, Thing
from kd_pose_training.synthetic.shading import GLSL

SHADOW_SIDE = 1024
CACHED_MESHES = 64

_VERTEX = """
#version 330
uniform mat4 model, view_projection, shadow_matrix;
in vec3 in_position, in_normal, in_colour;
in vec2 in_uv;
out vec3 position, normal, colour;
out vec2 uv;
out vec4 shadow_at;
void main() {
    vec4 world = model * vec4(in_position, 1.0);
    position = world.xyz;
    normal = mat3(model) * in_normal;
    colour = in_colour;
    uv = in_uv;
    shadow_at = shadow_matrix * world;
    gl_Position = view_projection * world;
}
"""
_COLOUR = """
#version 330
""" + GLSL + """
uniform sampler2D picture;
uniform sampler2DShadow shadow_map;
uniform vec3 eye;
uniform float softness;
in vec3 position, normal, colour;
in vec2 uv;
in vec4 shadow_at;
out vec4 result;
void main() {
    vec3 at = shadow_at.xyz * 0.5 + 0.5;
    float lit = 0.0;
    for (int x = 0; x < 2; ++x) for (int y = 0; y < 2; ++y)
        lit += texture(shadow_map, at + vec3((vec2(x, y) - 0.5) * softness / 1024.0, -0.0015));
    lit = all(lessThan(abs(at - 0.5), vec3(0.5))) ? lit / 4.0 : 1.0;
    vec3 texel = texture(picture, uv).rgb * colour;
    result = vec4(shade(texel, normal, normalize(eye - position), lit), 1.0);
}
"""
_EXACT = """
#version 330
uniform mat4 model, camera, view_projection;
in vec3 in_position;
out float z;
void main() {
    vec4 world = model * vec4(in_position, 1.0);
    z = (camera * world).z;
    gl_Position = view_projection * world;
}
"""
_EXACT_FRAGMENT = """
#version 330
uniform float number;
in float z;
out vec2 result;
void main() { result = vec2(z, number); }
"""
_BACKDROP = """
#version 330
in vec2 in_position;
out vec2 uv;
void main() { uv = in_position * 0.5 + 0.5; gl_Position = vec4(in_position, 0.0, 1.0); }
"""
_BACKDROP_FRAGMENT = """
#version 330
uniform sampler2D picture;
in vec2 uv;
out vec4 result;
void main() { result = texture(picture, uv); }
"""


class GlRenderer:
    """One OpenGL context. Not to be shared between threads or kept over a fork.

    Raises:
        RendererError: moderngl or EGL is missing.
    """

    name = "gl"

    def __init__(self) -> None:
        try:
            import moderngl
        except ImportError as error:
            raise RendererError("the gl renderer needs moderngl: pip install moderngl") from error
        try:
            self._context = moderngl.create_context(standalone=True, backend="egl")
        except Exception as error:  # moderngl raises plain Exception without a driver
            raise RendererError(
                f"no OpenGL over EGL here ({error}); on Debian and Ubuntu: apt-get install "
                "libegl1 libegl-mesa0 libgl1-mesa-dri") from error
        self._gl = moderngl
        make = self._context.program
        self._colour = make(vertex_shader=_VERTEX, fragment_shader=_COLOUR)
        self._exact = make(vertex_shader=_EXACT, fragment_shader=_EXACT_FRAGMENT)
        self._back = make(vertex_shader=_BACKDROP, fragment_shader=_BACKDROP_FRAGMENT)
        corners = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], "f4")
        self._back_quad = self._context.vertex_array(
            self._back, [(self._context.buffer(corners), "2f", "in_position")])
        self._shadow = self._context.depth_texture((SHADOW_SIDE, SHADOW_SIDE))
        self._shadow.compare_func = "<="
        self._shadow.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self._shadow_target = self._context.framebuffer(depth_attachment=self._shadow)
        self._targets: dict[tuple[int, int], tuple] = {}
        self._meshes: dict[int, tuple[Any, ...]] = {}

    def render(self, scene: Scene, whole: bool = True) -> Buffers:
        """Draw the scene."""
        samples, resolved, exact = self._target(scene.width, scene.height)
        view = _projection(scene) @ scene.T_cam_world
        shadow = _shadow_matrix(scene)
        self._draw_shadow(scene, shadow)
        self._draw_colour(scene, samples, view, shadow)
        self._context.copy_framebuffer(resolved, samples)
        colour = np.frombuffer(resolved.read(components=3, alignment=1), np.uint8)
        # Row 0 of OpenGL is at the bottom; the projection puts the picture's first row there.
        colour = colour.reshape(scene.height, scene.width, 3).copy()
        return Buffers(colour, *self._draw_exact(scene, exact, view, alone=whole))

    def area(self, scene: Scene, row: int) -> int:
        """Pixels of instance ``row`` alone, those outside the frame included."""
        alone, factor = centred_on(scene, row)
        exact = self._target(alone.width, alone.height)[2]
        view = _projection(alone) @ alone.T_cam_world
        whole = self._draw_exact(alone, exact, view, alone=True)[2]
        return round(factor * int(whole.sum()))

    def _target(self, width: int, height: int) -> tuple:
        if (width, height) not in self._targets:
            gl, size = self._context, (width, height)
            samples = gl.framebuffer([gl.renderbuffer(size, 4, samples=4)],
                                     gl.depth_renderbuffer(size, samples=4))
            resolved = gl.framebuffer([gl.renderbuffer(size, 4)])
            exact = gl.framebuffer([gl.texture(size, 2, dtype="f4")], gl.depth_renderbuffer(size))
            self._targets[width, height] = (samples, resolved, exact)
        return self._targets[width, height]

    def _draw_shadow(self, scene: Scene, matrix: np.ndarray) -> None:
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        self._context.enable_only(self._gl.DEPTH_TEST)
        _set(self._exact, camera=np.eye(4), view_projection=matrix, number=0.0)
        for thing in scene.things:
            if thing.item != TABLE:  # nothing lies below the table
                self._draw(self._exact, thing, 1)

    def _draw_colour(self, scene: Scene, target: Any, view: np.ndarray,
                     shadow: np.ndarray) -> None:
        target.use()
        target.clear(depth=1.0)
        picture = self._texture(scene.backdrop, mipmaps=False)
        picture.use(0)
        self._context.enable_only(0)
        self._back["picture"].value = 0
        self._back_quad.render(self._gl.TRIANGLE_STRIP)
        picture.release()
        self._context.enable_only(self._gl.DEPTH_TEST)
        light, T = scene.light, scene.T_cam_world
        self._shadow.use(1)
        _set(self._colour, view_projection=view, shadow_matrix=shadow, to_sun=light.to_sun,
             sun=light.sun, sky=light.sky, ground=light.ground, to_fill=light.to_fill,
             fill=light.fill, softness=light.softness, eye=-T[:3, :3].T @ T[:3, 3])
        self._colour["picture"].value, self._colour["shadow_map"].value = 0, 1
        for thing in scene.things:
            _set(self._colour, gain=thing.gain, shine=thing.shine, gloss=thing.gloss)
            own = None if thing.texture is None else self._texture(thing.texture)
            (own or self._buffers(thing.mesh)[2]).use(0)
            self._draw(self._colour, thing, 0)
            if own is not None:
                own.release()

    def _draw_exact(self, scene: Scene, target: Any, view: np.ndarray,
                    alone: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """depth, ids and whole masks."""
        _set(self._exact, camera=scene.T_cam_world, view_projection=view)
        self._context.enable_only(self._gl.DEPTH_TEST)

        def draw(things: list[tuple[Thing, int]]) -> np.ndarray:
            target.use()
            target.clear(0.0, -1.0, depth=1.0)
            for thing, number in things:
                _set(self._exact, number=float(number))
                self._draw(self._exact, thing, 1)
            data = np.frombuffer(target.read(components=2, dtype="f4"), np.float32)
            return data.reshape(scene.height, scene.width, 2)

        numbers = iter(range(len(scene.things)))
        everything = draw([(thing, next(numbers) if thing.item >= 0 else -1)
                           for thing in scene.things])
        objects = scene.objects if alone else []
        whole = np.zeros((len(objects), scene.height, scene.width), bool)
        for row, thing in enumerate(objects):
            whole[row] = draw([(thing, 1)])[..., 1] > 0
        return (np.ascontiguousarray(everything[..., 0]),
                everything[..., 1].astype(np.int16), whole)

    def _draw(self, program: Any, thing: Thing, which: int) -> None:
        _set(program, model=thing.T_world)
        self._buffers(thing.mesh)[which].render(self._gl.TRIANGLES)

    def _buffers(self, mesh: Mesh) -> tuple:
        """(vertex array for colour, for depth, texture, mesh) kept for the meshes used last."""
        kept = self._meshes.pop(id(mesh), None)
        if kept is None:
            while len(self._meshes) >= CACHED_MESHES:
                old = self._meshes.pop(next(iter(self._meshes)))
                for item in (*old[:3], *old[4]):
                    item.release()
            rows = np.concatenate([mesh.vertices, mesh.normals, mesh.colours, mesh.uv], axis=1)
            data = self._context.buffer(rows.astype("f4").tobytes())
            index = self._context.buffer(mesh.faces.astype("i4").tobytes())
            colour = self._context.vertex_array(
                self._colour, [(data, "3f 3f 3f 2f", "in_position", "in_normal", "in_colour",
                                "in_uv")], index)
            exact = self._context.vertex_array(
                self._exact, [(data, "3f 32x", "in_position")], index)
            kept = (colour, exact, self._texture(mesh.texture), mesh, (data, index))
        self._meshes[id(mesh)] = kept
        return kept

    def _texture(self, image: np.ndarray, mipmaps: bool = True) -> Any:
        # v counts upwards and the first row of an image is its top.
        data = np.ascontiguousarray(image[::-1] if mipmaps else image)
        texture = self._context.texture((image.shape[1], image.shape[0]), 3, data.tobytes(),
                                        alignment=1)
        if mipmaps:
            texture.build_mipmaps()
            texture.filter = (self._gl.LINEAR_MIPMAP_LINEAR, self._gl.LINEAR)
        return texture


def _set(program: Any, **values: Any) -> None:
    """Set uniforms; matrices are given by rows as numpy has them. Unused ones are left out."""
    for name, value in values.items():
        if name not in program:
            continue
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value.T if value.ndim == 2 else value, dtype="f4")
            program[name].write(value.tobytes())
        else:
            program[name].value = float(value)


def _projection(scene: Scene) -> np.ndarray:
    """Camera coordinates -> clip space (4, 4): pixel (u, v) lands in the middle of its texel."""
    K, w, h = scene.K, scene.width, scene.height
    n, f = NEAR_M, FAR_M
    return np.array([
        [2 * K[0, 0] / w, 2 * K[0, 1] / w, 2 * (K[0, 2] + 0.5) / w - 1, 0],
        [0, 2 * K[1, 1] / h, 2 * (K[1, 2] + 0.5) / h - 1, 0],
        [0, 0, (f + n) / (f - n), -2 * f * n / (f - n)],
        [0, 0, 1, 0]])


def _shadow_matrix(scene: Scene) -> np.ndarray:
    """World -> the sun's clip space (4, 4), parallel, around everything but the table."""
    centres, radii = [], []
    for thing in scene.things:
        if thing.item == TABLE:
            continue
        low, high = thing.mesh.box
        centres.append(thing.T_world[:3, :3] @ ((low + high) / 2) + thing.T_world[:3, 3])
        radii.append(thing.mesh.radius)
    middle = np.mean(centres, axis=0) if centres else np.zeros(3)
    reach = max((np.linalg.norm(c - middle) + r for c, r in zip(centres, radii)), default=1.0)
    forward = -scene.light.to_sun
    side = np.cross(forward, [0.0, 0.0, 1.0])
    side = side / np.linalg.norm(side) if np.linalg.norm(side) > 1e-6 else np.array([1.0, 0, 0])
    R = np.stack([side, np.cross(forward, side), forward])
    matrix = np.eye(4)
    matrix[:3, :3] = R / (1.05 * reach)
    matrix[2, :3] = R[2] / (3.0 * reach)  # the table behind the objects is inside, too
    matrix[:3, 3] = -matrix[:3, :3] @ middle
    return matrix
