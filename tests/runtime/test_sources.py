"""Recordings to play: what comes out of each kind, and what is said of those that cannot be."""

import json
import math
import subprocess
import sys

import cv2
import numpy as np
import pytest

from helpers.bop_folder import TURN_Z, write_models, write_scene, write_set
from helpers.recordings import (
    CALIBRATION,
    Bag,
    K,
    picture,
    write_bag,
    write_folder,
    write_json,
    write_true_people,
    write_video,
)
from kd_pose.sources import Picture, RawPicture, SourceError, open_source
from kd_pose.sources.base import raw_from_array


def blue(frame):
    return int(frame.picture.as_raw().data[0])


def edit_json(path, change):
    data = json.loads(path.read_text())
    change(data)
    write_json(path, data)


# --- pictures and their calibration --------------------------------------------------------------


def test_a_folder_in_natural_order_with_its_calibration(tmp_path):
    source = open_source(write_folder(tmp_path))
    assert (source.count, source.has_times, source.has_stamps, source.has_truth) == (
        3, False, False, False)
    frames = list(source.frames())
    assert [blue(frame) for frame in frames] == [1, 2, 10]
    frame = frames[0]
    assert (frame.time_s, frame.stamp_ns, frame.truth) == (None, None, None)
    raw = frame.picture.as_raw()
    assert (raw.encoding, raw.width, raw.height, raw.step) == ("bgr8", 8, 6, 24)
    camera = frame.calibration
    assert (camera.width, camera.height, camera.k) == (8, 6, K)
    assert camera.d == (0.1, -0.2, 0.001, 0.002, 0.0)
    assert camera.p == (9.0, 0, 3.5, 0, 0, 9.5, 2.5, 0, 0, 0, 1, 0)
    assert len(list(source.frames())) == 3  # and again, from the beginning


def test_grey_colour_alpha_and_file_bytes(tmp_path):
    cv2.imwrite(str(tmp_path / "a1.png"), picture(5, grey=True))
    cv2.imwrite(str(tmp_path / "a2.png"), np.dstack([picture(6), np.full((6, 8), 9, np.uint8)]))
    cv2.imwrite(str(tmp_path / "a3.tif"), picture(7))
    cv2.imwrite(str(tmp_path / "a4.png"), picture(8).astype(np.uint16) * 256)
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    frames = list(open_source(tmp_path).frames())
    assert [frame.picture.raw.encoding for frame in frames] == ["mono8", *["bgr8"] * 3]
    assert [blue(frame) for frame in frames] == [5, 6, 7, 8]
    data, kind = frames[0].picture.as_encoded(90)
    assert kind == "png" and data.tobytes() == (tmp_path / "a1.png").read_bytes()
    data, kind = frames[2].picture.as_encoded(90)
    assert kind == "jpeg" and cv2.imdecode(data, 1).shape == (6, 8, 3)


def test_calibration_as_a_message_as_bop_json_and_by_name(tmp_path):
    folder = write_folder(tmp_path / "a", calibration="")
    (folder / "camera_info.yaml").write_text(
        "height: 6\nwidth: 8\ndistortion_model: rational_polynomial\n"
        f"d: [1, 2, 3, 4, 5, 6, 7, 8]\nk: {list(K)}\n---\nheight: 1\n")
    camera = next(open_source(folder).frames()).calibration
    assert (camera.distortion_model, len(camera.d), camera.k) == ("rational_polynomial", 8, K)
    assert camera.p == (10.0, 0, 3.5, 0, 0, 11.0, 2.5, 0, 0, 0, 1, 0)
    other = tmp_path / "other.json"
    write_json(other, {"fx": 7.0, "fy": 8.0, "cx": 3.0, "cy": 2.0, "width": 8, "height": 6})
    camera = next(open_source(folder, camera_file=other).frames()).calibration
    assert camera.k == (7.0, 0, 3.0, 0, 8.0, 2.0, 0, 0, 1) and not any(camera.d)


def test_a_field_of_view_stands_in_for_a_calibration(tmp_path):
    folder = write_folder(tmp_path, calibration="")
    camera = next(open_source(folder, horizontal_fov_deg=90.0).frames()).calibration
    assert camera.k == pytest.approx((4.0, 0, 3.5, 0, 4.0, 2.5, 0, 0, 1))  # 8 / 2 / tan 45
    assert math.isclose(camera.p[0], 4.0)


