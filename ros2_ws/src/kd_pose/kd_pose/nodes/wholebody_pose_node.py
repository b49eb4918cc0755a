"""`wholebody_pose`: camera images in, people with 133 keypoints out."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from kd_pose.lifting import LiftingOptions
from kd_pose.nodes import conversions, parameters, people_messages
from kd_pose.nodes.estimator_node import LATCHED_QOS, PICTURE_QOS, EstimatorNode
from kd_pose.nodes.pictures import PictureOutput
from kd_pose.nodes.process import run
from kd_pose.nodes.stamps import StampClock
from kd_pose.nodes.views import View
from kd_pose.people_stream import STREAM_STAGES, PeopleStream, StreamOptions
from kd_pose.results import PeopleFrame
from kd_pose.skeleton_drawing import draw_frame
from kd_pose.smoothing import SmoothingOptions
from kd_pose.tracking import TrackingOptions
from kd_pose.wholebody_pose import WholebodyPoseEstimator, WholebodyPoseOptions
from kd_pose_msgs.msg import SkeletonInfo, WholebodyPoseArray
from kd_pose_msgs.srv import EstimatePeople

TF_QOS = QoSProfile(depth=100)  # what listeners of /tf expect: reliable, volatile


class WholebodyPoseNode(EstimatorNode):
    """Lifecycle node around `PeopleStream` and its `WholebodyPoseEstimator`."""

    TABLE = parameters.WHOLEBODY_POSE
    STAGES = STREAM_STAGES
    ONCE = EstimatePeople

    def __init__(self, **kwargs) -> None:
        self._stream: PeopleStream | None = None
        self._image_time = StampClock()
        super().__init__("wholebody_pose", **kwargs)
        self.create_service(Trigger, "~/reset_tracking", self._on_reset_tracking)

    def load(self, values: dict[str, Any]) -> WholebodyPoseEstimator:
        if not values["model_path"]:
            raise ValueError("model_path is empty: give the .onnx file of a whole-body model")
        from_topic = values["roi_source"] == "topic"
        if not from_topic and not values["detector_path"]:
            raise ValueError(
                "detector_path is empty: give the .onnx file of a person detector, or set "
                "roi_source to topic and publish boxes"
            )
        return WholebodyPoseEstimator(
            values["model_path"],
            None if from_topic else values["detector_path"],
            backend=values["backend"],
            device=values["device"],
            precision=values["precision"],
            threads=values["threads"],
        )

    def needs_camera(self, values: dict[str, Any]) -> bool:
        return values["use_depth"]

    def check(self, estimator: WholebodyPoseEstimator, values: dict[str, Any]) -> None:
        _estimator_options(values)
        _stream_options(values)
        _check_tf(values)

    def apply(self, values: dict[str, Any]) -> None:
        self.estimator.options = _estimator_options(values)
        options = _stream_options(values)
        if self._stream is None or self._stream.estimator is not self.estimator:
            self._stream = PeopleStream(self.estimator, options)
        self._stream.options = options

    def create_outputs(self) -> None:
        self._people = self.output(WholebodyPoseArray, "~/people")
        self._picture = PictureOutput(self.output, PICTURE_QOS)
        self._skeleton = self.output(SkeletonInfo, "~/skeleton_info", LATCHED_QOS)
        self._markers = self._detections = self._tf = None
        if self.needs_camera(self.values):
            self._markers = self.output(MarkerArray, "~/markers")
        if self.has_vision_msgs:
            from vision_msgs.msg import Detection2DArray

            self._detections = self.output(Detection2DArray, "~/detections")
        if self.values["publish_tf"]:
            from tf2_msgs.msg import TFMessage

            self._tf = self.output(TFMessage, "/tf", TF_QOS)

    def publish_latched(self) -> None:
        # The one output that belongs to no image.
        header = Header(stamp=self.get_clock().now().to_msg())
        self._skeleton.publish(people_messages.skeleton_message(header))

    def estimate(self, view: View) -> PeopleFrame:
        return self._stream.estimate(
            view.image, self._image_time.seconds(view.stamp_ns), channel_order=view.channel_order,
            boxes=view.boxes, depth=view.depth, camera=view.camera)

    def results_message(self, view: View, result: PeopleFrame) -> WholebodyPoseArray:
        height, width = view.image.shape[:2]
        return people_messages.people_message(result, view.header, (width, height))

    def publish_results(self, view: View, result: PeopleFrame, message: WholebodyPoseArray
                        ) -> None:
        self._people.publish(message)
        if self._detections is not None:
            self._detections.publish(people_messages.person_boxes_message(result, view.header))
        if self._tf is not None:
            self._publish_tf(view.header, result)

    def _publish_tf(self, header: Header, result: PeopleFrame) -> None:
        if not header.frame_id:  # tf2 takes no transform without a parent
            self.get_logger().warning("nothing on /tf: the image has no frame_id",
                                      throttle_duration_sec=5.0)
            return
        message = people_messages.body_frames_message(result, header)
        if message is not None:
            self._tf.publish(message)

    def publish_pictures(self, view: View, result: PeopleFrame) -> None:
        if self._markers is not None and self._markers.get_subscription_count():
            self._markers.publish(people_messages.people_markers_message(
                result, view.header, self.values["markers.lifetime_s"]))
        self._picture.publish(view, lambda: self._draw(view, result),
                              self.values["annotate.jpeg_quality"])

    def _draw(self, view: View, result: PeopleFrame) -> np.ndarray:
        return draw_frame(view.image, result, view.channel_order,
                          self.values["keypoint_score_threshold"], self.values["annotate.labels"])

    def publish_cleared(self) -> None:
        if self._markers is not None:
            header = Header(stamp=self.get_clock().now().to_msg())
            self._markers.publish(conversions.delete_all_message(header))

    def forget(self) -> None:
        self._stream.reset()
        self._image_time = StampClock()

    def _on_reset_tracking(self, request: Trigger.Request, response: Trigger.Response
                           ) -> Trigger.Response:
        response.success = self.estimator is not None and self.values["tracking.enable"]
        if response.success:
            self.forget_before_next_image()
            response.message = "everybody is new from the next image on"
        elif self.estimator is None:
            response.message = "the node is not configured"
        else:
            response.message = "tracking.enable is false: there are no tracks"
        return response


def _estimator_options(values: dict[str, Any]) -> WholebodyPoseOptions:
    """0 as the detector's threshold stands for its own."""
    return WholebodyPoseOptions(
        detector_score_threshold=values["detector_score_threshold"] or None,
        max_people=values["max_people"],
        person_score_threshold=values["person_score_threshold"],
        duplicate_oks=values["duplicate_oks"],
    )


