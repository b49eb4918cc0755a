"""Training samples: geometry, targets, randomness, memory."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch

from helpers.fake_objects import COLOURS, FakeBop, Frame, Instance, K, load_vertices
from kd_pose.boxes import points_box
from kd_pose.crop import apply_affine, crop_intrinsics, invert_affine, warp
from kd_pose.geometry import box_corners, make_pose, rotation_angle_deg, rotation_from_vector
from kd_pose.pnp import solve_pnp
from kd_pose.votes import BACKGROUND, IGNORE, VoteGrid, decode, encode_points
from kd_pose_training.config import AugmentConfig, DataConfig, TrainConfig
from kd_pose_training.data import augment, frame_cache
from kd_pose_training.data.amodal import amodal_box, support_points
from kd_pose_training.data.batch import collate
from kd_pose_training.data.fixed_set import FixedAugmentationSet
from kd_pose_training.data.object_dataset import ObjectVoteDataset, object_specs

torch.set_num_threads(1)
PLAIN = AugmentConfig(probability=0.0, cutout=0.0)


def make_set(task="object_votes", train=True, bop=None, size=(128, 128), strides=(8, 16, 32),
             augmentation=PLAIN, **data):
    config = TrainConfig(DataConfig(("memory:test",), input_size=size, **data), task,
                         augmentation)
    return ObjectVoteDataset([bop or FakeBop()], config, VoteGrid(size, strides), train,
                             load_vertices=load_vertices, progress=False)


def test_data_sets_are_mixed_by_share():
    one, two = FakeBop(2), FakeBop(3, seed=1)
    config = TrainConfig(DataConfig(("a:x", "b:y"), input_size=(128, 128),
                                    train_shares=(0.25, 0.75)), augment=PLAIN)
    grid = VoteGrid((128, 128), (8, 16, 32))

    def mix(*sets, train=True, config=config):
        return ObjectVoteDataset(sets, config, grid, train, load_vertices=load_vertices,
                                 progress=False).mix

    alone = [len(ObjectVoteDataset([bop], config, grid, False, load_vertices=load_vertices,
                                   progress=False)) for bop in (one, two)]
    assert mix(one, two) == ((alone[0], 0.25), (alone[1], 0.75))
    assert FixedAugmentationSet(ObjectVoteDataset(
        [one, two], config, grid, True, load_vertices=load_vertices, progress=False),
        2).mix == mix(one, two)
    assert mix(one, two, train=False) == ()
    equal = dataclasses.replace(config, data=dataclasses.replace(config.data, train_shares=None))
    assert mix(one, two, config=equal) == ()
    nothing = FakeBop(2)
    nothing.frames = []
    with pytest.raises(ValueError, match="data.train: b:y: has a share"):
        mix(one, nothing)


def tensors(batch):
    return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}


def rotating(degrees=60.0):
    return dataclasses.replace(PLAIN, rotate_deg=degrees)


@pytest.mark.parametrize("augmentation", [PLAIN, rotating()])
def test_points_of_the_camera_project_to_the_points_of_the_crop(augmentation):
    data = make_set(augmentation=augmentation)
    for seed in range(12):
        batch = data[seed % len(data), seed]
        projected = torch.einsum("ij,mskj->mski", batch.K_crop[0], batch.points_cam)
        projected = projected[..., :2] / projected[..., 2:]
        assert torch.allclose(projected, batch.points_px, atol=2e-3)


def test_pixels_lie_where_the_points_say():
    """The coloured blob of the only object fills the box of its projected vertices."""
    T = make_pose(rotation_from_vector((0.3, 0.2, 0.9)), (0.01, 0.02, 0.5))
    bop = FakeBop(with_poses=[[(3, T)]])
    data = make_set("object_detector", bop=bop, size=(160, 128),
                    augmentation=dataclasses.replace(PLAIN, zoom=(1.2, 1.6), rotate_deg=40.0))
    for seed in range(6):
        batch = data[0, seed]
        image = batch.images[0].permute(1, 2, 0).numpy() * data.config.data.std
        image = image + np.array(data.config.data.mean)
        on_it = np.abs(image - np.array(COLOURS[3])[::-1]).max(axis=2) < 25
        rows, columns = np.nonzero(on_it)
        seen = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        box = batch.points_px[0, 0].numpy().reshape(4)
        assert np.abs(seen - np.clip(box, 0, [159, 127, 159, 127])).max() < 1.8


@pytest.mark.parametrize("degrees", [0.0, 75.0])
def test_truth_encoded_and_decoded_is_the_pose(degrees):
    data = make_set(augmentation=rotating(degrees), bop=FakeBop(6))
    checked = 0
    for index in range(len(data)):
        batch = data[index, 100 + index]
        number, row = data.items[index]
        frame, item = data.frames[number], data.frames[number].instances[row]
        scores = np.zeros((data.grid.num_cells, 2), np.float32)
        offsets = np.zeros((data.grid.num_cells, 2, 8, 2), np.float32)
        for cell in torch.nonzero(batch.cell_class[0] >= 0)[:, 0].tolist():
            label = int(batch.cell_class[0, cell])
            points = batch.points_px[batch.cell_instance[0, cell], 0].double().numpy()
            scores[cell, label] = 0.9
            offsets[cell, label] = encode_points(data.grid, np.array([cell]), points[None])[0]
        target = int(data._labels[number][row])
        M_true = apply_affine_of(batch, frame.K)
        found = decode(data.grid, scores, offsets, classes=[target])
        corners = box_corners(data.classes[target].spec.box_min,
                              data.classes[target].spec.box_max)
        poses = []
        for group in found:
            pixels = apply_affine(invert_affine(M_true), group.points.reshape(-1, 2))
            result = solve_pnp(np.tile(corners, (len(group.cells), 1)), pixels, frame.K)
            poses.append(result.T_cam_obj)
        best = min(poses, key=lambda T: np.linalg.norm(T[:3, 3] - item.T_cam_obj[:3, 3]))
        assert np.linalg.norm(best[:3, 3] - item.T_cam_obj[:3, 3]) < 1e-4
        assert rotation_angle_deg(best[:3, :3], item.T_cam_obj[:3, :3]) < 0.05
        checked += 1
    assert checked == len(data) >= 12


def apply_affine_of(batch, intrinsics):
    """The crop's affine back from K_crop = A K."""
    return (batch.K_crop[0].double().numpy() @ np.linalg.inv(intrinsics))[:2]


