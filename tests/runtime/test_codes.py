"""kd_pose.codes: the tree, its codes, and what decoding makes of them."""

import json

import numpy as np
import pytest

from kd_pose.codes import (
    CodeTable,
    CodeTree,
    bits_to_codes,
    build_code_tree,
    code_table_from_text,
    code_table_to_text,
    codes_to_bits,
    decode,
    encode,
    grid_pixels,
)

LINE = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
OBLONG = np.array([[0.0, 0, 0], [0, 1, 0], [3, 0, 0], [3, 1, 0]])


def ellipsoid(count, seed=0):
    """Points (count, 3) on a surface of 10 x 16 x 20 cm."""
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True) * (0.05, 0.08, 0.1)


@pytest.fixture(scope="module")
def tree():
    return build_code_tree(ellipsoid(5000), 8)


class TestTree:
    def test_a_line_by_hand(self):
        made = build_code_tree(LINE, 2)
        assert made.bits == 2
        np.testing.assert_array_equal(made.points, LINE)
        # cut at 1.5, then 0.5 and 2.5, all across x
        assert np.allclose(made.normals, [1, 0, 0], atol=2e-3)
        assert np.allclose(made.offsets, [1.5, 0.5, 2.5], atol=5e-3)
        assert encode(made, LINE).tolist() == [0, 1, 2, 3]
        assert encode(made, [[-9.0, 5, 5], [1.4, 0, 0], [1.6, 0, 0]]).tolist() == [0, 1, 2]

    def test_an_oblong_by_hand(self):
        """First across the long side, then each half across the short one."""
        made = build_code_tree(OBLONG, 2)
        assert encode(made, OBLONG).tolist() == [0, 1, 2, 3]
        assert np.allclose(np.abs(made.normals), [[1, 0, 0], [0, 1, 0], [0, 1, 0]], atol=2e-3)
        assert np.allclose(made.offsets, [1.5, 0.5, 0.5], atol=5e-3)

    def test_a_patch_has_the_mean_of_its_samples(self):
        made = build_code_tree(OBLONG, 1)
        assert np.allclose(made.points, [[0, 0.5, 0], [3, 0.5, 0]])

    @pytest.mark.parametrize("count, bits", [(256, 8), (257, 8), (1000, 8), (5000, 3)])
    def test_balance(self, count, bits):
        points = ellipsoid(count)
        made = build_code_tree(points, bits)
        codes = encode(made, np.round(points, 9))
        for level in range(1, bits + 1):  # also every level on the way down
            sizes = np.bincount(codes >> (bits - level), minlength=1 << level)
            assert sizes.max() - sizes.min() <= 1

    def test_balance_of_a_lattice(self):
        """Vertices in rows and columns: whole planes of them are level with every cut."""
        axis = np.arange(16) / 400
        points = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
        codes = encode(build_code_tree(points, 10), points)
        assert (np.bincount(codes, minlength=1024) == 4).all()

    def test_samples_keep_their_patch(self, tree):
        points = np.round(ellipsoid(5000), 9)
        codes = encode(tree, points)
        for code in range(0, 256, 15):
            mean = points[codes == code].mean(axis=0)
            assert np.allclose(tree.points[code], mean, atol=1e-6)

    def test_deterministic_whatever_the_order_and_repetition(self, tree):
        points = ellipsoid(5000)
        other = np.random.default_rng(1).permutation(np.concatenate([points, points[:999]]))
        again = build_code_tree(other, 8)
        for name in ("points", "normals", "offsets"):
            np.testing.assert_array_equal(getattr(again, name), getattr(tree, name))
        np.testing.assert_array_equal(encode(again, points), encode(tree, points))

    def test_a_prefix_is_the_code_of_the_coarser_tree(self, tree):
        points = ellipsoid(5000)
        coarse = build_code_tree(points, 3)
        np.testing.assert_array_equal(encode(tree, points) >> 5, encode(coarse, points))

    def test_neighbours_share_their_first_bits(self, tree):
        points = ellipsoid(5000)
        spread = []
        for level in (0, 2, 4, 6, 8):
            prefix = encode(tree, points) >> (8 - level)
            deviation = [points[prefix == value].std(axis=0).max() for value in np.unique(prefix)]
            spread.append(max(deviation))
        assert (np.diff(spread) < 0).all()

    @pytest.mark.parametrize("points, bits, message", [
        (LINE, 3, "too coarse for 3 bits: 4 different points of 4 given, but 8 codes"),
        (np.repeat(LINE, 3, axis=0), 3, "4 different points of 12 given"),
        (np.empty((0, 3)), 1, "too coarse for 1 bits: 0 different"),
        (LINE[:, :2], 2, r"points must be finite \(N, 3\)"),
        (LINE * np.nan, 2, "finite"),
        (LINE, 0, "bits must be 1 to 20, got 0"),
        (LINE, 21, "bits must be 1 to 20, got 21"),
        (LINE, True, "bits must be"),
    ])
    def test_bad_input(self, points, bits, message):
        with pytest.raises(ValueError, match=message):
            build_code_tree(points, bits)

    def test_tables_and_trees_check_their_shapes(self, tree):
        for points in (np.zeros((3, 3)), np.zeros((1, 3)), np.zeros((4, 2)), LINE * np.nan):
            with pytest.raises(ValueError, match="code points must be"):
                CodeTable(points)
        with pytest.raises(ValueError, match="normals must be"):
            CodeTree(tree.points, tree.normals[1:], tree.offsets)
        with pytest.raises(ValueError, match="offsets must be"):
            CodeTree(tree.points, tree.normals, tree.offsets[:, None])
        with pytest.raises(ValueError, match=r"points must be \(..., 3\)"):
            encode(tree, np.zeros((5, 2)))

    def test_any_leading_shape(self, tree):
        points = ellipsoid(24).reshape(2, 3, 4, 3)
        codes = encode(tree, points)
        assert codes.shape == (2, 3, 4) and codes.dtype == np.int32
        assert codes[1, 2, 3] == encode(tree, points[1, 2, 3])


