"""Tracking in recordings: the score by hand, and the command with the shipped networks."""

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_pose.people_stream import PeopleStream, StreamOptions
from kd_pose.results import Detection2D, PeopleFrame, PersonPose
from kd_pose.sources import Frame, Picture, RawPicture, SourceError, TruePerson, open_source
from kd_pose.wholebody_keypoints import COUNT
from kd_pose_training.cli import main
from kd_pose_training.commands.evaluate_clip import _named
from kd_pose_training.evaluation.people_clip import score_clip

ROOT = Path(__file__).parents[2]
MODEL, DETECTOR = ROOT / "models/wholebody_student.onnx", ROOT / "models/person_detector.onnx"
SIZE = (400, 200)


def spread(x):
    """133 points on a grid of 100 x 100 pixels around x, 100."""
    column, row = np.divmod(np.arange(COUNT), 12)
    return np.stack([x - 50.0 + 9 * column, 50.0 + 9 * row], axis=1).astype(float)


def box(x):
    return (x - 55.0, 45.0, 110.0, 110.0)


class Estimator:
    """Sees, in picture i, people at the places of `seen[i]`; a picture says its number."""

    def __init__(self, seen):
        self.seen = seen

    def detect(self, image, channel_order="bgr"):
        return [Detection2D("person", 0.9, np.array(box(x))) for x in self.seen[image[0, 0, 0]]]

    def estimate(self, image, *, channel_order="bgr", boxes=None):
        searched = boxes is None
        boxes = self.detect(image) if searched else boxes
        near = [x for x in self.seen[image[0, 0, 0]]
                if any(abs(b.box_xywh[0] + b.box_xywh[2] / 2 - x) < 20 for b in boxes)]
        people = [PersonPose(np.array(box(x)), 0.9, spread(x), np.ones(COUNT)) for x in near]
        return PeopleFrame(people, list(boxes), {"detector": 0.0, "network": 0.0},
                           searched=searched)


class Recording:
    """Pictures that say their number, with true people named a, b."""

    def __init__(self, truths, encoding="bgr8", times=True):
        self.path, self.truths, self.encoding, self.times = Path("clip"), truths, encoding, times

    def frames(self):
        channels = 1 if self.encoding == "mono8" else 3
        for index, places in enumerate(self.truths):
            data = np.full(SIZE[0] * SIZE[1] * channels, index, np.uint8)
            raw = RawPicture(data, *SIZE, self.encoding, SIZE[0] * channels)
            people = None if places is None else tuple(
                TruePerson(name, box(x), spread(x)) for name, x in zip("ab", places))
            yield Frame(Picture(f"picture {index}", raw), None,
                        index / 10 if self.times else None, people=people)


def test_a_clip_by_hand():
    """a is there throughout, b from picture 2 on; a false one joins in picture 1."""
    truths = [[100], [100], [100, 250], [100, 250], [100, 250], [100, 250]]
    seen = [[100], [100, 350], [101, 350], [100, 250, 350], [100, 250], [100, 250]]
    pictures = []
    stream = PeopleStream(Estimator(seen), StreamOptions(detector_every_n=1, detector_still_n=1))
    counted = []
    score = score_clip(stream, Recording(truths), shown=pictures.append, done=counted.append)
    summary = score.summary()
    # TRACKED at the third sighting: a in 2..5, b (seen from 3) in 5, the false one in 3.
    assert (summary["frames"], summary["people"], summary["found"]) == (6, 10, 5)
    assert summary["recall_by_person"] == {"a": 4 / 6, "b": 1 / 4}
    assert summary["false_per_frame"] == pytest.approx(1 / 6)
    assert (summary["ids"], summary["id_changes"], summary["detector_runs"]) == (3, 0, 6)
    assert summary["ms_median"] > 0 and counted == [1, 2, 3, 4, 5, 6]
    assert [picture.shape for picture in pictures] == 6 * [(200, 400, 3)]
    again = score_clip(stream, Recording(truths)).summary()  # of the same stream, from nothing
    assert {**again, "ms_median": 0} == {**summary, "ms_median": 0}


