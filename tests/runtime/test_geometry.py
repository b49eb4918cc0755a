"""kd_pose.geometry and kd_pose.keypoints."""

import numpy as np
import pytest

from kd_pose.geometry import (
    box_corners,
    invert_pose,
    make_pose,
    matrix_from_quaternion,
    quaternion_from_matrix,
    rotation_angle_deg,
    rotation_from_vector,
    transform_points,
)
from kd_pose.keypoints import BOX_CORNERS_8, BOX_EDGES, KeypointSet


def random_rotations(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rotation_from_vector(rng.normal(size=3) * 2) for _ in range(count)]


def test_quarter_turn_about_z_moves_x_to_y():
    T = make_pose(rotation_from_vector((0, 0, np.pi / 2)), (1, 2, 3))
    assert np.allclose(transform_points(T, np.array([[1.0, 0, 0]])), [[1, 3, 3]])
    assert np.allclose(quaternion_from_matrix(T[:3, :3]), [0, 0, np.sqrt(0.5), np.sqrt(0.5)])


def test_inverse_undoes_a_pose():
    for R in random_rotations(5):
        T = make_pose(R, (0.1, -2, 3))
        assert np.allclose(invert_pose(T) @ T, np.eye(4), atol=1e-12)


def test_quaternion_round_trip_also_near_half_turns():
    half_turns = [rotation_from_vector(np.pi * np.eye(3)[axis]) for axis in range(3)]
    for R in random_rotations(200) + half_turns + [np.eye(3)]:
        q = quaternion_from_matrix(R)
        assert np.isclose(np.linalg.norm(q), 1) and q[3] >= 0
        assert np.allclose(matrix_from_quaternion(q), R, atol=1e-12)
        assert np.allclose(matrix_from_quaternion(-3 * q), R, atol=1e-12)


def test_zero_quaternion_is_refused():
    with pytest.raises(ValueError, match="zero"):
        matrix_from_quaternion((0, 0, 0, 0))


@pytest.mark.parametrize("degrees", [0.0, 1e-5, 1.0, 90.0, 179.999, 180.0])
def test_rotation_angle(degrees):
    R = random_rotations(1)[0]
    turned = R @ rotation_from_vector(np.radians(degrees) * np.array([0.6, 0.0, 0.8]))
    assert rotation_angle_deg(R, turned) == pytest.approx(degrees, abs=1e-8)


def test_box_corners_follow_the_bits_of_their_index():
    corners = box_corners((0, 10, 20), (1, 11, 21))
    assert corners.shape == (8, 3)
    assert corners[0].tolist() == [0, 10, 20]
    assert corners[1].tolist() == [1, 10, 20]
    assert corners[2].tolist() == [0, 11, 20]
    assert corners[4].tolist() == [0, 10, 21]
    assert corners[7].tolist() == [1, 11, 21]


def test_edges_join_corners_that_differ_along_one_axis():
    corners = box_corners((0, 0, 0), (1, 2, 4))
    lengths = np.abs(corners[BOX_EDGES[:, 0]] - corners[BOX_EDGES[:, 1]])
    assert BOX_EDGES.shape == (12, 2)
    assert len({tuple(sorted(edge)) for edge in BOX_EDGES.tolist()}) == 12
    assert ((lengths > 0).sum(axis=1) == 1).all()
    assert sorted(lengths.sum(axis=1)) == [1] * 4 + [2] * 4 + [4] * 4


def test_keypoint_set_checks_its_edges():
    assert len(BOX_CORNERS_8) == 8
    with pytest.raises(ValueError, match="edge"):
        KeypointSet(("a", "b"), ((0, 2),))
    with pytest.raises(ValueError, match="unique"):
        KeypointSet(("a", "a"))
