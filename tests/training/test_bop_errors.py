"""BOP's pose errors: values worked out by hand, invariants, and the benchmark's own program."""

from __future__ import annotations

import types

import numpy as np
import pytest

from kd_pose.geometry import box_corners, make_pose, rotation_from_vector
from kd_pose.manifest import ObjectSpec
from kd_pose_training.evaluation import bop_errors as module
from kd_pose_training.evaluation.bop_errors import DepthPatch, PoseErrors, symmetry_members, vsd

K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
HALF = make_pose(rotation_from_vector((0, 0, np.pi)), np.zeros(3))
BOX = box_corners((-0.03, -0.02, -0.01), (0.03, 0.02, 0.01))
TAUS = np.arange(0.05, 0.51, 0.05)


def spec_of(discrete=(), continuous=()):
    return ObjectSpec("thing", 0.1, (-0.05,) * 3, (0.05,) * 3, discrete, continuous)


def poses(count, seed=0, off=0.3):
    """True poses and estimates near them, (count, 4, 4) each."""
    rng = np.random.default_rng(seed)
    true = np.stack([make_pose(rotation_from_vector(rng.normal(size=3)),
                               rng.normal(size=3) * 0.1 + (0, 0, 0.8)) for _ in range(count)])
    moves = [make_pose(rotation_from_vector(off * rng.normal(size=3)), 0.01 * rng.normal(size=3))
             for _ in range(count)]
    return true @ np.stack(moves), true


