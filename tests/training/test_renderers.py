"""Both renderers against geometry that can be worked out by hand, and against each other."""

import builtins

import numpy as np
import pytest

from helpers.synth_scenes import HEIGHT, WIDTH, K, at, box_mesh, renderer, scene_of
from kd_pose_training.synthetic import render, render_gl
from kd_pose_training.synthetic.compose import Composer
from kd_pose_training.synthetic.meshes import ObjectMesh, flat_mesh
from kd_pose_training.synthetic.patterns import clutter_mesh
from kd_pose_training.synthetic.render import RendererError, open_renderer
from kd_pose_training.synthetic.scene import random_rotation
from kd_pose_training.synthetic.settings import CameraSettings, SceneSettings, SynthSettings
from kd_pose_training.synthetic.shipped_objects import shipped_objects


@pytest.fixture(scope="module", params=["gl", "rays"])
def drawer(request):
    return renderer(request.param)


def test_a_box_seen_from_the_front_has_its_depth_and_its_outline(drawer):
    found = drawer.render(scene_of((box_mesh(), at(0, 0, 0.5))))
    # The front face is at 0.48 m; +-0.04 m and +-0.03 m there are 16.67 and 13.125 pixels.
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    inside = (abs(u - K[0, 2]) < 16.66) & (abs(v - K[1, 2]) < 13.12)
    assert np.array_equal(found.ids == 0, inside)
    assert np.array_equal(found.whole[0], inside)
    assert found.depth[inside] == pytest.approx(0.48, abs=1e-5)
    assert (found.depth[~inside] == 0).all()


def test_a_ball_has_the_depth_of_a_ball(drawer):
    import trimesh
    radius, centre = 0.06, np.array([0.03, -0.02, 0.5])
    ball = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    found = drawer.render(scene_of((flat_mesh(ball.vertices, ball.faces), at(*centre))))
    # Nearest point of the ray z (x, y, 1) on the ball.
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], -1)
    along, square = rays @ centre, (rays ** 2).sum(-1)
    under = along ** 2 - square * (centre @ centre - radius ** 2)
    expected = np.where(under > 0, (along - np.sqrt(np.maximum(under, 0))) / square, 0)
    inside, seen = under > 0, found.ids == 0
    assert (inside & seen).sum() > 0.98 * (inside | seen).sum()
    away = abs(found.depth - expected)[inside & seen]
    assert np.quantile(away, 0.99) < 1e-3 and np.median(away) < 1e-4


def test_pixels_lie_where_the_camera_matrix_says(drawer):
    # A small box whose middle falls onto pixel (110, 80).
    T = at((110 - K[0, 2]) / K[0, 0] * 0.6, (80 - K[1, 2]) / K[1, 1] * 0.6, 0.6)
    rows, columns = np.nonzero(drawer.render(scene_of((box_mesh((0.02,) * 3), T))).ids == 0)
    assert columns.mean() == pytest.approx(110, abs=0.6)
    assert rows.mean() == pytest.approx(80, abs=0.6)


def test_the_nearer_object_hides_the_farther_one(drawer):
    mesh = box_mesh()
    found = drawer.render(scene_of((mesh, at(0, 0, 0.7)), (mesh, at(0.03, 0, 0.4))))
    both = found.whole[0] & found.whole[1]
    assert both.any() and (found.ids[both] == 1).all()
    assert (found.ids[found.whole[0] & ~found.whole[1]] == 0).all()


def test_area_counts_what_is_outside_the_frame(drawer):
    mesh = box_mesh((0.04, 0.04, 0.001))
    whole = drawer.render(scene_of((mesh, at(0, 0, 0.5)))).whole[0].sum()
    scene = scene_of((mesh, at(0.2, 0, 0.5)))  # its middle is on the frame's right edge
    assert drawer.render(scene).whole[0].sum() < 0.6 * whole
    assert drawer.area(scene, 0) == pytest.approx(whole, rel=0.08)


def test_area_of_what_is_larger_than_the_frame(drawer):
    scene = scene_of((box_mesh((0.6, 0.2, 0.001)), at(0, 0, 0.5)))
    expected = (0.6 / 0.4995 * K[0, 0]) * (0.2 / 0.4995 * K[1, 1])
    assert drawer.area(scene, 0) == pytest.approx(expected, rel=0.03)


def test_light_falls_off_and_backdrops_show(drawer):
    scene = scene_of((box_mesh(), at(0, 0, 0.5)))
    scene.backdrop[:] = (10, 200, 30)
    found = drawer.render(scene)
    assert (found.colour[found.ids < 0][:50] == (10, 200, 30)).all()
    # The face looks at the camera (-z): only light from below: 0.2 of white, and gamma.
    assert found.colour[60, 80] == pytest.approx(255 * 0.2 ** (1 / 2.2), abs=2)


def test_renderers_agree():
    gl, rays = renderer("gl"), renderer("rays")
    rng = np.random.default_rng(3)
    for _ in range(3):
        placed = [(clutter_mesh(rng, 0.08), at(*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.3, 0.6),
                                               random_rotation(rng))) for _ in range(4)]
        scene = scene_of(*placed)
        a, b = gl.render(scene), rays.render(scene)
        assert np.mean(a.ids != b.ids) < 2e-3
        same = (a.ids == b.ids) & (a.ids >= 0)
        assert np.quantile(abs(a.depth - b.depth)[same], 0.99) < 1e-3
        for one, other in zip(a.whole, b.whole):
            assert (one & other).sum() >= 0.98 * (one | other).sum()
        assert abs(a.colour.astype(int) - b.colour).mean() < 4


def test_renderers_agree_on_textures_and_shadows():
    gl, rays = renderer("gl"), renderer("rays")
    settings = SynthSettings(camera=CameraSettings(160, 120, 150.0, 150.0, 79.5, 59.5),
                             scene=SceneSettings(resting=1.0, distance=(0.4, 0.6)))
    objects = [ObjectMesh(n, spec, mesh)
               for n, (mesh, spec) in enumerate(shipped_objects().values(), start=1)]
    maker = Composer(objects, settings)
    scene = maker.scene("train", 0, maker.generator("train", 0))
    a, b = gl.render(scene), rays.render(scene)
    assert len(np.unique(a.ids)) > 2 and np.mean(a.ids != b.ids) < 1e-3
    difference = abs(a.colour.astype(int) - b.colour)
    assert difference.mean() < 4 and np.quantile(difference, 0.9) < 8
    # Turned upside down, the objects' prints would not agree.
    inner = (a.ids >= 0) & (a.ids == b.ids)
    assert np.corrcoef(a.colour[inner].ravel(), b.colour[inner].ravel())[0, 1] > 0.95


def test_auto_takes_rays_where_there_is_no_egl(monkeypatch, caplog):
    class Broken:
        def __init__(self):
            raise RendererError("no OpenGL over EGL here")
    renderer("rays")
    monkeypatch.setattr(render_gl, "GlRenderer", Broken)
    assert open_renderer("auto").name == "rays"
    assert "rays instead of gl: no OpenGL over EGL here" in caplog.text
    with pytest.raises(RendererError, match="EGL"):
        open_renderer("gl")


def test_a_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("embreex"):
            raise ImportError(name)
        return real(name, *rest)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RendererError, match="pip install embreex"):
        render.open_renderer("rays")
