"""kd_pose.pnp: exact, robust, deterministic, and honest about what it cannot know."""

import numpy as np
import pytest

import kd_pose.pnp
from kd_pose.geometry import (
    box_corners,
    make_pose,
    rotation_angle_deg,
    rotation_from_vector,
    transform_points,
)
from kd_pose.pnp import pose_covariance, solve_pnp

K = np.array([[600.0, 0, 320], [0, 605, 240], [0, 0, 1]])
CORNERS = box_corners((-0.06, -0.04, -0.05), (0.06, 0.04, 0.05))


@pytest.fixture(autouse=True, params=["poselib", "opencv"])
def solver(request, monkeypatch):
    """Everything must hold with PoseLib and, where that is not installed, with OpenCV alone."""
    if request.param == "poselib":
        pytest.importorskip("poselib")
    else:
        monkeypatch.setattr(kd_pose.pnp, "poselib", None)
    return request.param


def project(points, T):
    points = transform_points(T, points) @ K.T
    return points[:, :2] / points[:, 2:]


def random_pose(rng):
    t = rng.uniform((-0.1, -0.1, 0.4), (0.1, 0.1, 1.0))
    return make_pose(rotation_from_vector(rng.normal(size=3) * 1.5), t)


def problem(seed, count=80, outliers=0.0, noise=0.0):
    """Points3d, points2d, pose, and which are good."""
    rng = np.random.default_rng(seed)
    T = random_pose(rng)
    xyz = CORNERS[np.arange(count) % 8]
    uv = project(xyz, T) + noise * rng.normal(size=(count, 2))
    bad = rng.choice(count, int(round(outliers * count)), replace=False)
    uv[bad] = rng.uniform((0, 0), (640, 480), (len(bad), 2))
    good = np.ones(count, bool)
    good[bad] = False
    return xyz, uv, T, good


@pytest.mark.parametrize("count", [6, 8, 16, 80, 500])
def test_exact_votes_give_the_exact_pose(count):
    for seed in range(5):
        xyz, uv, T, _ = problem(seed, count)
        result = solve_pnp(xyz, uv, K)
        assert np.abs(result.T_cam_obj - T).max() < 1e-6
        assert result.inliers.all() and result.reprojection_error_px < 1e-5


def test_skewed_pixels():
    xyz, _, T, _ = problem(0, 16)
    skewed = K + [[0, 25.0, 0], [0, 0, 0], [0, 0, 0]]
    uv = transform_points(T, xyz) @ skewed.T
    result = solve_pnp(xyz, uv[:, :2] / uv[:, 2:], skewed)
    assert np.abs(result.T_cam_obj - T).max() < 1e-6


@pytest.mark.parametrize("outliers", [0.3, 0.6, 0.7])
def test_outliers_are_found(outliers):
    angles = []
    for seed in range(20):
        xyz, uv, T, good = problem(seed, 80, outliers, noise=0.5)
        result = solve_pnp(xyz, uv, K)
        angles.append(rotation_angle_deg(result.T_cam_obj[:3, :3], T[:3, :3]))
        assert np.count_nonzero(result.inliers & ~good) <= 3
    assert np.median(angles) < 1.0 and max(angles) < 5.0


def test_more_votes_than_are_searched_all_refine():
    xyz, uv, T, good = problem(0, 1000, 0.3, noise=1.0)
    result = solve_pnp(xyz, uv, K)
    assert rotation_angle_deg(result.T_cam_obj[:3, :3], T[:3, :3]) < 0.5
    assert np.count_nonzero(result.inliers & good) > 0.95 * np.count_nonzero(good)
    assert result.reprojection_error_px == pytest.approx(np.sqrt(2), rel=0.1)


def test_same_votes_same_pose():
    xyz, uv, _, _ = problem(3, 64, 0.4, noise=1.0)
    results = [solve_pnp(xyz, uv, K).T_cam_obj for _ in range(3)]
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_weightless_and_nan_votes_are_left_out():
    xyz, uv, T, good = problem(1, 40, 0.5)
    result = solve_pnp(xyz, uv, K, weights=good.astype(float))
    assert np.abs(result.T_cam_obj - T).max() < 1e-6
    assert not (result.inliers & ~good).any()
    uv[~good] = np.nan
    weights = np.ones(40)
    weights[np.flatnonzero(good)[0]] = np.nan
    result = solve_pnp(xyz, uv, K, weights=weights)
    assert np.abs(result.T_cam_obj - T).max() < 1e-6
    assert np.count_nonzero(result.inliers) == 19


def test_the_heaviest_votes_are_searched():
    """850 light votes that agree on a wrong pose against 150 heavy good ones."""
    xyz, uv, T, _ = problem(2, 1000)
    uv[150:] = project(xyz[150:], random_pose(np.random.default_rng(99)))
    weights = np.where(np.arange(1000) < 150, 0.9, 0.1)
    shuffled = np.random.default_rng(0).permutation(1000)
    result = solve_pnp(xyz[shuffled], uv[shuffled], K, weights=weights[shuffled])
    assert np.abs(result.T_cam_obj - T).max() < 1e-6
    assert np.array_equal(result.inliers, weights[shuffled] > 0.5)


