"""kd_pose.lifting: people of plates in front of walls, with all that depth cameras do wrong."""

import numpy as np
import pytest

from kd_pose.camera import Camera
from kd_pose.lifting import LiftingOptions, check_depth, lift_people, near_surface
from kd_pose.results import PersonPose
from kd_pose.wholebody_keypoints import COUNT, PARTS

PERSON, WALL = 2.0, 2.6
K = np.array([[500.0, 0.0, 320.0], [0.0, 500.0, 240.0], [0.0, 0.0, 1.0]])
CAMERA = Camera(K, 640, 480)
SHOULDERS, HIPS = (5, 6), (11, 12)
TORSO = {5: (370, 130), 6: (270, 130), 11: (350, 290), 12: (290, 290)}
FACE, HAND = PARTS["face"].start, PARTS["left_hand"].start


def scene(noise=0.0):
    """A torso, a head, and an arm 12 px wide with a hand, 0.6 m before a wall: (480, 640) m."""
    depth = np.full((480, 640), WALL, np.float32)
    depth[110:310, 255:386] = PERSON
    depth[50:105, 300:341] = PERSON
    depth[140:152, 386:500] = PERSON
    depth[136:156, 500:520] = PERSON
    if noise:
        depth *= 1.0 + np.random.default_rng(0).normal(0, noise, depth.shape).astype(np.float32)
    return depth


def person(points):
    """Keypoints by number, all else unknown. The torso is always there."""
    xy, scores = np.full((COUNT, 2), np.nan), np.zeros(COUNT)
    for index, at in {**TORSO, **points}.items():
        xy[index], scores[index] = at, 0.9
    return PersonPose(np.array([250.0, 40.0, 280.0, 280.0]), 0.9, xy, scores)


def lift(points, depth=None, camera=CAMERA, **options):
    lifted, = lift_people([person(points)], scene() if depth is None else depth, camera,
                          LiftingOptions(**options))
    return lifted.keypoints_xyz


def test_by_hand():
    """(370 - 320) / 500 * 2 m = 0.2 m; (130 - 240) / 500 * 2 m = -0.44 m."""
    xyz = lift({})
    np.testing.assert_allclose(xyz[5], [0.2, -0.44, 2.0], atol=1e-6)
    np.testing.assert_allclose(xyz[6], [-0.2, -0.44, 2.0], atol=1e-6)
    assert np.isnan(np.delete(xyz, list(TORSO), axis=0)).all()


@pytest.mark.parametrize("at", [(499.5, 146), (450, 139.5), (450, 153.4), (386, 110), (519, 157),
                                (521.4, 146)])
def test_at_an_edge_nothing_of_the_wall(at):
    """On the edge and up to two pixels beside it; the pixel itself may be the wall."""
    depth = scene(noise=0.002)
    x, y = np.rint(at).astype(int)
    assert lift({9: at}, depth)[9, 2] == pytest.approx(PERSON, abs=0.02), depth[y, x]


def test_pixels_between_person_and_wall_do_not_pull():
    """Around every edge two rings of depths in between, as depth cameras give them."""
    depth = scene()
    edge = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            edge |= np.abs(np.roll(depth, shift, axis) - depth) > 0.1
    mixed = np.random.default_rng(1).uniform(PERSON, WALL, depth.shape)
    depth[edge] = mixed[edge]
    for at in ((450, 146), (510, 146), (386, 200), (400, 150)):
        assert lift({9: at}, depth)[9, 2] == pytest.approx(PERSON, abs=0.06)


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf, -1.0, 99.0])
def test_holes_are_looked_around_and_are_no_depth(hole):
    depth = scene()
    depth[135:160, 440:460] = hole
    depth[146, 451] = depth[147, 450] = depth[146, 449] = PERSON  # a little is left
    assert lift({9: (450, 146)}, depth)[9, 2] == pytest.approx(PERSON)
    depth[135:160, 440:460] = hole
    assert np.isnan(lift({9: (450, 146)}, depth)[9]).all()
    depth[146, 449:451] = PERSON  # two pixels are no surface
    assert np.isnan(lift({9: (450, 146)}, depth)[9]).all()


def test_an_image_of_holes_gives_no_points():
    assert np.isnan(lift({}, np.zeros((480, 640), np.float32))).all()


def test_unsure_and_outside_points_stay_unknown():
    points = {9: (450, 146), 10: (-3, 146), 15: (300, 480)}
    xyz = lift(points)
    assert np.isfinite(xyz[9]).all() and np.isnan(xyz[[10, 15]]).all()
    assert np.isnan(lift(points, min_keypoint_score=0.95)).all()
    np.testing.assert_allclose(lift({9: (0, 0)}, np.full((480, 640), 2.0))[9],
                               [-1.28, -0.96, 2.0])  # half of its window lies outside


def test_what_stands_far_in_front_is_not_the_person():
    """A table edge 1.3 m nearer covers half of a hip's window."""
    depth = scene()
    depth[289:, :] = 0.7
    np.testing.assert_allclose(lift({}, depth)[list(HIPS), 2], PERSON)
    depth[280:, :] = 0.7  # now all of it: the hip is hidden
    assert np.isnan(lift({}, depth)[list(HIPS), 2]).all()


