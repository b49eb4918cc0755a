"""A clip of people: who stays the same, and how smoothly they move."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_pose_training.cli import main
from kd_pose_training.synthetic.people.clip import (
    ClipComposer,
    Walking,
    between,
    ellipse_by_length,
    walk,
)
from kd_pose_training.synthetic.people.settings import ClipSettings, PeopleSettings, load_settings
from kd_pose_training.synthetic.people.skeleton import AVERAGE, check_limits, place

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clip():
    """That of `make demo`, without its pictures."""
    return ClipComposer(load_settings(ROOT / "config/training/people_clip.yaml"), "clip")


@pytest.fixture(scope="module")
def figures(clip):
    """Keypoints (frames, people, 133, 3) in the world."""
    frames = []
    for number in range(clip.frames):
        drawn = [actor.figure(number / clip.frames) for actor in clip.actors]
        frames.append([figure.keypoints @ T[:3, :3].T + T[:3, 3] for figure, T in drawn])
    return np.array(frames)


def test_nobody_jumps_not_even_from_the_last_frame_to_the_first(figures):
    steps = np.linalg.norm(np.diff(figures, axis=0, append=figures[:1]), axis=3)
    assert steps.max() < 0.4  # metres in a tenth of a second; a toe swings fastest
    assert steps[:, :2].max() < 0.25  # those who stand
    assert steps.max(axis=(0, 2)).min() > 0.02  # and everybody moves


def test_people_stay_who_they_are(figures):
    # thigh and shin, eye to eye, palm
    for a, b in ((11, 13), (13, 15), (1, 2), (91, 100)):
        length = np.linalg.norm(figures[:, :, a] - figures[:, :, b], axis=2)
        assert np.ptp(length, axis=0).max() < 1e-6


def test_nobody_walks_through_others(figures, clip):
    middles = figures[:, :, 11:13, :2].mean(axis=2)
    walkers = [row for row, actor in enumerate(clip.actors) if isinstance(actor, Walking)]
    assert walkers == [2]
    others = np.delete(middles, walkers, axis=1)
    assert np.linalg.norm(others - middles[:, walkers], axis=2).min() > 0.45


def test_feet_of_who_walks_rest_on_the_ground_while_they_carry(figures):
    ankles = figures[:, 2, 15:17]
    steps = np.linalg.norm(np.diff(ankles[..., :2], axis=0), axis=2)
    lower = ankles[:-1, :, 2].argmin(axis=1)
    resting = steps[np.arange(len(steps)), lower]
    moving = steps[np.arange(len(steps)), 1 - lower]
    assert np.median(resting) < 0.35 * np.median(moving)


def test_place_and_camera_stay(clip):
    one, other = clip.crowd(3).scene, clip.crowd(40).scene
    assert one.light is other.light and one.backdrop is other.backdrop
    assert np.array_equal(one.T_cam_world, other.T_cam_world)
    count = len(clip.actors)
    assert all(a is b for a, b in zip(one.things[count:], other.things[count:]))
    for a, b in zip(one.objects, other.objects):
        assert np.array_equal(a.gain, b.gain) and np.array_equal(a.mesh.texture, b.mesh.texture)


def test_everybody_is_in_the_picture(clip, figures):
    camera = figures @ clip.T_cam_world[:3, :3].T + clip.T_cam_world[:3, 3]
    pixels = camera @ clip.K.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    assert (camera[..., 2] > 1).all() and pixels.min() > 0
    assert pixels[..., 0].max() < 640 and pixels[..., 1].max() < 480


def test_between_keys():
    keys = ({"l_knee_flex": 10.0}, {"l_knee_flex": 30.0, "r_knee_flex": 4.0})
    assert between(keys, 0.0) == {"l_knee_flex": 10.0, "r_knee_flex": 0.0}
    assert between(keys, 0.1) == between(keys, 0.0)  # held
    half = between(keys, (0.25 + 0.375) / 2)
    assert half == {"l_knee_flex": pytest.approx(20), "r_knee_flex": pytest.approx(2)}
    assert between(keys, 0.5)["l_knee_flex"] == 30 and between(keys, 1.0) == between(keys, 0.0)


def test_a_walk_is_within_all_limits_and_periodic():
    for cycles in np.linspace(0, 1, 25):
        pose = walk(cycles, 20.0)
        check_limits(pose)
        again = walk(cycles + 3, 20.0)
        assert all(abs(again[name] - value) < 1e-9 for name, value in pose.items())
    apart = place(walk(0.0, 20.0), AVERAGE)
    step = apart.at("l_foot")[0] - apart.at("r_foot")[0]
    assert step == pytest.approx(2 * 0.84 * np.sin(np.radians(20)), rel=0.15)


def test_the_way_around_an_ellipse():
    shares, angles, length = ellipse_by_length((2.0, 2.0))
    assert length == pytest.approx(4 * np.pi, rel=1e-4)
    np.testing.assert_allclose(shares, angles / (2 * np.pi), atol=1e-9)


def test_what_is_refused():
    with pytest.raises(ValueError, match="standing is -1"):
        ClipSettings(standing=-1)
    with pytest.raises(ValueError, match=r"standing \+ walking is 0"):
        ClipSettings(0, 0)
    with pytest.raises(ValueError, match="clip is null"):
        ClipComposer(PeopleSettings(), "train")


def test_the_command_renders_a_clip(tmp_path, capsys):
    config = tmp_path / "clip.yaml"
    config.write_text("""
splits: {clip: 3}
renderer: rays
workers: 1
picture: {width: 64, height: 64, field_of_view: [40, 40]}
clip: {standing: 1, walking: 0}
labels: {smallest: 5}
""")
    assert main(["synth-people", str(config), "-o", str(tmp_path / "set")]) == 0
    assert len(list((tmp_path / "set/images/clip").iterdir())) == 3
    people = json.loads((tmp_path / "set/annotations/coco_wholebody_clip_v1.0.json").read_text())
    assert [(item["image_id"], item["track_id"]) for item in people["annotations"]] == [
        (1, 1), (2, 1), (3, 1)]
    video = cv2.VideoCapture(str(tmp_path / "set/clip.mp4"))
    assert [video.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT,
                                       cv2.CAP_PROP_FRAME_WIDTH)] == [10.0, 3, 64]
    settings = load_settings(config)
    assert dataclasses.replace(settings, clip=None) != settings