def test_the_same_seed_gives_the_same_sample_whatever_came_before():
    strong = AugmentConfig(rotate_deg=30.0, cutout=1.0, probability=1.0, jpeg=40)
    data = make_set(augmentation=strong)
    first = tensors(data[2, 77])
    for seed in range(3):
        data[1, seed]
    again = tensors(data[2, 77])
    other = tensors(data[2, 78])
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["images"], other["images"])
    assert not torch.equal(first["K_crop"], other["K_crop"])


def test_validation_crops_are_those_of_the_runtime():
    from kd_pose.boxes import xywh_from_xyxy
    from kd_pose.crop import box_affine
    data = make_set(train=False)
    number, row = data.items[1]
    frame = data.frames[number]
    box = amodal_box(frame.instances[row].T_cam_obj, data.classes[1].outline, frame.K)
    M = box_affine(xywh_from_xyxy(box), (128, 128), 1.5)
    assert np.allclose(crop_intrinsics(frame.K, M), data[1].K_crop[0].numpy(), rtol=1e-5)
    assert torch.equal(data[1].images, data[1, 5].images)


def test_jitter_stays_within_its_bounds():
    rng = np.random.default_rng(0)
    config = AugmentConfig(zoom=(0.75, 1.25), shift=0.25, rotate_deg=20.0)
    box = np.array([100.0, 50.0, 40.0, 20.0])
    for _ in range(200):
        M = augment.jittered_crop(box, (96, 96), 1.5, config, rng)
        scale = np.sqrt(np.linalg.det(M[:, :2]))
        assert 96 / (60 * 1.25) - 1e-9 <= scale <= 96 / (60 * 0.75) + 1e-9
        assert abs(np.degrees(np.arctan2(M[1, 0], M[0, 0]))) <= 20.0 + 1e-9
        centre = apply_affine(invert_affine(M), np.array([47.5, 47.5]))
        assert np.all(np.abs(centre - [120, 60]) <= [10 + 1e-9, 5 + 1e-9])


def test_targets_belong_to_the_objects_seen():
    bop = FakeBop(3)
    data = make_set(bop=bop)
    with_two = [i for i, (number, _) in enumerate(data.items) if number == 2]
    for index in with_two:
        for seed in range(5):
            batch = data[index, seed]
            positive = batch.cell_class[0] >= 0
            owner = batch.cell_instance[0][positive]
            assert positive.any() and bool((owner >= 0).all())
            assert torch.equal(batch.instance_class[owner], batch.cell_class[0][positive])
            assert bool((batch.cell_instance[0][~positive] == -1).all())
            counts = torch.bincount(owner)
            assert counts.max() <= 11  # ten cells, rounding may add one
            assert len(batch.instance_class) == len(batch.points_cam) == len(batch.size_px)