def ball(count, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points * 0.05 / np.linalg.norm(points, axis=1, keepdims=True) * (1, 0.7, 0.5)


def test_a_shift_is_the_same_for_all_distances():
    true = make_pose(np.eye(3), (0, 0, 0.5))[None]
    moved = make_pose(np.eye(3), (0.01, 0, 0.5))[None]
    errors = PoseErrors(np.array([[0.0, 0, 0], [0.02, 0.01, 0], [0.0, 0.02, 0]]))  # a plane
    assert errors.add(moved, true) == pytest.approx(0.01)
    assert errors.mssd(moved, true) == pytest.approx(0.01)
    assert errors.mspd(moved, true, K) == pytest.approx(10.0)  # 500 px * 10 mm / 500 mm
    line = PoseErrors(np.array([[0.0, 0, 0], [0.01, 0, 0], [0.05, 0, 0]]))
    # truths 0, 10, 50 mm to estimates 10, 20, 60: 10, 0, 10
    assert line.add_s(moved, true) == pytest.approx(0.02 / 3)


def test_a_half_turn_of_a_box_is_an_error_unless_it_is_a_symmetry():
    T = make_pose(rotation_from_vector((0.4, -0.3, 0.2)), (0.05, 0.0, 0.6))[None]
    turned = T @ HALF
    plain, symmetric = PoseErrors(BOX), PoseErrors(BOX, np.stack([np.eye(4), HALF]))
    diagonal = 2 * np.hypot(0.03, 0.02)  # every corner goes to the opposite one
    assert plain.add(turned, T) == pytest.approx(diagonal)
    assert plain.mssd(turned, T) == pytest.approx(diagonal)
    assert plain.add_s(turned, T) == pytest.approx(0.0, abs=1e-12)
    assert symmetric.mssd(turned, T) == pytest.approx(0.0, abs=1e-12)
    assert plain.mspd(turned, T, K) > 40
    assert symmetric.mspd(turned, T, K) == pytest.approx(0.0, abs=1e-9)


def test_members_of_a_continuous_symmetry():
    members = symmetry_members(spec_of(continuous=(((0, 0, 2.0), (0.01, 0, 0)),)))
    assert len(members) == 315  # ceil(pi / 0.01)
    assert np.array_equal(members[0], np.eye(4))
    assert np.allclose(members @ (0.01, 0, 0.3, 1), (0.01, 0, 0.3, 1))  # the axis stands still
    flip = tuple(make_pose(rotation_from_vector((np.pi, 0, 0)), (0, 0, 0.004)).ravel())
    both = symmetry_members(spec_of((flip,), (((0, 0, 1), (0, 0, 0)),)), max_step=0.1)
    assert len(both) == 2 * 32
    assert np.allclose(both[32], np.reshape(flip, (4, 4)))
    assert len(symmetry_members(spec_of((flip,)))) == 2
    assert len(symmetry_members(spec_of())) == 1


def test_two_axes_give_the_turns_about_each_and_not_their_products():
    axes = (((0, 0, 1), (0, 0, 0)), ((1, 0, 0), (0, 0, 0)))
    assert len(symmetry_members(spec_of(continuous=axes), max_step=0.5)) == 7 + 7


@pytest.mark.parametrize("continuous", [False, True])
def test_many_at_once_are_as_one_by_one(continuous, monkeypatch):
    axis = (((0, 0, 1), (0, 0, 0)),) if continuous else ()
    errors = PoseErrors(ball(700), symmetry_members(spec_of(continuous=axis), 0.05))
    est, true = poses(9)
    cameras = np.stack([K * (1 + 0.01 * i, 1, 1) for i in range(9)])
    monkeypatch.setattr(module, "CHUNK", 5000)
    for name in ("add", "add_s", "mssd", "mspd"):
        extra = [cameras] if name == "mspd" else []
        many = getattr(errors, name)(est, true, *extra)
        single = [getattr(errors, name)(est[i:i + 1], true[i:i + 1], *(c[i] for c in extra))[0]
                  for i in range(9)]
        assert many.shape == (9,) and np.allclose(many, single, atol=1e-12)
        none = getattr(errors, name)(est[:0], true[:0], *(c[:0] for c in extra))
        assert none.shape == (0,)


def test_errors_by_brute_force():
    """Hull, quadratic forms and bounds against the definitions."""
    points, est, true = ball(400), *poses(5, seed=1)
    members = symmetry_members(spec_of(continuous=(((0, 1, 0), (0, 0, 0.01)),)), 0.02)
    errors = PoseErrors(points, members)
    rows = np.c_[points, np.ones(len(points))].T
    a, b = est[:, None, :3] @ rows, (true[:, None] @ members)[:, :, :3] @ rows
    assert np.allclose(errors.mssd(est, true),
                       np.linalg.norm(a - b, axis=2).max(axis=2).min(axis=1), atol=1e-12)
    a, b = K @ a, K @ b
    gap = np.linalg.norm(a[:, :, :2] / a[:, :, 2:] - b[:, :, :2] / b[:, :, 2:], axis=2)
    assert np.allclose(errors.mspd(est, true, K), gap.max(axis=2).min(axis=1), atol=1e-9)


@pytest.mark.parametrize("decimals, tolerance", [(15, 1e-12), (3, 2e-8)])
def test_add_s_is_measured_in_the_camera_s_frame(decimals, tolerance):
    """Rotations of files are rounded, so that turning back stretches: by up to 5e-6 m here. What
    is left of it is the choice between neighbours that are nearly as near."""
    points, (est, true) = ball(200), poses(3, seed=2)
    est[:, :3, :3] = np.round(est[:, :3, :3], decimals)
    a, b = (T[:, None, :3, :3] @ points[None, :, :, None] + T[:, None, :3, 3:]
            for T in (est, true))
    wanted = [np.mean([np.linalg.norm(a[i] - point, axis=1).min() for point in b[i]])
              for i in range(3)]
    assert np.allclose(PoseErrors(points).add_s(est, true), wanted, rtol=0, atol=tolerance)


def test_errors_do_not_change_with_the_camera_s_place():
    errors, (est, true) = PoseErrors(ball(300)), poses(4)
    T = make_pose(rotation_from_vector((1.0, 2.0, 0.5)), (0.3, 0.1, -0.2))
    for name in ("add", "add_s", "mssd"):
        found = getattr(errors, name)
        assert np.allclose(found(T @ est, T @ true), found(est, true), atol=1e-12)


def test_a_point_in_the_camera_s_plane_has_no_projection():
    flat = PoseErrors(np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]]))
    inside = make_pose(np.eye(3), (0, 0, 0.0))[None]
    assert flat.mspd(inside, make_pose(np.eye(3), (0, 0, 0.5))[None], K)[0] == np.inf


