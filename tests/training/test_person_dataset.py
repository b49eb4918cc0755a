"""Person samples: affines, augmentation, batches on the device, the order and stages of keys."""

import dataclasses
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.wholebody_files import annotation
from kd_pose.crop import apply_affine, box_affine, crop_pixels, warp
from kd_pose.simcc import SimccCodec
from kd_pose.wholebody_keypoints import COUNT, FLIP, LOWER_BODY, PARTS, UPPER_BODY
from kd_pose_training import strict
from kd_pose_training.data.coco_wholebody import read_coco_wholebody
from kd_pose_training.data.person_augment import (
    PersonAugment,
    augmented_affine,
    change_pixels,
    mirror_affine,
    stage_schedule,
    strong_augment,
    weak_augment,
)
from kd_pose_training.data.person_batch import Encoding, PersonBatch, collate
from kd_pose_training.data.person_dataset import PersonDataset
from kd_pose_training.data.person_sampler import PersonSampler, person_sampler

REAL = Path(__file__).parents[3] / "shared" / "data" / "coco_wholebody"
CODEC = SimccCodec((48, 64))
SIZE = (48, 64)
BOX = np.array([30.0, 20.0, 60.0, 80.0])
OFF = PersonAugment(flip=0.0, half_body=0.0, shift=0.0, scale=(1.0, 1.0), rotate_deg=0.0, hue=0.0,
                    saturation=0.0, value=0.0, blur=0.0, median_blur=0.0, dropout=0.0)


def points_in_box():
    rng = np.random.default_rng(1)
    return (BOX[:2] + rng.random((COUNT, 2)) * BOX[2:]).astype(np.float32)


def draw(config, seed, labelled=None):
    labelled = np.ones(COUNT, bool) if labelled is None else labelled
    return augmented_affine(BOX, points_in_box(), labelled, SIZE, 1.25, config,
                            np.random.default_rng(seed))


def parts_of(M):
    """Scale, turn in degrees and where the box's centre goes, of an affine without mirror."""
    scale = np.sqrt(np.linalg.det(M[:, :2]))
    return scale, np.degrees(np.arctan2(M[1, 0], M[0, 0])), apply_affine(M, BOX[:2] + BOX[2:] / 2)


def folder_with(tmp_path, people):
    """Pictures with marks of four colours at the four corner points of each person's body."""
    data = {"images": [], "annotations": []}
    for number in range(max(image for image, _ in people) + 1):
        image = np.random.default_rng(number).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        data["images"].append({"id": number, "file_name": f"{number}.png", "width": 160,
                               "height": 120})
    for number, (image, box) in enumerate(people):
        points = np.concatenate([points_in_box(), np.ones((COUNT, 1))], axis=1)
        data["annotations"].append(annotation(number, image, points, box, 2000.0))
    (tmp_path / "truth.json").write_text(json.dumps(data))
    return read_coco_wholebody(tmp_path / "truth.json", tmp_path)


@pytest.fixture
def table(tmp_path):
    return folder_with(tmp_path, [(0, BOX), (1, BOX), (0, (-40, -30, 100, 90))])


def test_without_chances_the_crop_is_that_of_the_runtime():
    M, mirrored = draw(OFF, 0)
    assert not mirrored and np.allclose(M, box_affine(BOX, SIZE, 1.25))


def test_scale_shift_and_turn_stay_within_their_limits():
    config = dataclasses.replace(strong_augment(), flip=0.0, half_body=0.0)
    plain = parts_of(box_affine(BOX, SIZE, 1.25))[0]
    drawn = [parts_of(draw(config, seed)[0]) for seed in range(600)]
    factor = plain / np.array([scale for scale, _, _ in drawn])
    turn = np.array([angle for _, angle, _ in drawn])
    assert 0.6 <= factor.min() < 0.65 and 1.35 < factor.max() <= 1.4
    # a normal law between -1 and 1 sigma: flatter than uniform at its ends, mean in the middle
    assert abs(factor.mean() - 1.0) < 0.03 and factor.std() == pytest.approx(0.4 * 0.54, rel=0.1)
    assert np.abs(turn).max() <= 80 and np.abs(turn).max() > 70
    assert np.mean(turn == 0) == pytest.approx(0.4, abs=0.06)
    middle = (np.array(SIZE) - 1) / 2
    moves = np.array([np.linalg.norm(centre - middle) for _, _, centre in drawn])
    assert np.mean(moves > 1e-6) == pytest.approx(0.3, abs=0.06)


