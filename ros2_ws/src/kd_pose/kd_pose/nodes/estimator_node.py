"""What every estimator node has in common: lifecycle, inputs, worker, timing, diagnostics.

The executor's callbacks only store messages (`inputs.py`, `sync.py`); one worker thread takes the
newest complete frame, converts it (`views.py`), asks the estimator, and publishes. So a slow
network makes results rarer, never older. A subclass says what is estimated through `load`,
`check`, `apply`, `create_outputs`, `estimate`, `publish_...` and `forget`.

Notable: rclpy swallows exceptions of lifecycle callbacks, so each is wrapped, logged and turned
into FAILURE, which leaves the node where it was. Every output has the header of its image.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from kd_pose.nodes import parameters, qos, transitions
from kd_pose.nodes.conversions import float_array, stamp_nanoseconds, vision_msgs_available
from kd_pose.nodes.diagnostics import OK, Diagnostics, Status
from kd_pose.nodes.health import Health, Rejected
from kd_pose.nodes.inputs import BOXES, CAMERA_INFO, DEPTH, Inputs
from kd_pose.nodes.namesakes import Namesakes
from kd_pose.nodes.once import OnceService
from kd_pose.nodes.sync import Counters, Frame, FrameSync
from kd_pose.nodes.views import View, ViewReader
from kd_pose.results import STAGES
from kd_pose_msgs.msg import Timing

RESULT_QOS = QoSProfile(depth=5)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PICTURE_QOS = QoSProfile(depth=1)
# Beyond this an image's stamp and the node's clock are not the same clock.
COMPARABLE_AGE_S = 10.0
WORKER_STOP_S = 60.0
PAUSED = "paused by the service ~/enable"


class EstimatorNode(LifecycleNode):
    """Lifecycle node around one estimator; see the module's docstring."""

    TABLE: tuple[parameters.Param, ...] = parameters.COMMON
    # Of the estimator, in the order in which they run. kd_pose_msgs/Timing has them between wait
    # (callback to worker), convert and publish (result messages), draw (markers and pictures,
    # where somebody looks at them), capture_to_publish (image stamp to result).
    STAGES: tuple[str, ...] = STAGES
    # Parameters for what this version does not have, and what that is.
    NOT_YET: Mapping[str, str] = {}
    # The outputs that are vision_msgs.
    STANDARD_OUTPUTS = "~/detections is"
    ONCE: type  # of ~/estimate_once; its `result` is what `results_message` gives

    def __init__(self, name: str, **kwargs) -> None:
        super().__init__(name, **kwargs)
        self.values: dict[str, Any] = {}
        self.estimator: Any = None
        self.done = Future()  # resolved with an exit code when the process should end
        self._inputs: Inputs | None = None
        self._sync = FrameSync()
        self._worker: threading.Thread | None = None
        self._busy = threading.Lock()  # held while a frame is worked on
        self._enabled = True
        self._forget_first = False  # before the next image
        self._outputs: list = []
        self._namesakes = Namesakes(self)
        transitions.guard(self)
        self.health = Health()
        parameters.declare(self, self.TABLE)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics = Diagnostics(self, self.get_parameter("diagnostics.period_s").value)
        for part in ("input", "calibration", "inference", "model"):
            self._diagnostics.add(part, getattr(self, f"_{part}_status"))
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._once = OnceService(self, self.ONCE, self._not_running,
                                 lambda: self._input_status().message)
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=self._on_time_jump,
        )
        if self.get_parameter("autostart").value:
            # On the steady clock: simulated time may not have begun.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)

    # --- what a subclass says ------------------------------------------------------------------

    def load(self, values: dict[str, Any]) -> Any:
        """The estimator, with `warm_up(n)`, `close()` and `description`."""
        raise NotImplementedError

    def needs_camera(self, values: dict[str, Any]) -> bool:
        """Whether images wait for their camera_info."""
        return True

    def check(self, estimator: Any, values: dict[str, Any]) -> None:
        """Raise ValueError for values that contradict each other or the loaded model."""

    def apply(self, values: dict[str, Any]) -> None:
        """Give dynamic values to `self.estimator`."""

    def create_outputs(self) -> None:
        """Create publishers with `self.output`."""

    def publish_latched(self) -> None:
        """Publish what describes the model; called on activation."""

    def estimate(self, view: View) -> Any:
        """The result, with `timing_ms` and `ignored_boxes`, of one view. Runs in the worker."""
        raise NotImplementedError

    def results_message(self, view: View, result: Any) -> Any:
        """All of a result as one message."""
        raise NotImplementedError

    def publish_results(self, view: View, result: Any, message: Any) -> None:
        """Publish what robots wait for. message: that of `results_message`."""

    def publish_pictures(self, view: View, result: Any) -> None:
        """Publish what people look at, if somebody does."""

    def publish_cleared(self) -> None:
        """Take down what would stay visible, e.g. markers."""

    def forget(self) -> None:
        """Drop what is remembered from image to image. Runs in the worker."""

    def forget_before_next_image(self) -> None:
        """Have `forget` called by the worker, so that nobody waits for the image in work."""
        self._forget_first = True

    def output(self, kind: type, topic: str, qos: QoSProfile = RESULT_QOS):
        """A publisher that lives until clean-up."""
        publisher = self.create_publisher(kind, topic, qos)
        self._outputs.append(publisher)
        return publisher

    # --- lifecycle -----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configure", self._configure, self._clean_up)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("activate", self._activate, self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("deactivate", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("clean up", self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shut down", self._stop)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("recover from an error", self._stop)

    def _transition(
        self, what: str, step: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        try:
            step()
        except Exception as error:
            self.health.failure = f"could not {what}: {error}"
            self.get_logger().error(f"{self.health.failure}\n{traceback.format_exc()}")
            if undo is not None:
                try:
                    undo()
                except Exception:
                    self.get_logger().error(traceback.format_exc())
            self._diagnostics.publish()
            return TransitionCallbackReturn.FAILURE
        self.health.failure = ""
        self._diagnostics.publish()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self.health.reset()
        values = parameters.read(self, self.TABLE)
        self._check_features(values)
        self.health.unknown = parameters.unknown_overrides(
            self, self.TABLE, qos.parameters_of(self, qos.INPUTS, qos.SUBSCRIPTION))
        if self.health.unknown:
            names = ", ".join(self.health.unknown)
            self.get_logger().warning(f"unknown parameter(s) given: {names}")
        self.estimator = self.load(values)
        self.check(self.estimator, values)
        self.estimator.warm_up(values["warmup_iterations"])
        self.values = values
        self.apply(values)
        self._views = ViewReader(values, self.health)
        self._diagnostics.period_s = values["diagnostics.period_s"]
        self._timing = self.output(Timing, "~/timing")
        self.create_outputs()
        self.get_logger().info(f"configured: {self.estimator.description}")

    def _check_features(self, values: dict[str, Any]) -> None:
        """Raise ValueError for what this version or this machine does not have."""
        for name, feature in self.NOT_YET.items():
            if values[name]:
                raise ValueError(
                    f"{name} is true, but {feature} is not yet in this version of kd_pose: "
                    "set it to false"
                )
        self.has_vision_msgs = vision_msgs_available()
        if self.has_vision_msgs:
            return
        if values["roi_source"] == "topic":
            raise ValueError(
                "roi_source is topic, which needs the package vision_msgs, and that is not "
                "installed (apt install ros-<distro>-vision-msgs); or set roi_source to detector"
            )
        loss = f"{self.STANDARD_OUTPUTS} not published"
        if not self.health.missing:
            self.get_logger().warning(f"vision_msgs is not installed: {loss}")
        self.health.missing = {"vision_msgs": loss}

    def _activate(self) -> None:
        exact, latest, tolerance_ns = (), (), {}
        camera = self.needs_camera(self.values)
        if camera and self.values["camera_info_sync"] == "latest":
            latest += (CAMERA_INFO,)
        elif camera:
            exact += (CAMERA_INFO,)
        if self.values["roi_source"] == "topic":
            exact += (BOXES,)
        if self.values["use_depth"]:
            exact += (DEPTH,)
            tolerance_ns[DEPTH] = round(1e9 * self.values["depth_tolerance_s"])
        self._sync = FrameSync(exact, latest, self.values["sync_timeout_s"], tolerance_ns)
        self.health.reset()
        self.forget_before_next_image()
        self.publish_latched()
        self._worker = threading.Thread(target=self._work, args=(self._sync,), daemon=True)
        self._worker.start()
        self._inputs = Inputs(self, self._sync, self.values, camera)
        self._inputs.paused = not self._enabled

    def _deactivate(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None
        self._once.refuse_all("the node was deactivated")
        self._sync.close()
        worker, self._worker = self._worker, None
        if worker is not None and worker is not threading.current_thread():
            worker.join(WORKER_STOP_S)
            if worker.is_alive():
                self._worker = worker
                raise RuntimeError(f"the network has not answered for {WORKER_STOP_S:.0f} s")
            if self.context.ok():  # after Ctrl-C nothing can be published any more
                self.publish_cleared()

    def _clean_up(self) -> None:
        for publisher in self._outputs:
            self.destroy_publisher(publisher)
        self._outputs.clear()
        estimator, self.estimator = self.estimator, None
        self.values = {}
        if estimator is not None:
            estimator.close()

    def _stop(self) -> None:
        self._deactivate()
        self._clean_up()

    def destroy_node(self) -> None:
        try:
            self._stop()
        finally:
            super().destroy_node()

    def _autostart(self) -> None:
        self.destroy_timer(self._autostart_timer)
        if not transitions.start(self) and self.get_parameter("exit_on_failure").value:
            self.done.set_result(1)

    # --- callbacks -----------------------------------------------------------------------------

    def _on_set_parameters(self, changes) -> SetParametersResult:
        configured = self.estimator is not None
        try:
            values = parameters.changed(self.TABLE, self.values, changes, configured)
            if configured:
                self.check(self.estimator, values)
                self.apply(values)
                self.values = self._views.values = values
                self._sync.timeout_s = values["sync_timeout_s"]
        except Exception as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_enable(self, request, response):
        """Pause and resume; after the answer to "pause" no result comes any more."""
        self._enabled = request.data
        if self._inputs is not None:
            self._inputs.paused = not request.data
            if not request.data:
                self._once.refuse_all(PAUSED)
                self._sync.clear()
                with self._busy:
                    self.publish_cleared()
        response.success = True
        response.message = "enabled" if request.data else "paused"
        if self._inputs is None:
            response.message += ", from the next activation on"
        return response

    def _not_running(self) -> str:
        """Why no image is worked on now; "" if they are."""
        if self._inputs is None:
            return "the node is not active"
        return "" if self._enabled else PAUSED

    def _on_time_jump(self, jump) -> None:
        if self._inputs is None:
            return
        self.get_logger().warning("time jumped backwards or its source changed: starting afresh")
        self._sync.clear(counters=True)
        self.health.reset()
        self.forget_before_next_image()

    # --- worker --------------------------------------------------------------------------------

    def _work(self, sync: FrameSync) -> None:
        while True:
            frame = sync.take()
            if frame is None:
                return
            try:
                with self._busy:
                    if self._enabled:
                        self._process(sync, frame)
            except Rejected as error:
                sync.count("rejected")
                self.health.reject(error)
                self.get_logger().warning(f"image rejected: {error}", throttle_duration_sec=5.0)
            except Exception as error:
                if not self.context.ok():
                    return
                self.health.exceptions.note(f"{type(error).__name__}: {error}")
                self.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)

    def _process(self, sync: FrameSync, frame: Frame) -> None:
        started = time.perf_counter()
        if self._forget_first:
            self._forget_first = False
            self.forget()
        view = self._views.read(frame, self.get_clock().now().nanoseconds)
        self.health.note_stamp(view.stamp_ns)
        converted = time.perf_counter()
        result = self.estimate(view)
        if result.ignored_boxes:
            self.health.ignore_boxes(result.ignored_boxes)
        estimated = time.perf_counter()
        message = self.results_message(view, result)
        self.publish_results(view, result, message)
        self._once.offer(frame.received, message)
        published = time.perf_counter()
        sync.count("processed")
        age_ms = self._comparable_age(view.header)
        self.publish_pictures(view, result)
        ms = {
            **result.timing_ms,
            "wait": 1e3 * (started - frame.received),
            "convert": 1e3 * (converted - started),
            "publish": 1e3 * (published - estimated),
            "draw": 1e3 * (time.perf_counter() - published),
            "capture_to_publish": age_ms,
        }
        self._publish_timing(view.header, ms, sync.counters)
        self.health.processing.add(1e3 * (published - started))
        self.health.latency.add(age_ms)

    def _comparable_age(self, header: Header) -> float:
        """Milliseconds since the image's stamp; NaN where that is no time of the node's clock."""
        age = 1e-9 * (self.get_clock().now().nanoseconds - stamp_nanoseconds(header))
        return 1e3 * age if 0.0 <= age < COMPARABLE_AGE_S else math.nan

    def _publish_timing(self, header: Header, ms: dict[str, float], counters: Counters) -> None:
        stages = ("wait", "convert", *self.STAGES, "publish", "draw", "capture_to_publish")
        values = np.array([ms.get(stage, 0.0) for stage in stages])
        message = Timing(header=header, stages=stages, ms=float_array(values))
        for name in vars(counters):
            setattr(message, name, getattr(counters, name))
        self._timing.publish(message)

    # --- diagnostics ---------------------------------------------------------------------------

    def _input_status(self) -> Status:
        if self._inputs is None:
            return Status(OK, "not active")
        if not self._enabled:
            return Status(OK, PAUSED)
        status = self._inputs.status(self.values["diagnostics.input_timeout_s"])
        return self.health.judge_rejections(status)

    def _calibration_status(self) -> Status:
        if self._inputs is not None and not self.needs_camera(self.values):
            return Status(OK, "no camera_info is needed")
        return self.health.calibration

    def _inference_status(self) -> Status:
        if self._inputs is None:
            return Status(OK, "not active")
        return self.health.inference(
            {
                "processing": self.values["diagnostics.max_processing_time_ms"],
                "latency": self.values["diagnostics.max_latency_ms"],
            }
        )

    def _model_status(self) -> Status:
        description = None if self.estimator is None else self.estimator.description
        return self._namesakes.judge(self.health.model(description, self.values))
