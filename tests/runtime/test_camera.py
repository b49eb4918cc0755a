"""kd_pose.camera, against hand-worked values and OpenCV."""

import cv2
import numpy as np
import pytest

from kd_pose.camera import Camera

K = np.array([[600.0, 0, 320], [0, 610, 240], [0, 0, 1]])
MODELS = {
    "none": (),
    "plumb_bob": (-0.28, 0.09, 0.001, -0.0007, -0.01),
    "rational_polynomial": (0.4, -0.2, 0.0005, 0.0003, 0.02, 0.7, -0.1, 0.01),
    "equidistant": (-0.02, 0.01, -0.005, 0.001),
}


def camera(model="none"):
    return Camera(K, 640, 480, model, MODELS[model])


def points_in_view(count=300, seed=0):
    rng = np.random.default_rng(seed)
    xy = rng.uniform((-0.5, -0.38), (0.5, 0.38), (count, 2))
    z = rng.uniform(0.3, 3.0, count)
    return np.column_stack([xy * z[:, None], z])


def test_pinhole_by_hand():
    assert np.allclose(camera().project([[0.1, -0.2, 2.0]]), [[320 + 30, 240 - 61]])


def test_plumb_bob_by_hand():
    lens = Camera(K, 640, 480, "plumb_bob", (0.1, 0.0, 0.0, 0.0))
    # x = 0.5, r2 = 0.25: factor 1.025
    assert np.allclose(lens.project([[0.5, 0.0, 1.0]]), [[320 + 600 * 0.5 * 1.025, 240]])


def test_equidistant_without_coefficients_maps_the_angle():
    lens = Camera(K, 640, 480, "equidistant", (0.0, 0.0, 0.0, 1e-12))
    # 45 degrees: the radius is the angle, pi/4
    assert np.allclose(lens.project([[1.0, 0.0, 1.0]]), [[320 + 600 * np.pi / 4, 240]], atol=1e-6)


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial", "equidistant"])
def test_projection_agrees_with_opencv(model):
    points, zero = points_in_view(), np.zeros(3)
    D = np.array(MODELS[model])
    if model == "equidistant":
        expected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, K, D)
    else:
        expected, _ = cv2.projectPoints(points, zero, zero, K, D)
    assert np.allclose(camera(model).project(points), expected.reshape(-1, 2), atol=1e-8)


@pytest.mark.parametrize("model", list(MODELS))
def test_undistort_gives_back_the_ideal_pixels(model):
    points = points_in_view()
    pixels = camera(model).project(points)
    ideal = camera().project(points)
    undistorted = camera(model).undistort(pixels)
    assert np.abs(undistorted - ideal).max() < 1e-3
    assert np.abs(pixels - ideal).max() > 1 or model == "none"


def test_points_behind_the_camera_have_no_image():
    pixels = camera("plumb_bob").project([[0, 0, -1.0], [0, 0, 0.0], [0, 0, 1.0]])
    assert np.isnan(pixels[:2]).all()
    assert np.allclose(pixels[2], [320, 240])


def test_equidistant_beyond_ninety_degrees_is_nan_and_its_neighbours_are_not():
    lens = Camera(K, 2000, 2000, "equidistant", (0.0, 0.0, 0.0, 1e-12))
    far = [320 + 600 * 1.7, 240]
    undistorted = lens.undistort([far, [320, 240], [330, 240], [np.nan, 1]])
    assert np.isnan(undistorted[[0, 3]]).all()
    assert np.isfinite(undistorted[1:3]).all()


def test_empty_input():
    for model in MODELS:
        assert camera(model).project(np.empty((0, 3))).shape == (0, 2)
        assert camera(model).undistort(np.empty((0, 2))).shape == (0, 2)


