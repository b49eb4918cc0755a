"""kd_pose.crop."""

import numpy as np
import pytest

from kd_pose.camera import Camera
from kd_pose.crop import (
    apply_affine,
    box_affine,
    corner_affine,
    crop_batch,
    crop_intrinsics,
    invert_affine,
    letterbox_affine,
    normalise,
    warp,
)

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def picture(height=90, width=120, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_box_affine_by_hand():
    # Box 9.5..29.5 x 19.5..29.5 (centre 19.5, 24.5), 1.5 times = 30 wide, into 60 x 60: scale 2.
    M = box_affine((9.5, 19.5, 20, 10), (60, 60), pad=1.5)
    assert np.allclose(M, [[2, 0, 29.5 - 39], [0, 2, 29.5 - 49]])
    assert np.allclose(apply_affine(M, (19.5, 24.5)), (29.5, 29.5))


def test_identity_where_the_box_is_the_image():
    """The continuous extent of a W x H image is -0.5..W-0.5: no half-pixel shift."""
    image = picture()
    M = box_affine((-0.5, -0.5, 120, 90), (120, 90), pad=1.0)
    assert np.allclose(M, [[1, 0, 0], [0, 1, 0]])
    assert np.allclose(M, letterbox_affine((120, 90), (120, 90)))
    assert np.array_equal(warp(image, M, (120, 90)), image)


def test_letterbox_maps_edges_to_edges():
    M = letterbox_affine((640, 480), (320, 320))
    edges = apply_affine(M, [[-0.5, -0.5], [639.5, 479.5]])
    assert np.allclose(edges, [[-0.5, 39.5], [319.5, 279.5]])


def test_tall_box_is_not_squeezed():
    M = box_affine((0, 0, 10, 40), (64, 32), pad=1.0)
    assert M[0, 0] == M[1, 1] == pytest.approx(32 / 40)


def test_affine_inverse():
    M = np.array([[1.2, 0.3, 5], [-0.2, 0.9, -7]])
    points = picture()[0, :, :2].astype(float)
    assert np.allclose(apply_affine(invert_affine(M), apply_affine(M, points)), points)


def test_warp_puts_a_pixel_where_the_affine_says():
    image = np.zeros((50, 50), np.uint8)
    image[20, 30] = 255
    M = np.array([[1.0, 0, -22], [0, 1.0, -13]])
    assert np.argwhere(warp(image, M, (20, 15), border_value=0)).tolist() == [[7, 8]]


def test_warp_nearest_keeps_the_values_of_a_mask():
    mask = np.full((40, 40), -1, np.int16)
    mask[10:20, 10:20] = 3
    M = np.array([[2.3, 0, -8], [0, 2.3, -8]])
    assert set(np.unique(warp(mask, M, (64, 64), border_value=-1, nearest=True))) == {-1, 3}


def test_crop_intrinsics_project_into_the_crop():
    K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    M = box_affine((200, 100, 80, 60), (128, 128))
    point = np.array([[0.05, -0.1, 0.8]])
    whole = Camera(K, 640, 480).project(point)
    cropped = Camera(crop_intrinsics(K, M), 128, 128).project(point)
    assert np.allclose(cropped, apply_affine(M, whole))


@pytest.mark.parametrize("swap", [False, True])
def test_normalise_equals_the_formula(swap):
    image = picture()
    expected = (image[..., ::-1] if swap else image).astype(np.float64)
    expected = ((expected - MEAN) / STD).transpose(2, 0, 1)
    result = normalise(image, MEAN, STD, swap)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    assert np.abs(result - expected).max() < 1e-6


def test_crop_batch_fills_every_row():
    image = picture()
    affines = [box_affine((10, 10, 40, 30), (32, 24)), box_affine((50, 20, 20, 50), (32, 24))]
    batch = crop_batch(image, affines, (32, 24), MEAN, STD, True)
    assert batch.shape == (2, 3, 24, 32) and batch.dtype == np.float32
    for row, M in zip(batch, affines):
        assert np.array_equal(row, normalise(warp(image, M, (32, 24)), MEAN, STD, True))


def test_outside_of_the_image_is_grey():
    batch = crop_batch(picture(), [box_affine((1000, 1000, 5, 5), (8, 8))], (8, 8), (0,) * 3,
                       (1,) * 3)
    assert (batch == 114).all()


def test_no_crops_is_an_empty_batch():
    assert crop_batch(picture(), [], (32, 24), MEAN, STD).shape == (0, 3, 24, 32)


def test_views_and_padded_rows_are_accepted():
    image = picture(90, 130)[:, 5:125]  # not contiguous, as an image with a padded step
    M = box_affine((10, 10, 40, 30), (32, 24))
    assert np.array_equal(warp(image, M, (32, 24)), warp(image.copy(), M, (32, 24)))


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (0, 0, 5, -1), (0, np.nan, 5, 5), (0, 0, np.inf, 1), (0, 0, 5, 1e300),
            (0, 0, 1e155, 1e155), (0, 0, 1e-300, 1e-300)]
)
def test_boxes_without_a_usable_size_are_refused(box):
    with pytest.raises(ValueError, match="box_xywh"):
        box_affine(box, (32, 32))


