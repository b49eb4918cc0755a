"""A rosbag2 recording (sqlite3 or mcap), read with the `rosbags` library: no ROS needed.

Notable: an image gets the camera_info with its own stamp, or else the last one before it, or the
first of the bag. So an image is given out when the next message has been seen. Pictures keep their
recorded encoding and header.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose.sources.base import Calibration, Frame, Picture, RawPicture, Source, SourceError
from kd_pose.sources.calibration import read_calibration

IMAGE, COMPRESSED, INFO = (f"sensor_msgs/msg/{name}" for name in
                           ("Image", "CompressedImage", "CameraInfo"))
BAG_SUFFIXES = (".mcap", ".db3")


def is_bag(path: Path) -> bool:
    """Whether a path is meant as a rosbag2: its folder or one of its files."""
    if path.is_dir():
        return (path / "metadata.yaml").exists() or any(
            next(path.glob(f"*{suffix}"), None) for suffix in BAG_SUFFIXES)
    return path.suffix.lower() in BAG_SUFFIXES


class BagSource(Source):
    """One image topic of a bag with its camera_info. Frames have times, stamps and frame ids."""

    def __init__(self, path: Path, image_topic: str = "", info_topic: str = "",
                 camera_file: Path | None = None) -> None:
        """Empty topics: the only one in the bag; for camera_info first the one beside the image.

        camera_file: a calibration to use instead of a camera_info topic.
        """
        super().__init__(path, has_times=True, has_stamps=True)
        self._given = None if camera_file is None else read_calibration(camera_file)
        with self._open() as reader:
            types = {c.topic: c.msgtype for c in reader.connections if c.msgcount}
            self.image_topic = _choose(path, types, (IMAGE, COMPRESSED), image_topic,
                                       "image_topic")
            self.info_topic = ""
            if self._given is None:
                info_topic = info_topic or _sibling(self.image_topic, types)
                self.info_topic = _choose(path, types, (INFO,), info_topic, "camera_info_topic")
                self._first = self._first_calibration(reader)
            self.count = sum(c.msgcount for c in reader.connections
                             if c.topic == self.image_topic)
        self.description = (f"rosbag2 {path}, {self.count} pictures of {self.image_topic} with "
                            f"{self.info_topic or camera_file}")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        AnyReader, default_types = _import_rosbags()
        # A file of a bag stands for the bag: it may be compressed and one of several.
        whole = self.path.is_file() and (self.path.parent / "metadata.yaml").exists()
        try:
            with AnyReader([self.path.parent if whole else self.path],
                           default_typestore=default_types) as reader:
                yield reader
        except (SourceError, GeneratorExit):
            raise
        except Exception as error:  # the readers of the storages raise what they like
            raise SourceError(f"{self.path}: not a readable rosbag2: {error}") from error

    def _first_calibration(self, reader: Any) -> Calibration:
        for connection, _, data in reader.messages(self._connections(reader, self.info_topic)):
            return _calibration(reader.deserialize(data, connection.msgtype))
        raise SourceError(f"{self.path}: topic {self.info_topic} has no messages")

    def _connections(self, reader: Any, *topics: str) -> list:
        return [c for c in reader.connections if c.topic in topics]

    def frames(self) -> Iterator[Frame]:
        with self._open() as reader:
            calibration = self._given or self._first
            waiting, start = None, None
            topics = (self.image_topic, self.info_topic)
            for connection, time_ns, data in reader.messages(self._connections(reader, *topics)):
                message = reader.deserialize(data, connection.msgtype)
                if connection.msgtype != INFO:
                    if waiting is not None:
                        yield self._frame(*waiting, calibration)
                    start = time_ns if start is None else start
                    waiting = message, connection.msgtype, 1e-9 * (time_ns - start)
                    continue
                if waiting is not None and _stamp(message) != _stamp(waiting[0]):
                    yield self._frame(*waiting, calibration)
                    waiting = None
                calibration = _calibration(message)
            if waiting is not None:
                yield self._frame(*waiting, calibration)

    def _frame(self, message: Any, kind: str, time_s: float, calibration: Calibration) -> Frame:
        where = f"{self.path}: {self.image_topic} at {time_s:.3f} s"
        data = np.ascontiguousarray(message.data, dtype=np.uint8).reshape(-1)
        if kind == COMPRESSED:
            picture = Picture(where, encoded=data, encoded_format=message.format)
        else:
            picture = Picture(where, RawPicture(
                data, message.width, message.height, message.encoding, message.step,
                bool(message.is_bigendian)))
        return Frame(picture, calibration, time_s, _stamp(message), message.header.frame_id)


def _import_rosbags() -> tuple[Any, Any]:
    """The reader class, and the message types for bags without definitions."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise SourceError(
            f"a rosbag2 needs the package rosbags, which cannot be imported ({error}); install it "
            "with: pip install rosbags"
        ) from error

    return AnyReader, get_typestore(Stores.ROS2_JAZZY)


def _choose(path: Path, types: dict[str, str], kinds: tuple[str, ...], wanted: str,
            parameter: str) -> str:
    """The topic to play; SourceError that lists the topics there are."""
    there = sorted(topic for topic, kind in types.items() if kind in kinds)
    names = " or ".join(kind.split("/")[-1] for kind in kinds)
    if wanted:
        if wanted in there:
            return wanted
        raise SourceError(f"{path}: {parameter} {wanted!r} is not among the {names} topics "
                          f"of the bag: {', '.join(there) or 'none'}")
    if len(there) == 1:
        return there[0]
    if there:
        raise SourceError(f"{path}: several {names} topics, choose one with {parameter}: "
                          f"{', '.join(there)}")
    others = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(types.items()))
    raise SourceError(f"{path}: has no {names} messages; topics: {others or 'none'}")


def _sibling(image_topic: str, types: dict[str, str]) -> str:
    """camera_info in the namespace of an image topic, where there is one; else empty."""
    base = image_topic.removesuffix("/compressed").rsplit("/", 1)[0]
    name = f"{base}/camera_info"
    return name if types.get(name) == INFO else ""


def _stamp(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def _calibration(message: Any) -> Calibration:
    def numbers(values: Any) -> tuple[float, ...]:
        return tuple(np.asarray(values, dtype=np.float64).tolist())

    roi = message.roi
    return Calibration(
        message.width, message.height, numbers(message.k), numbers(message.d),
        message.distortion_model, numbers(message.r), numbers(message.p),
        (message.binning_x, message.binning_y),
        (roi.x_offset, roi.y_offset, roi.width, roi.height, bool(roi.do_rectify)),
    )
