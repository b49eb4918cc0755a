"""Scenes: what stands where, seeds, cameras, light; the lens."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.synth_scenes import box_mesh, object_of
from kd_pose_training.synthetic.compose import Composer
from kd_pose_training.synthetic.lens import through_lens
from kd_pose_training.synthetic.scene import (
    CLUTTER,
    TABLE,
    Body,
    look_at,
    random_rotation,
    rest,
    resting_rotations,
)
from kd_pose_training.synthetic.settings import (
    CameraSettings,
    LookSettings,
    SceneSettings,
    SynthSettings,
    load_settings,
)

OBJECTS = [object_of(box_mesh(), 1), object_of(box_mesh((0.05, 0.05, 0.12)), 2, "tower")]
SETTINGS = SynthSettings(camera=CameraSettings(160, 120, 150.0, 150.0, 79.5, 59.5),
                         scene=SceneSettings(instances=(3, 5), clutter=(1, 3)))


def composer(**scene):
    return Composer(OBJECTS, replace(SETTINGS, scene=replace(SETTINGS.scene, **scene)))


def draw(maker, number, split="train"):
    return maker.scene(split, number, maker.generator(split, number))


def test_a_frame_is_a_function_of_seed_split_and_number():
    first, second = composer(), composer()
    draw(first, 3)  # other frames in between change nothing
    a, b = draw(first, 7), draw(second, 7)
    assert len(a.things) == len(b.things)
    for one, other in zip(a.things, b.things):
        assert np.array_equal(one.T_world, other.T_world)
        assert np.array_equal(one.gain, other.gain)
    assert np.array_equal(a.backdrop, b.backdrop)
    for other in (draw(first, 8), draw(first, 7, "val"), draw(Composer(
            OBJECTS, replace(SETTINGS, seed=1)), 7)):
        assert not np.array_equal(a.T_cam_world, other.T_cam_world)


def test_names_of_splits_count_to_their_last_letter():
    maker = composer(clutter=(0, 0))
    one, other = (maker.generator("calibration_of_camera_" + end, 0).random() for end in "ab")
    assert one != other


def test_numbers_of_objects_and_clutter_keep_to_the_settings():
    maker = composer()
    scenes = [draw(maker, n) for n in range(24)]
    counts = {len(scene.objects) for scene in scenes}
    assert counts == {3, 4, 5}
    clutter = {sum(thing.item == CLUTTER for thing in scene.things) for scene in scenes}
    assert clutter == {1, 2, 3}
    assert {thing.item for scene in scenes for thing in scene.objects} == {0, 1}


def test_share_of_tables():
    for share, expected in ((0.0, 0), (1.0, 12)):
        maker = composer(resting=share)
        tables = sum(any(thing.item == TABLE for thing in draw(maker, n).things)
                     for n in range(12))
        assert tables == expected


def test_what_rests_touches_the_table_and_nothing_else():
    rng = np.random.default_rng(0)
    bodies = [Body.of(item.mesh) for item in OBJECTS] * 3
    for upright in (0.0, 1.0):
        poses = rest(bodies, 0.2, rng, upright)
        circles = []
        for body, T in zip(bodies, poses):
            points = body.mesh.vertices @ T[:3, :3].T + T[:3, 3]
            assert points[:, 2].min() == pytest.approx(0, abs=1e-6)
            assert (abs(points[:, 2]) < 1e-5).sum() >= 4  # it stands on a face
            middle = (points.min(0) + points.max(0))[:2] / 2
            circles.append((middle, np.linalg.norm(points[:, :2] - middle, axis=1).max()))
            if upright:
                assert T[2, 2] == pytest.approx(1.0)
        for i, (a, r) in enumerate(circles):
            for b, s in circles[:i]:
                assert np.linalg.norm(a - b) > 0.93 * (r + s) - 1e-9


def test_larger_faces_are_rested_on_more_often():
    rotations, shares = resting_rotations(box_mesh((0.1, 0.05, 0.02)))
    assert shares.sum() == pytest.approx(1) and len(rotations) == 6
    # The share of 10 x 5 cm among 10 x 5, 10 x 2 and 5 x 2.
    flat = shares[abs(rotations[:, 2, 2]) > 0.99].sum()
    assert flat == pytest.approx(50 / (50 + 20 + 10))


def test_a_single_triangle_is_a_face_to_rest_on():
    from kd_pose_training.synthetic.meshes import flat_mesh
    ring = [[np.cos(a), np.sin(a)] for a in np.radians([90, 210, 330])]
    points = np.array([[*p, z] for z in (0, 0.2) for p in ring]) * 0.05
    faces = [[0, 2, 1], [3, 4, 5], [0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4], [2, 0, 3],
             [2, 3, 5]]
    body = Body.of(flat_mesh(points, np.array(faces)))
    assert len(body.rotations) == 5 and body.stands


def test_a_sheet_without_thickness_lies_flat():
    from kd_pose_training.synthetic.meshes import flat_mesh
    tilted = random_rotation(np.random.default_rng(4))
    points = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 0.05 @ tilted.T
    body = Body.of(flat_mesh(points, np.array([[0, 1, 2], [0, 2, 3]])))
    T = rest([body], 0.2, np.random.default_rng(0))[0]
    assert body.mesh.vertices @ T[2, :3] + T[2, 3] == pytest.approx(np.zeros(6), abs=1e-6)


def test_rotations_are_rotations_and_spread_over_all():
    rng = np.random.default_rng(0)
    R = np.stack([random_rotation(rng) for _ in range(400)])
    assert R @ R.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (400, 1, 1)), abs=1e-9)
    assert np.linalg.det(R) == pytest.approx(np.ones(400))
    assert abs(R.mean(axis=0)).max() < 0.12


def test_the_camera_sees_its_target_in_the_middle_with_the_right_way_up():
    eye, target = np.array([0.3, -0.5, 0.4]), np.array([0.1, 0.0, 0.05])
    T = look_at(eye, target, 0.0)
    seen = T[:3, :3] @ target + T[:3, 3]
    assert seen == pytest.approx([0, 0, np.linalg.norm(target - eye)], abs=1e-9)
    above = T[:3, :3] @ (target + [0, 0, 0.1]) + T[:3, 3]
    assert above[1] < -0.05 and abs(above[0]) < 1e-9  # y points down
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)


def test_an_orbit_is_one_scene_from_a_camera_that_goes_around():
    settings = replace(SETTINGS, splits={"clip": 24},
                       scene=replace(SETTINGS.scene, path="orbit", resting=1.0,
                                     elevation=(30.0, 60.0)))
    maker = Composer(OBJECTS, settings)
    scenes = [draw(maker, n, "clip") for n in range(24)]
    for scene in scenes[1:]:
        for one, other in zip(scenes[0].things, scene.things):
            assert np.array_equal(one.T_world, other.T_world)
    eyes = np.array([-s.T_cam_world[:3, :3].T @ s.T_cam_world[:3, 3] for s in scenes])
    turns = np.unwrap(np.arctan2(eyes[:, 1], eyes[:, 0]))
    assert turns[-1] - turns[0] == pytest.approx(2 * np.pi * 23 / 24, abs=0.5)
    assert np.linalg.norm(np.diff(eyes, axis=0), axis=1).max() < 0.35
    # Another split is another scene, whichever of them a process draws first.
    both = replace(settings, splits={"clip": 24, "other": 24})
    maker = Composer(OBJECTS, both)
    other = draw(maker, 0, "other")
    assert not np.array_equal(other.things[0].T_world, scenes[0].things[0].T_world)
    assert np.array_equal(draw(maker, 0, "clip").things[0].T_world, scenes[0].things[0].T_world)


def test_lens_with_everything_off_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    off = LookSettings(colour=0, light=0, shine=0, blur=0, noise=0, vignette=0)
    assert np.array_equal(through_lens(image, off, np.random.default_rng(0)), image)
    on = through_lens(image, LookSettings(), np.random.default_rng(0))
    assert on.shape == image.shape and on.dtype == np.uint8 and not np.array_equal(on, image)


@pytest.mark.parametrize("text, what", [
    ("splits: {}", "splits"), ("splits: {train: 0}", "splits.train"),
    ("splits: {models: 3}", "models"), ("frames: 3", "frames"),
    ("scene: {instances: [5, 2]}", "instances"), ("scene: {resting: 1.5}", "resting"),
    ("scene: {upright: -0.1}", "upright"), ("scene: {distance: [0, 1]}", "distance"),
    ("camera: {width: 640.5}", "width"), ("camera: {fx: 0}", "fx"),
    ("renderer: vulkan", "renderer"), ("look: {noise: loud}", "noise"),
])
def test_bad_settings_are_refused_by_name(tmp_path, text, what):
    path = tmp_path / "synth.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=what) as error:
        load_settings(path)
    assert "synth.yaml" in str(error.value)
