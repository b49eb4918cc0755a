"""The SimCC batch: joined along the crops, moved as one, refused where parts do not fit."""

from __future__ import annotations

import pytest
import torch

from kd_pose_training.data.simcc_batch import SimccBatch, collate


def sample(count=1, keypoints=5, value=0.0):
    return SimccBatch(torch.full((count, 3, 8, 6), value), torch.zeros(count, keypoints, 12),
                      torch.zeros(count, keypoints, 16), torch.ones(count, keypoints))


def test_collate_and_move():
    batch = collate([sample(value=1.0), sample(2, value=2.0)]).to("cpu")
    assert isinstance(batch, SimccBatch) and batch.images[:, 0, 0, 0].tolist() == [1.0, 2.0, 2.0]
    assert batch.target_x.shape == (3, 5, 12) and batch.target_y.shape == (3, 5, 16)
    assert batch.weight.shape == (3, 5)


@pytest.mark.parametrize("field, shape", [
    ("images", (2, 3, 8, 6)), ("images", (1, 3, 8)), ("target_x", (1, 4, 12)),
    ("target_y", (1, 16)), ("weight", (1, 5, 1)), ("weight", (1, 6))])
def test_parts_that_do_not_fit(field, shape):
    parts = dict(vars(sample()), **{field: torch.zeros(shape)})
    with pytest.raises(ValueError, match=r"SimccBatch has images .*" + field):
        SimccBatch(**parts)