class TestBits:
    def test_by_hand(self):
        expected = [[False, True, True], [True, False, False]]
        assert codes_to_bits([3, 4], 3).tolist() == expected
        assert bits_to_codes(expected).tolist() == [3, 4]

    def test_round_trip(self):
        codes = np.arange(1 << 16).reshape(256, 256)
        bits = codes_to_bits(codes, 16)
        assert bits.shape == (256, 256, 16) and bits.dtype == bool
        np.testing.assert_array_equal(bits_to_codes(bits), codes)


class TestText:
    def test_round_trip_to_a_sixteen_bit_step(self, tree):
        back = code_table_from_text(code_table_to_text(tree))
        extent = np.ptp(tree.points, axis=0)
        assert back.bits == 8
        assert (np.abs(back.points - tree.points) <= 0.51 * extent / 65535 + 1e-9).all()

    def test_a_flat_object(self):
        back = code_table_from_text(code_table_to_text(build_code_tree(OBLONG, 2)))
        assert np.allclose(back.points, OBLONG, atol=1e-6)

    @pytest.mark.parametrize("edit, message", [
        (lambda d: d.update(format="codes-9"), "format 'codes-9' is not 'codes-1'"),
        (lambda d: d.pop("low"), "has the keys"),
        (lambda d: d.update(extra=1), "has the keys"),
        (lambda d: d.update(bits=9), "9 bits need 3072 bytes"),
        (lambda d: d.update(bits=7), "7 bits need 768 bytes"),
        (lambda d: d.update(bits=99), "bits must be 1 to 20"),
        (lambda d: d.update(bits="8"), "bits must be"),
        (lambda d: d.update(low=[0, 0]), "3 finite numbers"),
        (lambda d: d.update(high=["a", 0, 0]), "must be numbers"),
        (lambda d: d.update(data=d["data"][:-8]), "code table"),
        (lambda d: d.update(data="!" + d["data"]), "damaged"),
        (lambda d: d.update(data="AAAA"), "damaged"),
        (lambda d: d.update(data=7), "damaged"),
    ])
    def test_damage_is_named(self, tree, edit, message):
        fields = json.loads(code_table_to_text(tree))
        edit(fields)
        with pytest.raises(ValueError, match=message):
            code_table_from_text(json.dumps(fields))

    @pytest.mark.parametrize("text", ["", "[1]", "null", None])
    def test_not_a_table(self, text):
        with pytest.raises(ValueError, match="code table"):
            code_table_from_text(text)


def answer(table, codes, mask):
    """Probabilities (bits, h, w) that say `codes` (h, w) without doubt, and mask scores."""
    return mask.astype(np.float32), codes_to_bits(codes, table.bits).transpose(2, 0, 1) * 1.0


