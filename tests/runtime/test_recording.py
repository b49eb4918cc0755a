"""What the monitor leaves behind of pictures: written as they come, whatever they are."""

import json

import cv2
import numpy as np
import pytest

from kd_pose.recording import KEPT, Recording, fitted


def jpeg(value=99, width=64, height=48):
    return cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8))[1].tobytes()


def frames_of(path):
    video, values = cv2.VideoCapture(str(path)), []
    while True:
        good, picture = video.read()
        if not good:
            return values
        values.append((picture.shape[1::-1], float(picture.mean())))


def tiles_of(path):
    """Mean grey of the sheet's tiles, row by row."""
    sheet = cv2.imread(str(path))
    rows = np.vsplit(sheet, sheet.shape[0] // 360)
    return [float(tile.mean()) for row in rows for tile in np.hsplit(row, 4)]


def test_video_sheet_and_summary(tmp_path):
    folder = tmp_path / "new" / "out"
    recording = Recording(folder, 10.0)
    for value in (10, 60, 110, 160, 210):
        recording.add(jpeg(value))
    assert (folder / "annotated.partial.mp4").exists() and not (folder / "annotated.mp4").exists()
    lines = recording.close({"frames": 5})
    assert lines == [f"pictures: {folder / 'annotated.mp4'}, {folder / 'sheet.jpg'}"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "annotated.mp4", "sheet.jpg", "summary.json"]
    assert json.loads((folder / "summary.json").read_text()) == {"frames": 5}
    frames = frames_of(folder / "annotated.mp4")
    assert [size for size, _ in frames] == 5 * [(64, 48)]
    assert [value for _, value in frames] == pytest.approx([10, 60, 110, 160, 210], abs=6)
    assert tiles_of(folder / "sheet.jpg") == pytest.approx(
        [10, 60, 110, 160, 210, 0, 0, 0], abs=3)


def test_damaged_pictures_are_left_out_and_told(tmp_path):
    recording = Recording(tmp_path, 10.0)
    for data in (b"", b"no picture", jpeg(), jpeg()[:10], jpeg()):
        recording.add(data)
    lines = recording.close({})
    assert lines[1:] == ["3 pictures are damaged or empty and were left out"]
    assert len(frames_of(tmp_path / "annotated.mp4")) == 2
    nothing = Recording(tmp_path / "none", 10.0)
    nothing.add(b"")
    assert nothing.close({}) == ["1 pictures are damaged or empty and were left out"]
    again = Recording(tmp_path, 10.0)  # those of the first run stay
    assert again.close({}) == [f"there were no pictures; {tmp_path / 'annotated.mp4'} and "
                               f"{tmp_path / 'sheet.jpg'} are of an earlier run"]


def test_pictures_of_another_size_are_fitted_and_told(tmp_path):
    recording = Recording(tmp_path, 10.0)
    recording.add(jpeg(200, 64, 48))
    recording.add(jpeg(200, 32, 48))
    recording.add(jpeg(200, 128, 96))
    assert recording.close({})[1:] == ["2 pictures are of another size and were fitted into that "
                                       "of the first, 64 x 48"]
    frames = frames_of(tmp_path / "annotated.mp4")
    assert [size for size, _ in frames] == 3 * [(64, 48)]
    assert [value for _, value in frames] == pytest.approx([200, 100, 200], abs=8)


def test_a_long_session_keeps_few_pictures(tmp_path):
    recording = Recording(tmp_path, 10.0)
    most = 0
    for index in range(1000):
        recording.add(jpeg(index // 4, 16, 12))
        most = max(most, len(recording._kept))
    assert most <= KEPT
    recording.close({})
    values = tiles_of(tmp_path / "sheet.jpg")
    assert values == pytest.approx(np.linspace(0, 249, 12), abs=6)  # evenly spaced, to the end
    assert values[-1] == pytest.approx(249, abs=2)
    assert len(frames_of(tmp_path / "annotated.mp4")) == 1000


def test_a_folder_that_cannot_be_is_named_at_once(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file/inside"):
        with pytest.raises(ValueError, match=f"'{folder}' must be a folder that can"):
            Recording(folder, 10.0)
    assert (tmp_path / "file").read_text() == "mine"


def test_fitted_keeps_the_shape():
    picture = np.full((10, 30, 3), 200, np.uint8)
    result = fitted(picture, (30, 30))
    assert result.shape == (30, 30, 3)
    assert result[10:20].min() == 200 and result[:10].max() == result[20:].max() == 0