def scene(size=8, depth=1.0):
    return np.full((size, size), depth)


def test_vsd_by_hand():
    """A far camera, so that distance and depth are nearly the same; 4 x 4 pixel squares."""
    far = np.array([[1e6, 0, 3.5], [0, 1e6, 3.5], [0, 0, 1]])
    true = DepthPatch(np.full((4, 4), 1.0), 2, 2)

    def errors(patch, taus=(0.1, 0.2, 0.5), delta=0.015):
        return vsd(scene(), far, [patch], [true], delta=delta, taus=taus, diameters=[0.1])[0]

    assert np.array_equal(errors(true), [0, 0, 0])
    # One column aside: 12 pixels in common, 20 in all.
    assert np.allclose(errors(DepthPatch(true.depth, 3, 2)), 8 / 20)
    # 15 mm nearer, which is 0.15 diameters: wrong for a tolerance of 0.1 only.
    nearer = DepthPatch(np.full((4, 4), 0.985), 2, 2)
    assert np.allclose(errors(nearer), [1, 0, 0])
    # 30 mm behind the measured surface: not seen, but where the true one is seen it counts.
    behind = DepthPatch(np.full((4, 5), 1.03), 2, 2)
    assert np.allclose(errors(behind), [1, 1, 0])
    # Exactly tau is wrong, as in the benchmark's program.
    assert np.allclose(errors(DepthPatch(np.full((4, 4), 1.0 - 2**-5), 2, 2),
                              taus=(0.3125, 0.32)), [1, 0])
    # Nothing of either is seen.
    hidden = vsd(scene(depth=0.5), far, [behind], [true], delta=0.015, taus=(0.1,),
                 diameters=[0.1])
    assert hidden[0, 0] == 1.0
    # Without measured depth all is seen: 16 pixels match, 4 more are the estimate's alone.
    unknown = vsd(scene(depth=0.0), far, [behind], [true], delta=0.015, taus=(0.5,),
                  diameters=[0.1])
    assert np.allclose(unknown, 4 / 20)


def test_vsd_of_patches_apart_and_empty():
    a, b = DepthPatch(np.ones((2, 2)), 0, 0), DepthPatch(np.ones((2, 2)), 5, 5)
    empty = DepthPatch.around(np.zeros((8, 8)))
    assert empty.depth.size == 0
    found = vsd(scene(), K, [a, empty, empty], [b, b, empty], delta=0.015, taus=TAUS,
                diameters=[0.1] * 3)
    assert np.array_equal(found, np.ones((3, 10)))
    picture = np.zeros((8, 8))
    picture[5:7, 5:7] = 1
    cut = DepthPatch.around(picture)
    assert (cut.left, cut.top, cut.depth.shape) == (5, 5, (2, 2))


@pytest.fixture(scope="module")
def toolkit():
    reason = "bop_toolkit_lib (github.com/thodan/bop_toolkit) is not importable"
    pytest.importorskip("bop_toolkit_lib", reason=reason)
    return types.SimpleNamespace(
        error=pytest.importorskip("bop_toolkit_lib.pose_error", reason=reason),
        misc=pytest.importorskip("bop_toolkit_lib.misc", reason=reason))


DISCRETE = ((-1.0, 0, 0, 0.001, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1),)
CONTINUOUS = (((0.0, 0.3, 2.0), (0.01, 0.0, 0.0)),)


@pytest.mark.parametrize("discrete, continuous", [((), ()), (DISCRETE, ()), ((), CONTINUOUS),
                                                  (DISCRETE, CONTINUOUS)])
