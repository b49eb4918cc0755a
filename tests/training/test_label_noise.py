"""Errors on the labels of training pictures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.bop_folder import write_set
from kd_pose.geometry import make_pose, rotation_angle_deg, rotation_from_vector
from kd_pose_training.config import LabelNoise, from_dict
from kd_pose_training.data.bop import BopDataset
from kd_pose_training.data.label_noise import disturb_labels, disturbed

T = make_pose(rotation_from_vector([0.3, -0.2, 0.5]), np.array([0.0, 0.0, 0.8]))


def many(noise: LabelNoise, n: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([disturbed(T, 0.1, noise, rng) for _ in range(n)])


def test_a_turn_has_the_angle_that_is_asked_for_and_moves_nothing():
    poses = many(LabelNoise(rotation_deg=8.0))
    angles = np.array([rotation_angle_deg(T[:3, :3], pose[:3, :3]) for pose in poses])
    assert np.sqrt((angles**2).mean()) == pytest.approx(8.0, rel=0.03)
    np.testing.assert_array_equal(poses[:, :3, 3], np.broadcast_to(T[:3, 3], (4000, 3)))
    np.testing.assert_allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1),
                               np.broadcast_to(np.eye(3), (4000, 3, 3)), atol=1e-12)


def test_shifts_are_in_diameters_across_and_along_the_line_of_sight():
    moved = many(LabelNoise(across=0.05, depth=0.2))[:, :3, 3] - T[:3, 3]
    # The line of sight is the z axis here: 0.05 and 0.2 of 0.1 m.
    np.testing.assert_allclose(moved.std(axis=0), [0.005, 0.005, 0.02], rtol=0.04)
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=1e-3)
    only_depth = many(LabelNoise(depth=0.2), 10)[:, :3, 3] - T[:3, 3]
    np.testing.assert_allclose(only_depth[:, :2], 0, atol=1e-15)


def test_an_instance_keeps_its_error_and_others_have_their_own(tmp_path):
    write_set(tmp_path)
    noise = LabelNoise(rotation_deg=5.0, across=0.05, depth=0.1)
    clean, first, second = (BopDataset(tmp_path, "train") for _ in range(3))
    for dataset in (first, second):
        disturb_labels([dataset], noise)
    errors = []
    for frames in zip(clean.frames, first.frames, second.frames):
        for true, one, other in zip(*(frame.instances for frame in frames)):
            np.testing.assert_array_equal(one.T_cam_obj, other.T_cam_obj)
            errors.append((one.T_cam_obj - true.T_cam_obj).ravel())
    assert len(errors) == 4 and len(np.unique(np.round(errors, 12), axis=0)) == 4


@pytest.mark.parametrize("key, value", [("rotation_deg", -1.0), ("across", 1.5), ("depth", 2.0)])
def test_senseless_errors_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"data.label_noise.*{key} is {value}"):
        from_dict({"data": {"train": ["a:b"], "label_noise": {key: value}}}, "recipe.yaml")


def test_a_set_without_poses_is_refused():
    with pytest.raises(ValueError, match="label_noise: needs sets of objects with poses"):
        disturb_labels([SimpleNamespace(frames=[])], LabelNoise(across=0.1))
