"""One pinhole camera with lens distortion, and what ROS's CameraInfo says of it.

A `Camera` belongs to the image as delivered: ROI and binning are already in its K. Pixel centres
are at integer coordinates, as in OpenCV. Models and coefficient orders are those of
sensor_msgs/CameraInfo (sensor_msgs/distortion_models.hpp) and OpenCV's calib3d:
plumb_bob (k1, k2, p1, p2, k3), rational_polynomial (k1, k2, p1, p2, k3, k4, k5, k6) and
equidistant (k1..k4, Kannala and Brandt 2006, OpenCV's fisheye).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Numbers of coefficients that each model may come with; 0 means a lens without distortion.
COEFFICIENTS = {
    "none": (0,),
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (0, 8),
    "equidistant": (0, 4),
}
# Focal lengths in sides of the image. No lens is beyond, be the image a small part of a
# telescope's; numbers are that were never measured, or overflow on the way.
FOCAL_SHARES = (0.01, 1e5)
# A point at or behind the camera has no image; NaN says so and survives arithmetic.
MIN_DEPTH = 1e-9
UNDISTORT_STEPS = 100
UNDISTORT_ACCURACY_PX = 1e-6
FISHEYE_STEPS = 20


@dataclass(frozen=True)
class Camera:
    """K: (3, 3) pixels, zero where uncalibrated. width, height: pixels of the delivered image.

    model: one of `COEFFICIENTS`. distortion: its coefficients; none or all zero = no distortion.
    Raises ValueError that names the field.
    """

    K: np.ndarray
    width: int
    height: int
    model: str = "none"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        K = np.array(self.K, dtype=np.float64)
        if K.shape != (3, 3) or not np.isfinite(K).all():
            raise ValueError(f"K must be 3x3 finite numbers, got {K.tolist()}")
        if K[0, 0] != 0.0 and not (K[0, 0] > 0 and K[1, 1] > 0):
            raise ValueError(f"K: focal lengths must be positive, got {K[0, 0]}, {K[1, 1]}")
        if not (int(self.width) > 0 and int(self.height) > 0):
            raise ValueError(f"width and height must be positive, got {self.width}x{self.height}")
        side = max(int(self.width), int(self.height))
        low, high = (share * side for share in FOCAL_SHARES)
        if K[0, 0] != 0.0 and not all(low <= K[i, i] <= high for i in (0, 1)):
            raise ValueError(f"K: focal lengths must be {low:g} to {high:g} pixels for an image "
                             f"of {self.width}x{self.height}, got {K[0, 0]:g}, {K[1, 1]:g}")
        coefficients = tuple(float(value) for value in self.distortion)
        _check_distortion(self.model, coefficients, "distortion")
        K.setflags(write=False)
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "width", int(self.width))
        object.__setattr__(self, "height", int(self.height))
        object.__setattr__(self, "distortion", coefficients)

    @property
    def is_calibrated(self) -> bool:
        """False for K[0, 0] = 0, which is how ROS says "not calibrated"."""
        return bool(self.K[0, 0] > 0)

    @property
    def has_distortion(self) -> bool:
        return any(self.distortion)

    def project(self, points_cam: np.ndarray) -> np.ndarray:
        """Points (N, 3) in the camera frame, metres -> pixels (N, 2), distorted.

        NaN for points at or behind the camera.
        """
        self._require_calibrated()
        points = np.asarray(points_cam, dtype=np.float64).reshape(-1, 3)
        depth = np.where(points[:, 2] > MIN_DEPTH, points[:, 2], np.nan)
        normalised = points[:, :2] / depth[:, None]
        return self._to_pixels(self._distort(normalised))

    def undistort(self, xy: np.ndarray) -> np.ndarray:
        """Distorted pixels (N, 2) -> pixels (N, 2) of an ideal pinhole camera with the same K.

        NaN stays NaN; so does an equidistant pixel beyond 90 degrees off the axis, which no
        pinhole camera can see.
        """
        self._require_calibrated()
        xy = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        if not self.has_distortion or len(xy) == 0:
            return xy.copy()
        if self.model == "equidistant":
            return self._undistort_equidistant(xy)
        focal = max(self.K[0, 0], self.K[1, 1])
        criteria = (
            cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS,
            UNDISTORT_STEPS,
            UNDISTORT_ACCURACY_PX / focal,
        )
        coefficients = np.array(self.distortion)
        # OpenCV 4.6 has the criteria in undistortPointsIter only; 4.9 and 5 take them by keyword.
        iterate = getattr(cv2, "undistortPointsIter", None)
        args = (np.ascontiguousarray(xy)[:, None], self.K, coefficients)
        if iterate is not None:
            undistorted = iterate(*args, np.eye(3), self.K, criteria)
        else:
            undistorted = cv2.undistortPoints(*args, R=np.eye(3), P=self.K, criteria=criteria)
        return undistorted.reshape(-1, 2)

    @classmethod
    def from_info(
        cls,
        K9: Sequence[float],
        D: Sequence[float],
        model: str,
        P12: Sequence[float],
        width: int,
        height: int,
        *,
        rectified: bool = False,
        roi: tuple[int, int, int, int] | None = None,
        binning: tuple[int, int] = (0, 0),
    ) -> Camera:
        """The camera of the image that comes with a sensor_msgs/CameraInfo.

        K9, P12: row-major 3x3 and 3x4. width, height: of the full, unbinned sensor image.
        rectified: the image is already rectified, so P counts and D does not.
        roi: (x, y, w, h) in unbinned pixels; None or zero width and height = the whole image.
        binning: (x, y) pixels joined into one; 0 and 1 both mean none. ROS defines the delivered
        image as the ROI, binned, so K is shifted first and scaled then.
        """
        K = _intrinsics(K9, P12, rectified)
        x, y, w, h = _region(roi, int(width), int(height))
        bin_x, bin_y = (max(1, int(value)) for value in binning)
        if min(int(value) for value in binning) < 0:
            raise ValueError(f"binning must not be negative, got {tuple(binning)}")
        K[0, 2] -= x
        K[1, 2] -= y
        # Integer pixel centres: the first binned pixel covers 0..bin-1, centred at (bin-1)/2.
        K[0, 2] = (K[0, 2] - (bin_x - 1) / 2.0) / bin_x
        K[1, 2] = (K[1, 2] - (bin_y - 1) / 2.0) / bin_y
        K[0, :2] /= bin_x
        K[1, 1] /= bin_y
        coefficients = () if rectified else tuple(float(value) for value in D)
        if not any(coefficients):
            return cls(K, w // bin_x, h // bin_y)
        _check_distortion(model, coefficients, "d")
        return cls(K, w // bin_x, h // bin_y, model, coefficients)

    def _require_calibrated(self) -> None:
        if not self.is_calibrated:
            raise ValueError("K[0] is 0: the camera is not calibrated")

    def _to_pixels(self, normalised: np.ndarray) -> np.ndarray:
        return normalised @ self.K[:2, :2].T + self.K[:2, 2]

    def _distort(self, xy: np.ndarray) -> np.ndarray:
        """Ideal normalised points (N, 2) -> distorted normalised points (N, 2)."""
        if not self.has_distortion:
            return xy
        if self.model == "equidistant":
            radius = np.linalg.norm(xy, axis=1)
            theta = np.arctan(radius)
            scale = np.divide(
                self._fisheye_radius(theta), radius, out=np.ones_like(radius), where=radius > 1e-12
            )
            return xy * scale[:, None]
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.distortion, *([0.0] * 4))[:8]
        x, y = xy[:, 0], xy[:, 1]
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        radial = radial / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        tangential_x = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        tangential_y = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return np.stack([x * radial + tangential_x, y * radial + tangential_y], axis=1)

    def _fisheye_radius(self, theta: np.ndarray) -> np.ndarray:
        k1, k2, k3, k4 = self.distortion
        t2 = theta * theta
        return theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))

    def _undistort_equidistant(self, xy: np.ndarray) -> np.ndarray:
        """Newton's method on the angle. Not OpenCV's: that one answers -1e6 where it gives up."""
        inverse = np.linalg.inv(self.K[:2, :2])
        distorted = (xy - self.K[:2, 2]) @ inverse.T
        radius = np.linalg.norm(distorted, axis=1)
        k1, k2, k3, k4 = self.distortion
        theta = np.minimum(radius, np.pi / 2)
        for _ in range(FISHEYE_STEPS):
            t2 = theta * theta
            slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
            theta = theta - (self._fisheye_radius(theta) - radius) / slope
        wrong = ~(np.abs(self._fisheye_radius(theta) - radius) < 1e-9)
        theta = np.where(wrong | (theta < 0) | (theta >= np.pi / 2), np.nan, theta)
        scale = np.divide(np.tan(theta), radius, out=np.ones_like(radius), where=radius > 1e-12)
        return self._to_pixels(distorted * scale[:, None])


def _check_distortion(model: str, coefficients: tuple[float, ...], field: str) -> None:
    if model not in COEFFICIENTS:
        raise ValueError(
            f"distortion_model must be one of {', '.join(COEFFICIENTS)}, got {model!r}"
        )
    if len(coefficients) not in COEFFICIENTS[model]:
        allowed = " or ".join(str(count) for count in COEFFICIENTS[model])
        raise ValueError(
            f"{field}: {model} needs {allowed} coefficients, got {len(coefficients)}"
        )
    if not np.isfinite(coefficients).all():
        raise ValueError(f"{field}: coefficients must be finite, got {coefficients}")


def _intrinsics(K9: Sequence[float], P12: Sequence[float], rectified: bool) -> np.ndarray:
    name, values, shape = ("p", P12, (3, 4)) if rectified else ("k", K9, (3, 3))
    matrix = np.array(values, dtype=np.float64)
    if matrix.size != shape[0] * shape[1]:
        raise ValueError(f"{name} needs {shape[0] * shape[1]} numbers, got {matrix.size}")
    return matrix.reshape(shape)[:, :3].copy()


def _region(roi, width: int, height: int) -> tuple[int, int, int, int]:
    if roi is None or (int(roi[2]) == 0 and int(roi[3]) == 0):
        return 0, 0, width, height
    x, y, w, h = (int(value) for value in roi)
    if x < 0 or y < 0 or w <= 0 or h <= 0 or x + w > width or y + h > height:
        raise ValueError(f"roi {(x, y, w, h)} does not lie in the image of {width}x{height}")
    return x, y, w, h
