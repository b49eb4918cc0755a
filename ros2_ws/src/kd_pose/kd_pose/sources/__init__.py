"""Recordings to play: a folder of pictures, a video, a BOP scene, a rosbag2.

One door, `open_source`:

    source = open_source("data/part/val/000001", truth=True)
    for frame in source.frames():
        frame.picture.as_raw(), frame.calibration, frame.truth

No ROS here. `rosbags` is imported only for a rosbag2, and PyYAML only for a calibration file.
"""

from __future__ import annotations

from pathlib import Path

from kd_pose.sources.bag import BagSource, is_bag
from kd_pose.sources.base import (
    Calibration,
    Frame,
    Picture,
    RawPicture,
    Source,
    SourceError,
    TrueObject,
    TruePerson,
)
from kd_pose.sources.bop import BopSource, is_bop_scene, scenes_below
from kd_pose.sources.people import PeopleSource
from kd_pose.sources.pictures import VIDEO_SUFFIXES, FolderSource, VideoSource, list_pictures

__all__ = ["Calibration", "Frame", "Picture", "RawPicture", "Source", "SourceError", "TrueObject",
           "TruePerson", "open_source"]


def open_source(
    path: str | Path,
    *,
    image_topic: str = "",
    camera_info_topic: str = "",
    camera_file: str | Path = "",
    horizontal_fov_deg: float = 0.0,
    truth: bool = False,
    min_visible: float = 0.0,
    people_file: str | Path = "",
) -> Source:
    """The recording at `path`, checked as far as that is possible without reading it all.

    image_topic, camera_info_topic: of a rosbag2, empty = the only one. camera_file: calibration
    of a folder, a video or a rosbag2, empty = found beside them. horizontal_fov_deg: for pictures
    that have none, 0 = refuse. truth: true poses are wanted; min_visible: of objects of which at
    least that share is seen. people_file: annotations in COCO's format of the people in it.

    Raises SourceError (a ValueError) that names the file, key or topic and what is allowed.
    """
    if not str(path):
        raise SourceError("source is empty: name a folder of pictures, a video, a BOP scene or a "
                          "rosbag2")
    path = Path(path).expanduser()
    if not path.exists():
        raise SourceError(f"source: there is no file or folder {path}")
    camera = _given("camera_file", camera_file)
    annotations = _given("people_file", people_file)
    source = _open(path, image_topic, camera_info_topic, camera, horizontal_fov_deg, truth,
                   min_visible)
    if annotations is None:
        return source
    return PeopleSource(source, annotations, by_name=isinstance(source, FolderSource))


def _open(path: Path, image_topic: str, camera_info_topic: str, camera: Path | None,
          horizontal_fov_deg: float, truth: bool, min_visible: float) -> Source:
    if path.is_dir() and is_bop_scene(path):
        return BopSource(path, truth, min_visible)
    if truth:
        raise SourceError(f"{path}: has no true poses (it is not a BOP scene, which has "
                          "scene_camera.json and scene_gt.json): set publish_truth to false")
    if is_bag(path):
        return BagSource(path, image_topic, camera_info_topic, camera)
    if path.is_file():
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise SourceError(f"{path}: is neither a folder nor a video "
                              f"({', '.join(VIDEO_SUFFIXES)}) nor a rosbag2 (.mcap, .db3)")
        return VideoSource(path, camera, horizontal_fov_deg)
    if not list_pictures(path) and (scenes := scenes_below(path)):
        raise SourceError(f"{path}: holds BOP scenes; name one of them, e.g. "
                          f"{', '.join(map(str, scenes))}")
    return FolderSource(path, camera, horizontal_fov_deg)


def _given(name: str, value: str | Path) -> Path | None:
    if not str(value):
        return None
    path = Path(value).expanduser()
    if not path.is_file():
        raise SourceError(f"{name}: there is no file {path}")
    return path
