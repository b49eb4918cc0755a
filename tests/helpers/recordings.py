"""Small recordings to play, with values worked out by hand: 8x6 pictures and 7x5 bags."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (8, 6)  # width, height
K = (10.0, 0.0, 3.5, 0.0, 11.0, 2.5, 0.0, 0.0, 1.0)
CALIBRATION = """
image_width: 8
image_height: 6
camera_name: narrow
camera_matrix: {rows: 3, cols: 3, data: [10.0, 0, 3.5, 0, 11.0, 2.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0.0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [9.0, 0, 3.5, 0, 0, 9.5, 2.5, 0, 0, 0, 1, 0]}
"""


def picture(value: int, size: tuple[int, int] = SIZE, grey: bool = False) -> np.ndarray:
    """One colour, whose blue (or grey) says which picture it is."""
    width, height = size
    image = np.full((height, width, 3), (value, 100, 200), np.uint8)
    return image[..., 0].copy() if grey else image


def write_folder(folder: Path, names=("img10.png", "img2.png", "img1.png"),
                 calibration: str = CALIBRATION) -> Path:
    """Pictures whose blue is the number in their name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        number = int("".join(char for char in name if char.isdecimal()))
        assert cv2.imwrite(str(folder / name), picture(number))
    if calibration:
        (folder / "camera.yaml").write_text(calibration)
    return folder


def write_video(path: Path, count: int = 5, rate_hz: float = 20.0,
                size: tuple[int, int] = (64, 48)) -> Path:
    """A video whose blue grows by 40 a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate_hz, size)
    assert writer.isOpened()
    for index in range(count):
        writer.write(picture(40 * index, size))
    writer.release()
    return path


def write_json(path: Path, data) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


class Bag:
    """Writes a rosbag2: `with Bag(folder, "mcap") as bag: bag.image(0.1, 5); bag.info(0.1)`."""

    def __init__(self, folder: Path, storage: str = "sqlite3"):
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        self.folder = folder
        self.store = get_typestore(Stores.ROS2_JAZZY)
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self.writer = Writer(folder, version=9, storage_plugin=plugin)
        self.connections = {}

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *exc):
        self.writer.close()

    def type(self, name):
        return self.store.types[name]

    def write(self, topic: str, message, time_s: float) -> None:
        kind = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(
                topic, kind, typestore=self.store)
        data = self.store.serialize_cdr(message, kind)
        self.writer.write(self.connections[topic], round(1e9 * (1000 + time_s)), data)

    def header(self, stamp_s: float, frame_id: str = "bag_optical"):
        stamp = self.type("builtin_interfaces/msg/Time")(int(stamp_s), round(stamp_s % 1 * 1e9))
        return self.type("std_msgs/msg/Header")(stamp, frame_id)

    def image(self, time_s: float, value: int, *, topic: str = "/cam/image_raw",
              encoding: str = "rgb8", stamp_s: float | None = None, step: int = 22) -> None:
        """A 7x5 picture; rows are padded to `step` bytes."""
        stamp_s = 50 + time_s if stamp_s is None else stamp_s
        rows = np.full((5, step), 77, np.uint8)
        rows[:, :21] = np.tile(np.array([value, 20, 30], np.uint8), 7)
        self.write(topic, self.type("sensor_msgs/msg/Image")(
            self.header(stamp_s), 5, 7, encoding, 0, step, rows.reshape(-1)), time_s)

    def jpeg(self, time_s: float, value: int, *, topic: str = "/cam/image_raw/compressed") -> None:
        data = cv2.imencode(".png", picture(value, (7, 5)))[1].reshape(-1)
        self.write(topic, self.type("sensor_msgs/msg/CompressedImage")(
            self.header(50 + time_s), "png", data), time_s)

    def info(self, time_s: float, focal: float = 10.0, *, topic: str = "/cam/camera_info",
             stamp_s: float | None = None) -> None:
        stamp_s = 50 + time_s if stamp_s is None else stamp_s
        k = np.array([focal, 0, 3, 0, focal, 2, 0, 0, 1.0])
        p = np.array([focal, 0, 3, 0, 0, focal, 2, 0, 0, 0, 1.0, 0])
        roi = self.type("sensor_msgs/msg/RegionOfInterest")(1, 2, 4, 3, True)  # height, width
        self.write(topic, self.type("sensor_msgs/msg/CameraInfo")(
            self.header(stamp_s), 5, 7, "plumb_bob", np.array([0.1, 0, 0, 0, 0.0]), k,
            np.eye(3).reshape(9), p, 2, 1, roi), time_s)


def write_bag(folder: Path, storage: str = "sqlite3", count: int = 4,
              step_s: float = 0.1) -> Path:
    """Pictures `step_s` apart, each before its camera_info; red is 10, 20, 30 and so on."""
    with Bag(folder, storage) as bag:
        for index in range(count):
            bag.image(step_s * index, 10 * (index + 1))
            bag.info(step_s * index + 0.01, 10.0 + index, stamp_s=50 + step_s * index)
    return folder


def write_true_people(path: Path, images: dict[int, str], people: list[dict]) -> Path:
    """Annotations in COCO's format. people: `image_id`, `x` and any further keys; the 17 body
    points lie on top of each other at x, 2, the first of them not labelled."""
    annotations = []
    for number, person in enumerate(people):
        person = dict(person)
        x = person.pop("x", 1)
        annotations.append({"id": number + 1, "category_id": 1, "bbox": [x, 0, 4, 5], "iscrowd": 0,
                            "keypoints": [0, 0, 0] + 16 * [x, 2, 2], **person})
    data = {"images": [{"id": key, "file_name": name} for key, name in images.items()],
            "annotations": annotations}
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(json.dumps(data).encode()))
    else:
        write_json(path, data)
    return path