def test_the_detector_is_counted_where_it_runs():
    stream = PeopleStream(Estimator(12 * [[100]]), StreamOptions(detector_every_n=5,
                                                                 detector_still_n=5))
    assert score_clip(stream, Recording(12 * [[100]])).detector_runs == 3  # 0, 5, 10


def test_without_tracking_everybody_counts():
    options = StreamOptions(tracking=None, boxes_from_tracks=False)
    summary = score_clip(PeopleStream(Estimator([[100]]), options), Recording([[100]])).summary()
    assert (summary["recall"], summary["ids"], summary["id_changes"]) == (1.0, 0, None)


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8"])
def test_encodings(encoding):
    stream = PeopleStream(Estimator(4 * [[100]]))
    assert score_clip(stream, Recording(4 * [[100]], encoding)).tracks.summary()["found"] == 2


def test_recordings_that_cannot_be_scored():
    stream = PeopleStream(Estimator(4 * [[100]]))
    for recording, said in (
            (Recording([]), "clip: has no pictures"),
            (Recording([None]), "clip: has no true people"),
            (Recording([[100]], times=False), "picture 0: nothing says when it was taken"),
            (Recording([[100]], encoding="bayer_rggb8"), "picture 0: encoding 'bayer_rggb8' is")):
        with pytest.raises(SourceError, match=said):
            score_clip(stream, recording)
    assert score_clip(stream, Recording([[100]], times=False), rate_hz=10.0).frames == 1


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The first eight pictures of the demonstration's clip in a folder, with their people."""
    folder = tmp_path_factory.mktemp("short")
    source = open_source(ROOT / "tools/demo/people.mp4", horizontal_fov_deg=60.0)
    with gzip.open(ROOT / "tools/demo/people.json.gz", "rt") as file:
        data = json.load(file)
    images = sorted(data["images"], key=lambda item: item["id"])[:8]
    (folder / "pictures").mkdir()
    for image, frame in zip(images, source.frames()):
        raw = frame.picture.as_raw()
        picture = raw.data.reshape(raw.height, raw.width, 3)
        cv2.imwrite(str(folder / "pictures" / Path(image["file_name"]).name), picture)
    kept = {item["id"] for item in images}
    data.update(images=images, annotations=[item for item in data["annotations"]
                                            if item["image_id"] in kept])
    (folder / "people.json").write_text(json.dumps(data))
    return folder


def command(short, out, *more, clip=None):
    clip = clip or f"{short / 'pictures'}:{short / 'people.json'}"
    return main(["evaluate-clip", str(MODEL), "--detector", str(DETECTOR), "-o", str(out),
                 "--threads", "1", clip, *more])


def test_the_command_with_the_shipped_networks(short, tmp_path, capsys):
    clip = f"{short / 'pictures'}:{short / 'people.json'}"
    assert command(short, tmp_path, clip, "--rate-hz", "10") == 0
    out = capsys.readouterr().out
    name = f"{short.name}_pictures"
    assert f"{name}: 8 pictures, tracked " in out and f"{name}_2: 8 pictures" in out
    clips = json.loads((tmp_path / "report.json").read_text())["clips"]
    first, second = clips[name], clips[f"{name}_2"]
    assert first["recording"] == str(short / "pictures") and first["frames"] == 8
    assert first["recall"] >= 0.5 and first["median_error_of_size"] < 0.05
    assert {**second, "ms_median": 0} == {**first, "ms_median": 0}  # nobody is remembered
    for folder in (tmp_path / name, tmp_path / f"{name}_2"):
        assert sorted(path.name for path in folder.iterdir()) == [
            "annotated.mp4", "sheet.jpg", "summary.json"]


