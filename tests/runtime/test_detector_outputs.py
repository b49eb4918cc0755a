"""kd_pose.detector_outputs: values worked out by hand."""

import numpy as np
import pytest

from kd_pose.detector_outputs import (
    decode_boxes_scores,
    decode_dets_labels,
    decode_rtmdet_maps,
    decode_yolox,
    grid_cells,
)

SIZE, STRIDES = (64, 32), (8, 16, 32)


class TestCells:
    def test_number_and_order(self):
        corners, strides = grid_cells(SIZE, STRIDES)
        assert len(corners) == 8 * 4 + 4 * 2 + 2 * 1 == len(strides)
        assert corners[:3].tolist() == [[0, 0], [8, 0], [16, 0]]  # along a row first
        assert corners[8].tolist() == [0, 8]
        assert corners[32].tolist() == [0, 0] and strides[32] == 16
        assert corners[37].tolist() == [16, 16]
        assert corners[41].tolist() == [32, 0] and strides[41] == 32

    def test_published_sizes(self):
        assert len(grid_cells((640, 640), STRIDES)[0]) == 8400
        assert len(grid_cells((416, 416), STRIDES)[0]) == 3549
        assert len(grid_cells((320, 320), STRIDES)[0]) == 2100

    def test_shared_arrays_cannot_be_changed(self):
        with pytest.raises(ValueError, match="read-only"):
            grid_cells(SIZE, STRIDES)[0][0] = 1


class TestYolox:
    def rows(self):
        rows = np.zeros((42, 7), np.float32)
        # cell (2, 1) of stride 8: centre ((2 + 0.5) * 8, (1 + 0.25) * 8) = (20, 10),
        # size (e^0 * 8, e^ln2 * 8) = (8, 16), so edges 16..24 and 2..18
        rows[10] = [0.5, 0.25, 0.0, np.log(2.0), 0.8, 0.5, 0.9]
        # cell (1, 0) of stride 32: centre ((1 - 1) * 32, 0.5 * 32), size (16, 32)
        rows[41] = [-1.0, 0.5, np.log(0.5), 0.0, 1.0, 0.6, 0.0]
        return rows

    def test_by_hand(self):
        cells = grid_cells(SIZE, STRIDES)
        boxes, scores = decode_yolox(self.rows(), *cells, 0.3)
        assert np.allclose(scores, [0.8 * 0.5, 0.6])
        assert np.allclose(boxes + 0.5, [[16, 2, 24, 18], [-8, 0, 8, 32]], atol=1e-5)

    def test_the_class_asked_for(self):
        boxes, scores = decode_yolox(self.rows(), *grid_cells(SIZE, STRIDES), 0.3, class_index=1)
        assert np.allclose(scores, [0.72]) and np.allclose(boxes, [[15.5, 1.5, 23.5, 17.5]])

    def test_decoded_by_the_file(self):
        rows = self.rows()
        rows[10, :4], rows[41, :4] = (20, 10, 8, 16), (0, 16, 16, 32)
        found = decode_yolox(rows, *grid_cells(SIZE, STRIDES), 0.3, in_pixels=True)
        wanted = decode_yolox(self.rows(), *grid_cells(SIZE, STRIDES), 0.3)
        assert np.allclose(found[0], wanted[0], atol=1e-5) and np.array_equal(found[1], wanted[1])

    def test_what_is_not_finite_is_dropped(self):
        rows = self.rows()
        rows[3] = [0, 0, 1e6, 0, 1, 1, 1]  # exp overflows
        rows[4] = [np.nan, 0, 0, 0, 1, 1, 1]
        rows[5] = [0, 0, 0, 0, np.nan, 1, 1]
        rows[6] = [0, 0, 0, 0, np.inf, 1, 1]
        boxes, scores = decode_yolox(rows, *grid_cells(SIZE, STRIDES), 0.3)
        assert np.allclose(scores, [0.4, 0.6])

    def test_a_score_of_nothing_is_no_box(self):
        assert len(decode_yolox(self.rows(), *grid_cells(SIZE, STRIDES), 0.0)[1]) == 2


def test_boxes_scores():
    boxes = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [np.inf, 0, 1, 1]])
    scores = np.array([[0.2, 0.9], [0.6, 0.1], [0.9, 0.9]])
    found, values = decode_boxes_scores(boxes, scores, 0.3)
    assert found.tolist() == [[4.5, 5.5, 6.5, 7.5]] and values.tolist() == [0.6]
    assert decode_boxes_scores(boxes, scores, 0.3, 1)[0].tolist() == [[0.5, 1.5, 2.5, 3.5]]


def test_rtmdet_maps_by_hand():
    logits = [np.full((2, 4, 8), -9.0), np.full((2, 2, 4), -9.0), np.full((2, 1, 2), -9.0)]
    distances = [np.zeros((4, 4, 8)), np.zeros((4, 2, 4)), np.zeros((4, 1, 2))]
    # column 3, row 1 of stride 16: its corner is (48, 16)
    logits[1][0, 1, 3] = np.log(3.0)  # sigmoid: 3 / (1 + 3)
    distances[1][:, 1, 3] = [8, 10, 12, 14]  # left, up, right, down
    boxes, scores = decode_rtmdet_maps(
        [*logits, *distances], grid_cells(SIZE, STRIDES)[0], 0.3)
    assert np.allclose(scores, [0.75])
    assert np.allclose(boxes + 0.5, [[40, 6, 60, 30]])
    assert len(decode_rtmdet_maps([*logits, *distances], grid_cells(SIZE, STRIDES)[0],
                                  0.3, 1)[1]) == 0


def test_rtmdet_logits_far_below_zero_are_zero():
    logits, distances = [np.full((1, 1, 1), -1e4)], [np.ones((4, 1, 1))]
    assert len(decode_rtmdet_maps([*logits, *distances], np.zeros((1, 2)), 0.0)[1]) == 0


def test_dets_labels():
    dets = np.array([[1.0, 2, 3, 4, 0.9], [5, 6, 7, 8, 0.8], [9, 9, 10, 10, 0.2],
                     [0, 0, 0, 0, 0]])
    labels = np.array([0, 2, 0, 0])
    boxes, scores = decode_dets_labels(dets, labels, 0.3)
    assert boxes.tolist() == [[0.5, 1.5, 2.5, 3.5]] and scores.tolist() == [0.9]
    assert decode_dets_labels(dets, labels, 0.3, 2)[1].tolist() == [0.8]
    assert decode_dets_labels(dets, labels, 0.0)[1].tolist() == [0.9, 0.2]  # not the padding
    assert decode_dets_labels(np.zeros((0, 5)), np.zeros(0), 0.3)[0].shape == (0, 4)