def test_uncalibrated_camera_is_told_apart_and_does_not_project():
    empty = Camera.from_info([0.0] * 9, [], "", [0.0] * 12, 640, 480)
    assert not empty.is_calibrated
    with pytest.raises(ValueError, match="not calibrated"):
        empty.project([[0, 0, 1]])


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"model": "fov"}, "distortion_model"),
        ({"model": "plumb_bob", "distortion": (0.1, 0.2, 0.3)}, "distortion"),
        ({"model": "equidistant", "distortion": (0.1,) * 5}, "distortion"),
        ({"model": "rational_polynomial", "distortion": (0.1,) * 5}, "distortion"),
        ({"model": "plumb_bob", "distortion": (np.nan,) * 4}, "distortion"),
        ({"K": np.eye(4)}, "K"),
        ({"K": np.full((3, 3), np.nan)}, "K"),
        ({"K": np.diag([-1.0, 1, 1])}, "K"),
        ({"width": 0}, "width"),
        ({"K": np.diag([1e-300, 600.0, 1.0])}, "focal lengths must be 6.4 to 6.4e[+]07 pixels for "
         "an image of 640x480, got 1e-300, 600"),
        ({"K": np.diag([600.0, 1e300, 1.0])}, "focal lengths must be .* got 600, 1e[+]300"),
        ({"K": np.eye(3)}, "focal lengths must be .* got 1, 1"),  # what some drivers make up
    ],
)
def test_bad_camera_names_the_field(changes, field):
    values = {"K": K, "width": 640, "height": 480, **changes}
    with pytest.raises(ValueError, match=field) as caught:
        Camera(**values)
    assert "\n" not in str(caught.value)  # it becomes a diagnostic


@pytest.mark.parametrize("focal", [100.0, 600.0, 1e6])  # fisheye, usual, telescope
def test_all_real_lenses_are_taken(focal):
    assert Camera(np.diag([focal, focal, 1.0]), 640, 480).is_calibrated


class TestFromInfo:
    P = [500.0, 0, 310, 0, 0, 505, 235, 0, 0, 0, 1, 0]

    def info(self, **kwargs):
        values = dict(
            K9=K.reshape(-1), D=MODELS["plumb_bob"], model="plumb_bob", P12=self.P,
            width=640, height=480,
        )
        return Camera.from_info(**{**values, **kwargs})

    def test_raw_uses_k_and_d(self):
        lens = self.info()
        assert np.array_equal(lens.K, K) and lens.model == "plumb_bob"
        assert lens.distortion == MODELS["plumb_bob"]

    def test_rectified_uses_p_alone(self):
        lens = self.info(rectified=True)
        assert lens.K.tolist() == [[500, 0, 310], [0, 505, 235], [0, 0, 1]]
        assert not lens.has_distortion

    def test_all_zero_coefficients_need_no_known_model(self):
        assert not self.info(D=[0.0] * 14, model="something_new").has_distortion

    @pytest.mark.parametrize("roi, binning", [((100, 60, 300, 200), (1, 1)), (None, (2, 2)),
                                              ((100, 60, 300, 200), (2, 4))])
    def test_roi_and_binning_see_the_same_point(self, roi, binning):
        """A pixel of the delivered image is the mean of the sensor pixels that it joins."""
        full, part = self.info(), self.info(roi=roi, binning=binning)
        points = points_in_view(50)
        x, y = (roi or (0, 0))[:2]
        bins = np.maximum(binning, 1)
        expected = (full.project(points) - (x, y) - (bins - 1) / 2) / bins
        assert np.allclose(part.project(points), expected, atol=1e-9)
        w, h = (roi or (0, 0, 640, 480))[2:]
        assert (part.width, part.height) == (w // bins[0], h // bins[1])

    def test_empty_roi_is_the_whole_image(self):
        lens = self.info(roi=(0, 0, 0, 0), binning=(0, 0))
        assert (lens.width, lens.height) == (640, 480) and np.array_equal(lens.K, K)

    @pytest.mark.parametrize(
        "changes, field",
        [
            ({"K9": [1.0] * 8}, "k needs 9"),
            ({"P12": [1.0] * 9, "rectified": True}, "p needs 12"),
            ({"D": [0.1, 0.2]}, "^d: plumb_bob"),
            ({"model": "thin_prism"}, "distortion_model"),
            ({"roi": (600, 0, 100, 100)}, "roi"),
            ({"binning": (-1, 1)}, "binning"),
        ],
    )
    def test_bad_info_names_the_field(self, changes, field):
        with pytest.raises(ValueError, match=field):
            self.info(**changes)