def no_pictures(folder):
    for path in folder.glob("*.png"):
        path.unlink()


@pytest.mark.parametrize("change, text", [
    (no_pictures, "has no pictures"),
    (lambda f: (f / "camera.yaml").unlink(), "camera_file, or estimate one with horizontal_fov"),
    (lambda f: (f / "img1.png").write_bytes(b"junk"), r"img1\.png: damaged or not a picture"),
    (lambda f: (f / "img1.png").write_bytes(b""), r"img1\.png: damaged or not a picture"),
    (lambda f: cv2.imwrite(str(f / "img2.png"), picture(2, (9, 6))),
     r"img2\.png: is 9x6, but .*camera\.yaml says 8x6"),
    (lambda f: (f / "camera.yaml").write_text("a: [1"), r"camera\.yaml: not a YAML file"),
    (lambda f: (f / "camera.yaml").write_text("[1, 2]"), "must hold keys and values"),
    (lambda f: (f / "camera.yaml").write_text("# not yet\n"), r"camera\.yaml: is empty, needed"),
    (lambda f: (f / "camera.yaml").write_text(CALIBRATION.replace("camera_matrix", "matrix")),
     "key 'camera_matrix' is missing"),
    (lambda f: (f / "camera.yaml").write_text(CALIBRATION.replace("data: [10.0, 0,", "data: [0,")),
     "key 'camera_matrix' must be 9 finite"),
    (lambda f: (f / "camera.yaml").write_text(CALIBRATION.replace("[10.0,", "[0.0,")),
     "focal lengths must be positive, got 0"),
    (lambda f: (f / "camera.yaml").write_text(CALIBRATION.replace("width: 8", "width: 8.5")),
     "key 'image_width' must be a positive whole number, got 8.5"),
    (lambda f: (f / "camera.yaml").write_text(CALIBRATION.replace("distortion_model: plumb_bob",
                                                                  "")),
     "key 'distortion_model' must be a text"),
])
def test_folders_that_cannot_be_played(tmp_path, change, text):
    change(write_folder(tmp_path))
    with pytest.raises(SourceError, match=text):
        list(open_source(tmp_path).frames())


# --- video ---------------------------------------------------------------------------------------


def test_a_video_has_times(tmp_path):
    path = write_video(tmp_path / "clip.avi", count=5, rate_hz=20.0)
    source = open_source(path, horizontal_fov_deg=60.0)
    assert (source.count, source.has_times, source.has_stamps) == (5, True, False)
    frames = list(source.frames())
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert [blue(frame) for frame in frames] == pytest.approx([0, 40, 80, 120, 160], abs=8)
    assert frames[0].calibration.width == 64


def test_a_video_takes_the_calibration_of_its_name(tmp_path):
    path = write_video(tmp_path / "clip.avi", size=(16, 16))
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    (tmp_path / "clip.yaml").write_text(
        CALIBRATION.replace("width: 8", "width: 16").replace("height: 6", "height: 16"))
    assert next(open_source(path).frames()).calibration.height == 16
    (tmp_path / "clip.yaml").unlink()
    with pytest.raises(SourceError, match=r"is 16x16, but .*camera\.yaml says 8x6"):
        open_source(path)


def test_files_that_are_no_videos(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video at all")
    with pytest.raises(SourceError, match="cannot open it as a video"):
        open_source(tmp_path / "clip.mp4", horizontal_fov_deg=60.0)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="neither a folder nor a video"):
        open_source(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match="no calibration: put camera.yaml"):
        open_source(write_video(tmp_path / "plain.avi"))


# --- BOP -----------------------------------------------------------------------------------------


def test_a_bop_scene_with_truth_in_metres(tmp_path):
    source = open_source(write_set(tmp_path), truth=True)
    frames = list(source.frames())
    assert source.has_truth and [blue(frame) for frame in frames] == [0, 2, 10]
    assert [len(frame.truth) for frame in frames] == [2, 0, 2]
    assert frames[0].calibration.k == (10.0, 0, 3.5, 0, 11.0, 2.5, 0, 0, 1)
    disc, block = frames[2].truth
    assert (disc.class_id, block.class_id) == ("disc", "block")
    np.testing.assert_allclose(block.T_cam_obj[:3, :3], np.reshape(TURN_Z, (3, 3)))
    np.testing.assert_allclose(block.T_cam_obj[:3, 3], [0.1, -0.05, 0.75])
    np.testing.assert_allclose(disc.box_min, [-0.05, -0.05, 0.0])
    np.testing.assert_allclose(disc.box_max, [0.05, 0.05, 0.004])


