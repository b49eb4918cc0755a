"""kd_pose.simcc: values by hand, round trips, the published settings, and mmpose's own codec."""

from __future__ import annotations

import numpy as np
import pytest

from kd_pose.simcc import SimccCodec, default_sigma, merge_flipped
from kd_pose.wholebody_keypoints import COUNT, FLIP

CODEC = SimccCodec((4, 3), sigma=(1.0, 2.0))  # 8 bins along x, 6 along y


def logits(bins, best, value):
    row = np.zeros(bins, np.float32)
    row[best] = value
    return row


class TestCodec:
    def test_sigma_of_the_published_settings(self):
        assert SimccCodec((192, 256)).sigma == (4.9, 5.66)
        assert SimccCodec((288, 384)).sigma == (6.0, 6.93)
        assert default_sigma(16) == 1.0

    def test_bins(self):
        assert SimccCodec((192, 256)).bins == (384, 512)
        assert SimccCodec((10, 4), split_ratio=1.5).bins == (15, 6)

    @pytest.mark.parametrize("arguments, field", [
        (((0, 4),), "input_size_wh"), (((4,),), "input_size_wh"), (((4, 4), (1.0,)), "sigma"),
        (((4, 4), (0.0, 1.0)), "sigma"), (((4, 4), (1.0, np.inf)), "sigma"),
        (((4, 4), None, 0.0), "split_ratio"), (((3, 4), None, 1.5), "split_ratio")])
    def test_bad_settings(self, arguments, field):
        with pytest.raises(ValueError, match=field):
            SimccCodec(*arguments)


class TestEncode:
    def test_by_hand(self):
        x, y, weight = CODEC.encode(np.array([[1.5, 0.9]]), np.array([1.0]))
        # places: 2 * 1.5 = 3 and round(2 * 0.9) = 2; exp(-d^2 / 2) and exp(-d^2 / 8)
        one, four, nine = np.exp([-0.5, -2.0, -4.5])
        assert x[0] == pytest.approx([nine, four, one, 1, one, four, nine, np.exp(-8)], rel=1e-6)
        near, half = np.exp([-1 / 8, -4 / 8])
        far = np.exp([-9 / 8])
        assert y[0] == pytest.approx([half, near, 1, near, half, *far], rel=1e-6)
        assert weight.tolist() == [1.0] and x.dtype == y.dtype == weight.dtype == np.float32

    def test_halves_round_to_the_even_bin(self):
        x, _, _ = CODEC.encode(np.array([[1.25, 1], [1.75, 1]]), np.ones(2))
        assert x.argmax(axis=1).tolist() == [2, 4]

    def test_unlabelled_points_are_zeros_whatever_they_say(self):
        points = np.array([[np.nan, np.inf], [1, 1]])
        x, y, weight = CODEC.encode(points, np.array([0, 2.0]))
        assert not x[0].any() and not y[0].any() and weight.tolist() == [0.0, 2.0]
        assert x[1].max() == 1.0

    def test_outside_points_count_while_three_sigmas_reach_in(self):
        # sigma_x = 1: the right end is place + 3 + 1 >= 0, the left end place - 3 < 8
        points = np.array([[-2, 1], [-2.5, 1], [5, 1], [5.5, 1], [1, -3.5], [1, -4]])
        _, y, weight = CODEC.encode(points, np.ones(6))
        assert weight.tolist() == [1, 0, 1, 0, 1, 0]
        assert y[4, 0] == pytest.approx(np.exp(-(7**2) / 8)) and not y[5].any()

    def test_leading_axes(self):
        points = np.random.default_rng(0).uniform(0, 3, (2, 5, 7, 2))
        x, y, weight = CODEC.encode(points, np.ones((2, 5, 7)))
        assert x.shape == (2, 5, 7, 8) and y.shape == (2, 5, 7, 6) and weight.shape == (2, 5, 7)
        assert np.array_equal(x[1, 3], CODEC.encode(points[1, 3], np.ones(7))[0])

    def test_results_are_the_callers_own(self):
        first = CODEC.encode(np.ones((1, 2)), np.ones(1))
        first[0][:] = -5
        assert CODEC.encode(np.ones((1, 2)), np.ones(1))[0].min() > 0

    @pytest.mark.parametrize("points, weight, message", [
        (np.zeros((3, 2)), np.ones(2), "keypoints must be"),
        (np.zeros((2, 3)), np.ones(2), "keypoints must be"),
        (np.array([[np.nan, 1.0]]), np.ones(1), "must be finite")])
    def test_bad_input(self, points, weight, message):
        with pytest.raises(ValueError, match=message):
            CODEC.encode(points, weight)


