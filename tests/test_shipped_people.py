"""The shipped person detector on the shipped clip: three people, one walking around the others."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_pose.manifest import read_manifest
from kd_pose.person_detector import open_person_detector

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models/person_detector.onnx"


@pytest.fixture(scope="module")
def frames():
    video = cv2.VideoCapture(str(ROOT / "tools/demo/people.mp4"))
    pictures = []
    while True:
        good, image = video.read()
        if not good:
            return pictures
        pictures.append(image)


def test_the_clip_is_what_the_demonstration_says(frames):
    assert len(frames) == 100 and frames[0].shape == (480, 640, 3)
    change = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:])]
    assert 0 < max(change) < 6  # one place and one camera, no cuts


def test_the_detector_finds_the_people_of_the_clip(frames):
    detector = open_person_detector(MODEL, threads=1)
    found = [detector.detect(frame) for frame in frames[::10]]
    detector.close()
    counts = [len(items) for items in found]
    assert 2 <= np.mean(counts) <= 4
    heights = [item.box_xywh[3] for items in found for item in items]
    assert 150 < np.median(heights) < 330  # they fill half of the picture


def test_the_file_says_what_it_is():
    manifest = read_manifest(MODEL)
    assert [spec.name for spec in manifest.objects] == ["person"]
    assert MODEL.stat().st_size < 5e6
    assert manifest.metrics["people"]["score_threshold"] == manifest.score_threshold