def test_the_benchmark_s_own_program_agrees(toolkit, discrete, continuous):
    """Millimetres there, metres here; 1e-6 of a millimetre and of a pixel."""
    spec, points, (est, true) = spec_of(discrete, continuous), ball(600, 3), poses(8, 4, 1.0)
    matrices = [np.reshape(T, (4, 4)) * np.array([[1, 1, 1, 1000]]) for T in discrete]
    info = {"symmetries_discrete": [T.ravel().tolist() for T in matrices],
            "symmetries_continuous": [{"axis": axis, "offset": 1000 * np.array(offset)}
                                      for axis, offset in continuous]}
    members = toolkit.misc.get_symmetry_transformations(info, 0.01)
    ours = symmetry_members(spec)
    assert len(ours) == len(members)
    for mine, other in zip(ours, members):
        assert np.allclose(mine[:3, :3], other["R"], atol=1e-9)
        assert np.allclose(1000 * mine[:3, 3:], other["t"], atol=1e-9)
    errors = PoseErrors(points, ours)
    pairs = [(e[:3, :3], 1000 * e[:3, 3:], g[:3, :3], 1000 * g[:3, 3:]) for e, g in zip(est, true)]
    millimetres = 1000 * points
    for name, found in (("add", errors.add), ("adi", errors.add_s)):
        wanted = [getattr(toolkit.error, name)(*pair, millimetres) for pair in pairs]
        assert np.allclose(1000 * found(est, true), wanted, rtol=0, atol=1e-6)
    wanted = [toolkit.error.mssd(*pair, millimetres, members) for pair in pairs]
    assert np.allclose(1000 * errors.mssd(est, true), wanted, rtol=0, atol=1e-6)
    wanted = [toolkit.error.mspd(*pair, K, millimetres, members) for pair in pairs]
    assert np.allclose(errors.mspd(est, true, K), wanted, rtol=0, atol=1e-6)


def bumps(rng, shape, centre, radius, depth):
    """Depth picture of a ball, 0 around it, millimetres."""
    y, x = np.mgrid[:shape[0], :shape[1]]
    r2 = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2
    surface = depth - 40 * np.sqrt(np.maximum(0, 1 - r2)) + rng.normal(0, 2, shape)
    return np.where(r2 < 1, surface, 0).astype(np.float32)


def test_vsd_agrees_with_the_benchmark_s_own_program(toolkit):
    rng, shape, values = np.random.default_rng(5), (120, 160), set()
    camera = np.array([[150.0, 0, 79.2], [0, 152, 58.7], [0, 0, 1]])
    for _ in range(10):
        centre = rng.uniform((50, 40), (110, 80))
        true, est = (bumps(rng, shape, centre + rng.normal(0, 4, 2), 30, 700 + rng.normal(0, 15))
                     for _ in range(2))
        measured = np.where(true > 0, true, 900) + rng.normal(0, 12, shape)
        measured[rng.random(shape) < 0.1] = 0
        measured[:, :int(centre[0]) - 10] -= 150  # something in front
        measured = np.clip(measured, 0, None).astype(np.float32)
        pictures = iter((est, true))  # in the order in which the program renders
        renderer = types.SimpleNamespace(
            render_object=lambda *args, pictures=pictures: {"depth": next(pictures)})
        wanted = toolkit.error.vsd(np.eye(3), np.zeros((3, 1)), np.eye(3), np.zeros((3, 1)),
                                   measured, camera, 15, list(TAUS), True, 90.0, renderer, 1)
        found = vsd(measured, camera, [DepthPatch.around(est)], [DepthPatch.around(true)],
                    delta=15, taus=TAUS, diameters=[90.0])
        assert np.allclose(found[0], wanted, rtol=0, atol=1e-6)
        values |= set(np.round(found[0], 6).tolist())
    assert len(values) > 40 and min(values) < 0.3  # neither all right nor all wrong
