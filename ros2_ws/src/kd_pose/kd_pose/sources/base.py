"""What a source gives: pictures with their camera, time and, where known, the truth.

A `Picture` keeps what was recorded: pixels in their own encoding, or a JPEG or PNG as it stands in
the file. It is converted only where the other form is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

# Our own encodings -> what cv2.imencode needs before it (None: nothing).
ENCODABLE = {
    "bgr8": None,
    "mono8": None,
    "8UC1": None,
    "8UC3": None,
    "rgb8": cv2.COLOR_RGB2BGR,
    "bgra8": cv2.COLOR_BGRA2BGR,
    "8UC4": cv2.COLOR_BGRA2BGR,
    "rgba8": cv2.COLOR_RGBA2BGR,
}
CHANNELS = {"mono8": 1, "8UC1": 1, "bgra8": 4, "8UC4": 4, "rgba8": 4}
# Colour stays colour and grey grey; the orientation a phone noted must not turn a picture away
# from its camera matrix.
READ_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION


class SourceError(ValueError):
    """A source that cannot be played; the message names the file, key or topic and what helps."""


@dataclass(frozen=True)
class Calibration:
    """The fields of a sensor_msgs/CameraInfo. k, r: 9 numbers row by row; p: 12.

    binning: (x, y). roi: (x_offset, y_offset, width, height, do_rectify).
    """

    width: int
    height: int
    k: tuple[float, ...]
    d: tuple[float, ...] = (0.0,) * 5
    distortion_model: str = "plumb_bob"
    r: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    p: tuple[float, ...] = ()
    binning: tuple[int, int] = (0, 0)
    roi: tuple[int, int, int, int, bool] = (0, 0, 0, 0, False)

    def __post_init__(self) -> None:
        if not self.p:
            k = self.k
            object.__setattr__(self, "p", (*k[:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0))


@dataclass(frozen=True)
class RawPicture:
    """Rows of `step` bytes in an encoding of sensor_msgs/Image. data: uint8, flat."""

    data: np.ndarray
    width: int
    height: int
    encoding: str
    step: int
    big_endian: bool = False

    def pixels(self) -> np.ndarray:
        """(H, W, C) without what pads the rows; for the encodings of `ENCODABLE`."""
        channels = CHANNELS.get(self.encoding, 3)
        rows = self.data[: self.height * self.step].reshape(self.height, self.step)
        return rows[:, : self.width * channels].reshape(self.height, self.width, channels)


@dataclass(frozen=True)
class Picture:
    """One picture in at least one form. encoded: the bytes of a JPEG or PNG, uint8, flat.

    where: file or topic, for messages. encoded_format: as sensor_msgs/CompressedImage has it.
    """

    where: str
    raw: RawPicture | None = None
    encoded: np.ndarray | None = None
    encoded_format: str = ""

    def as_raw(self) -> RawPicture:
        """Pixels; SourceError where the file cannot be decoded."""
        return self.raw or raw_from_array(decode(self.encoded, self.where))

    def as_encoded(self, quality: int) -> tuple[np.ndarray, str]:
        """Bytes of a picture file (as recorded, else JPEG) and their format."""
        if self.encoded is not None:
            return self.encoded, self.encoded_format
        raw = self.raw
        if raw.encoding not in ENCODABLE:
            raise SourceError(
                f"{self.where}: encoding {raw.encoding!r} cannot be compressed here, only "
                f"{', '.join(ENCODABLE)}: set image_transport to raw"
            )
        pixels = raw.pixels()
        if ENCODABLE[raw.encoding] is not None:
            pixels = cv2.cvtColor(pixels, ENCODABLE[raw.encoding])
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return data.reshape(-1), "jpeg"


@dataclass(frozen=True)
class TrueObject:
    """One object of the truth. T_cam_obj: (4, 4), metres; box_min, box_max: mesh frame, metres."""

    class_id: str
    T_cam_obj: np.ndarray
    box_min: tuple[float, float, float]
    box_max: tuple[float, float, float]


@dataclass(frozen=True)
class TruePerson:
    """One person of the truth. id: of the track, "" where nothing says it. box_xywh: pixels.
    keypoints_xy: (133, 2) pixels, NaN where a point is not labelled."""

    id: str
    box_xywh: tuple[float, float, float, float]
    keypoints_xy: np.ndarray


@dataclass(frozen=True)
class Frame:
    """time_s: since the first frame, None where nothing says when. stamp_ns and frame_id: of the
    recorded header, None and "" where there was none. truth, people: the objects and the people in
    it, None where they are not known."""

    picture: Picture
    calibration: Calibration
    time_s: float | None = None
    stamp_ns: int | None = None
    frame_id: str = ""
    truth: tuple[TrueObject, ...] | None = None
    people: tuple[TruePerson, ...] | None = None


@dataclass
class Source:
    """A recording that is read from its beginning each time `frames` is called.

    description: for people. count: number of pictures, None where it is not known before.
    has_times, has_stamps, has_truth: whether frames have those. rate_hz: 0 where nothing says it.
    """

    path: Path
    description: str = ""
    count: int | None = None
    has_times: bool = field(default=False)
    has_stamps: bool = field(default=False)
    has_truth: bool = field(default=False)
    rate_hz: float = 0.0

    def frames(self) -> Iterator[Frame]:
        """The frames in order, each read when it is asked for. Raises SourceError."""
        raise NotImplementedError


def raw_from_array(image: np.ndarray) -> RawPicture:
    """uint8 (H, W) or (H, W, 3) BGR -> RawPicture."""
    height, width = image.shape[:2]
    encoding, step = ("mono8", width) if image.ndim == 2 else ("bgr8", 3 * width)
    return RawPicture(np.ascontiguousarray(image).reshape(-1), width, height, encoding, step)


def decode(data: np.ndarray, where: str) -> np.ndarray:
    """Bytes of a picture file -> uint8 (H, W) or (H, W, 3) BGR; SourceError that begins with
    `where`."""
    try:
        image = cv2.imdecode(data, READ_FLAGS) if data.size else None
    except cv2.error as error:
        raise SourceError(f"{where}: cannot be decoded: {error}") from error
    if image is None:
        raise SourceError(f"{where}: damaged or not a picture ({data.size} bytes)")
    return image


def read_picture(path: Path) -> Picture:
    """A picture file, decoded. JPEG and PNG also keep their bytes."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    raw = raw_from_array(decode(data, str(path)))
    kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}.get(path.suffix.lower())
    return Picture(str(path), raw, data if kind else None, kind or "")


def check_size(picture: Picture, calibration: Calibration, said_by: str) -> None:
    """SourceError where a decoded picture is not of the size that `said_by` says."""
    raw = picture.raw
    if (raw.width, raw.height) != (calibration.width, calibration.height):
        raise SourceError(
            f"{picture.where}: is {raw.width}x{raw.height}, but {said_by} says "
            f"{calibration.width}x{calibration.height}; all pictures must have one size"
        )
