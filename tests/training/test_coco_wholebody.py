"""kd_pose_training.data.coco_wholebody: columns of public files, what is left out, bad files."""

import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.wholebody_files import KEYS, annotation, random_annotations, random_person
from kd_pose.wholebody_keypoints import COUNT, PARTS
from kd_pose_training.data.coco_wholebody import (
    concatenate,
    read_coco_wholebody,
    read_ubody,
)

REAL = Path(__file__).parents[3] / "shared" / "data" / "coco_wholebody"
WIDTH, HEIGHT = 120, 100


def numbered_points():
    """(133, 3): x = index, y = 0.5 index, all labelled."""
    index = np.arange(COUNT)
    return np.stack([index, index / 2, np.ones(COUNT)], axis=1)


def write_set(folder, boxes=((10, 20, 30, 40),), name="truth.json", image="a.png", **changes):
    """One picture with a person a box; `changes` go into the first annotation."""
    people = [annotation(number, 5, numbered_points(), box, 900.0)
              for number, box in enumerate(boxes, start=100)]
    people[0].update(changes)
    data = {"images": [{"id": 5, "file_name": image, "width": WIDTH, "height": HEIGHT}],
            "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(data))
    path = folder / image
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 7, np.uint8))
    return data


def rewrite(folder, data):
    (folder / "truth.json").write_text(json.dumps(data))


def read(folder, **options):
    return read_coco_wholebody(folder / "truth.json", folder, **options)


def test_columns(tmp_path):
    write_set(tmp_path, face_valid=False)
    table = read(tmp_path)
    assert len(table) == 1 and table.annotation_id.tolist() == [100]
    assert table.xy[0].tolist() == numbered_points()[:, :2].tolist()
    assert (table.visibility == 1).all()
    assert table.valid.tolist() == [[True, False, True, True]]
    # Edges are counted from pixel centres, half a pixel before those of the file.
    assert table.box_xywh.tolist() == [[9.5, 19.5, 30, 40]]
    assert table.size_wh.tolist() == [[WIDTH, HEIGHT]]
    assert table.load_image(0).shape == (HEIGHT, WIDTH, 3) and (table.load_image(0) == 7).all()
    assert table.describe() == "1 people in 1 pictures"


def test_visibility_stays_a_number(tmp_path):
    data = write_set(tmp_path)
    data["annotations"][0]["lefthand_kpts"][2::3] = [0.3] * 21
    rewrite(tmp_path, data)
    visibility = read(tmp_path).visibility[0]
    assert np.allclose(visibility[PARTS["left_hand"]], 0.3)
    assert (visibility[PARTS["right_hand"]] == 1).all()


def test_validity_that_is_not_said_is_seen_from_the_labels(tmp_path):
    data = write_set(tmp_path)
    for key in ("foot_valid", "face_valid", "lefthand_valid", "righthand_valid"):
        del data["annotations"][0][key]
    data["annotations"][0]["righthand_kpts"] = [0] * 63
    rewrite(tmp_path, data)
    assert read(tmp_path).valid.tolist() == [[True, True, True, False]]


def test_boxes_are_cut_at_the_edges_and_empty_ones_left_out(tmp_path):
    boxes = ((-20, 10, 50, 200), (WIDTH, 10, 30, 30), (-50, 10, 40, 40), (30, 30, 0, 20),
             (30, 30, 20, -5), (0, 0, WIDTH, HEIGHT))
    write_set(tmp_path, boxes)
    table = read(tmp_path)
    assert table.box_xywh.tolist() == [[-0.5, 9.5, 30, 90], [-0.5, -0.5, WIDTH, HEIGHT]]
    assert table.describe() == ("2 people in 1 pictures (left out: 4 without a box in the "
                                "picture)")


def test_crowds_and_people_without_a_body_are_left_out(tmp_path):
    data = write_set(tmp_path, ((1, 2, 30, 40),) * 4)
    people = data["annotations"]
    people[0]["iscrowd"] = 1
    people[1]["num_keypoints"] = 0
    del people[2]["num_keypoints"]  # then it is counted
    people[3]["category_id"] = 18
    rewrite(tmp_path, data)
    table = read(tmp_path)
    assert table.annotation_id.tolist() == [102]
    assert table.skipped == {"crowds": 1, "without a labelled body point": 1,
                             "without a box in the picture": 0}


