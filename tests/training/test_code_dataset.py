"""Samples of the dense networks: mask and codes fit the picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

pytest.importorskip("embreex", reason="embreex has wheels for x86-64 only")

from helpers.fake_objects import COLOURS, SPECS, FakeBop, load_vertices, vertices
from kd_pose.codes import encode, grid_pixels
from kd_pose.geometry import transform_points
from kd_pose_training.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig
from kd_pose_training.data.code_batch import CodeBatch, collate
from kd_pose_training.data.code_dataset import ObjectCodeDataset, cell_mask
from kd_pose_training.data.code_targets import build_surface_codes

torch.set_num_threads(1)
PLAIN = AugmentConfig(probability=0.0, cutout=0.0)
BITS = 8


def load_surface(model):
    """Convex hull of the fake objects' vertices."""
    from scipy.spatial import ConvexHull
    points = vertices(model.spec)
    return points, ConvexHull(points).simplices


def make_set(train=True, augmentation=PLAIN, bop=None, size="dense_tiny", **data):
    bop = bop or FakeBop(count=6)
    config = TrainConfig(DataConfig(("memory:test",), input_size=(128, 96), **data),
                         "object_codes", augmentation, ModelConfig(size, code_bits=BITS))
    surfaces = build_surface_codes([bop], tuple(SPECS.values()), BITS, 2**10, load_surface)
    return ObjectCodeDataset([bop], config, surfaces, train, load_vertices=load_vertices,
                             progress=False)


def picture(data, batch):
    """RGB (H, W, 3), 0..255."""
    return batch.images[0].permute(1, 2, 0).numpy() * data.config.data.std + data.config.data.mean


def test_a_sample():
    data = make_set()
    assert len(data) == 14  # six frames of two, two with a third
    batch = data[0, 5]
    assert isinstance(batch, CodeBatch) and batch.images.shape == (1, 3, 96, 128)
    assert batch.mask.shape == batch.codes.shape == (1, 48, 64)
    assert batch.mask.dtype == torch.bool and batch.codes.dtype == torch.int32
    assert batch.codes.max() < 2**BITS and (batch.codes[~batch.mask] == -1).all()
    again = data[0, 5]
    for field in dataclasses.fields(batch):
        assert torch.equal(getattr(batch, field.name), getattr(again, field.name))
    assert not torch.equal(data[0, 6].images, batch.images)
    assert torch.equal(data.picture(2), data[2].images)


@pytest.mark.parametrize("rotate", [0.0, 60.0])
def test_mask_and_codes_lie_where_the_object_is_seen(rotate):
    """The mask covers the object's colour; the coded points project back onto their pixels."""
    data = make_set(augmentation=dataclasses.replace(PLAIN, rotate_deg=rotate))
    coded = 0
    for index in range(len(data)):
        batch = data[index, 100 + index]
        mask, codes = batch.mask[0].numpy(), batch.codes[0].numpy()
        number, row = data.items[index]
        instance = data.frames[number].instances[row]
        colour = np.array(COLOURS[instance.obj_id])[::-1]
        seen = np.abs(picture(data, batch) - colour).max(axis=2) < 40
        seen = cell_mask(seen, 2)
        if not any(i.obj_id == instance.obj_id and i is not instance
                   for i in data.frames[number].instances):
            assert (seen != mask).mean() < 0.03
        assert batch.label.item() == [spec.name for spec in SPECS.values()].index(
            SPECS[instance.obj_id].name)
        coded += (codes >= 0).sum() / max(mask.sum(), 1)
    assert coded / len(data) > 0.93  # the rest is the outline, which the drawing rounds


@pytest.mark.parametrize("size, stride", [("dense_tiny", 2), ("dense_tiny_h", 4)])
def test_codes_are_of_the_points_behind_the_pixels(size, stride):
    """Of a block without symmetry: project the mean of each patch and look where its code is."""
    data = make_set(train=False, size=size)
    surface = data.surfaces[0]
    for index, (number, row) in enumerate(data.items):
        frame = data.frames[number]
        if frame.instances[row].obj_id != 3:
            continue
        codes = data[index].codes[0].numpy()
        M = data._affine(frame, data._labels[number], row, (320, 240), None)
        cells = np.flatnonzero(codes.ravel() >= 0)
        points = surface.tree.points[codes.ravel()[cells]].astype(np.float64)
        camera = transform_points(frame.instances[row].T_cam_obj, points) @ frame.K.T
        pixels = camera[:, :2] / camera[:, 2:] @ M[:, :2].T + M[:, 2]
        distance = np.linalg.norm(pixels - grid_pixels(cells, 128 // stride, stride), axis=1)
        assert np.median(distance) < 5  # a patch of 256 is about 8 input pixels wide
        assert np.array_equal(np.unique(codes[codes >= 0]),
                              np.unique(encode(surface.tree, points)))


def test_cut_out_parts_are_not_on_the_mask():
    data = make_set(augmentation=dataclasses.replace(PLAIN, cutout=1.0))
    plain = make_set()
    smaller = [data[i, 7].mask.sum() < plain[i, 7].mask.sum() for i in range(len(data))]
    assert sum(smaller) > len(data) // 3


def test_cell_mask_by_hand():
    mask = np.array([[1, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 1]], bool)
    assert cell_mask(mask, 2).tolist() == [[True, False, True]]
    mask = np.zeros((4, 8), bool)
    mask[:, 2:5] = True  # a half of the first cell, a quarter of the second
    assert cell_mask(mask, 4).tolist() == [[True, False]]


def test_collate_and_move():
    data = make_set()
    batch = collate([data[i, 1] for i in range(3)])
    assert batch.images.shape[0] == 3 and batch.label.shape == (3,)
    assert torch.equal(batch.codes[1], data[1, 1].codes[0])
    assert batch.to("cpu").mask.dtype == torch.bool


def test_codes_of_other_classes_are_refused():
    data = make_set()
    with pytest.raises(ValueError, match="codes are of can, block.*classes are block, can"):
        ObjectCodeDataset([FakeBop(2)], data.config, data.surfaces[::-1], True,
                          load_vertices=load_vertices, progress=False)
