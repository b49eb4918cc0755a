"""kd_pose.votes: targets and decoding are each other's inverse, for any classes and instances."""

import numpy as np
import pytest

from kd_pose.votes import (
    BACKGROUND,
    IGNORE,
    VoteGrid,
    decode,
    decode_points,
    encode,
    encode_points,
    level_counts,
)

GRID = VoteGrid((256, 192), (8, 16, 32, 64))


def rectangle_map(*rectangles, grid=GRID):
    """Instance map (H, W) with instance i at rectangle i (x0, y0, x1, y1), exclusive ends."""
    width, height = grid.input_size_wh
    instance_map = np.full((height, width), -1, np.int16)
    for index, (x0, y0, x1, y1) in enumerate(rectangles):
        instance_map[y0:y1, x0:x1] = index
    return instance_map


def random_points(rectangle, rng, count=8):
    """Points that fill a rectangle, so that their bounding box is the rectangle."""
    x0, y0, x1, y1 = rectangle
    points = rng.uniform((x0, y0), (x1, y1), (count, 2))
    points[0], points[1] = (x0, y0), (x1, y1)
    return points


def outputs_for(rectangles, classes, num_classes, rng, noise=0.0, score=(0.6, 0.95)):
    """What a perfect network answers: scores (N, C), offsets (N, C, 8, 2), and the points."""
    points = np.array([random_points(r, rng) for r in rectangles])
    sizes = [max(r[2] - r[0], r[3] - r[1]) for r in rectangles]
    cell_class, cell_instance = encode(GRID, rectangle_map(*rectangles), classes, sizes, rng)
    cells = np.flatnonzero(cell_instance >= 0)
    scores = rng.uniform(0, 0.1, (GRID.num_cells, num_classes))
    offsets = rng.normal(size=(GRID.num_cells, num_classes, 8, 2))
    scores[cells, cell_class[cells]] = rng.uniform(*score, len(cells))
    voted = points[cell_instance[cells]]
    voted = voted + noise * rng.normal(size=voted.shape)
    offsets[cells, cell_class[cells]] = encode_points(GRID, cells, voted)
    return scores, offsets, points


class TestGrid:
    def test_cells_by_hand(self):
        grid = VoteGrid((20, 10), (8, 16))
        assert grid.level_shapes == ((2, 3), (1, 2)) and grid.num_cells == 8
        assert grid.centers.tolist() == [
            [3.5, 3.5], [11.5, 3.5], [19.5, 3.5], [3.5, 11.5], [11.5, 11.5], [19.5, 11.5],
            [7.5, 7.5], [23.5, 7.5],
        ]
        assert grid.levels.tolist() == [0] * 6 + [1] * 2
        assert grid.anchors.tolist() == [32.0] * 6 + [64.0] * 2

    @pytest.mark.parametrize(
        "arguments, field",
        [
            (((0, 10), (8,)), "input_size_wh"),
            (((10, 10), ()), "strides"),
            (((10, 10), (16, 8)), "strides"),
            (((10, 10), (8,), 0.0), "anchor_scale"),
        ],
    )
    def test_bad_arguments(self, arguments, field):
        with pytest.raises(ValueError, match=field):
            VoteGrid(*arguments)

    def test_points_round_trip(self):
        rng = np.random.default_rng(0)
        cells = rng.choice(GRID.num_cells, 30, replace=False)
        points = rng.uniform(-50, 300, (30, 8, 2))
        offsets = encode_points(GRID, cells, points)
        assert np.allclose(decode_points(GRID, cells, offsets), points)
        # by hand: level 0, first cell, anchor 32
        first = encode_points(GRID, np.array([0]), np.array([[[35.5, 3.5]]]))
        assert first.tolist() == [[[1.0, 0.0]]]


class TestLevelCounts:
    def test_by_hand(self):
        # size 64 = the anchor of stride 16: d = 1, 0, 1, 2 -> weights e-1, 1, e-1, e-4
        weights = np.exp([-1.0, 0.0, -1.0, -4.0])
        assert level_counts(64, GRID).tolist() == np.rint(10 * weights / weights.sum()).tolist()

    def test_size_decides_the_level(self):
        assert level_counts(20, GRID).argmax() == 0
        assert level_counts(64, GRID).argmax() == 1
        assert level_counts(128, GRID).argmax() == 2
        assert level_counts(400, GRID).argmax() == 3

    @pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 7.0, 100.0, 1e6])
    def test_sum_is_near_the_total(self, size):
        assert abs(level_counts(size, GRID).sum() - 10) <= 2