def test_every_nth_picture(tmp_path):
    write_set(tmp_path)
    assert len(read(tmp_path, every=5)) == 1 and len(read(tmp_path, every=10)) == 0
    assert len(read(tmp_path, wanted=lambda name: name != "a.png")) == 0


@pytest.mark.parametrize("key", KEYS[1:])
def test_files_without_whole_body_keys(tmp_path, key):
    data = write_set(tmp_path, ((1, 2, 30, 40),) * 2)
    for item in data["annotations"]:
        del item[key]
    rewrite(tmp_path, data)
    with pytest.raises(ValueError, match=f"truth.json: no annotation has the keys {key}; whole"):
        read(tmp_path)


def test_a_single_annotation_that_is_wrong(tmp_path):
    for changes, message in (
            ({"face_kpts": [0.0] * 3}, "annotation 100: key 'face_kpts' must be 204 finite"),
            ({"lefthand_kpts": [float("nan")] * 63}, "'lefthand_kpts' must be 63 finite"),
            ({"bbox": None}, "annotation 100: key 'bbox' must be 4 finite"),
            ({"bbox": [0, 0, float("inf"), 3]}, "key 'bbox' must be 4 finite"),
            ({"image_id": 6}, "annotation 100: image_id 6 is not among the images")):
        write_set(tmp_path, ((1, 2, 30, 40),) * 2, **changes)
        with pytest.raises(ValueError, match=message):
            read(tmp_path)
    data = write_set(tmp_path, ((1, 2, 30, 40),) * 2)
    del data["annotations"][1]["foot_kpts"]
    rewrite(tmp_path, data)
    with pytest.raises(ValueError, match="annotation 101: key 'foot_kpts' is missing"):
        read(tmp_path)


@pytest.mark.parametrize("kind, key, value", [
    ("images", "id", "im1"), ("images", "id", "000000000005"), ("images", "id", 5.5),
    ("images", "id", [5]), ("images", "id", None), ("images", "id", True),
    ("images", "id", 2**63), ("images", "id", float("inf")), ("annotations", "id", "x1"),
    ("annotations", "id", None), ("annotations", "image_id", [5]),
    ("annotations", "category_id", "1"), ("images", "file_name", 5),
    ("images", "file_name", None), ("images", "file_name", ""),
    ("images", "file_name", "a\udc80.png"), ("images", "file_name", "a\0.png")])
def test_ids_and_names_of_another_type(tmp_path, kind, key, value):
    data = write_set(tmp_path)
    data[kind][0][key] = value
    rewrite(tmp_path, data)
    allowed = "a text" if key == "file_name" else "a whole number"
    with pytest.raises(ValueError) as error:
        read(tmp_path)
    assert f"truth.json: {kind}[0]: key '{key}' must be {allowed}" in str(error.value)
    assert str(error.value).endswith(f"got {value!r}")


def test_names_in_any_script(tmp_path):
    write_set(tmp_path, image="ménschen/人.png")
    assert read(tmp_path).image_path(0) == tmp_path / "ménschen/人.png"


@pytest.mark.parametrize("key", ["width", "height"])
@pytest.mark.parametrize("value", [0, -5, 0.5, 640.5, 1e12, 2**20 + 1])
@pytest.mark.filterwarnings("error")
def test_sizes_that_no_picture_has(tmp_path, key, value):
    data = write_set(tmp_path)
    data["images"][0][key] = value
    rewrite(tmp_path, data)
    with pytest.raises(ValueError) as error:
        read(tmp_path)
    assert (f"truth.json: image 5: key '{key}' must be a whole number of 1 to 1048576, got "
            f"{value:g}") in str(error.value)