def test_bad_arguments():
    with pytest.raises(ValueError, match="pad"):
        box_affine((0, 0, 5, 5), (32, 32), pad=0)
    with pytest.raises(ValueError, match="uint8"):
        normalise(np.zeros((4, 4, 3), np.float32), MEAN, STD)
    with pytest.raises(ValueError, match="uint8"):
        normalise(np.zeros((4, 4), np.uint8), MEAN, STD)


def test_batch_equals_the_plain_warp_for_any_affine():
    """crop_batch warps a four-channel copy of the region; not a value may differ for that."""
    image, size = picture(240, 320), (96, 80)
    rng = np.random.default_rng(0)
    for turn in range(60):
        angle = rng.uniform(-3, 3) * (turn % 2)
        A = rng.uniform(0.2, 5) * np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        centre = rng.uniform((-50, -50), (370, 290))  # some reach over the edge, some lie outside
        M = np.hstack([A, (np.array([48, 40]) - A @ centre)[:, None]])
        expected = normalise(warp(image, M, size), MEAN, STD, True)
        assert np.array_equal(crop_batch(image, [M], size, MEAN, STD, True)[0], expected)


def test_batches_of_images_of_several_sizes_do_not_mix():
    for shape in ((90, 120), (60, 200), (90, 120)):
        image = picture(*shape, seed=shape[0])
        M = box_affine((10, 10, 30, 30), (40, 40))
        expected = normalise(warp(image, M, (40, 40)), MEAN, STD)
        assert np.array_equal(crop_batch(image, [M], (40, 40), MEAN, STD)[0], expected)


def test_batch_into_a_kept_buffer():
    image, affines = picture(), [box_affine((10, 10, 40, 30), (32, 24))]
    buffer = np.full((1, 3, 24, 32), 7, np.float32)
    batch = crop_batch(image, affines, (32, 24), MEAN, STD, out=buffer)
    assert batch is buffer
    assert np.array_equal(buffer, crop_batch(image, affines, (32, 24), MEAN, STD))
    for wrong in (np.empty((2, 3, 24, 32), np.float32), np.empty((1, 3, 24, 32))):
        with pytest.raises(ValueError, match="out"):
            crop_batch(image, affines, (32, 24), MEAN, STD, out=wrong)


class TestWholeImages:
    """Where the whole image falls on whole pixels of the input it is resized, not warped."""

    @pytest.mark.parametrize("affine", [letterbox_affine, corner_affine])
    @pytest.mark.parametrize("wh, size", [
        ((192, 108), (64, 64)), ((108, 192), (64, 64)), ((60, 40), (96, 64)), ((64, 48), (64, 48)),
        ((80, 60), (64, 64))])
    def test_samples_where_the_affine_says(self, affine, wh, size):
        """On a ramp every value is that of its place, to OpenCV's rounding in two steps."""
        x, y = np.meshgrid(np.arange(wh[0]), np.arange(wh[1]))
        image = np.stack([x, y, 100 + 0 * x], axis=-1).astype(np.uint8)
        M = affine(wh, size)
        crop = crop_batch(image, [M], size, (0,) * 3, (1,) * 3, border_value=255)[0]
        u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        places = apply_affine(invert_affine(M), np.stack([u, v], axis=-1))
        inside = ((places > -0.5) & (places < np.array(wh) - 0.5)).all(axis=-1)
        expected = np.clip(places, 0, np.array(wh) - 1.0)
        assert np.abs(crop[:2].transpose(1, 2, 0) - expected)[inside].max() <= 0.7
        assert (crop[2][inside] == 100).all() and (crop[:, ~inside] == 255).all()
        assert inside.sum() == round(M[0, 0] * wh[0]) * round(M[0, 0] * wh[1])

    def test_differs_from_the_warp_by_its_coarse_weights_only(self):
        image, size = picture(108, 192), (80, 80)
        M = letterbox_affine((192, 108), size)  # 80 x 45, but 17.5 rows above: no whole pixels
        plain = normalise(warp(image, M, size), MEAN, STD)
        assert np.array_equal(crop_batch(image, [M], size, MEAN, STD)[0], plain)
        M = corner_affine((192, 108), size)
        plain = normalise(warp(image, M, size), (0,) * 3, (1,) * 3)[:, 1:44, 1:79]
        found = crop_batch(image, [M], size, (0,) * 3, (1,) * 3)[0][:, 1:44, 1:79]
        assert 0 < np.abs(found - plain).max() <= 8

    @pytest.mark.parametrize("change", [
        [[1, 0, 0.01], [0, 1, 0]], [[1, 0, -1], [0, 1, 0]], [[1, 0, 17], [0, 1, 0]],
        [[-1, 0, 63], [0, 1, 0]], [[1, 1e-4, 0], [0, 1, 0]], [[1, 0, 0], [0, 1.001, 0]]])
    def test_any_other_affine_is_warped(self, change):
        image, size = picture(48, 64), (80, 60)
        plain = normalise(warp(image, np.array(change, float), size), MEAN, STD)
        assert np.array_equal(
            crop_batch(image, [np.array(change, float)], size, MEAN, STD)[0], plain)

    def test_after_one_another(self):
        image, size = picture(108, 192), (64, 64)
        whole, part = corner_affine((192, 108), size), box_affine((20, 20, 60, 60), size)
        batch = crop_batch(image, [whole, part, whole], size, MEAN, STD)
        assert np.array_equal(batch[0], batch[2])
        assert np.array_equal(batch[1], crop_batch(image, [part], size, MEAN, STD)[0])
