"""Messages of one frame -> what an estimator takes, checked: image, camera, boxes, depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from std_msgs.msg import Header

from kd_pose.camera import Camera
from kd_pose.lifting import check_depth
from kd_pose.nodes.conversions import CameraReader, detections_from_message
from kd_pose.nodes.diagnostics import OK, WARN, Status
from kd_pose.nodes.health import Health, Rejected
from kd_pose.nodes.images import (
    ImageError,
    colour_from_compressed,
    colour_from_image,
    depth_from_image,
)
from kd_pose.nodes.inputs import BOXES, CAMERA_INFO, DEPTH
from kd_pose.nodes.sync import Frame
from kd_pose.results import Detection2D


@dataclass
class View:
    """An image ready for the estimator.

    stamp_ns: of the image. boxes: None = find them yourself. depth: (H, W) metres, registered to
    the image, or None.
    """

    header: Header
    stamp_ns: int
    image: np.ndarray
    channel_order: str
    camera: Camera | None
    boxes: list[Detection2D] | None
    depth: np.ndarray | None = None


class ViewReader:
    """Turns frames into views by the parameters `values`; tells `health` of the calibration."""

    def __init__(self, values: Mapping[str, Any], health: Health) -> None:
        self.values = values
        self._health = health
        self._cameras = CameraReader(values["input_is_rectified"])

    def read(self, frame: Frame, now_ns: int) -> View:
        """Convert and check a frame; now_ns: the node's time. Raises Rejected."""
        message = frame.image
        limit = self.values["max_image_age_s"]
        age = 1e-9 * (now_ns - frame.stamp)
        if limit and age > limit:
            raise Rejected("input", f"the image is {age:.2f} s old, max_image_age_s is {limit}",
                           WARN)
        try:
            if self.values["image_transport"] == "compressed":
                image, order = colour_from_compressed(message)
            else:
                image, order = colour_from_image(message)
        except ImageError as error:
            raise Rejected("input", str(error)) from error
        info, boxes = frame.partners.get(CAMERA_INFO), frame.partners.get(BOXES)
        depth = frame.partners.get(DEPTH)
        return View(message.header, frame.stamp, image, order,
                    None if info is None else self._camera(info, image),
                    None if boxes is None else detections_from_message(boxes),
                    None if depth is None else self._depth(depth, message.header, image))

    def _camera(self, info: Any, image: np.ndarray) -> Camera:
        try:
            camera = self._cameras.read(info)
        except ValueError as error:
            raise Rejected("calibration", f"camera_info cannot be used: {error}") from error
        if not camera.is_calibrated:
            field = "P[0]" if self.values["input_is_rectified"] else "K[0]"
            raise Rejected("calibration", f"{field} of camera_info is 0: the camera is not "
                           "calibrated, so there are no poses; calibrate it")
        height, width = image.shape[:2]
        if (camera.width, camera.height) != (width, height):
            raise Rejected(
                "calibration",
                f"the image is {width}x{height}, but its camera_info describes "
                f"{camera.width}x{camera.height}: publish the camera_info of this very image",
            )
        self._health.calibration = Status(OK, "calibrated", {
            "focal length px": f"{camera.K[0, 0]:.2f} {camera.K[1, 1]:.2f}",
            "size": f"{width}x{height}", "distortion": camera.model,
        })
        return camera

    def _depth(self, message: Any, header: Header, image: np.ndarray) -> np.ndarray:
        theirs, ours = message.header.frame_id, header.frame_id
        if theirs and ours and theirs != ours:
            raise Rejected(
                "input", f"the depth image is of the frame {theirs!r}, the image of {ours!r}: "
                "publish depth that is registered to colour")
        try:
            depth = depth_from_image(message, self.values["depth_scale"])
            check_depth(depth, image.shape[1::-1])
        except ValueError as error:
            raise Rejected("input", f"its depth: {error}") from error
        return depth