class TestDecode:
    def test_by_hand(self):
        x = np.stack([logits(8, 5, 0.9), logits(8, 0, 3.0)])
        y = np.stack([logits(6, 2, 1.4), logits(6, 5, 0.5)])
        points, scores = CODEC.decode(x, y)
        assert points.tolist() == [[2.5, 1.0], [0.0, 2.5]] and points.dtype == np.float32
        assert scores.tolist() == pytest.approx([0.9, 0.5]) and scores.dtype == np.float32

    def test_the_first_of_equal_bins(self):
        assert CODEC.decode(np.ones((1, 8)), np.ones((1, 6)))[0].tolist() == [[0.0, 0.0]]

    @pytest.mark.parametrize("value, score", [
        (0.0, 0.0), (-1.0, -1.0), (np.nan, 0.0), (-np.inf, 0.0), (np.inf, 0.0)])
    def test_no_place_without_a_score(self, value, score):
        x, y = np.full((1, 8), value, np.float32), np.full((1, 6), value, np.float32)
        points, scores = CODEC.decode(x, y)
        assert points.tolist() == [[-0.5, -0.5]] and scores.tolist() == [score]

    def test_one_broken_axis_is_enough(self):
        x = np.ones((2, 8), np.float32)
        y = np.stack([np.full(6, np.nan), np.full(6, -0.1)]).astype(np.float32)
        points, scores = CODEC.decode(x, y)
        assert (points == -0.5).all() and scores.tolist() == pytest.approx([0.0, -0.1])

    def test_encode_and_decode_are_half_a_bin_apart(self):
        codec = SimccCodec()
        points = np.random.default_rng(0).uniform((0, 0), (191.7, 255.7), (4, COUNT, 2))
        x, y, _ = codec.encode(points, np.ones((4, COUNT)))
        decoded, scores = codec.decode(x, y)
        assert np.abs(decoded - points).max() <= 0.25 + 1e-5 and (scores == 1).all()

    def test_half_precision(self):
        x, y = np.eye(8, dtype=np.float16)[[3]], np.eye(6, dtype=np.float16)[[1]]
        points, scores = CODEC.decode(x, y)
        assert points.tolist() == [[1.5, 0.5]] and scores.dtype == np.float32

    @pytest.mark.parametrize("shapes", [((2, 8), (3, 6)), ((2, 7), (2, 6)), ((2, 8), (2, 5)),
                                        ((8,), (2, 6))])
    def test_shapes_that_do_not_fit(self, shapes):
        with pytest.raises(ValueError, match=r"must be \(..., K, 8\)"):
            CODEC.decode(*(np.zeros(shape) for shape in shapes))


class TestMergeFlipped:
    def test_by_hand(self):
        x, y = np.array([[1.0, 2, 3], [4, 5, 6]]), np.array([[1.0, 0], [0, 1]])
        flipped_x, flipped_y = np.array([[0.0, 0, 8], [2, 4, 0]]), np.array([[2.0, 2], [4, 4]])
        merged = merge_flipped((x, y), (flipped_x, flipped_y), np.array([1, 0]))
        assert merged[0].tolist() == [[0.5, 3, 2.5], [6, 2.5, 3]]
        assert merged[1].tolist() == [[2.5, 2], [1, 1.5]]

    def test_a_mirrored_answer_changes_nothing(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(2, COUNT, 16)), rng.normal(size=(2, COUNT, 20))
        merged = merge_flipped((x, y), (x[:, FLIP, ::-1], y[:, FLIP]), FLIP)
        assert np.allclose(merged[0], x) and np.allclose(merged[1], y)

    def test_the_mirrored_view_speaks_one_bin_too_far_right(self):
        codec = SimccCodec((16, 16))
        point, mirrored = np.array([[5.0, 7.0]]), np.array([[15.0 - 5.0, 7.0]])
        here, there = (codec.encode(p, np.ones(1))[:2] for p in (point, mirrored))
        back = merge_flipped(there, there, np.array([0]))[0]
        assert here[0].argmax() == 10
        assert there[0][..., ::-1].argmax() == 11 and back.shape == here[0].shape


@pytest.mark.parametrize("size, sigma", [((192, 256), (4.9, 5.66)), ((288, 384), (6.0, 6.93))])
def test_equal_to_mmpose(size, sigma):
    codecs = pytest.importorskip("mmpose.codecs", reason="mmpose is not installed")
    peer = codecs.SimCCLabel(size, sigma=sigma, simcc_split_ratio=2.0, normalize=False)
    codec, rng = SimccCodec(size), np.random.default_rng(0)
    points = (rng.uniform(-0.3, 1.3, (2, COUNT, 2)) * size).astype(np.float32)
    points[0, :40] = np.round(points[0, :40] * 4) / 4  # halves of a bin
    visible = (rng.random((2, COUNT)) > 0.2).astype(np.float32)
    want = peer.encode(points, visible)
    found = codec.encode(points, visible)
    tolerance = 0.0 if np.__version__ >= "2" else 2e-7
    for ours, name in zip(found, ("keypoint_x_labels", "keypoint_y_labels", "keypoint_weights")):
        assert np.abs(ours - want[name]).max() <= tolerance and ours.dtype == want[name].dtype
    x, y = (rng.normal(-2.5, 1, (3, COUNT, bins)).astype(np.float32) for bins in codec.bins)
    for ours, theirs in zip(codec.decode(x, y), peer.decode(x, y)):
        assert np.array_equal(ours, theirs)
