"""People's boxes from COCO folders: layouts, boxes, masks, who counts, what is refused."""

import json

import numpy as np
import pytest

from helpers.people_folder import SIZE_WH, person, points, write_people
from kd_pose_training.data.coco_people import PERSON_SPEC, CocoPeople, is_coco
from kd_pose_training.data.splits import holds_people, open_split


def test_boxes_are_moved_to_edges_at_halves_and_cut_at_the_picture(tmp_path):
    write_people(tmp_path, [[person((10, 20, 30, 40)), person((-5, 90, 20, 30))], []])
    frames = CocoPeople(tmp_path, "train").frames
    assert frames[0].boxes_xywh.tolist() == [[9.5, 19.5, 30, 40], [-0.5, 89.5, 15, 6]]
    assert len(frames) == 2 and len(frames[1].instances) == 0
    assert frames[1].load_image().shape == (96, 128, 3)
    assert (frames[1].load_instance_map() == -1).all()


def test_boxes_outside_of_their_picture_are_left_out(tmp_path):
    write_people(tmp_path, [[person((200, 20, 30, 40)), person((10, 10, 0, 9)),
                             person((1, 2, 3, 4))]])
    assert CocoPeople(tmp_path, "train").frames[0].boxes_xywh.tolist() == [[0.5, 1.5, 3, 4]]


@pytest.mark.parametrize("name, images, split", [
    ("coco_wholebody_{}_v1.0.json", "images/{}", "val"),
    ("coco_wholebody_{}_v1.0.json", "{}2017", "val"),
    ("person_keypoints_{}2017.json", "{}2017", "val"), ("instances_{}.json", "{}", "val2017")])
def test_layouts(tmp_path, name, images, split):
    write_people(tmp_path, [[person((10, 20, 30, 40))]], split, name, images,
                 more=({"id": 1, "image_id": 1, "category_id": 18, "bbox": [0, 0, 9, 9]},))
    dataset = open_split(str(tmp_path), split)
    assert isinstance(dataset, CocoPeople) and is_coco(tmp_path)
    assert len(dataset.frames[0].instances) == 1  # the dog is nobody
    assert dataset.frames[0].load_image().max() == 240


def test_masks_of_run_lengths_polygons_and_boxes(tmp_path):
    width, height = SIZE_WH
    inside = np.zeros((height, width), bool)
    inside[5:9, 100:103] = True
    counts = np.diff(np.flatnonzero(np.diff(inside.ravel(order="F"), prepend=0, append=0)),
                     prepend=0).tolist()
    counts.append(width * height - sum(counts))
    write_people(tmp_path, [[
        person((100, 5, 3, 4), segmentation={"counts": counts, "size": [height, width]}),
        person((10, 20, 4, 6), segmentation=[[10, 20, 14, 20, 14, 26, 10, 26]]),
        person((40, 30, 20, 40)),
        person((70, 30, 9, 9), segmentation={"counts": "aX0", "size": [height, width]})]])
    shown = CocoPeople(tmp_path, "train").frames[0].load_instance_map()
    assert np.array_equal(shown == 0, inside)
    rows, columns = np.nonzero(shown == 1)
    # COCO's corner 10 is the edge before pixel 10, 14 the one behind pixel 13; the raster's own
    # rounding may add the line along an edge.
    assert (rows.min(), columns.min()) in [(20, 10), (19, 9)] and rows.max() <= 26
    assert 24 <= len(rows) <= 40
    ellipse = (shown == 2).sum()
    assert ellipse == pytest.approx(np.pi / 4 * 20 * 40, rel=0.08)
    assert shown[50, 50] == 2 and shown[31, 41] == -1
    assert shown[34, 74] == 3  # compressed: the ellipse in its box


def test_of_overlapping_people_the_smaller_is_in_front_and_crowds_behind(tmp_path):
    write_people(tmp_path, [[person((30, 30, 10, 10)), person((20, 20, 40, 40)),
                             person((32, 32, 6, 6), crowd=1)]])
    shown = CocoPeople(tmp_path, "train").frames[0].load_instance_map()
    assert shown[35, 35] == 0 and shown[35, 50] == 1 and not (shown == 2).any()


def test_share_of_points_that_are_seen(tmp_path):
    write_people(tmp_path, [[
        person((1, 1, 9, 9)), person((1, 1, 9, 9), keypoints=points(3, 1)),
        person((1, 1, 9, 9), keypoints=points(0, 0)),
        person((1, 1, 9, 9), crowd=1, keypoints=points(0, 0))]])
    frame = CocoPeople(tmp_path, "train").frames[0]
    assert frame.seen.tolist() == [1.0, 0.75, 0.0, 0.0]
    assert frame.crowd.tolist() == [False, False, False, True]


def test_the_class_has_a_nominal_size(tmp_path):
    write_people(tmp_path, [[person((1, 1, 9, 9))]])
    dataset = CocoPeople(tmp_path, "train", objects=("person",))
    assert [model.name for model in dataset.models.values()] == ["person"]
    assert PERSON_SPEC.diameter == pytest.approx(np.sqrt(0.36 + 0.36 + 3.24))
    with pytest.raises(ValueError, match="none of the objects mug; there is person"):
        CocoPeople(tmp_path, "train", objects=("mug",))


def test_what_is_refused(tmp_path):
    path = write_people(tmp_path, [[person((1, 1, 9, 9))], []])
    with pytest.raises(ValueError, match="has none of coco_wholebody_val_v1.0.json, person_k"):
        CocoPeople(tmp_path, "val")
    (tmp_path / "train/0002.png").unlink()
    with pytest.raises(ValueError, match="1 of its 2 pictures are missing, the first is .*0002"):
        CocoPeople(tmp_path, "train")
    good = path.read_text()
    for change, message in ((("bbox", [1, 2, 3]), "annotation 100: key 'bbox' must be 4 finite"),
                            (("image_id", 77), "image_id 77 is not among the images"),
                            (("segmentation", {"counts": [5], "size": [96, 128]}),
                             "annotation 100: key 'segmentation' does not fit"),
                            (("segmentation", [[1, 2, 3]]), "lists of x, y")):
        data = json.loads(good)
        data["images"].pop()
        data["annotations"][0][change[0]] = change[1]
        path.write_text(json.dumps(data))
        with pytest.raises(ValueError, match=message):
            CocoPeople(tmp_path, "train")
    data = json.loads(good)
    data["images"].pop()
    data["images"][0]["width"] = 100
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="is 128x96 pixels, its annotations say 100x96"):
        CocoPeople(tmp_path, "train").frames[0].load_image()


@pytest.mark.parametrize("value", [None, ["a"] * 51, [1.0, 2.0], 5])
def test_points_that_are_none(tmp_path, value):
    write_people(tmp_path, [[person((10, 20, 30, 40), keypoints=value)]])
    with pytest.raises(ValueError, match="annotation 100: key 'keypoints' must be a list of x"):
        CocoPeople(tmp_path, "train")


def test_people_and_objects_do_not_mix(tmp_path):
    write_people(tmp_path, [[person((1, 1, 9, 9))]])
    people = CocoPeople(tmp_path, "train")
    assert holds_people([people]) and not holds_people([object()])
    with pytest.raises(ValueError, match="hold people in COCO's layout, the others are BOP"):
        holds_people([people, object()])