@pytest.mark.parametrize("key, count", [("keypoints", 51), ("face_kpts", 204), ("bbox", 4)])
@pytest.mark.parametrize("value", [1e300, -1e10])
@pytest.mark.filterwarnings("error")
def test_numbers_that_are_no_places(tmp_path, key, count, value):
    write_set(tmp_path, **{key: [5.0, value, *[2.0] * (count - 2)]})
    message = (f"truth.json: annotation 100: key '{key}' must be {count} finite number(s) of "
               f"-1e+09 to 1e+09, got {value:g}")
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path)


def test_whole_numbers_may_be_written_as_fractions(tmp_path):
    data = write_set(tmp_path, image_id=5.0)
    data["images"][0]["id"] = 5.0
    rewrite(tmp_path, data)
    assert read(tmp_path).image_id.tolist() == [5]


@pytest.mark.parametrize("value", [None, ["a"] * 51, [1, 2, 2] * 16, [float("nan")] * 51])
@pytest.mark.parametrize("counted", [True, False])
def test_body_points_that_are_wrong(tmp_path, value, counted):
    data = write_set(tmp_path, keypoints=value)
    if not counted:
        del data["annotations"][0]["num_keypoints"]
    rewrite(tmp_path, data)
    with pytest.raises(ValueError, match="annotation 100: key 'keypoints' must be 51 finite"):
        read(tmp_path)


def test_a_count_of_points_that_is_wrong(tmp_path):
    write_set(tmp_path, num_keypoints=None)
    with pytest.raises(ValueError, match="annotation 100: key 'num_keypoints' must be 1 finite"):
        read(tmp_path)


