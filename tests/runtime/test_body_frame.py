"""kd_pose.body_frame: which way people face, worked out by hand in an optical frame."""

import numpy as np
import pytest

from kd_pose.body_frame import MIN_LENGTH_M, MIN_SINE, body_frame
from kd_pose.geometry import (
    make_pose,
    quaternion_from_matrix,
    rotation_angle_deg,
    rotation_from_vector,
    transform_points,
)
from kd_pose.wholebody_keypoints import COUNT, FLIP

LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 5, 6, 11, 12
TRUNK = (LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP)
# The optical frame of a camera that is held upright, as seen by who looks through it.
CAMERA_RIGHT, CAMERA_DOWN, CAMERA_AHEAD = np.eye(3)


def person(left_shoulder, right_shoulder, left_hip, right_hip):
    """Metres; all other keypoints are unknown."""
    xyz = np.full((COUNT, 3), np.nan)
    xyz[list(TRUNK)] = left_shoulder, right_shoulder, left_hip, right_hip
    return xyz


def facing():
    """Upright, 2 m away, face to the camera: their left is on the camera's right."""
    return person((0.2, -0.5, 2), (-0.2, -0.5, 2), (0.1, 0, 2), (-0.1, 0, 2))


def axes(T):
    """Forward, left and up of the body in the camera's frame."""
    return T[:3, :3].T


def random_trunks(count=50, seed=0):
    """Trunks of any attitude, and twisted, leaning and uneven ones."""
    rng = np.random.default_rng(seed)
    body = np.array([(0, 0.2, 0.5), (0, -0.2, 0.5), (0, 0.1, 0), (0, -0.1, 0)])
    for _ in range(count):
        T = make_pose(rotation_from_vector(2 * rng.normal(size=3)), rng.normal(size=3))
        yield person(*transform_points(T, body + rng.normal(scale=0.03, size=(4, 3))))


def test_facing_the_camera():
    T = body_frame(facing())
    np.testing.assert_allclose(T[:3, 3], (0, 0, 2), atol=1e-12)
    np.testing.assert_allclose(axes(T), [-CAMERA_AHEAD, CAMERA_RIGHT, -CAMERA_DOWN], atol=1e-12)
    # R = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]] has the trace 0, so w = 1/2, and
    # x = (R21 - R12) / 4w = 1/2, y = (R02 - R20) / 4w = 1/2, z = (R10 - R01) / 4w = -1/2.
    np.testing.assert_allclose(quaternion_from_matrix(T[:3, :3]), (0.5, 0.5, -0.5, 0.5))


def test_turned_away():
    """From behind their left is on the camera's left, and they look where the camera looks."""
    T = body_frame(person((-0.2, -0.5, 2), (0.2, -0.5, 2), (-0.1, 0, 2), (0.1, 0, 2)))
    np.testing.assert_allclose(axes(T), [CAMERA_AHEAD, -CAMERA_RIGHT, -CAMERA_DOWN], atol=1e-12)


def test_seen_from_their_left():
    """Their left side is the one that is near, so they look to the camera's left."""
    T = body_frame(person((0, -0.5, 1.8), (0, -0.5, 2.2), (0, 0, 1.9), (0, 0, 2.1)))
    np.testing.assert_allclose(axes(T), [-CAMERA_RIGHT, -CAMERA_AHEAD, -CAMERA_DOWN], atol=1e-12)


def test_lying_on_the_back_under_a_camera_that_looks_down():
    """`facing` with the head brought to the picture's right: their left, right before, is down."""
    T = body_frame(person((0.5, 0.2, 2), (0.5, -0.2, 2), (0, 0.1, 2), (0, -0.1, 2)))
    np.testing.assert_allclose(axes(T), [-CAMERA_AHEAD, CAMERA_DOWN, CAMERA_RIGHT], atol=1e-12)
    np.testing.assert_allclose(T[:3, 3], (0, 0, 2), atol=1e-12)


def test_the_trunk_gives_up_where_the_shoulders_hang():
    """One shoulder 0.1 m lower, the middle where it was: up and forward stay, left is square."""
    T = body_frame(person((0.2, -0.45, 2), (-0.2, -0.55, 2), (0.1, 0, 2), (-0.1, 0, 2)))
    np.testing.assert_allclose(axes(T), [-CAMERA_AHEAD, CAMERA_RIGHT, -CAMERA_DOWN], atol=1e-12)