def test_without_pictures(short, tmp_path):
    assert command(short, tmp_path, "--rate-hz", "10", "--no-pictures", "--detector-every-n", "1",
                   "--detector-still-n", "1") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    clips = json.loads((tmp_path / "report.json").read_text())["clips"]
    assert [score["detector_runs"] for score in clips.values()] == [8]


@pytest.mark.parametrize(("more", "clip", "said"), [
    ((), "clip.mp4", "'clip.mp4': must be RECORDING:ANNOTATIONS"),
    ((), "nothere.mp4:PEOPLE", "there is no file or folder nothere.mp4"),
    ((), "clip.mp4:nothere.json", "there is no file of annotations nothere.json"),
    (("--threads", "-1"), None, "threads must be a whole number of 0 or more"),
    (("--device", "cuda:9"), None, "device 'cuda:9' was asked for"),
    ((), None, "nothing says when it was taken; give the rate of the pictures"),
    (("--rate-hz", "-1"), None, "--rate-hz must be 0.1 to 1000, got -1"),
    (("--rate-hz", "nan"), None, "--rate-hz must be 0.1 to 1000, got nan"),
    (("--rate-hz", "10", "--detector-every-n", "0"), None, "detector_every_n must be at least 1"),
    (("--rate-hz", "10", "--detector", "nothere.onnx"), None, "nothere.onnx"),
])
def test_what_cannot_be_is_said(short, tmp_path, capsys, more, clip, said):
    clip = clip and clip.replace("PEOPLE", str(short / "people.json"))
    assert command(short, tmp_path / "out", *more, clip=clip) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out/report.json").exists()


def test_annotations_that_lack_a_picture_are_named(short, tmp_path, capsys):
    data = json.loads((short / "people.json").read_text())
    gone = data["images"].pop()
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != gone["id"]]
    (tmp_path / "fewer.json").write_text(json.dumps(data))
    clip = f"{short / 'pictures'}:{tmp_path / 'fewer.json'}"
    whole = f"{short / 'pictures'}:{short / 'people.json'}"
    assert command(short, tmp_path / "out", clip, "--rate-hz", "10", clip=whole) == 2
    assert f"does not have picture {Path(gone['file_name']).name}" in capsys.readouterr().err
    # What was scored before is there, and of the other nothing is left behind.
    clips = json.loads((tmp_path / "out/report.json").read_text())["clips"]
    assert list(clips) == [f"{short.name}_pictures"]
    assert not list((tmp_path / "out").glob("*/*partial*"))


@pytest.mark.parametrize(("recording", "name"), [
    ("a/clip.mp4", "a_clip"), (".", "here_there"), ("..", "top_here"), ("/", "clip")])
def test_names_of_clips_are_names_of_folders(tmp_path, monkeypatch, recording, name):
    folder = tmp_path / "top/here/there"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert list(_named([f"{recording}:x.json", f"{recording}:y.json"])) == [name, f"{name}_2"]


def test_a_bag_is_refused(short, tmp_path, capsys):
    (tmp_path / "bag.mcap").write_bytes(b"")
    clip = f"{tmp_path / 'bag.mcap'}:{short / 'people.json'}"
    assert command(short, tmp_path / "out", clip=clip) == 2
    assert "bag.mcap: is a rosbag2, must be a video or a folder" in capsys.readouterr().err


def test_the_video_has_the_rate_of_the_recording(short, tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25.0,
                            (640, 480))
    for path in sorted((short / "pictures").iterdir()):
        video.write(cv2.imread(str(path)))
    video.release()
    clip = f"{tmp_path / 'clip.mp4'}:{short / 'people.json'}"
    assert command(short, tmp_path / "out", clip=clip) == 0
    written, = (tmp_path / "out").glob("*/annotated.mp4")
    assert cv2.VideoCapture(str(written)).get(cv2.CAP_PROP_FPS) == 25.0
