"""kd_pose.symmetry."""

from types import SimpleNamespace

import numpy as np
import pytest

from kd_pose.geometry import make_pose, rotation_angle_deg, rotation_from_vector, transform_points
from kd_pose.symmetry import nearest_member, symmetry_transforms

HALF_TURN_Z = tuple(np.diag([-1.0, -1.0, 1.0, 1.0]).reshape(-1))
HALF_TURN_X = tuple(np.diag([1.0, -1.0, -1.0, 1.0]).reshape(-1))
AXIS_Z = ((0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


def spec(discrete=(), continuous=()):
    return SimpleNamespace(symmetries_discrete=discrete, symmetries_continuous=continuous)


def test_no_symmetry_is_the_identity_alone():
    assert np.array_equal(symmetry_transforms(spec()), np.eye(4)[None])


def test_identity_first_and_counts():
    assert len(symmetry_transforms(spec((HALF_TURN_Z,)))) == 2
    assert len(symmetry_transforms(spec((), (AXIS_Z,)), step_deg=15)) == 24
    # The half turn about z is already one of the 24; the one about x doubles them.
    assert len(symmetry_transforms(spec((HALF_TURN_Z,), (AXIS_Z,)), step_deg=15)) == 24
    members = symmetry_transforms(spec((HALF_TURN_X,), (AXIS_Z,)), step_deg=15)
    assert len(members) == 48
    assert np.array_equal(members[0], np.eye(4))


def test_continuous_axis_keeps_the_points_on_it():
    offset = np.array([0.1, 0.2, 0.0])
    members = symmetry_transforms(spec((), (((0.0, 0.0, 2.0), tuple(offset)),)), step_deg=90)
    on_axis = offset + [[0, 0, 0.3]]
    for T in members:
        assert np.allclose(transform_points(T, on_axis), on_axis)
    assert np.allclose(members[1][:3, :3] @ [1, 0, 0], [0, 1, 0])


def test_nearest_member_undoes_any_symmetry():
    members = symmetry_transforms(spec((HALF_TURN_X,), (AXIS_Z,)), step_deg=30)
    T_ref = make_pose(rotation_from_vector((0.3, 1.0, -0.4)), (0, 0, 1))
    for S in members:
        nearest = nearest_member(T_ref @ S, T_ref, members)
        assert np.allclose(nearest, T_ref, atol=1e-9)


def test_nearest_member_is_within_half_a_step():
    members = symmetry_transforms(spec((), (AXIS_Z,)), step_deg=10)
    T_ref = make_pose(np.eye(3), (0, 0, 1))
    for degrees in np.linspace(0, 360, 37):
        T = make_pose(rotation_from_vector((0, 0, np.radians(degrees))), (0, 0, 1))
        assert rotation_angle_deg(nearest_member(T, T_ref, members)[:3, :3], np.eye(3)) <= 5.0001


def test_bad_input():
    with pytest.raises(ValueError, match="axis"):
        symmetry_transforms(spec((), (((0, 0, 0), (0, 0, 0)),)))
    with pytest.raises(ValueError, match="16"):
        symmetry_transforms(spec(((1.0,) * 12,)))
    with pytest.raises(ValueError, match="step_deg"):
        symmetry_transforms(spec(), step_deg=0)