def test_a_shift_is_a_part_of_the_padded_box():
    config = dataclasses.replace(OFF, shift=0.16, shift_chance=1.0)
    plain = box_affine(BOX, SIZE, 1.25)
    for seed in range(50):
        M = draw(config, seed)[0]
        moved = (apply_affine(M, BOX[:2]) - apply_affine(plain, BOX[:2])) / parts_of(M)[0]
        assert (np.abs(moved) <= 0.16 * 1.25 * BOX[2:] + 1e-9).all()


def test_half_bodies():
    config = dataclasses.replace(OFF, half_body=1.0)
    xy = points_in_box()
    kinds = set()
    for seed in range(40):
        M, _ = draw(config, seed)
        middle = np.linalg.solve(M[:, :2], (np.array(SIZE) - 1) / 2 - M[:, 2])
        near = [np.abs(middle - xy[half].mean(axis=0)).max() for half in (UPPER_BODY, LOWER_BODY)]
        assert min(near) < 1e-4
        kinds.add(int(np.argmin(near)))
        chosen = (UPPER_BODY, LOWER_BODY)[int(np.argmin(near))]
        size = 1.5 * np.ptp(xy[chosen], axis=0)
        assert parts_of(M)[0] == pytest.approx(min(np.array(SIZE) / size), rel=1e-5)
    assert kinds == {0, 1}


def test_half_bodies_that_cannot_be():
    config = dataclasses.replace(OFF, half_body=1.0)
    whole = box_affine(BOX, SIZE, 1.25)
    few = np.zeros(COUNT, bool)
    few[:8] = True  # one less than needed
    assert np.allclose(draw(config, 0, few)[0], whole)
    only_face = np.zeros(COUNT, bool)
    only_face[PARTS["face"]] = True
    assert np.allclose(draw(config, 0, only_face)[0], whole)
    upper = np.zeros(COUNT, bool)
    upper[UPPER_BODY] = True  # no lower half to choose
    assert len({draw(config, seed, upper)[0].tobytes() for seed in range(10)}) == 1
    spot = augmented_affine(BOX, np.full((COUNT, 2), 50.0), np.ones(COUNT, bool), SIZE, 1.25,
                            config, np.random.default_rng(0))[0]
    assert np.allclose(spot, whole)
    line = np.stack([np.linspace(30, 90, COUNT), np.full(COUNT, 40.0)], axis=1)
    assert np.isfinite(augmented_affine(BOX, line, np.ones(COUNT, bool), SIZE, 1.25, config,
                                        np.random.default_rng(0))[0]).all()


def test_mirroring_the_affine_is_mirroring_the_crop():
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    M = box_affine(BOX, SIZE, 1.25)
    mirrored = warp(image, mirror_affine(M, SIZE[0]), SIZE)
    difference = mirrored.astype(int) - warp(image, M, SIZE)[:, ::-1]
    assert np.abs(difference).max() <= 1  # OpenCV's rounding to 1/32 pixel
    assert np.allclose(mirror_affine(mirror_affine(M, SIZE[0]), SIZE[0]), M)


def test_crop_pixels_is_warp():
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    for seed in range(20):
        M, _ = draw(strong_augment(), seed)
        assert np.array_equal(crop_pixels(image, M, SIZE), warp(image, M, SIZE))


