"""Small scenes of known geometry for the tests of the renderers, the checks and the writer."""

from __future__ import annotations

import numpy as np
import pytest

from kd_pose.geometry import make_pose
from kd_pose.manifest import ObjectSpec
from kd_pose_training.synthetic.meshes import Mesh, ObjectMesh, diameter, flat_mesh
from kd_pose_training.synthetic.render import RendererError
from kd_pose_training.synthetic.scene import Light, Scene, Thing

K = np.array([[200.0, 0, 79.5], [0, 210.0, 59.5], [0, 0, 1]])
WIDTH, HEIGHT = 160, 120
LIGHT = Light(np.array([0.0, 0.0, 1.0]), np.full(3, 0.6), np.full(3, 0.4), np.full(3, 0.2),
              np.array([1.0, 0.0, 0.0]), np.full(3, 0.1), 1.0)


def box_mesh(size: tuple[float, float, float] = (0.08, 0.06, 0.04)) -> Mesh:
    """A white box about the origin."""
    x, y, z = np.array(size) / 2
    points = np.array([[i, j, k] for k in (-z, z) for j in (-y, y) for i in (-x, x)])
    faces = [[0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4], [2, 6, 3],
             [3, 6, 7], [0, 4, 2], [2, 4, 6], [1, 3, 5], [3, 7, 5]]
    return flat_mesh(points, np.array(faces))


def object_of(mesh: Mesh, number: int = 1, name: str = "box") -> ObjectMesh:
    """The mesh as an object without symmetries."""
    low, high = mesh.box
    spec = ObjectSpec(name, diameter(mesh.vertices), tuple(map(float, low)),
                      tuple(map(float, high)))
    return ObjectMesh(number, spec, mesh)


def scene_of(*placed: tuple[Mesh, np.ndarray]) -> Scene:
    """Meshes at poses T_cam_obj before a black backdrop; the camera's frame is the world's."""
    things = tuple(Thing(mesh, row, T, np.ones(3), 0.0, 10.0)
                   for row, (mesh, T) in enumerate(placed))
    return Scene(K, WIDTH, HEIGHT, np.eye(4), things, LIGHT,
                 np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def at(x: float, y: float, z: float, R: np.ndarray | None = None) -> np.ndarray:
    """T_cam_obj of an object at a place, metres."""
    return make_pose(np.eye(3) if R is None else R, np.array([x, y, z]))


def renderer(name: str):
    """The renderer of a name; skips the test, with the reason, where it cannot run."""
    try:
        if name == "gl":
            from kd_pose_training.synthetic.render_gl import GlRenderer
            return GlRenderer()
        from kd_pose_training.synthetic.render_rays import RayRenderer
        return RayRenderer()
    except RendererError as error:
        pytest.skip(str(error))
