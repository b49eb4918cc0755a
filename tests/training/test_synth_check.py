"""The check of every frame: it passes what is right and stops at each kind of mistake."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.synth_scenes import at, box_mesh, renderer, scene_of
from kd_pose_training.synthetic.check import FrameMismatch, check_frame, surface_points
from kd_pose_training.synthetic.scene import random_rotation

MESH = box_mesh()
POINTS = [surface_points(MESH.vertices, MESH.faces)]


@pytest.fixture(scope="module")
def drawn():
    first, second = at(-0.05, 0, 0.4), at(0.05, 0.01, 0.45, random_rotation(
        np.random.default_rng(1)))
    scene = scene_of((MESH, first), (MESH, second))
    # Two instances of the one object.
    things = tuple(replace(thing, item=0) for thing in scene.things)
    scene = replace(scene, things=things)
    return scene, renderer("rays").render(scene)


def moved(scene, row, T):
    things = list(scene.things)
    things[row] = replace(things[row], T_world=T @ things[row].T_world)
    return replace(scene, things=tuple(things))


def test_points_lie_on_the_surface_and_cover_it():
    half = np.array([0.04, 0.03, 0.02])
    away = half - abs(POINTS[0])
    assert (away.min(axis=1) < 1e-9).all() and (away > -1e-9).all()
    assert (abs(POINTS[0]).max(axis=0) > 0.95 * half).all()


def test_a_right_frame_passes(drawn):
    check_frame(*drawn, POINTS)


@pytest.mark.parametrize("step", [(0, 0, -0.03), (0.012, 0, 0), (0, -0.012, 0)])
def test_a_pose_that_is_off_is_found(drawn, step):
    scene, buffers = drawn
    with pytest.raises(FrameMismatch, match="instance 0"):
        check_frame(moved(scene, 0, at(*step)), buffers, POINTS)


def test_swapped_numbers_are_found(drawn):
    scene, buffers = drawn
    swapped = np.choose(buffers.ids + 1, [-1, 1, 0]).astype(np.int16)
    with pytest.raises(FrameMismatch, match="mask"):
        check_frame(scene, replace(buffers, ids=swapped), POINTS)


def test_scaled_depth_is_found(drawn):
    scene, buffers = drawn
    for factor in (1.05, 0.95):
        with pytest.raises(FrameMismatch):
            check_frame(scene, replace(buffers, depth=buffers.depth * factor), POINTS)


def test_thin_plates_seen_edge_on_pass():
    plate = box_mesh((0.1, 0.1, 0.001))
    points = [surface_points(plate.vertices, plate.faces)]
    drawer = renderer("rays")
    for tilt in np.radians([80, 87, 89.5, 90]):
        c, s = np.cos(tilt), np.sin(tilt)
        scene = scene_of((plate, at(0, 0.01, 0.35, np.array([[1, 0, 0], [0, c, -s], [0, s, c]]))))
        check_frame(scene, drawer.render(scene), points)


def test_a_surface_behind_the_thin_wall_of_its_neighbour_passes():
    """A box right behind a sheet of 2 mm: its front is as good as on the depth, but not seen."""
    sheet, box = box_mesh((0.08, 0.06, 0.002)), box_mesh((0.08, 0.06, 0.04))
    points = [surface_points(mesh.vertices, mesh.faces) for mesh in (sheet, box)]
    scene = scene_of((sheet, at(0, 0, 0.399)), (box, at(0, 0, 0.42)))
    buffers = renderer("rays").render(scene)
    check_frame(scene, buffers, points)
    swapped = np.choose(buffers.ids + 1, [-1, 1, 0]).astype(np.int16)
    with pytest.raises(FrameMismatch, match="mask"):
        check_frame(moved(scene, 1, at(0.15, 0, 0)), replace(buffers, ids=swapped), points)