def test_public_layouts(tmp_path):
    write_models(tmp_path, "models_eval", names=False)
    scene = tmp_path / "test" / "000007"
    write_scene(scene, colour="gray/{:06d}.tif", info=False)
    frame = list(open_source(scene, truth=True, min_visible=0.9).frames())[0]
    assert frame.picture.raw.encoding == "mono8"
    assert [item.class_id for item in frame.truth] == ["obj_000005", "obj_000001"]


def test_objects_that_are_hardly_seen_are_left_out(tmp_path):
    scene = write_set(tmp_path)
    assert [item.class_id for item in next(
        open_source(scene, truth=True, min_visible=0.8).frames()).truth] == ["block"]


def test_a_scene_without_truth_plays(tmp_path):
    scene = write_set(tmp_path)
    (scene / "scene_gt.json").unlink()
    frames = list(open_source(scene).frames())
    assert len(frames) == 3 and frames[0].truth is None


@pytest.mark.parametrize("change, text", [
    (lambda s: (s / "scene_camera.json").unlink(), r"scene_camera\.json: no such file"),
    (lambda s: (s / "scene_camera.json").write_text("{\"0\": "), "truncated, or not JSON"),
    (lambda s: (s / "scene_camera.json").write_text("{}"), "has no images"),
    (lambda s: edit_json(s / "scene_camera.json", lambda d: d["10"].pop("cam_K")),
     r"scene_camera\.json: image 10: key 'cam_K' is missing"),
    (lambda s: edit_json(s / "scene_camera.json", lambda d: d["2"].update(cam_K=[1, 2])),
     "image 2: key 'cam_K' must be 9 finite"),
    (lambda s: edit_json(s / "scene_camera.json", lambda d: d.update(x={})),
     "'x' is not a number"),
    (lambda s: (s / "rgb" / "000002.png").unlink(), "has no picture 000002"),
    (lambda s: (s / "rgb" / "000002.png").write_bytes(b"cut"), r"000002\.png: damaged"),
    (lambda s: cv2.imwrite(str(s / "rgb" / "000010.png"), picture(1, (7, 6))),
     r"000010\.png: is 7x6, the first picture is 8x6"),
    (lambda s: (s / "scene_gt.json").unlink(), r"scene_gt\.json: no such file, so there are no"),
    (lambda s: edit_json(s / "scene_gt.json", lambda d: d["10"][1].pop("cam_t_m2c")),
     "image 10, entry 1: key 'cam_t_m2c' is missing"),
    (lambda s: edit_json(s / "scene_gt.json", lambda d: d["10"][1].update(obj_id=4)),
     "4 is not in models_info.json, which has 1, 5"),
    (lambda s: (s.parents[1] / "models/models_info.json").unlink(), "needed for publish_truth"),
])
def test_scenes_that_cannot_be_played(tmp_path, change, text):
    scene = write_set(tmp_path)
    change(scene)
    with pytest.raises(SourceError, match=text):
        list(open_source(scene, truth=True).frames())


def test_a_set_instead_of_a_scene_is_answered_with_its_scenes(tmp_path):
    scene = write_set(tmp_path)
    for folder in (scene.parent, scene.parents[1]):
        with pytest.raises(SourceError, match=f"name one of them, e.g. {scene}"):
            open_source(folder)


def test_truth_of_what_has_none_is_refused(tmp_path):
    with pytest.raises(SourceError, match="set publish_truth to false"):
        open_source(write_folder(tmp_path), truth=True)


# --- rosbag2 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_keeps_encoding_header_and_camera(tmp_path, storage):
    pytest.importorskip("rosbags")
    source = open_source(write_bag(tmp_path / "bag", storage))
    assert (source.count, source.has_times, source.has_stamps) == (4, True, True)
    assert (source.image_topic, source.info_topic) == ("/cam/image_raw", "/cam/camera_info")
    frames = list(source.frames())
    raw = frames[1].picture.as_raw()
    assert (raw.encoding, raw.step, raw.data[0], raw.data[21]) == ("rgb8", 22, 20, 77)
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert frames[2].stamp_ns == 50_200_000_000 and frames[2].frame_id == "bag_optical"
    # each with the camera_info of its own stamp, although that comes later
    assert [frame.calibration.k[0] for frame in frames] == [10.0, 11.0, 12.0, 13.0]
    assert frames[0].calibration.roi == (1, 2, 3, 4, True)
    assert frames[0].calibration.binning == (2, 1)
    file = next((tmp_path / "bag").glob("*.*3" if storage == "sqlite3" else "*.mcap"))
    assert len(list(open_source(file).frames())) == 4


