"""Surfaces of rendered people: distance functions, meshes, what carries them."""

import numpy as np
import pytest

from kd_pose_training.synthetic.people.body import body_piece, hand_piece
from kd_pose_training.synthetic.people.face_paint import Paint, paint_face
from kd_pose_training.synthetic.people.head import (
    FACE_HALF_WIDTH,
    FACE_HIGH,
    FACE_LOW,
    Features,
    HeadForm,
    landmark_plan,
)
from kd_pose_training.synthetic.people.sdf import (
    Cone,
    Ellipsoid,
    first_hit,
    mesh_of,
    onto_surface,
    smooth_max,
    smooth_min,
    union,
)
from kd_pose_training.synthetic.people.skeleton import AVERAGE, place
from kd_pose_training.synthetic.people.skin import BIND, BOUND, join, move, owners

BALL = Ellipsoid(np.zeros(3), (0.1, 0.1, 0.1), "head")


def test_distances_of_simple_shapes():
    points = np.float32([[0.3, 0, 0], [0, 0, 0.05], [0, 0.1, 0]])
    np.testing.assert_allclose(BALL(points), [0.2, -0.05, 0.0], atol=1e-6)
    cone = Cone(np.zeros(3), np.array([0, 0, 1.0]), 0.1, 0.3, "head")
    np.testing.assert_allclose(
        cone(np.float32([[0, 0, -0.5], [0.5, 0, 0.5], [0, 0, 1.5]])), [0.4, 0.3, 0.2], atol=1e-6)


def test_smooth_union_fills_the_crease():
    # Equal distances: a quarter of the width is added; further apart than the width: plain min.
    one = np.float32([0.0, 0.0])
    other = np.float32([0.0, 0.2])
    np.testing.assert_allclose(smooth_min(one, other, 0.1), [-0.025, 0.0], atol=1e-7)
    np.testing.assert_allclose(smooth_max(one, other, 0.1), [0.025, 0.2], atol=1e-7)
    np.testing.assert_allclose(union([BALL, BALL], 0.0)(np.float32([[0.2, 0, 0]])), [0.1])


def test_mesh_is_closed_faces_outwards_and_lies_on_the_surface():
    shape = Ellipsoid(np.array([0.1, 0, 0]), (0.1, 0.2, 0.3), "head")
    vertices, faces, normals = mesh_of(shape, [0, -0.2, -0.3], [0.2, 0.2, 0.3], 0.02)
    corners = vertices[faces].astype(float)
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.1 * 0.2 * 0.3, rel=0.02)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert np.abs(shape(vertices)).max() < 1e-4
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((cross * normals[faces[:, 0]]).sum(axis=1) > 0).all()


def test_surfaces_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no surface"):
        mesh_of(BALL, [1, 1, 1], [1.2, 1.2, 1.2], 0.02)
    with pytest.raises(ValueError, match="leaves the box along axis 0"):
        mesh_of(BALL, [0, -0.1, -0.1], [0.1, 0.1, 0.1], 0.01)


def test_points_and_rays_find_the_surface():
    found = onto_surface(BALL, np.float32([[0.2, 0, 0], [0.03, 0.04, 0]]))
    np.testing.assert_allclose(found, [[0.1, 0, 0], [0.06, 0.08, 0]], atol=1e-4)
    hit = first_hit(BALL, np.float32([[0.2, 0, 0.06], [0.2, 0, 0.3]]), np.array([-1.0, 0, 0]))
    np.testing.assert_allclose(hit[0], [0.08, 0, 0.06], atol=1e-4)
    assert np.isnan(hit[1]).all()


def test_bind_pose_leaves_the_surface_where_it_is():
    piece = join([body_piece(False, 1), hand_piece("l", 1)])
    np.testing.assert_allclose(piece.shares.sum(axis=1), 1, atol=1e-5)
    vertices, normals = move(piece, place(BIND), AVERAGE)
    np.testing.assert_allclose(vertices, piece.vertices, atol=1e-5)
    np.testing.assert_allclose(normals, piece.normals, atol=1e-4)


def test_right_hand_is_the_left_one_mirrored():
    left, right = hand_piece("l", 1), hand_piece("r", 1)
    np.testing.assert_allclose(right.vertices * (1, -1, 1), left.vertices, atol=1e-7)
    names = np.array([*place({}).joints]).shape[0]
    assert set(owners(left)).isdisjoint(owners(right)) and owners(right).max() < names
    middle = BOUND.at("r_hand")
    assert np.linalg.norm(right.vertices - middle, axis=1).min() < 0.03


def test_fingers_are_carried_by_their_own_bones():
    piece = hand_piece("l", 1)
    fist = {f"l_{finger}_{part}": 80.0 for finger in ("index",) for part in ("base", "middle")}
    still, _ = move(piece, place({}), AVERAGE)
    moved, _ = move(piece, place(fist), AVERAGE)
    far = np.linalg.norm(moved - still, axis=1)
    tips = {finger: np.linalg.norm(still - place({}).at(f"l_{finger}_end"), axis=1) < 0.012
            for finger in ("index", "middle", "pinky")}
    assert far[tips["index"]].min() > 0.03
    assert far[tips["middle"]].max() < 1e-6 and far[tips["pinky"]].max() < 1e-6


def test_head_forms_keep_both_sides_alike():
    form = HeadForm(1.1, 0.9, 1.05, 1.2, 0.005, 0.004)
    points = np.array([[0.08, 0.03, 0.05], [0.06, 0.02, -0.05], [0.10, 0.0, 0.02]])
    mirrored = points * (1, -1, 1)
    np.testing.assert_allclose(form.apply(mirrored, 0.01), form.apply(points, 0.01) * (1, -1, 1))
    opened = form.apply(points, 0.01) - form.apply(points, 0.0)
    assert opened[1, 2] < -0.009 and np.abs(opened[[0, 2]]).max() < 1e-9  # only the chin goes down


def test_eyes_and_mouth_are_painted_where_the_landmarks_are():
    paint = Paint(np.array([225.0, 175, 145]), np.array([40.0, 30, 20]),
                  np.array([60.0, 90, 120]), np.array([190.0, 60, 70]))
    image = paint_face(paint, Features(), np.random.default_rng(0)).astype(int)

    def colour(y, z):
        column = (y + FACE_HALF_WIDTH) / (2 * FACE_HALF_WIDTH) * image.shape[1]
        row = (FACE_HIGH - z) / (FACE_HIGH - FACE_LOW) * image.shape[0]
        return image[int(row), int(column)]

    plan = landmark_plan()
    for eye in (plan[19:25], plan[25:31]):
        assert colour(*eye.mean(axis=0)).sum() < 250  # the pupil
        white = 0.75 * eye[[0, 3]] + 0.25 * eye.mean(axis=0)
        assert max(colour(*point).min() for point in white) > 130
    lip = plan[[40, 31 + 9]].mean(axis=0)
    assert colour(lip[0], lip[1] - 0.0) @ [1, -1, 0] > colour(0, 0.1) @ [1, -1, 0]
    np.testing.assert_allclose(plan[:5] * (-1, 1), plan[5:10][::-1])  # brows mirror each other