class TestDecode:
    def test_by_hand(self):
        table = CodeTable(LINE)
        mask = np.array([[0.9, 0.2], [0.8, 0.6]])
        first = np.array([[1.0, 1.0], [0.1, 0.9]])  # 0.1 is a zero
        second = np.array([[1.0, 1.0], [0.9, 0.1]])
        pairs = decode(table, mask, np.stack([first, second]), stride=2)
        # both bits right with probability 1, 0.9 * 0.9, 0.9 * 0.9
        assert np.allclose(pairs.weights, [0.9, 0.8 * 0.81, 0.6 * 0.81])
        assert pairs.pixels.tolist() == [[0.5, 0.5], [0.5, 2.5], [2.5, 2.5]]
        assert pairs.points.tolist() == [[3, 0, 0], [1, 0, 0], [2, 0, 0]]
        assert pairs.patches.tolist() == [3, 1, 2]

    def test_only_the_coarse_bits_weigh(self, tree):
        mask, bits = answer(tree, np.full((1, 3), 77), np.ones((1, 3)))
        bits[2, 0, 0] = bits[6:, 0, 2] = 0.6
        bits[2, 0, 1] = 0.4
        pairs = decode(tree, mask, bits)
        assert np.allclose(pairs.weights, [1.0, 0.6, 0.6])
        assert pairs.pixels[:, 0].tolist() == [4.5, 0.5, 2.5]

    def test_pixels_are_the_centres_of_the_input_pixels_they_cover(self):
        # stride 4: columns cover 0..3 and 4..7
        assert grid_pixels([0, 1, 2, 3], 2, 4).tolist() == [
            [1.5, 1.5], [5.5, 1.5], [1.5, 5.5], [5.5, 5.5]]

    def test_exact_codes_give_the_patches(self, tree):
        codes = np.random.default_rng(0).integers(0, 256, (12, 10))
        pairs = decode(tree, *answer(tree, codes, np.ones((12, 10))), max_pairs=120)
        columns, rows = ((pairs.pixels + 0.5) / 2 - 0.5).astype(int).T
        np.testing.assert_array_equal(pairs.points, tree.points[codes[rows, columns]])
        np.testing.assert_array_equal(pairs.patches, codes[rows, columns] >> 2)
        assert len(pairs.points) == 120 and (pairs.weights == 1).all()

    def test_few_pairs_are_spread_and_the_best_of_their_place(self, tree):
        rng = np.random.default_rng(0)
        mask = rng.uniform(0.6, 1.0, (64, 64))
        codes = rng.integers(0, 256, mask.shape)
        pairs = decode(tree, *answer(tree, codes, mask), max_pairs=64)
        assert len(pairs.points) == 64
        assert (np.diff(pairs.weights) <= 0).all()
        columns, rows = ((pairs.pixels + 0.5) / 2 - 0.5).astype(int).T
        assert len(set(zip(rows // 8, columns // 8))) == 64
        best = mask.reshape(8, 8, 8, 8).max(axis=(1, 3))
        assert np.allclose(pairs.weights, best[rows // 8, columns // 8])
        again = decode(tree, *answer(tree, codes, mask), max_pairs=64)
        np.testing.assert_array_equal(again.pixels, pairs.pixels)

    @pytest.mark.parametrize("max_pairs", [1, 7, 100, 399])
    def test_never_more_than_wanted(self, tree, max_pairs):
        mask = np.random.default_rng(0).random((40, 33))
        pairs = decode(tree, *answer(tree, np.zeros((40, 33), int), mask), max_pairs=max_pairs)
        assert max_pairs / 2 <= len(pairs.points) <= max_pairs

    def test_nothing_there(self, tree):
        pairs = decode(tree, np.full((4, 4), 0.4), np.ones((8, 4, 4)))
        assert pairs.pixels.shape == pairs.points.shape[:1] + (2,) == (0, 2)
        pairs = decode(tree, np.zeros((4, 4)), np.ones((8, 4, 4)), mask_threshold=0)
        assert len(pairs.points) == 0

    def test_pixels_that_are_not_numbers_are_left_out(self, tree):
        mask, bits = answer(tree, np.zeros((3, 3), int), np.ones((3, 3)))
        mask[0, 0], mask[0, 1], bits[5, 2, 2] = np.nan, np.inf, np.nan
        pairs = decode(tree, mask, bits)
        assert len(pairs.points) == 6 and np.isfinite(pairs.weights).all()

    def test_bad_input(self, tree):
        with pytest.raises(ValueError, match=r"code_probabilities \(8, h, w\)"):
            decode(tree, np.ones((4, 4)), np.ones((7, 4, 4)))
        with pytest.raises(ValueError, match="mask_scores must be"):
            decode(tree, np.ones((1, 4, 4)), np.ones((8, 4, 4)))
        with pytest.raises(ValueError, match="max_pairs must be at least 1"):
            decode(tree, np.ones((4, 4)), np.ones((8, 4, 4)), max_pairs=0)