class TestEncode:
    def test_positives_lie_on_their_instance(self):
        rng = np.random.default_rng(1)
        rectangles = [(10, 20, 110, 120), (130, 60, 250, 190)]
        instance_map = rectangle_map(*rectangles)
        cell_class, cell_instance = encode(GRID, instance_map, [4, 2], [100, 130], rng)
        x, y = GRID.center_pixels.T
        for index, label in enumerate((4, 2)):
            cells = cell_instance == index
            assert (cell_class[cells] == label).all()
            assert (instance_map[y, x][cells] == index).all()
            counts = level_counts((100, 130)[index], GRID)
            on_it = instance_map[y, x] == index
            for level in range(4):
                available = np.count_nonzero(on_it & (GRID.levels == level))
                expected = min(counts[level], available)
                assert np.count_nonzero(cells & (GRID.levels == level)) == expected
        on_none = instance_map[y, x] < 0
        assert (cell_class[on_none] == BACKGROUND).all()
        assert (cell_class[~on_none & (cell_instance < 0)] == IGNORE).all()

    def test_the_draw_is_random_but_reproducible(self):
        instance_map = rectangle_map((0, 0, 200, 190))
        draws = [
            encode(GRID, instance_map, [0], [200], np.random.default_rng(seed))[1]
            for seed in (0, 0, 1)
        ]
        assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])

    def test_an_instance_between_the_centres_gets_the_nearest_cell(self):
        cell_class, cell_instance = encode(
            GRID, rectangle_map((101, 62, 103, 64)), [3], [2], np.random.default_rng(0)
        )
        cells = np.flatnonzero(cell_instance == 0)
        assert len(cells) == 1 and cell_class[cells[0]] == 3
        assert GRID.levels[cells[0]] == 0
        assert GRID.centers[cells[0]].tolist() == [99.5, 59.5]
        assert (cell_class[cell_instance < 0] == BACKGROUND).all()

    def test_a_sliver_of_a_large_object_still_gets_a_cell(self):
        # one column of fine cells, while an object of this size has its share on coarse levels
        cell_class, cell_instance = encode(
            GRID, rectangle_map((35, 0, 37, 40)), [0], [4000], np.random.default_rng(0)
        )
        assert np.count_nonzero(cell_instance == 0) == 1

    def test_an_invisible_instance_gets_nothing(self):
        cell_class, cell_instance = encode(
            GRID, rectangle_map(), [0], [50], np.random.default_rng(0)
        )
        assert (cell_instance == -1).all() and (cell_class == BACKGROUND).all()

    def test_a_negative_class_is_ignored(self):
        cell_class, cell_instance = encode(
            GRID, rectangle_map((0, 0, 64, 64)), [IGNORE], [64], np.random.default_rng(0)
        )
        assert (cell_instance == -1).all()
        assert set(np.unique(cell_class)) == {BACKGROUND, IGNORE}

    def test_wrong_map_is_refused(self):
        with pytest.raises(ValueError, match="instance_map"):
            encode(GRID, np.zeros((10, 10), int), [0], [5], np.random.default_rng(0))