def test_size_is_the_longer_side_of_the_projected_corners():
    batch = make_set(train=False)[0]
    box = points_box(batch.points_px[0, 0].numpy())
    assert batch.size_px[0] == pytest.approx(max(box[2] - box[0], box[3] - box[1]), rel=1e-5)
    assert batch.diameter[0] == pytest.approx(0.14)


def test_symmetry_members_are_turned_boxes():
    data = make_set(train=False)
    batch = data[1]  # the can
    row = int(torch.nonzero(batch.instance_class == 1)[0])
    assert batch.points_cam.shape[1:] == (24, 8, 3)
    member = batch.points_cam[row]
    assert torch.allclose(member.mean(1), member[0].mean(0).expand(24, 3), atol=1e-6)
    assert float((member[6] - member[0]).norm(dim=-1).max()) > 0.01  # a quarter turn
    if len(batch.instance_class) > 1:  # the block beside it repeats its only member
        block = int(torch.nonzero(batch.instance_class == 0)[0])
        assert torch.equal(batch.points_cam[block], batch.points_cam[block, :1].expand(24, 8, 3))


def test_unknown_objects_are_background_and_hidden_ones_are_ignored():
    only_can = make_set(objects=("can",), train=False)
    assert [int(only_can._labels[n][r]) for n, r in only_can.items] == [0] * len(only_can)
    T = make_pose(np.eye(3), (0.0, 0.0, 0.5))
    bop = FakeBop(with_poses=[[(7, T), (3, make_pose(np.eye(3), (0.01, -0.01, 0.4)))]])
    frame = bop.frames[0]
    assert 0.1 < frame.instances[0].visib_fract < 0.6
    data = make_set(bop=bop, train=False, min_visib=0.6)
    assert data.items == [(0, 1)]  # only the block is asked for
    batch = data[0]
    assert batch.instance_class.tolist() == [0]
    shown = warp(frame.load_instance_map(), apply_affine_of(batch, frame.K), (128, 128), -1, True)
    x, y = data.grid.center_pixels.T
    hidden = torch.from_numpy(shown[y, x] == 0)
    assert hidden.any() and bool((batch.cell_class[0][hidden] == IGNORE).all())
    unknown = make_set(bop=bop, train=False, min_visib=0.1, objects=("block",))[0]
    assert bool((unknown.cell_class[0][hidden] == BACKGROUND).all())


def test_objects_beside_or_behind_the_camera_are_left_out():
    bop = FakeBop(with_poses=[[(3, make_pose(np.eye(3), (0, 0, 0.5)))]])
    bop.frames[0].instances.append(Instance(7, make_pose(np.eye(3), (0.5, 0, 0.01))))
    data = make_set(bop=bop, train=False)
    assert len(data) == 1 and data[0].instance_class.tolist() == [0]


def test_covered_places_show_nothing():
    rng = np.random.default_rng(3)
    image = np.zeros((96, 96, 3), np.uint8)
    numbers = np.zeros((96, 96), np.uint8)
    augment.cut_out(image, numbers, AugmentConfig(cutout=1.0), rng, frame_cache.NONE)
    changed = (numbers == frame_cache.NONE)
    assert 30 < changed.sum() < 96 * 96 / 2
    assert not image[~changed].any()


def test_colours_change_within_bounds_and_without_strength_not_at_all():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    off = AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0, noise=0, blur=0,
                        jpeg=0, probability=1.0)
    assert np.array_equal(augment.change_colours(image, off, np.random.default_rng(0)), image)
    strong = AugmentConfig(probability=1.0, jpeg=30)
    seen = {augment.change_colours(image, strong, np.random.default_rng(s)).tobytes()
            for s in range(10)}
    assert len(seen) == 10
    noisy = augment._add_noise(np.full((200, 200, 3), 128, np.uint8), 6.0,
                               np.random.default_rng(1)).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.5)
    assert noisy.std() == pytest.approx(6.0, abs=0.3)


def test_detector_learns_the_whole_box_also_where_it_leaves_the_image():
    T = make_pose(rotation_from_vector((0.4, 0.1, 0.2)), (-0.27, 0.0, 0.5))
    data = make_set("object_detector", train=False, bop=FakeBop(with_poses=[[(3, T)]]),
                    size=(160, 120))
    batch = data[0]
    assert batch.points_px.shape == (1, 1, 2, 2) and not batch.points_cam.any()
    assert batch.points_px[0, 0, 0, 0] < -0.5  # beyond the left edge
    truth = amodal_box(T, data.classes[0].outline, K) / 2 - 0.25  # half the size, centres kept
    assert np.allclose(batch.points_px[0, 0].numpy().ravel(), truth, atol=1e-3)