def _stream_options(values: dict[str, Any]) -> StreamOptions:
    """Raises ValueError that names the parameter."""
    from_tracks, sure = values["roi_source"] == "tracks", values["keypoint_score_threshold"]
    if not values["tracking.enable"]:
        if from_tracks:
            raise ValueError("roi_source is tracks, which needs tracking.enable; set roi_source "
                             "to detector or topic")
        if values["smoothing.enable"]:
            raise ValueError("smoothing.enable needs tracking.enable")
    tracking = TrackingOptions(
        min_keypoint_score=sure,
        min_overlap=values["tracking.min_overlap"],
        confirm_frames=values["tracking.confirm_frames"],
        max_coast_s=values["tracking.max_coast_s"],
        appearance=values["tracking.appearance"],
        remember_s=values["tracking.remember_s"],
    )
    smoothing = SmoothingOptions(
        min_cutoff_hz=values["smoothing.min_cutoff_hz"],
        beta=values["smoothing.beta"],
        derivative_cutoff_hz=values["smoothing.derivative_cutoff_hz"],
    )
    return StreamOptions(
        tracking=tracking if values["tracking.enable"] else None,
        smoothing=smoothing if values["smoothing.enable"] else None,
        lifting=LiftingOptions(min_keypoint_score=sure, max_depth_m=values["depth_max_m"]),
        boxes_from_tracks=from_tracks,
        detector_every_n=values["detector_every_n"],
        detector_still_n=values["detector_still_n"],
    )


def _check_tf(values: dict[str, Any]) -> None:
    """Raises ValueError where `publish_tf` lacks something it needs."""
    if not values["publish_tf"]:
        return
    if not values["use_depth"]:
        raise ValueError("publish_tf is true, which needs use_depth: without depth there are no "
                         "positions in metres; set use_depth to true, or publish_tf to false")
    if not values["tracking.enable"]:
        raise ValueError("publish_tf is true, which needs tracking.enable: frames are named after "
                         "ids; set tracking.enable to true, or publish_tf to false")
    if not conversions.tf2_msgs_available():
        raise ValueError("publish_tf is true, which needs the package tf2_msgs, and that is not "
                         "installed (apt install ros-<distro>-tf2-msgs); or set publish_tf to "
                         "false")


def main(args: list[str] | None = None) -> int:
    """Entry point of the `wholebody_pose` executable; returns the exit code."""
    return run(WholebodyPoseNode, "wholebody_pose", args)


if __name__ == "__main__":
    sys.exit(main())