class TestDecode:
    RECTANGLES = [(5, 10, 85, 90), (90, 10, 170, 90), (60, 100, 250, 185)]

    @pytest.mark.parametrize("seed", range(5))
    def test_decode_of_encode_is_the_truth(self, seed):
        rng = np.random.default_rng(seed)
        classes = [1, 1, 2]  # the first two are of one class and side by side
        scores, offsets, points = outputs_for(self.RECTANGLES, classes, 4, rng)
        found = decode(GRID, scores, offsets)
        assert len(found) == 3
        for rectangle, label, truth in zip(self.RECTANGLES, classes, points):
            (match,) = [i for i in found if np.abs(i.box_xyxy - rectangle).max() < 1e-6]
            assert match.class_index == label
            assert np.abs(match.points - truth).max() < 1e-6
            assert len(match.cells) == len(match.weights) == len(match.points)

    def test_best_first_and_scores_are_between_mean_and_maximum(self):
        rng = np.random.default_rng(3)
        found = decode(GRID, *outputs_for(self.RECTANGLES, [0, 0, 1], 2, rng)[:2])
        assert [i.score for i in found] == sorted((i.score for i in found), reverse=True)
        for instance in found:
            assert instance.weights.mean() <= instance.score <= instance.weights.max()
            assert (np.diff(instance.weights) <= 0).all()

    def test_order_of_the_classes_does_not_matter(self):
        rng = np.random.default_rng(4)
        scores, offsets, _ = outputs_for(self.RECTANGLES, [0, 3, 2], 5, rng, noise=1.0)
        order = rng.permutation(5)
        plain = decode(GRID, scores, offsets)
        permuted = decode(GRID, scores[:, order], offsets[:, order])
        assert len(plain) == len(permuted) == 3
        for a, b in zip(plain, permuted):
            assert order[b.class_index] == a.class_index and a.score == b.score
            assert np.array_equal(a.points, b.points) and np.array_equal(a.cells, b.cells)

    def test_only_the_classes_asked_for(self):
        rng = np.random.default_rng(5)
        scores, offsets, _ = outputs_for(self.RECTANGLES, [0, 1, 2], 3, rng)
        assert {i.class_index for i in decode(GRID, scores, offsets, classes=[2, 0])} == {0, 2}
        assert decode(GRID, scores, offsets, classes=[]) == []

    def test_noisy_votes_stay_one_instance_each(self):
        for seed in range(10):
            rng = np.random.default_rng(seed)
            scores, offsets, _ = outputs_for(self.RECTANGLES, [1, 1, 1], 2, rng, noise=4.0)
            assert len(decode(GRID, scores, offsets)) == 3

    @pytest.mark.parametrize("size, level", [(24, 0), (64, 1), (120, 2), (188, 3)])
    def test_size_chooses_the_levels(self, size, level):
        """Every cell fires; those kept are as many per level as the size asks for."""
        rectangle = (4, 4, 4 + size, 4 + size)
        points = random_points(rectangle, np.random.default_rng(0))
        cells = np.arange(GRID.num_cells)
        offsets = encode_points(GRID, cells, np.broadcast_to(points, (len(cells), 8, 2)))
        found = decode(GRID, np.full((len(cells), 1), 0.9), offsets[:, None])
        assert len(found) == 1 and len(found[0].cells) == 10
        kept = np.bincount(GRID.levels[found[0].cells], minlength=4)
        wanted = level_counts(size, GRID)
        assert np.abs(kept - wanted).max() <= 1
        assert kept[level] == kept.max()

    def test_the_best_cells_of_a_level_are_kept(self):
        rng = np.random.default_rng(0)
        points = random_points((10, 10, 42, 42), rng)
        cells = np.flatnonzero(GRID.levels == 0)
        scores = np.zeros((GRID.num_cells, 1))
        scores[cells, 0] = rng.uniform(0.4, 0.9, len(cells))
        offsets = encode_points(
            GRID, np.arange(GRID.num_cells), np.broadcast_to(points, (GRID.num_cells, 8, 2))
        )[:, None]
        (found,) = decode(GRID, scores, offsets, cells_per_instance=5)
        assert set(found.cells) == set(np.argsort(-scores[:, 0])[:5])

    def test_few_cells_are_all_kept(self):
        scores = np.zeros((GRID.num_cells, 1))
        offsets = np.zeros((GRID.num_cells, 1, 8, 2))
        cells = np.array([3, 4, GRID.num_cells - 1])  # two fine ones and a coarse one
        points = random_points((0, 0, 30, 30), np.random.default_rng(0))
        scores[cells] = 0.5
        offsets[cells, 0] = encode_points(GRID, cells, np.broadcast_to(points, (3, 8, 2)))
        (found,) = decode(GRID, scores, offsets)
        assert sorted(found.cells) == sorted(cells)

    def test_limits(self):
        rng = np.random.default_rng(0)
        scores, offsets, _ = outputs_for(self.RECTANGLES, [1, 1, 2], 3, rng)
        assert len(decode(GRID, scores, offsets, max_instances=2)) == 2
        assert decode(GRID, scores, offsets, score_threshold=0.99) == []

    def test_two_box_corners(self):
        box = np.array([[10.0, 20.0], [70.0, 60.0]])
        scores = np.zeros((GRID.num_cells, 1), np.float32)
        offsets = np.zeros((GRID.num_cells, 1, 2, 2), np.float32)
        cells = np.array([5, 6, 7])
        scores[cells] = 0.8
        offsets[cells, 0] = encode_points(GRID, cells, np.broadcast_to(box, (3, 2, 2)))
        (found,) = decode(GRID, scores, offsets)
        assert np.allclose(found.box_xyxy, [10, 20, 70, 60], atol=1e-4)

    def test_garbage_is_survived(self):
        rng = np.random.default_rng(0)
        scores = rng.uniform(size=(GRID.num_cells, 3))
        offsets = rng.normal(size=(GRID.num_cells, 3, 8, 2))
        scores[::5] = np.nan
        scores[1] = np.inf
        offsets[::7] = np.inf
        found = decode(GRID, scores, offsets, max_instances=7)
        assert len(found) == 7
        assert all(np.isfinite(i.points).all() and np.isfinite(i.weights).all() for i in found)
        assert decode(GRID, np.zeros_like(scores), offsets, score_threshold=0.0) == []
        # all votes in one point: boxes without area must not loop or divide by zero
        flat = np.zeros_like(offsets)
        assert decode(GRID, np.full_like(scores, 0.9), flat, max_instances=3)

    def test_wrong_shapes_are_refused(self):
        with pytest.raises(ValueError, match="scores"):
            decode(GRID, np.zeros((5, 1)), np.zeros((5, 1, 8, 2)))
        with pytest.raises(ValueError, match="offsets"):
            decode(GRID, np.zeros((GRID.num_cells, 2)), np.zeros((GRID.num_cells, 1, 8, 2)))