def test_frames_without_objects_are_negative_samples_of_the_detector():
    bop = FakeBop(with_poses=[[(3, make_pose(np.eye(3), (0, 0, 0.5)))], []])
    data = make_set("object_detector", bop=bop)
    assert len(data) == 2 and len(make_set(bop=bop)) == 1
    empty = data[1, 3]
    assert bool((empty.cell_class == BACKGROUND).all()) and len(empty.instance_class) == 0
    joined = collate([data[0, 1], empty, data[0, 2]])
    assert joined.images.shape[0] == 3 and joined.instance_image.tolist() == [0, 2]


def test_batches_feed_the_losses_also_when_turned():
    from kd_pose_training.config import LossConfig, ModelConfig
    from kd_pose_training.losses.reprojection3d import reprojection3d_loss
    from kd_pose_training.models import build_model
    from kd_pose_training.tasks.object_votes import VotesTask
    data = make_set(augmentation=rotating(), bop=FakeBop(3), size=(64, 64), strides=(16, 32))
    batch = collate([data[i, i] for i in range(4)])
    image, cell = torch.nonzero(batch.cell_class >= 0, as_tuple=True)
    owner = batch.cell_instance[image, cell]
    loss, _ = reprojection3d_loss(batch.points_px[owner, 0].double(), batch.K_crop[image],
                                  batch.points_cam, batch.diameter, owner)
    assert float(loss.max()) < 1e-6  # votes for the truth cost nothing
    model = ModelConfig(strides=(16, 32), head_depth=1, num_classes=2, num_keypoints=8)
    terms = VotesTask(build_model(model), (64, 64), LossConfig()).step(batch)
    assert all(torch.isfinite(value) for value in terms.values())


def test_cache_reads_every_frame_once_and_changes_nothing():
    cached, plain = FakeBop(4), FakeBop(4)
    kept, read = make_set(bop=cached, cache="ram"), make_set(bop=plain)
    loads = [frame.loads for frame in cached.frames]
    for index in range(len(kept)):
        assert torch.equal(kept[index, 9].images, read[index, 9].images)
    assert [frame.loads for frame in cached.frames] == loads
    assert max(loads) <= 2  # the first one also tells the size


def test_cache_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(frame_cache, "free_memory", lambda: 1_000_000)
    with pytest.raises(ValueError, match="data.cache.*GB.*cache=none"):
        make_set(cache="ram")
    assert frame_cache.free_memory() == 1_000_000


def test_free_memory_is_plausible():
    assert 2**26 < frame_cache.free_memory() < 2**50


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="spoon.*block, can"):
        make_set(objects=("spoon",))
    with pytest.raises(ValueError, match="block, can"):
        make_set(min_visib=1.0, bop=FakeBop(with_poses=[[]]))
    bop = FakeBop(1)
    bop.frames[0].load_instance_map = lambda: np.zeros((5, 5), np.int16)
    with pytest.raises(ValueError, match="320x240.*5x5"):
        make_set(bop=bop)[0]
    config = TrainConfig(DataConfig(("a:b",), objects=("can", "block")))
    assert [spec.name for spec in object_specs([FakeBop(1)], config)] == ["can", "block"]


def test_support_points_keep_the_box():
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(20000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    few = support_points(sphere)
    assert len(few) <= 500
    assert np.abs(few.max(0) - sphere.max(0)).max() < 0.006
    with pytest.raises(ValueError):
        support_points(np.empty((0, 3)))


def test_samples_are_quick():
    data = make_set(augmentation=AugmentConfig(probability=1.0, cutout=1.0, rotate_deg=30.0),
                    size=(192, 192), cache="ram")
    data[0, 0]
    start = time.perf_counter()
    for seed in range(30):
        data[seed % len(data), seed]
    assert (time.perf_counter() - start) / 30 < 0.03  # about 3 ms; tests may run beside others


def test_frames_of_the_helper_fit_their_masks():
    frame = Frame(1, 0, [Instance(3, make_pose(np.eye(3), (0, 0, 0.5)))])
    box = amodal_box(frame.instances[0].T_cam_obj, load_vertices(
        FakeBop(0).models[3]), K)
    rows, columns = np.nonzero(frame.load_instance_map() == 0)
    assert np.abs(np.array([columns.min(), rows.min(), columns.max(), rows.max()])
                  - box).max() < 1.0
