"""Code targets: samples of a surface, points that rays meet, codes per pixel."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("embreex", reason="embreex has wheels for x86-64 only")

from kd_pose.codes import codes_to_bits, decode, encode, grid_pixels
from kd_pose.geometry import make_pose, rotation_from_vector, transform_points
from kd_pose.manifest import ObjectSpec
from kd_pose.pnp import solve_pnp
from kd_pose.symmetry import symmetry_transforms
from kd_pose_training.data.code_targets import NO_CODE, SurfaceCodes, sample_surface

K = np.array([[220.0, 0, 47.5], [0, 220.0, 47.5], [0, 0, 1]])
HALF = np.array([0.05, 0.04, 0.03])


def block():
    """Vertices (8, 3) and triangles (12, 3) of a box, wound outwards."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * HALF
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])


def prism(sides=24):
    """A can about z that a turn by 360 / sides maps onto itself."""
    angle = 2 * np.pi * np.arange(sides) / sides
    rim = np.stack([0.03 * np.cos(angle), 0.03 * np.sin(angle)], 1)
    vertices = np.concatenate([np.column_stack([rim, np.full(sides, z)]) for z in (-0.05, 0.05)]
                              + [[[0, 0, -0.05], [0, 0, 0.05]]])
    i, j = np.arange(sides), (np.arange(sides) + 1) % sides
    low, high = np.full(sides, 2 * sides), np.full(sides, 2 * sides + 1)
    return vertices, np.concatenate([np.stack(t, 1) for t in (
        (i, j, sides + j), (i, sides + j, sides + i), (low, j, i), (high, sides + i, sides + j))])


def spec(**symmetries):
    return ObjectSpec("block", 0.15, tuple(-HALF), tuple(HALF), **symmetries)


@pytest.fixture(scope="module")
def codes():
    return SurfaceCodes.build(spec(), *block(), bits=10, samples=2**13)


POSE = make_pose(rotation_from_vector((0.5, -0.8, 0.3)), (0.01, -0.005, 0.4))


def test_samples_lie_on_the_surface_in_even_shares():
    vertices, faces = block()
    points = sample_surface(vertices, faces, 20000)
    on = np.isclose(np.abs(points), HALF, atol=1e-12)
    assert on.any(axis=1).all() and (np.abs(points) <= HALF + 1e-12).all()
    areas = np.array([HALF[1] * HALF[2], HALF[0] * HALF[2], HALF[0] * HALF[1]])
    shares = on.sum(axis=0) / len(points)
    assert np.allclose(shares, areas / areas.sum(), atol=2e-4)
    assert np.array_equal(points, sample_surface(vertices, faces, 20000))


@pytest.mark.parametrize("faces, samples, part", [
    (np.zeros((0, 3), int), 5000, "no surface"), (np.array([[0, 0, 1]]), 5000, "no surface"),
    (block()[1], 1000, "too coarse for 10 bits"),
])
def test_a_mesh_without_codes_is_named(faces, samples, part):
    with pytest.raises(ValueError, match=f"'block'.*{part}"):
        SurfaceCodes.build(spec(), block()[0], faces, 10, samples)


def test_rays_meet_the_surface_where_it_projects(codes):
    """Points of the front, known by a depth test on the convex block, come back from pixels."""
    points = sample_surface(*block(), 400)
    camera = transform_points(POSE, points)
    pixels = camera @ K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    found, met = codes.surface_points(POSE, K, pixels)
    assert met.mean() > 0.97  # all but the very outline
    eye = -POSE[:3, :3].T @ POSE[:3, 3]
    axis = np.abs(points / HALF).argmax(axis=1)
    normals = np.sign(points[np.arange(400), axis])
    front = (normals * (eye[axis] - points[np.arange(400), axis]) > 1e-3)[met]
    assert front.sum() > 100
    assert np.abs(found - points[met])[front].max() < 1e-6
    assert np.isclose(np.abs(found / HALF).max(axis=1), 1.0, atol=1e-5).all()


def test_codes_of_pixels(codes):
    """A code is that of the point seen at the pixel's centre; outside there is none."""
    mask = np.zeros((48, 48), bool)
    mask[10:40, 5:30] = True
    found = codes.render(POSE, K, mask, 2)
    assert found.dtype == np.int32 and (found[~mask] == NO_CODE).all()
    cells = np.flatnonzero(found.ravel() >= 0)
    assert len(cells) > 100 and (found[mask] == NO_CODE).any()
    points, met = codes.surface_points(POSE, K, grid_pixels(cells, 48, 2))
    assert met.all() and np.array_equal(encode(codes.tree, points), found.ravel()[cells])


def test_decoded_targets_give_the_pose(codes):
    """The whole way: rendered codes as a perfect network's answer -> pairs -> PnP."""
    found = codes.render(POSE, K, np.ones((48, 48), bool), 2)
    bits = codes_to_bits(np.maximum(found, 0), 10).astype(np.float32)
    pairs = decode(codes.tree, (found >= 0).astype(np.float32), bits.transpose(2, 0, 1))
    result = solve_pnp(pairs.points, pairs.pixels, K, weights=pairs.weights, max_error_px=3.0)
    reached = transform_points(result.T_cam_obj, block()[0])
    assert np.abs(reached - transform_points(POSE, block()[0])).max() < 1.5e-3
    assert len(pairs.points) > 200


def test_nothing_visible_and_behind_the_camera(codes):
    assert (codes.render(POSE, K, np.zeros((48, 48), bool), 2) == NO_CODE).all()
    behind = make_pose(np.eye(3), (0, 0, -0.5))
    assert (codes.render(behind, K, np.ones((48, 48), bool), 2) == NO_CODE).all()


@pytest.mark.parametrize("symmetries, mesh", [
    ({"symmetries_discrete": (tuple(np.diag([-1.0, -1, 1, 1]).ravel()),)}, block),
    ({"symmetries_continuous": (((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),)}, prism),
])
def test_poses_that_look_alike_have_equal_codes(symmetries, mesh):
    codes = SurfaceCodes.build(spec(**symmetries), *mesh(), bits=8, samples=2**12)
    plain = SurfaceCodes.build(spec(), *mesh(), bits=8, samples=2**12)
    mask = np.ones((48, 48), bool)
    first = codes.render(POSE, K, mask, 2, 0.2)
    assert (first >= 0).sum() > 150
    for S in symmetry_transforms(codes.spec, 45.0)[1:]:  # multiples of the prism's own turn
        again = codes.render(POSE @ S, K, mask, 2, 0.2)
        # A ray along an edge may meet or miss by rounding.
        assert (again != first).mean() < 2e-3
        assert (plain.render(POSE @ S, K, mask, 2) != plain.render(POSE, K, mask, 2)).mean() > 0.1


def test_far_away():
    """20 m away the rounding of single precision is still below a patch."""
    codes = SurfaceCodes.build(spec(), *block(), bits=6, samples=2**10)
    far = make_pose(POSE[:3, :3], 50 * POSE[:3, 3])
    zoomed = np.diag([50.0, 50.0, 1.0]) @ (K - [[0, 0, 47.5], [0, 0, 47.5], [0, 0, 0]])
    zoomed = zoomed + [[0, 0, 47.5], [0, 0, 47.5], [0, 0, 0]]
    direction = far[:3, 3] / far[2, 3]
    zoomed[:2, 2] -= (zoomed @ direction)[:2] - 47.5
    points, met = codes.surface_points(far, zoomed, grid_pixels(np.arange(48 * 48), 48, 2))
    assert met.sum() > 200
    assert np.abs(np.abs(points / HALF).max(axis=1) - 1).max() < 2e-4