class TestNoPose:
    def test_too_few_points(self):
        for count in range(4):
            xyz, uv, _, _ = problem(0, 8)
            assert solve_pnp(xyz[:count], uv[:count], K) is None

    def test_all_nan(self):
        xyz, uv, _, _ = problem(0, 16)
        assert solve_pnp(xyz, np.full_like(uv, np.nan), K) is None
        assert solve_pnp(xyz, np.full_like(uv, np.inf), K) is None

    def test_too_few_inliers(self):
        xyz, uv, _, _ = problem(0, 16)
        assert solve_pnp(xyz, uv, K, min_inliers=17) is None
        noise = np.random.default_rng(0).uniform(0, 480, (16, 2))
        assert solve_pnp(xyz, noise, K, max_error_px=2, min_inliers=10) is None

    def test_identical_points(self):
        xyz, uv, _, _ = problem(0, 16)
        assert solve_pnp(np.tile(xyz[:1], (16, 1)), np.tile(uv[:1], (16, 1)), K) is None
        assert solve_pnp(xyz, np.tile(uv[:1], (16, 1)), K) is None

    def test_three_corners_leave_several_poses(self):
        _, _, T, _ = problem(0)
        xyz = np.tile(CORNERS[[0, 3, 5]], (6, 1))
        assert solve_pnp(xyz, project(xyz, T), K) is None

    def test_points_on_a_line(self):
        T = random_pose(np.random.default_rng(0))
        xyz = np.linspace(-0.1, 0.1, 12)[:, None] * [1.0, 0.5, 0.2]
        assert solve_pnp(xyz, project(xyz, T), K) is None

    def test_a_mirror_image_behind_the_camera(self):
        xyz, _, T, _ = problem(0, 16)
        behind = T.copy()
        behind[2, 3] -= 2.0
        result = solve_pnp(xyz, project(xyz, behind), K)
        assert result is None or result.T_cam_obj[2, 3] > 0

    def test_random_votes_never_raise(self):
        rng = np.random.default_rng(0)
        for count in (4, 5, 8, 40):
            for scale in (1e-9, 1.0, 1e9):
                solve_pnp(rng.normal(size=(count, 3)), scale * rng.normal(size=(count, 2)), K)

    def test_lengths_that_differ_are_a_mistake(self):
        xyz, uv, _, _ = problem(0, 8)
        with pytest.raises(ValueError, match="do not match"):
            solve_pnp(xyz, uv[:7], K)
        with pytest.raises(ValueError, match="weights"):
            solve_pnp(xyz, uv, K, weights=np.ones(7))


class TestCovariance:
    def test_predicts_the_spread_of_repeated_measurements(self):
        """Monte Carlo: 400 times 1 px of independent noise on 8 corners x 4 votes."""
        rng = np.random.default_rng(0)
        T = make_pose(rotation_from_vector((0.5, -0.8, 0.3)), (0.05, -0.04, 0.6))
        xyz = np.tile(CORNERS, (4, 1))
        clean, errors, predicted = project(xyz, T), [], []
        for _ in range(400):
            uv = clean + rng.normal(size=clean.shape)
            result = solve_pnp(xyz, uv, K, max_error_px=20.0)
            dR = result.T_cam_obj[:3, :3] @ T[:3, :3].T
            turn = 0.5 * np.array([dR[2, 1] - dR[1, 2], dR[0, 2] - dR[2, 0], dR[1, 0] - dR[0, 1]])
            errors.append(np.concatenate([result.T_cam_obj[:3, 3] - T[:3, 3], turn]))
            predicted.append(pose_covariance(xyz, uv, K, result.T_cam_obj, result.inliers))
        sample, mean = np.cov(np.array(errors).T), np.mean(predicted, axis=0)
        assert np.allclose(np.diag(mean), np.diag(sample), rtol=0.3)
        # and the correlations, in units of the standard deviations
        scale = np.sqrt(np.outer(np.diag(sample), np.diag(sample)))
        assert np.abs((mean - sample) / scale).max() < 0.3

    def test_is_symmetric_and_positive(self):
        xyz, uv, _, _ = problem(0, 40, 0.2, noise=1.0)
        result = solve_pnp(xyz, uv, K)
        C = pose_covariance(xyz, uv, K, result.T_cam_obj, result.inliers)
        assert np.array_equal(C, C.T) and np.linalg.eigvalsh(C).min() > 0
        assert C[2, 2] > C[0, 0]  # depth is the hard direction

    def test_effective_points_deflate(self):
        xyz, uv, _, _ = problem(0, 40, noise=1.0)
        T = solve_pnp(xyz, uv, K).T_cam_obj
        assert np.allclose(
            pose_covariance(xyz, uv, K, T, effective_points=8), 5 * pose_covariance(xyz, uv, K, T)
        )
        with pytest.raises(ValueError, match="effective_points"):
            pose_covariance(xyz, uv, K, T, effective_points=0)

    def test_unobservable_is_none(self):
        xyz, uv, T, _ = problem(0, 40)
        assert pose_covariance(xyz[:3], uv[:3], K, T) is None
        line = np.linspace(-0.1, 0.1, 12)[:, None] * [1.0, 0.5, 0.2]
        assert pose_covariance(line, project(line, T), K, T) is None
        behind = T.copy()
        behind[2, 3] = 0.0
        assert pose_covariance(xyz, uv, K, behind) is None
        assert pose_covariance(xyz, uv * np.nan, K, T) is None