def test_a_twist_is_halved():
    """Shoulders turned by 60 degrees over hips of the same width: the mean is turned by 30."""
    across = 0.15 * np.array((np.cos(np.pi / 3), 0, np.sin(np.pi / 3)))
    middle = np.array((0, -0.5, 2.0))
    T = body_frame(person(middle + across, middle - across, (0.15, 0, 2), (-0.15, 0, 2)))
    turn = rotation_from_vector(np.radians(-30) * CAMERA_DOWN)  # from right towards ahead
    np.testing.assert_allclose(axes(T)[1], turn @ CAMERA_RIGHT, atol=1e-12)


def test_axes_are_square_of_length_one_and_right_handed():
    for xyz in random_trunks():
        T = body_frame(xyz)
        R = T[:3, :3]
        np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1.0)
        np.testing.assert_allclose(T[3], (0, 0, 0, 1))
        np.testing.assert_allclose(T[:3, 3], (xyz[LEFT_HIP] + xyz[RIGHT_HIP]) / 2)
        inside = transform_points(np.linalg.inv(T), xyz[list(TRUNK)])
        np.testing.assert_allclose((inside[0] + inside[1])[:2], 0, atol=1e-12)  # z: the trunk
        assert (inside[0] + inside[2] - inside[1] - inside[3])[0] == pytest.approx(0)
        assert (inside[0] + inside[2])[1] > (inside[1] + inside[3])[1]
        assert inside[:2, 2].sum() > 0


def test_the_frame_moves_with_the_body():
    move = make_pose(rotation_from_vector((0.3, -1.2, 2.0)), (3, -1, 0.5))
    for xyz in random_trunks(10):
        np.testing.assert_allclose(body_frame(transform_points(move, xyz)),
                                   move @ body_frame(xyz), atol=1e-12)


def test_left_and_right_exchanged_turn_the_chest_round():
    half_turn = rotation_from_vector((0, 0, np.pi))
    for xyz in random_trunks(10):
        T, swapped = body_frame(xyz), body_frame(xyz[FLIP])
        np.testing.assert_allclose(axes(swapped), axes(T) * [[-1], [-1], [1]], atol=1e-12)
        np.testing.assert_allclose(swapped[:3, 3], T[:3, 3], atol=1e-12)
        assert rotation_angle_deg(swapped[:3, :3], T[:3, :3] @ half_turn) < 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("index", TRUNK)
@pytest.mark.parametrize("axis", range(3))
def test_every_coordinate_of_the_trunk_must_be_known(index, axis, value):
    xyz = facing()
    xyz[index, axis] = value
    assert body_frame(xyz) is None


def test_other_keypoints_do_not_count():
    xyz = np.random.default_rng(0).normal(size=(COUNT, 3))
    xyz[list(TRUNK)] = facing()[list(TRUNK)]
    np.testing.assert_array_equal(body_frame(xyz), body_frame(facing()))


@pytest.mark.parametrize("points", [
    ((1, 1, 2),) * 4,
    ((0.2, 0, 2), (-0.2, 0, 2), (0.1, 0, 2), (-0.1, 0, 2)),
    ((0, -0.5, 2), (0, -0.5, 2), (0, 0, 2), (0, 0, 2)),
    ((0.2, -0.5, 2), (-0.2, -0.5, 2), (-0.2, 0, 2), (0.2, 0, 2)),
    ((0, 0.2, 2), (0, -0.2, 2), (0, -0.4, 2), (0, -0.6, 2)),
], ids=["one point", "no trunk", "no width", "hips against shoulders", "left is up"])
def test_no_frame_of_points_that_do_not_say_it(points):
    assert body_frame(person(*points)) is None


def test_limits_of_length_and_angle():
    for lengths in ((0.5, MIN_LENGTH_M), (MIN_LENGTH_M, 0.3)):
        for factor, expected in ((0.99, False), (1.01, True)):
            up, wide = (factor * value if value == MIN_LENGTH_M else value for value in lengths)
            xyz = person((wide / 2, -up, 2), (-wide / 2, -up, 2), (wide / 2, 0, 2),
                         (-wide / 2, 0, 2))
            assert (body_frame(xyz) is not None) == expected
    for factor, expected in ((0.99, False), (1.01, True)):
        sine = factor * MIN_SINE
        across = 0.15 * np.array((sine, -np.sqrt(1 - sine ** 2), 0))
        hips, shoulders = np.array((0, 0, 2.0)), np.array((0, -0.5, 2.0))
        xyz = person(shoulders + across, shoulders - across, hips + across, hips - across)
        assert (body_frame(xyz) is not None) == expected


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must be \(133, 3\), got \(17, 3\)"):
        body_frame(np.zeros((17, 3)))
