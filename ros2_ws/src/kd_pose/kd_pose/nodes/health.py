"""What a node knows of its own condition, put into diagnostic statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd_pose.nodes.diagnostics import ERROR, OK, WARN, Incident, Statistics, Status


class Rejected(ValueError):
    """A frame that cannot be used. part: whose diagnostic tells, "input" or "calibration"."""

    def __init__(self, part: str, text: str, level: bytes = ERROR) -> None:
        super().__init__(text)
        self.part, self.level = part, level


class Health:
    """Failures, rejections, exceptions and times.

    failure: why the last transition failed, "" if it did not. unknown: parameters given that
    nothing reads. missing: packages that are not there and what is lost with each.
    """

    def __init__(self) -> None:
        self.failure = ""
        self.unknown: list[str] = []
        self.missing: dict[str, str] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what concerns single frames."""
        self.calibration = Status(OK, "no camera_info yet")
        self.rejections, self.exceptions = Incident(), Incident()
        self.ignored_boxes, self.same_stamps = Incident(), Incident()
        self._stamp_ns: int | None = None
        self.processing, self.latency = Statistics(), Statistics()

    def reject(self, error: Rejected) -> None:
        if error.part == "calibration":
            self.calibration = Status(error.level, str(error))
        else:
            self.rejections.note(str(error))
            self.rejection_level = error.level

    def ignore_boxes(self, count: int) -> None:
        """So many boxes of an image were given and could not be looked at."""
        self.ignored_boxes.note(
            f"{count} box(es) of an image were ignored: of a class that the model does not know, "
            "of none, without area, or outside of the image")

    def note_stamp(self, stamp_ns: int) -> None:
        """An image with that stamp is worked on."""
        if stamp_ns == self._stamp_ns:
            self.same_stamps.note(
                f"images have one and the same stamp ({1e-9 * stamp_ns:.3f} s): whoever matches "
                "topics by stamp mixes them up; have the camera's driver stamp every image")
        self._stamp_ns = stamp_ns

    def judge_rejections(self, status: Status) -> Status:
        """`status` with what was rejected or ignored lately."""
        if self.rejections.recent:
            status.worsen(self.rejection_level, f"image rejected: {self.rejections.text}")
        if self.ignored_boxes.recent:
            status.worsen(WARN, self.ignored_boxes.text)
        if self.same_stamps.recent:
            status.worsen(WARN, self.same_stamps.text)
        return status

    def inference(self, limits_ms: Mapping[str, float]) -> Status:
        """limits_ms: parameter name by "processing" and "latency" -> what is allowed, 0 = all."""
        status = Status(
            OK,
            "running",
            {"rate Hz": f"{self.processing.rate_hz:.1f}", "exceptions": self.exceptions.count},
        )
        for name, statistics in (("processing", self.processing), ("latency", self.latency)):
            summary = statistics.summary()
            status.values.update({f"{name} ms {key}": text for key, text in summary.items()})
            limit = limits_ms[name]
            if limit and summary and float(summary["mean"]) > limit:
                status.worsen(
                    WARN,
                    f"{name} takes {summary['mean']} ms on average, more than {limit:g} ms "
                    f"(see the parameters diagnostics.*)",
                )
        if self.latency.rate_hz and not self.latency.summary():
            status.values["latency ms"] = "unknown: stamps are not of this node's clock"
        if self.exceptions.recent:
            status.worsen(ERROR, f"a frame failed: {self.exceptions.text}")
        return status

    def model(self, description: str | None, values: Mapping[str, Any]) -> Status:
        """description: of the loaded estimator, None if there is none."""
        if self.failure:
            return Status(ERROR, self.failure)
        if description is None:
            return Status(OK, "not configured")
        status = Status(
            OK,
            description,
            {"model": values["model_path"], "detector": values["detector_path"]},
        )
        for package, loss in self.missing.items():
            status.values[package] = f"not installed: {loss}"
        if self.unknown:
            status.worsen(WARN, "unknown parameter(s) given: " + ", ".join(self.unknown))
        return status