def test_a_face_is_in_one_place():
    """A finger before the face, and points that slid off it onto the wall."""
    depth = scene()
    points = {FACE + i: (304 + 4 * (i % 9), 60 + 5 * (i // 9)) for i in range(68)}
    depth[60:75, 318:322] = PERSON - 0.5
    points[FACE + 3] = (320, 70)  # half of the window is the finger
    points[FACE + 4] = (420, 70)  # all of it is the wall
    z = lift(points, depth)[PARTS["face"], 2]
    assert z[3] == pytest.approx(PERSON)
    assert np.isnan(z[4])
    assert np.isfinite(np.delete(z, 4)).all()
    np.testing.assert_allclose(np.delete(z, 4), PERSON)


def test_fingers_thinner_than_the_error_are_unknown_not_on_the_wall():
    points = {HAND + i: (502 + i % 5 * 4, 138 + i // 5 * 4) for i in range(21)}
    points[HAND + 8] = (535, 120)
    z = lift(points)[PARTS["left_hand"], 2]
    assert np.isnan(z[8])
    np.testing.assert_allclose(np.delete(z, 8), PERSON)


def test_a_hand_stretched_towards_the_camera_is_the_hand():
    depth = scene()
    depth[136:156, 500:520] = 1.4
    points = {HAND + i: (502 + i % 5 * 4, 138 + i // 5 * 4) for i in range(21)}
    np.testing.assert_allclose(lift(points, depth)[PARTS["left_hand"], 2], 1.4)


def test_a_joint_is_no_further_from_the_one_before_than_a_limb_is_long():
    """A post 0.7 m before the elbow: nearer than arms reach from the body, but no upper arm is."""
    depth = scene()
    depth[120:300, 430:470] = PERSON - 0.7
    xyz = lift({7: (450, 146), 9: (510, 146)}, depth)
    assert np.isnan(xyz[7]).all()
    assert xyz[9, 2] == pytest.approx(PERSON)  # without the elbow it is the person that counts
    depth[120:300, 430:470] = PERSON - 0.4  # an arm that is stretched forward
    assert lift({7: (450, 146)}, depth)[7, 2] == pytest.approx(PERSON - 0.4)


def test_nose_and_ears_are_where_the_face_is():
    depth = scene()
    points = {FACE + i: (304 + 4 * (i % 9), 60 + 5 * (i // 9)) for i in range(68)}
    xyz = lift({**points, 0: (320, 80), 3: (420, 70)}, depth)
    assert xyz[0, 2] == pytest.approx(PERSON)
    assert np.isnan(xyz[3]).all()  # an ear that slid onto the wall
    assert lift({3: (420, 70)}, np.full_like(depth, 2.2))[3, 2] == pytest.approx(2.2)


def test_someone_walking_by_in_front_does_not_move_the_person():
    """Two hips are hidden by somebody 0.9 m nearer, the shoulders and wrists are not."""
    depth = scene()
    depth[270:, :] = 1.1
    xyz = lift({9: (450, 146), 10: (260, 200), 7: (380, 145)}, depth)
    np.testing.assert_allclose(xyz[[5, 6, 7, 9, 10], 2], PERSON)


@pytest.mark.parametrize("model, distortion", [
    ("plumb_bob", (-0.3, 0.1, 0.002, -0.001, 0.0)),
    ("equidistant", (0.03, -0.01, 0.002, 0.0)),
])
def test_distortion_is_undone(model, distortion):
    """Points at a wall through the lens and back."""
    camera = Camera(K, 640, 480, model, distortion)
    points = np.array([[-0.9, -0.6, 2.0], [0.9, 0.5, 2.0], [0.1, 0.2, 2.0], [0.3, -0.5, 2.0]])
    xy = camera.project(points)
    xyz = lift(dict(zip(TORSO, xy)), np.full((480, 640), 2.0, np.float32), camera)
    np.testing.assert_allclose(xyz[list(TORSO)], points, atol=1e-4)
    plain = lift(dict(zip(TORSO, xy)), np.full((480, 640), 2.0, np.float32))
    assert np.abs(plain[list(TORSO)] - points).max() > 0.02


def test_a_slanted_surface_is_read_at_its_middle():
    rows, columns = np.mgrid[:480, :640]
    depth = (2.0 + 0.002 * (columns - 320)).astype(np.float32)  # 2 mm a pixel, 26 degrees
    xyz = lift({}, depth)
    np.testing.assert_allclose(xyz[list(TORSO), 2], [2.1, 1.9, 2.06, 1.94], atol=0.004)


def test_depth_of_another_size_is_refused_by_name():
    with pytest.raises(ValueError, match="320x240, the colour image 640x480: publish depth that"):
        lift({}, np.zeros((240, 320), np.float32))
    with pytest.raises(ValueError, match=r"\(H, W\), got the shape \(480, 640, 1\)"):
        check_depth(np.zeros((480, 640, 1)), (640, 480))


def test_a_camera_without_calibration_is_refused():
    with pytest.raises(ValueError, match="not calibrated"):
        lift({}, camera=Camera(np.zeros((3, 3)), 640, 480))


@pytest.mark.parametrize("options, text", [
    ({"min_keypoint_score": 2.0}, "min_keypoint_score"),
    ({"min_depth_m": 0.0}, "min_depth_m"), ({"min_depth_m": 3.0, "max_depth_m": 2.0}, "below")])
def test_wrong_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        LiftingOptions(**options)


def test_near_surface_by_hand():
    nan = np.nan
    windows = np.array([
        [1.0, 1.01, 1.02, 2.0, 2.0, 2.0],   # three near ones are a surface
        [1.0, 1.01, 2.0, 2.0, 2.1, 2.02],   # two are not
        [nan, nan, nan, nan, 2.0, 2.0],     # nothing is
        [nan, 3.0, 3.02, 3.01, nan, nan],
        [1.0, 1.0, 1.0, 1.04, 1.08, 1.12],  # no jump, but read only up to 1.05
    ])
    np.testing.assert_allclose(near_surface(windows), [1.01, 2.0, nan, 3.01, 1.0])
    assert near_surface(np.zeros((0, 9))).shape == (0,)


def test_nobody():
    assert lift_people([], scene(), CAMERA) == []