def test_compressed_images_and_an_info_that_came_once(tmp_path):
    pytest.importorskip("rosbags")
    with Bag(tmp_path / "bag") as bag:
        bag.jpeg(0.0, 7)
        bag.jpeg(0.1, 8)
        bag.info(0.15, 10.0, stamp_s=1)
        bag.jpeg(0.2, 9)
    frames = list(open_source(tmp_path / "bag").frames())
    assert [blue(frame) for frame in frames] == [7, 8, 9]
    assert frames[0].picture.as_encoded(50)[1] == "png"
    assert {frame.calibration.k[0] for frame in frames} == {10.0}


def test_topics_are_chosen_or_asked_for(tmp_path):
    pytest.importorskip("rosbags")
    with Bag(tmp_path / "bag") as bag:
        for side in ("left", "right"):
            bag.image(0.0, 5 if side == "left" else 6, topic=f"/{side}/image_raw")
            bag.info(0.0, topic=f"/{side}/camera_info")
    with pytest.raises(SourceError, match="choose one with image_topic: /left/image_raw, /right"):
        open_source(tmp_path / "bag")
    with pytest.raises(SourceError, match="'/top' is not among the Image or"):
        open_source(tmp_path / "bag", image_topic="/top")
    source = open_source(tmp_path / "bag", image_topic="/right/image_raw")
    assert source.info_topic == "/right/camera_info" and blue(next(source.frames())) == 6
    source = open_source(tmp_path / "bag", image_topic="/right/image_raw",
                         camera_info_topic="/left/camera_info")
    assert source.info_topic == "/left/camera_info"


def test_bags_without_images_or_camera(tmp_path):
    pytest.importorskip("rosbags")
    with Bag(tmp_path / "info") as bag:
        bag.info(0.0)
    with pytest.raises(SourceError, match=r"has no Image or CompressedImage.*/cam/camera_info"):
        open_source(tmp_path / "info")
    with Bag(tmp_path / "image") as bag:
        bag.image(0.0, 5)
    with pytest.raises(SourceError, match="has no CameraInfo messages"):
        open_source(tmp_path / "image")
    (tmp_path / "k.yaml").write_text(
        CALIBRATION.replace("width: 8", "width: 7").replace("height: 6", "height: 5"))
    frame = next(open_source(tmp_path / "image", camera_file=tmp_path / "k.yaml").frames())
    assert frame.calibration.k == K


def test_damaged_bags(tmp_path):
    pytest.importorskip("rosbags")
    bag = write_bag(tmp_path / "bag")
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 99}")
    with pytest.raises(SourceError, match="not a readable rosbag2"):
        open_source(bag)
    (tmp_path / "cut.mcap").write_bytes(b"\x89MCAP0\r\n and no more")
    with pytest.raises(SourceError, match=r"cut\.mcap: not a readable rosbag2"):
        open_source(tmp_path / "cut.mcap")


def test_without_rosbags_the_error_says_how_to_install_it(tmp_path):
    (tmp_path / "x.mcap").write_bytes(b"")
    code = ("import sys; sys.modules['rosbags'] = None\n"
            "from kd_pose.sources import open_source\n"
            f"open_source({str(tmp_path / 'x.mcap')!r})")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "SourceError" in result.stderr and "pip install rosbags" in result.stderr


# --- true people ---------------------------------------------------------------------------------

NAMES = {3: "folder/img10.png", 1: "img1.png", 2: "img2.png"}


