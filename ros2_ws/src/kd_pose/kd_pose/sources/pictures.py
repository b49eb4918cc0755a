"""A folder of pictures, and a video."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from kd_pose.sources.base import (
    Calibration,
    Frame,
    Picture,
    Source,
    SourceError,
    check_size,
    raw_from_array,
    read_picture,
)
from kd_pose.sources.calibration import (
    calibration_from_fov,
    find_calibration,
    missing_calibration,
    read_calibration,
)

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".mjpg")


def natural_key(path: Path) -> list:
    """Sorts img2 before img10."""
    return [int(part) if part.isdecimal() else part.lower()
            for part in re.split(r"(\d+)", path.name)]


def list_pictures(folder: Path) -> list[Path]:
    """Picture files of a folder in natural order; hidden ones are not counted."""
    return sorted((path for path in folder.iterdir() if path.is_file()
                   and path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "."),
                  key=natural_key)


class FolderSource(Source):
    """All pictures of one folder. They have no times."""

    def __init__(self, folder: Path, camera_file: Path | None = None,
                 fov_deg: float = 0.0) -> None:
        """camera_file: None = the one in the folder. fov_deg: counts where there is no file."""
        self._files = list_pictures(folder)
        if not self._files:
            raise SourceError(
                f"{folder}: has no pictures ({', '.join(PICTURE_SUFFIXES)}), no scene_camera.json "
                "of a BOP scene and no metadata.yaml of a rosbag2"
            )
        super().__init__(folder, f"{len(self._files)} pictures in {folder}", len(self._files))
        self._calibration, self._said_by = _calibration(
            folder, folder, "", camera_file, fov_deg, lambda: read_picture(self._files[0]))

    def frames(self) -> Iterator[Frame]:
        for path in self._files:
            picture = read_picture(path)
            check_size(picture, self._calibration, self._said_by)
            yield Frame(picture, self._calibration)


class VideoSource(Source):
    """A video file. Its pictures have times but no stamps."""

    def __init__(self, path: Path, camera_file: Path | None = None, fov_deg: float = 0.0) -> None:
        super().__init__(path, has_times=True)
        capture = self._open()
        self._rate = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        good, image = capture.read()
        capture.release()
        if not good:
            raise SourceError(f"{path}: not a video, or one without a readable first picture")
        self.count = count if count > 0 else None
        rate = f"{self._rate:.4g} Hz" if self._rate > 0 else "no frame rate"
        self.description = f"video {path}, {count} pictures, {rate}"
        self.has_times, self.rate_hz = self._rate > 0, max(self._rate, 0.0)
        first = Picture(str(path), raw_from_array(image))
        self._calibration, self._said_by = _calibration(
            path, path.parent, path.stem, camera_file, fov_deg, lambda: first)
        check_size(first, self._calibration, self._said_by)

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise SourceError(f"{self.path}: OpenCV cannot open it as a video")
        return capture

    def frames(self) -> Iterator[Frame]:
        capture, index = self._open(), 0
        try:
            while True:
                good, image = capture.read()
                if not good:
                    break
                picture = Picture(f"{self.path}, picture {index}", raw_from_array(image))
                check_size(picture, self._calibration, self._said_by)
                time_s = index / self._rate if self.has_times else None
                yield Frame(picture, self._calibration, time_s)
                index += 1
        finally:
            capture.release()


def _calibration(source: Path, folder: Path, stem: str, camera_file: Path | None, fov_deg: float,
                 first: Callable[[], Picture]) -> tuple[Calibration, str]:
    """The calibration of pictures, and who says so. first: gives the first picture."""
    path = camera_file or find_calibration(folder, stem)
    if path is not None:
        return read_calibration(path), str(path)
    if fov_deg <= 0:
        raise missing_calibration(source, folder)
    raw = first().raw
    return calibration_from_fov(raw.width, raw.height, fov_deg), "the first picture"
