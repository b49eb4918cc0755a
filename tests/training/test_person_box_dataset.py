"""Samples of the person detector: boxes where the people are, whatever the change."""

import numpy as np
import pytest
import torch

from helpers.people_folder import SIZE_WH, person, points, write_people
from kd_pose.votes import BACKGROUND, IGNORE, VoteGrid
from kd_pose_training.config import from_dict
from kd_pose_training.data.batch import collate
from kd_pose_training.data.coco_people import CocoPeople
from kd_pose_training.data.person_box_dataset import PersonBoxDataset, mirrored

PLAIN = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "noise": 0, "blur": 0,
         "cutout": 0}


def make(root, pictures, train=False, augment=None, size=SIZE_WH, **data):
    write_people(root, pictures)
    config = from_dict({
        "task": "object_detector", "augment": {**PLAIN, **(augment or {})},
        "model": {"strides": [8, 16, 32]},
        "data": {"train": [f"{root}:train"], "input_size": list(size), "mean": [0, 0, 0],
                 "std": [1, 1, 1], **data}})
    grid = VoteGrid(size, (8, 16, 32))
    return PersonBoxDataset([CocoPeople(root, "train")], config, grid, train)


def bright(sample):
    """Box xyxy with continuous edges of the bright pixels of a sample."""
    rows, columns = np.nonzero(sample.images[0, 0].numpy() > 140)
    return np.array([columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5,
                     rows.max() + 0.5])


def test_a_frame_as_the_runtime_sees_it(tmp_path):
    data = make(tmp_path, [[person((24, 16, 32, 48)), person((80, 40, 16, 40))], []])
    sample = data[0]
    assert sample.points_px[:, 0].tolist() == [[[23.5, 15.5], [55.5, 63.5]],
                                               [[79.5, 39.5], [95.5, 79.5]]]
    assert sample.size_px.tolist() == [48, 40] and sample.instance_class.tolist() == [0, 0]
    cells = np.flatnonzero(sample.cell_class[0].numpy() == 0)
    assert len(cells) >= 10
    for cell in cells:
        low, high = sample.points_px[sample.cell_instance[0, cell], 0].numpy()
        assert (low <= data.grid.centers[cell]).all() and (data.grid.centers[cell] <= high).all()
    empty = data[1]
    assert (empty.cell_class == BACKGROUND).all() and len(empty.points_px) == 0
    batch = collate([sample, empty, sample])
    assert batch.instance_image.tolist() == [0, 0, 2, 2]
    assert batch.cell_instance[2].max() == 3


def test_whom_to_ignore(tmp_path):
    data = make(tmp_path, [[
        person((10, 10, 40, 60), crowd=1), person((60, 10, 11, 11)),
        person((60, 40, 30, 40), keypoints=points(1, 16)),
        person((95, 40, 30, 40), keypoints=points(2, 15))]])
    sample = data[0]
    assert len(sample.points_px) == 1 and sample.points_px[0, 0, 0, 0] == 94.5
    at = {tuple(np.rint(c).astype(int)): int(k) for c, k in zip(data.grid.centers,
                                                                sample.cell_class[0])}
    assert at[28, 36] == IGNORE and at[68, 60] == IGNORE  # crowd, hidden: 1 of 17 points
    assert at[4, 84] == BACKGROUND


def test_a_person_behind_others_is_ignored_by_what_is_left_of_the_mask(tmp_path):
    polygon = [[20, 20, 24, 20, 24, 24, 20, 24]]  # 16 pixels of a box of 60 x 60
    data = make(tmp_path, [[person((20, 20, 60, 60), segmentation=polygon),
                            person((90, 20, 20, 30))]])
    assert data[0].points_px[:, 0, 0, 0].tolist() == [89.5]


@pytest.mark.parametrize("seed", range(8))
def test_boxes_follow_the_picture_through_every_change(tmp_path, seed):
    data = make(tmp_path, [[person((40, 30, 36, 44))]], train=True,
                augment={"zoom": [0.6, 1.5], "shift": 0.3})
    sample = data[0, seed]
    if not len(sample.points_px):
        pytest.skip("moved out of the picture by this seed")
    assert np.abs(sample.points_px[0, 0].reshape(4).numpy() - bright(sample)).max() < 1.3
    again = data[0, seed]
    assert torch.equal(again.images, sample.images)
    assert torch.equal(again.cell_class, sample.cell_class)


def test_half_of_the_pictures_are_mirrored(tmp_path):
    data = make(tmp_path, [[person((20, 30, 30, 44))]], train=True,
                augment={"zoom": [1.0, 1.0], "shift": 0.0})
    left = [float(data[0, seed].points_px[0, 0, 0, 0]) for seed in range(40)]
    assert set(left) == {19.5, 127 - 49.5} and 10 <= left.count(19.5) <= 30


def test_mirroring_keeps_the_frame():
    M = mirrored(np.array([[2.0, 0, 3], [0, 2, 5]]), 100)
    assert M.tolist() == [[-2, 0, 96], [0, 2, 5]]  # x = 10: 23 -> 99 - 23 = 76


def test_a_box_ends_where_the_input_does(tmp_path):
    data = make(tmp_path, [[person((0, 0, 128, 96))]], train=True,
                augment={"zoom": [1.4, 1.4], "shift": 0.0})
    assert data[0, 1].points_px[0, 0].tolist() == [[-0.5, -0.5], [127.5, 95.5]]


def test_nobody_to_learn_from(tmp_path):
    with pytest.raises(ValueError, match=r"nobody is visible enough .*in 1 pictures"):
        make(tmp_path, [[person((10, 10, 40, 60), crowd=1)]])


def test_the_cache_gives_the_same(tmp_path):
    pictures = [[person((24, 16, 32, 48))], []]
    plain, cached = make(tmp_path / "a", pictures), make(tmp_path / "b", pictures, cache="ram")
    assert torch.equal(plain[0].images, cached[0].images)
    assert torch.equal(plain[0].images, plain.picture(0))