def test_the_true_people_of_a_folder_are_found_by_name(tmp_path):
    hand = {"lefthand_kpts": 21 * [3.5, 4.5, 1], "track_id": 7}
    file = write_true_people(tmp_path / "people.json.gz", NAMES, [
        {"image_id": 3, "x": 5, **hand}, {"image_id": 3, "x": 6}, {"image_id": 3, "iscrowd": 1},
        {"image_id": 1}])
    frames = list(open_source(write_folder(tmp_path / "folder"), people_file=file).frames())
    assert [len(frame.people) for frame in frames] == [1, 0, 2]  # img1, img2, img10
    first, second = frames[2].people
    assert (first.id, second.id, first.box_xywh) == ("7", "", (5, 0, 4, 5))
    assert np.isnan(first.keypoints_xy[0]).all() and (first.keypoints_xy[1:17] == [5, 2]).all()
    assert (first.keypoints_xy[91:112] == [3.5, 4.5]).all()
    assert np.isnan(second.keypoints_xy[17:]).all()


def test_the_true_people_of_a_video_come_in_the_order_of_the_image_ids(tmp_path):
    video = write_video(tmp_path / "clip.mp4", count=3)
    file = write_true_people(tmp_path / "people.json", NAMES, [{"image_id": 3}, {"image_id": 3}])
    source = open_source(video, people_file=file, horizontal_fov_deg=60)
    assert (source.count, source.has_times, source.path) == (3, True, video)
    assert [len(frame.people) for frame in source.frames()] == [0, 0, 2]
    file = write_true_people(tmp_path / "people.json", {1: "a.jpg"}, [])
    with pytest.raises(SourceError, match=r"has 1 images, .*clip.mp4 has 3"):
        open_source(video, people_file=file, horizontal_fov_deg=60)


@pytest.mark.parametrize("text, message", [
    ("{", r"people\.json: cannot be read as JSON"),
    ("[]", "must be annotations of COCO's format with the lists 'images'"),
    ('{"images": [{"id": 1}], "annotations": []}', r"images\[0\] needs 'id' and 'file_name'"),
    ('{"images": [], "annotations": [{"image_id": 4}]}', r"tions\[0\]: needs the 'image_id'"),
    ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}',
     "key 'keypoints' must be 51 numbers, got None"),
    ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "keypoints": '
     + str(51 * [1]) + ', "bbox": [1, 2, 3, NaN]}]}', "key 'bbox' must be 4 numbers"),
])
def test_files_of_people_that_cannot_be_used(tmp_path, text, message):
    folder = write_folder(tmp_path / "folder")
    (tmp_path / "people.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(folder, people_file=tmp_path / "people.json")


def test_people_of_other_pictures(tmp_path):
    file = write_true_people(tmp_path / "people.json", {1: "other.png"}, [])
    source = open_source(write_folder(tmp_path / "folder"), people_file=file)
    with pytest.raises(SourceError, match=r"people\.json: does not have picture img1\.png"):
        next(source.frames())
    (tmp_path / "cut.json.gz").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(SourceError, match=r"cut\.json\.gz: cannot be read"):
        open_source(tmp_path / "folder", people_file=tmp_path / "cut.json.gz")
    with pytest.raises(SourceError, match="people_file: there is no file"):
        open_source(tmp_path / "folder", people_file=tmp_path / "nowhere.json")


# --- what all have in common ---------------------------------------------------------------------


def test_paths_that_are_not_there(tmp_path):
    with pytest.raises(SourceError, match="source is empty"):
        open_source("")
    with pytest.raises(SourceError, match="there is no file or folder"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="camera_file: there is no file"):
        open_source(write_folder(tmp_path), camera_file=tmp_path / "nowhere.yaml")


def test_pictures_of_any_encoding_are_compressed_or_refused():
    rgb = picture(7)[..., ::-1]
    raw = raw_from_array(rgb)
    raw = RawPicture(raw.data, 8, 6, "rgb8", 24)
    data, kind = Picture("here", raw).as_encoded(95)
    assert kind == "jpeg"
    assert np.abs(cv2.imdecode(data, 1).astype(int) - picture(7)).max() < 6
    padded = RawPicture(np.full(6 * 10, 50, np.uint8), 8, 6, "mono8", 10)
    assert cv2.imdecode(Picture("here", padded).as_encoded(95)[0], -1).shape == (6, 8)
    with pytest.raises(SourceError, match="here: encoding 'bayer_rggb8' cannot be compressed"):
        Picture("here", RawPicture(raw.data, 8, 6, "bayer_rggb8", 8)).as_encoded(90)
    with pytest.raises(SourceError, match="here: damaged"):
        Picture("here", encoded=np.zeros(9, np.uint8)).as_raw()
