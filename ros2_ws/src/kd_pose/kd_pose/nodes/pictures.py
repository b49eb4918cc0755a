"""`~/image_annotated`, raw and compressed: drawn and encoded only where somebody looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from kd_pose.nodes.images import compressed_message, image_message
from kd_pose.nodes.views import View


class PictureOutput:
    """Two publishers. output: what makes one, as `EstimatorNode.output`."""

    def __init__(self, output: Callable, qos: QoSProfile) -> None:
        self._raw = output(Image, "~/image_annotated", qos)
        self._jpeg = output(CompressedImage, "~/image_annotated/compressed", qos)

    def publish(self, view: View, draw: Callable[[], np.ndarray], jpeg_quality: int) -> None:
        """draw: the picture, in the channel order of the view; asked for only if it is wanted."""
        raw, jpeg = self._raw.get_subscription_count(), self._jpeg.get_subscription_count()
        if not (raw or jpeg):
            return
        image, order = draw(), view.channel_order
        if raw:
            self._raw.publish(image_message(image, view.header, f"{order}8"))
        if jpeg:
            self._jpeg.publish(compressed_message(image, view.header, order, jpeg_quality))