def test_pixels_change_as_they_should():
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8), SIZE)
    rng = np.random.default_rng
    assert np.array_equal(change_pixels(image.copy(), OFF, rng(0)), image)
    black = []
    for seed in range(60):
        dropped = change_pixels(np.full_like(image, 200), dataclasses.replace(OFF, dropout=1.0),
                                rng(seed))
        rows, columns = np.nonzero((dropped == 0).all(axis=2))
        h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == h * w  # one whole rectangle
        black.append((h / 64, w / 48))
    assert np.min(black) >= 0.18 and np.max(black) <= 0.42 and np.ptp(black) > 0.15
    for name in ("blur", "median_blur"):
        blurred = change_pixels(image.copy(), dataclasses.replace(OFF, **{name: 1.0}), rng(0))
        assert blurred.std() < image.std()
    brighter = [change_pixels(np.full_like(image, 100), dataclasses.replace(OFF, value=30.0),
                              rng(seed))[0, 0] for seed in range(60)]
    assert 70 <= np.min(brighter) and np.max(brighter) <= 130 and np.ptp(brighter) > 40
    assert all(len(set(pixel.tolist())) == 1 for pixel in brighter)  # grey stays grey


def test_hue_turns_around_the_circle():
    red = np.full((4, 4, 3), (0, 0, 255), np.uint8)
    config = dataclasses.replace(OFF, hue=5.0)
    seen = np.array([change_pixels(red, config, np.random.default_rng(seed))[0, 0]
                     for seed in range(80)])
    hue = cv2.cvtColor(seen[None], cv2.COLOR_BGR2HSV)[0, :, 0].astype(int)
    hue = (hue + 90) % 180 - 90  # around 0
    assert -6 <= hue.min() < -2 and 2 < hue.max() <= 6 and np.mean(hue == 0) > 0.4


def test_stages_and_their_schedule():
    strong, weak = strong_augment(), weak_augment()
    assert (strong.shift, strong.scale, strong.rotate_deg, strong.dropout) == (
        0.16, (0.6, 1.4), 80.0, 1.0)
    assert (weak.shift, weak.scale, weak.rotate_deg, weak.dropout) == (
        0.0, (0.75, 1.25), 60.0, 0.5)
    stage = stage_schedule(270)
    assert [stage(i) for i in (0, 239, 240, 269)] == ["strong", "strong", "weak", "weak"]
    assert stage_schedule(10, 0.0)(9) == "strong" and stage_schedule(10, 1.0)(0) == "weak"
    with pytest.raises(ValueError, match="weak_share is 1.5"):
        stage_schedule(10, 1.5)


def test_settings_are_read_strictly():
    config = strict.from_dict(PersonAugment, {"scale": [0.5, 1.5], "flip": 0}, "a.yaml")
    assert config.scale == (0.5, 1.5) and config.flip == 0.0
    for data, message in (({"flop": 1}, "unknown key 'flop'"), ({"flip": 1.5}, "flip is 1.5"),
                          ({"scale": [1.4, 0.6]}, "scale is"), ({"shift": -1}, "shift is -1"),
                          ({"dropout_size": [0.2, 1.0]}, "dropout_size is")):
        with pytest.raises(ValueError, match=message):
            strict.from_dict(PersonAugment, data, "a.yaml")


def test_a_sample_is_a_function_of_its_key(table):
    data = PersonDataset(table, CODEC, True)
    for key in ((0, 3), (1, 3, "weak"), 2):
        one, two = data[key], data[key]
        assert torch.equal(one.pixels, two.pixels) and torch.equal(one.xy, two.xy)
    assert not torch.equal(data[0, 3].pixels, data[0, 4].pixels)
    assert not torch.equal(data[0, 3, "weak"].xy, data[0, 3, "strong"].xy)
    assert torch.equal(data[0, 3].xy, data[0, 3, "strong"].xy)
    # Which picture the data set held before changes nothing.
    fresh = PersonDataset(table, CODEC, True)
    data[1, 1]
    assert torch.equal(fresh[0, 9].pixels, data[0, 9].pixels)