def test_files_that_are_no_coco_files(tmp_path):
    path = tmp_path / "truth.json"
    for content, message in (("[]", "must hold an object"), ("{", "truncated, or not JSON"),
                             ('{"images": []}', "key 'annotations' must be a list"),
                             ('{"images": [{}], "annotations": []}',
                              r"images\[0\]: key 'id' is missing"),
                             ('{"images": [], "annotations": [3]}',
                              r"annotations\[0\]: key 'id' is missing")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read(tmp_path)
    data = write_set(tmp_path)
    data["images"] *= 2
    rewrite(tmp_path, data)
    with pytest.raises(ValueError, match="an image id is given twice"):
        read(tmp_path)
    del data["images"][1:], data["images"][0]["width"]
    rewrite(tmp_path, data)
    with pytest.raises(ValueError, match="image 5: key 'width' is missing"):
        read(tmp_path)
    with pytest.raises(ValueError, match="nowhere.json: no such file"):
        read_coco_wholebody(tmp_path / "nowhere.json", tmp_path)


def test_missing_broken_and_wrong_pictures(tmp_path):
    write_set(tmp_path)
    table = read(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with pytest.raises(ValueError, match="a.png: is 100x120 pixels, its annotations say 120x100"):
        table.load_image(0)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="a.png: cannot be decoded"):
        table.load_image(0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="a.png: no such file"):
        table.load_image(0)
    with pytest.raises(ValueError, match="1 of its 1 pictures with people are missing, the first"):
        read(tmp_path)
    assert len(read(tmp_path, check_images=False)) == 1


def test_an_empty_set(tmp_path):
    (tmp_path / "truth.json").write_text('{"images": [], "annotations": []}')
    table = read(tmp_path)
    assert len(table) == 0 and len(concatenate([table, table])) == 0


def ubody(root):
    """Two scenes of two videos each; the videos with a 1 are for testing."""
    for scene in ("Fitness", "Speech"):
        for video in (0, 1):
            name = f"v{video}"
            folder = f"{scene}_{name}_Trim3"
            write_set(root, name="x.json", image=f"images/{scene}/{folder}/000001.png")
        data = write_set(root, name="x.json", image=f"images/{scene}/unused.png")
        person = data["annotations"][0]
        data = {"images": [], "annotations": []}
        for number in range(40):
            video = number // 20
            data["images"].append({"id": number, "width": WIDTH, "height": HEIGHT,
                                   "file_name": f"/{scene}_v{video}_Trim3/000001.png"})
            data["annotations"].append({**person, "id": number, "image_id": number})
        path = root / "annotations" / scene / "keypoint_annotation.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(data))
    (root / "splits").mkdir()
    np.save(root / "splits" / "intra_scene_test_list.npy", ["Fitness_v1", "Speech_v1"])
    return root


def test_ubody(tmp_path):
    root = ubody(tmp_path)
    table = read_ubody(root)
    assert table.image_id.tolist() == [0, 10, 0, 10]  # every tenth picture of both scenes
    assert [table.image_path(i).parent.name for i in (0, 3)] == ["Fitness_v0_Trim3",
                                                                "Speech_v0_Trim3"]
    assert table.load_image(3).shape == (HEIGHT, WIDTH, 3)
    assert read_ubody(root, "test").image_id.tolist() == [20, 30, 20, 30]
    assert len(read_ubody(root, every=1)) == 40
    assert len(read_ubody(root, scenes=["Speech"])) == 2


def test_ubody_with_something_wrong(tmp_path):
    root = ubody(tmp_path)
    with pytest.raises(ValueError, match="no keypoint_annotation.json of Movie"):
        read_ubody(root, scenes=["Movie", "Speech"])
    with pytest.raises(ValueError, match="split is 'val'; allowed: 'train', 'test'"):
        read_ubody(root, "val")
    videos = root / "splits" / "intra_scene_test_list.npy"
    videos.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no array of names"):
        read_ubody(root)
    videos.unlink()
    with pytest.raises(ValueError, match="intra_scene_test_list.npy: no such file"):
        read_ubody(root)


def test_concatenation_keeps_every_person_with_its_picture(tmp_path):
    tables = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_set(folder, ((number, 2, 30, 40), (50, 2, 30, 40)), image=f"p{number}.png")
        tables.append(read(folder))
    table = concatenate(tables)
    assert len(table) == 6
    assert [table.image_path(image).name for image in table.image] == [
        "p0.png", "p0.png", "p1.png", "p1.png", "p2.png", "p2.png"]
    assert table.box_xywh[::2, 0].tolist() == [-0.5, 0.5, 1.5]
    with pytest.raises(ValueError, match="no table"):
        concatenate([])


def test_a_person_takes_few_bytes(tmp_path):
    rewrite(tmp_path, random_annotations(np.random.default_rng(0), images=200))
    table = read(tmp_path, check_images=False)
    assert len(table) > 200
    # mmpose's list holds 7 to 10 kB for each (docs/wholebody_data.md); a quarter is 1750.
    assert len(pickle.dumps(table)) / len(table) < 1700


def test_random_people_come_back(tmp_path):
    rng = np.random.default_rng(3)
    points, box, area = random_person(rng)
    points[0] = (5.0, 6.0, 2.0)
    data = write_set(tmp_path)
    data["annotations"] = [annotation(1, 5, points, (1, 1, 50, 50), area)]
    rewrite(tmp_path, data)
    table = read(tmp_path)
    assert np.allclose(table.xy[0], points[:, :2], atol=1e-4)
    assert np.allclose(table.visibility[0], points[:, 2])


def test_a_real_annotation():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there")
    table = read_coco_wholebody(REAL / "annotations.json", REAL)
    assert len(table) == 1 and table.load_image(0).shape == (425, 640, 3)
    labelled = table.visibility[0] > 0
    counts = {name: int(labelled[part].sum()) for name, part in PARTS.items()}
    assert counts == {"body": 17, "foot": 6, "face": 68, "left_hand": 0, "right_hand": 21}
    assert table.valid.tolist() == [[True, True, False, True]]
    low, size = table.box_xywh[0, :2], table.box_xywh[0, 2:]
    assert ((table.xy[0, labelled] >= low - 1) & (table.xy[0, labelled] <= low + size + 1)).all()
    # The face is at the nose, the right hand at the right wrist, the feet at the ankles.
    xy = table.xy[0]
    assert np.linalg.norm(xy[PARTS["face"]].mean(axis=0) - xy[0]) < 15
    assert np.linalg.norm(xy[PARTS["right_hand"]][0] - xy[10]) < 10
    assert np.linalg.norm(xy[19] - xy[15]) < 20
