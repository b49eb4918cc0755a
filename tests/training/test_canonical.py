"""Symmetric objects: one target for all poses that look alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kd_pose.geometry import make_pose, rotation_angle_deg, rotation_from_vector
from kd_pose.manifest import ObjectSpec
from kd_pose.symmetry import symmetry_transforms
from kd_pose_training.data.canonical import CANONICAL_VIEW, CanonicalPose, crop_roll

BOX = {"diameter": 0.2, "box_min": (-0.05, -0.04, 0.0), "box_max": (0.05, 0.04, 0.1)}


def turn(axis, degrees, offset=(0.0, 0.0, 0.0)):
    R = rotation_from_vector(math.radians(degrees) * np.array(axis, float))
    return make_pose(R, np.array(offset) - R @ np.array(offset))


def spec(discrete=(), continuous=()):
    return ObjectSpec("x", **BOX, symmetries_discrete=tuple(tuple(T.ravel()) for T in discrete),
                      symmetries_continuous=tuple(continuous))


MIDDLE = (0.0, 0.0, 0.05)
SPECS = {
    "half turn": spec([turn((0, 0, 1), 180)]),
    "quarters": spec([turn((0, 0, 1), angle) for angle in (90, 180, 270)]),
    "can": spec(continuous=[((0, 0, 1), (0, 0, 0))]),
    "tilted axis off the origin": spec(continuous=[((0.6, 0, 0.8), (0.01, 0.02, 0.03))]),
    "cylinder with equal ends": spec([turn((1, 0, 0), 180, MIDDLE)], [((0, 0, 1), MIDDLE)]),
    "ball": spec(continuous=[((0, 0, 1), MIDDLE), ((1, 0, 0), MIDDLE)]),
}


def poses(count=20, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield make_pose(rotation_from_vector(rng.normal(size=3) * 2),
                        (*rng.uniform(-0.3, 0.3, 2), rng.uniform(0.5, 1.2)))


@pytest.mark.parametrize("name", SPECS)
def test_all_members_of_a_pose_have_one_target(name):
    canonical = CanonicalPose(SPECS[name])
    rng = np.random.default_rng(0)
    members = symmetry_transforms(SPECS[name], 30.0)
    for T in poses():
        target = canonical(T, 0.3)
        assert np.allclose(canonical(target, 0.3), target, atol=1e-9)
        S = members[rng.integers(len(members))]
        for axis, offset in SPECS[name].symmetries_continuous:
            S = S @ turn(axis, rng.uniform(0, 360), offset)
        assert np.allclose(canonical(T @ S, 0.3), target, atol=1e-7)


@pytest.mark.parametrize("name", SPECS)
def test_the_target_is_a_member_of_the_pose(name):
    """T^-1 target is a symmetry: up to the step of the axes, one of the listed members."""
    canonical = CanonicalPose(SPECS[name])
    members = symmetry_transforms(SPECS[name], 6.0 if name != "ball" else 360.0)
    for T in poses(5):
        S = np.linalg.inv(T) @ canonical(T)
        if name == "ball":  # any rotation that leaves the middle where it is
            assert np.allclose(S[:3, :3] @ MIDDLE + S[:3, 3], MIDDLE, atol=1e-9)
            continue
        # Half a step is 3 degrees.
        assert np.abs(members - S).max(axis=(1, 2)).min() < 0.054


def test_nearest_to_the_view_by_hand():
    """Object seen exactly from the canonical view, turned by 80 or 100 degrees about z: with a
    half turn 100 is nearer as -80."""
    canonical = CanonicalPose(SPECS["half turn"])
    for given, expected in ((80, 80), (100, -80), (-170, 10), (0, 0)):
        # The middle of the box on the optical axis, so that the ray is the axis.
        T = make_pose(CANONICAL_VIEW, (0, 0, 1) - CANONICAL_VIEW @ MIDDLE)
        found = canonical(T @ turn((0, 0, 1), given))
        assert np.allclose(found, T @ turn((0, 0, 1), expected), atol=1e-9)


def test_same_picture_elsewhere_in_the_frame_has_the_same_member():
    """The object moved about the camera's centre looks the same but for its place."""
    canonical = CanonicalPose(SPECS["quarters"])
    for T in poses():
        T = make_pose(T[:3, :3], (0, 0, 0.8) - T[:3, :3] @ MIDDLE)
        S = np.linalg.inv(T) @ canonical(T)
        for tilt in ((0.4, 0, 0), (0, -0.5, 0), (0.3, 0.3, 0)):
            moved = make_pose(rotation_from_vector(tilt), (0, 0, 0)) @ T
            assert np.allclose(np.linalg.inv(moved) @ canonical(moved), S, atol=1e-9)


def test_turned_crop_counts_as_a_turned_object():
    canonical = CanonicalPose(SPECS["half turn"])
    for T in poses():
        T = make_pose(T[:3, :3], (0, 0, 0.8) - T[:3, :3] @ MIDDLE)
        turned = make_pose(rotation_from_vector((0, 0, 0.7)), (0, 0, 0)) @ T
        in_crop = np.linalg.inv(T) @ canonical(T, 0.7)
        assert np.allclose(in_crop, np.linalg.inv(turned) @ canonical(turned), atol=1e-9)


def test_target_of_a_can_changes_smoothly_with_the_view():
    """From above, also straight down, a degree of the view moves the target about as much."""
    canonical = CanonicalPose(SPECS["can"])
    for elevation in range(10, 90, 5):
        for azimuth in (0, 90, 200):
            near = [canonical(_looking_down(elevation + d, azimuth)) for d in (0, 1)]
            angle = rotation_angle_deg(near[0][:3, :3], near[1][:3, :3])
            assert angle < 3.0


def _looking_down(elevation, azimuth):
    """A standing object seen from above by ``elevation`` degrees."""
    R = rotation_from_vector((math.radians(90 + elevation), 0, 0)) @ turn(
        (0, 0, 1), azimuth)[:3, :3]
    return make_pose(R, (0, 0, 0.7) - R @ MIDDLE)


def test_without_symmetry_nothing_changes():
    canonical = CanonicalPose(ObjectSpec("x", **BOX))
    for T in poses(3):
        assert np.array_equal(canonical(T, 1.0), T)


def test_roll_of_an_affine():
    c, s = math.cos(0.4), math.sin(0.4)
    assert crop_roll(np.array([[2 * c, -2 * s, 5], [2 * s, 2 * c, 7]])) == pytest.approx(0.4)
