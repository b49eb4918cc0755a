"""`object_pose`: camera images in, 6D poses of objects out."""

from __future__ import annotations

import sys
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from kd_pose.drawing import draw_objects
from kd_pose.nodes import conversions, parameters
from kd_pose.nodes.estimator_node import LATCHED_QOS, PICTURE_QOS, EstimatorNode
from kd_pose.nodes.pictures import PictureOutput
from kd_pose.nodes.process import run
from kd_pose.nodes.views import View
from kd_pose.object_pose import ObjectPoseEstimator, ObjectPoseOptions
from kd_pose.results import ObjectPoseFrame
from kd_pose_msgs.msg import ObjectInfoArray, ObjectPoseArray
from kd_pose_msgs.srv import EstimateObjects


class ObjectPoseNode(EstimatorNode):
    """Lifecycle node around `ObjectPoseEstimator`."""

    TABLE = parameters.OBJECT_POSE
    NOT_YET = {"publish_tf": "TF", "use_depth": "depth", "tracking.enable": "tracking"}
    ONCE = EstimateObjects
    STANDARD_OUTPUTS = "~/detections and ~/vision_info are"

    def __init__(self, **kwargs) -> None:
        super().__init__("object_pose", **kwargs)

    def load(self, values: dict[str, Any]) -> ObjectPoseEstimator:
        if not values["model_path"]:
            raise ValueError("model_path is empty: give the .onnx file of a pose model")
        from_detector = values["roi_source"] == "detector"
        if from_detector and not values["detector_path"]:
            raise ValueError(
                "detector_path is empty: give the .onnx file of a detector, or set roi_source to "
                "topic and publish boxes"
            )
        return ObjectPoseEstimator(
            values["model_path"],
            values["detector_path"] if from_detector else None,
            backend=values["backend"],
            device=values["device"],
            precision=values["precision"],
            threads=values["threads"],
        )

    def check(self, estimator: ObjectPoseEstimator, values: dict[str, Any]) -> None:
        known = [spec.name for spec in estimator.objects]
        targets, primary = values["target_objects"], values["primary_target"]
        unknown = [name for name in targets if name not in known]
        if unknown:
            raise ValueError(
                f"target_objects: unknown {', '.join(unknown)}; the model knows {', '.join(known)}"
            )
        if primary and primary not in (targets or known):
            raise ValueError(
                f"primary_target {primary!r} is not looked for; that are "
                f"{', '.join(targets or known)}"
            )
        _options(values)

    def apply(self, values: dict[str, Any]) -> None:
        self.estimator.options = _options(values)

    def create_outputs(self) -> None:
        self._objects = self.output(ObjectPoseArray, "~/objects")
        self._target = self.output(PoseWithCovarianceStamped, "~/target_pose")
        self._markers = self.output(MarkerArray, "~/markers")
        self._picture = PictureOutput(self.output, PICTURE_QOS)
        self._object_info = self.output(ObjectInfoArray, "~/object_info", LATCHED_QOS)
        if self.has_vision_msgs:
            from vision_msgs.msg import Detection3DArray, VisionInfo

            self._detections = self.output(Detection3DArray, "~/detections")
            self._vision_info = self.output(VisionInfo, "~/vision_info", LATCHED_QOS)

    def publish_latched(self) -> None:
        # The one output that belongs to no image.
        header = Header(stamp=self.get_clock().now().to_msg())
        specs = self.estimator.objects
        self._object_info.publish(conversions.object_info_message(specs, header))
        if self.has_vision_msgs:
            # Class ids are names already; where their sizes and symmetries stand is the rest.
            location = self._object_info.topic_name
            self._vision_info.publish(
                conversions.vision_info_message(header, "kd_pose object pose", location)
            )

    def estimate(self, view: View) -> ObjectPoseFrame:
        return self.estimator.estimate(
            view.image, view.camera, channel_order=view.channel_order, boxes=view.boxes
        )

    def results_message(self, view: View, result: ObjectPoseFrame) -> ObjectPoseArray:
        return conversions.objects_message(result, view.header)

    def publish_results(self, view: View, result: ObjectPoseFrame, message: ObjectPoseArray
                        ) -> None:
        self._objects.publish(message)
        if self.has_vision_msgs:
            self._detections.publish(conversions.detections_message(result, view.header))
        primary = self.values["primary_target"]
        target = primary and conversions.target_message(result, view.header, primary)
        if target:
            self._target.publish(target)

    def publish_pictures(self, view: View, result: ObjectPoseFrame) -> None:
        names = [spec.name for spec in self.estimator.objects]
        if self._markers.get_subscription_count():
            lifetime = self.values["markers.lifetime_s"]
            self._markers.publish(
                conversions.markers_message(result, view.header, lifetime, names)
            )
        self._picture.publish(
            view, lambda: draw_objects(view.image, result, view.camera, view.channel_order, names),
            self.values["annotate.jpeg_quality"])

    def publish_cleared(self) -> None:
        header = Header(stamp=self.get_clock().now().to_msg())
        self._markers.publish(conversions.delete_all_message(header))


def _options(values: dict[str, Any]) -> ObjectPoseOptions:
    """0 as a threshold stands for the model's own."""
    return ObjectPoseOptions(
        score_threshold=values["score_threshold"] or None,
        detector_score_threshold=values["detector_score_threshold"] or None,
        object_score_threshold=values["object_score_threshold"],
        max_instances=values["max_instances"],
        min_inliers=values["min_inliers"],
        max_reprojection_error_px=values["max_reprojection_error_px"],
        target_objects=values["target_objects"],
    )


def main(args: list[str] | None = None) -> int:
    """Entry point of the `object_pose` executable; returns the exit code."""
    return run(ObjectPoseNode, "object_pose", args)


if __name__ == "__main__":
    sys.exit(main())