def test_points_lie_on_the_same_pixels_as_before(table):
    """Smooth pictures look the same at a point before and after the warp."""
    blurred = cv2.GaussianBlur(table.load_image(0), (0, 0), 5)
    config = dataclasses.replace(strong_augment(), flip=0.0, hue=0.0, saturation=0.0, value=0.0,
                                 blur=0.0, median_blur=0.0, dropout=0.0)
    data = PersonDataset(table, CODEC, True, augment={"strong": config})
    data._picture = lambda image: blurred
    compared = 0
    for seed in range(12):
        sample = data[0, seed]
        xy = sample.xy[0].numpy()
        for index in np.flatnonzero(((xy > 2) & (xy < np.array(SIZE) - 3)).all(axis=1)):
            now = sample.pixels[0].numpy()[tuple(np.rint(xy[index, ::-1]).astype(int))]
            then = blurred[tuple(np.rint(table.xy[0, index, ::-1]).astype(int))]
            assert np.abs(now.astype(int) - then).max() < 30
            compared += 1
    assert compared > 500


def test_mirrored_samples_exchange_left_and_right(table):
    config = dataclasses.replace(OFF, flip=1.0)
    mirrored = PersonDataset(table, CODEC, True, augment={"strong": config})[0, 1]
    plain = PersonDataset(table, CODEC, False)[0]
    assert torch.allclose(mirrored.xy[0, FLIP.copy(), 0], SIZE[0] - 1 - plain.xy[0, :, 0],
                          atol=1e-4)
    assert torch.allclose(mirrored.xy[0, FLIP.copy(), 1], plain.xy[0, :, 1], atol=1e-4)


def test_weights_follow_visibility_and_wishes(table):
    visibility = table.visibility.copy()
    visibility[0, 5] = 0.0
    visibility[0, 7] = 0.2
    valid = table.valid.copy()
    valid[0, 1] = False
    table = dataclasses.replace(table, visibility=visibility, valid=valid)
    weight = PersonDataset(table, CODEC, False)[0].weight[0]
    assert weight.sum() == COUNT - 1 and weight[5] == 0 and weight[7] == 1
    weight = PersonDataset(table, CODEC, False, only_valid_parts=True)[0].weight[0]
    assert weight[PARTS["face"]].sum() == 0 and weight.sum() == COUNT - 1 - 68


def test_someone_half_out_of_the_picture(table):
    """Person 2's box reaches over two edges: it was cut, and what is beyond is grey."""
    assert table.box_xywh[2].tolist() == [-0.5, -0.5, 60, 60]
    plain = PersonDataset(table, CODEC, False)[2]
    assert (plain.pixels[0, 0, 0] == 114).all()
    data = PersonDataset(table, CODEC, True)
    for seed in range(20):
        batch = data[2, seed].to("cpu")
        for tensor in (batch.images, batch.target_x, batch.target_y, batch.weight):
            assert torch.isfinite(tensor).all()


def test_targets_are_those_of_the_codec(table):
    data = PersonDataset(table, CODEC, True)
    batch = collate([data[index, seed] for index in range(3) for seed in range(4)])
    batch.xy[0, 3] = float("nan")  # not labelled, so it does not matter
    batch.weight[0, 3] = 0.0
    batch.xy[1, 0], batch.xy[1, 1] = torch.tensor([[-3.9, 5.0], [47.9, 64.9]])
    made = batch.to("cpu")
    x, y, weight = CODEC.encode(batch.xy.numpy(), batch.weight.numpy())
    assert np.abs(made.target_x.numpy() - x).max() < 1e-6
    assert np.abs(made.target_y.numpy() - y).max() < 1e-6
    assert np.array_equal(made.weight.numpy(), weight) and 0 < weight.mean() < 1


def test_images_are_those_of_the_runtime(table):
    from kd_pose.crop import crop_batch
    batch = PersonDataset(table, CODEC, False)[0]
    encoding = batch.encoding
    M = box_affine(table.box_xywh[0], SIZE, 1.25)
    expected = crop_batch(table.load_image(0), [M], SIZE, encoding.mean, encoding.std, True)
    assert np.abs(batch.to("cpu").images.numpy() - expected).max() < 1e-5


def test_batches_join_and_are_small(table):
    data = PersonDataset(table, SimccCodec((192, 256)), True)
    batch = collate([data[0, 0], data[1, 0]])
    assert isinstance(batch, PersonBatch) and batch.pixels.shape == (2, 256, 192, 3)
    assert batch.to("cpu").target_x.shape == (2, COUNT, 384)
    # mmpose hands 636 kB a sample to the training process (docs/wholebody_data.md)
    assert len(pickle.dumps(data[0, 0])) < 0.25 * 636_000
    assert batch.encoding == Encoding(SimccCodec((192, 256)))


def test_nobody_and_lost_pictures(tmp_path, table):
    with pytest.raises(ValueError, match="there is nobody to learn from: 0 people"):
        PersonDataset(table.select(np.zeros(0, np.int64)), CODEC, True)
    data = PersonDataset(table, CODEC, True)
    (tmp_path / "1.png").unlink()
    data[0, 0]
    with pytest.raises(ValueError, match="1.png: no such file"):
        data[1, 0]


def sampler(image, batch_size=4, start=0, stop=30, **options):
    return PersonSampler(len(image), batch_size, 7, start, stop, image=np.array(image),
                         stage=stage_schedule(30, 1 / 3), **options)


def test_people_of_a_picture_come_together_and_each_once():
    image = [3, 0, 3, 1, 1, 5, 3, 0]
    keys = [key for iteration in range(4) for key in sampler(image).batch(iteration)]
    for epoch in (keys[:8], keys[8:]):
        assert sorted(index for index, _, _ in epoch) == list(range(8))
        pictures = [image[index] for index, _, _ in epoch]
        changes = sum(a != b for a, b in zip(pictures, pictures[1:]))
        assert changes == len(set(image)) - 1
    assert [key[0] for key in keys[:8]] != [key[0] for key in keys[8:]]
    assert len({seed for _, seed, _ in keys}) == len(keys)


def test_stages_resuming_and_sharing():
    image = [3, 0, 3, 1, 1, 5, 3, 0]
    whole = list(sampler(image))
    assert [batch[0][2] for batch in whole] == ["strong"] * 20 + ["weak"] * 10
    assert list(sampler(image, start=17)) == whole[17:]
    shares = [sampler(image, rank=rank, world=2).batch(5) for rank in range(2)]
    assert shares[0] + shares[1] == whole[5]
    # two sets mixed by share: every batch has half of its people from each
    mixed = sampler(image, mix=((5, 1.0), (3, 1.0)))
    assert [sum(key[0] < 5 for key in batch) for batch in mixed] == [2] * 30
    with pytest.raises(ValueError, match="image has 2 rows for 8 people"):
        PersonSampler(8, 4, 7, 0, 1, image=np.zeros(2), stage=stage_schedule(1))


def test_a_loader_with_workers_gives_the_same(table):
    data = PersonDataset(table, CODEC, True)
    make = person_sampler(table, stage_schedule(4, 0.5))
    batches = [torch.utils.data.DataLoader(data, batch_sampler=make(3, 2, 1, 0, 4),
                                           collate_fn=collate, num_workers=workers)
               for workers in (0, 1)]
    for one, two in zip(*batches):
        assert torch.equal(one.pixels, two.pixels) and torch.equal(one.weight, two.weight)


def test_the_real_skier():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there")
    data = PersonDataset(read_coco_wholebody(REAL / "annotations.json", REAL),
                         SimccCodec((192, 256)), False)
    sample = data[0]
    labelled = sample.weight[0] > 0
    xy = sample.xy[0, labelled]
    assert (xy > 0).all() and (xy < torch.tensor([192, 256])).all()
    # the right shoulder's front and the upper arm are in a red jacket
    for place in (sample.xy[0, [6, 5]].mean(0), sample.xy[0, [6, 8]].mean(0)):
        x, y = place.round().int().tolist()
        blue, green, red = sample.pixels[0, y:y + 9, x - 4:x + 5].float().mean((0, 1)).tolist()
        assert red > blue + 40 and red > green + 40
