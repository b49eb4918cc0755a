"""kd_pose_training.engine.loading: a broken picture says the same from a worker as from here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from helpers.train_fake import make_trainer
from kd_pose_training.data.bop_files import BopError
from kd_pose_training.engine.loading import load_batches
from kd_pose_training.training.run import make_validation

TEXT = "pictures/000003.png: cannot be read"


class Pictures(torch.utils.data.Dataset):
    """Numbers, one of which cannot be read."""

    def __init__(self, error=None):
        self.error = error

    def __len__(self):
        return 6

    def __getitem__(self, key):
        index = key[0] if isinstance(key, tuple) else key
        if index == 3 and self.error is not None:
            raise self.error
        return torch.tensor(float(index))


class Odd(Exception):
    """Cannot be made again from its message."""

    def __init__(self, path, number):
        super().__init__(f"{path}: {number}")


def broken_collate(samples):
    raise BopError(TEXT)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_in_order_up_to_the_broken_one(workers):
    loaded = load_batches(Pictures(BopError(TEXT)), [[1, 0], [2, 5], [3]], torch.stack, workers, 0)
    assert [next(loaded).tolist() for _ in range(2)] == [[1, 0], [2, 5]]
    with pytest.raises(BopError) as raised:
        next(loaded)
    assert str(raised.value) == TEXT
    if workers:  # for --debug
        assert "__getitem__" in str(raised.value.__cause__)
    whole = load_batches(Pictures(), [[4], [5]], torch.stack, workers, 0)
    assert [batch.tolist() for batch in whole] == [[4], [5]]


def test_an_error_that_cannot_be_sent_is_still_told():
    loaded = load_batches(Pictures(Odd("a.png", 3)), [[3]], torch.stack, 1, 0)
    with pytest.raises(Exception, match="a.png: 3"):
        next(loaded)


def test_in_training_and_validation(tmp_path):
    with pytest.raises(BopError, match=f"^{TEXT}$"):
        make_trainer(tmp_path, workers=1, collate=broken_collate).run()
    config = SimpleNamespace(data=SimpleNamespace(max_val_samples=0, num_workers=1),
                             trainer=SimpleNamespace(batch_size=4))
    task = SimpleNamespace(network=torch.nn.Linear(1, 1), eval=lambda: None,
                           terms=lambda network, batch: {"mean": batch.mean()}, weights={})
    assert make_validation(task, Pictures(), config, torch.stack)(None) == {"mean": 2.5}
    with pytest.raises(BopError, match=f"^{TEXT}$"):
        make_validation(task, Pictures(BopError(TEXT)), config, torch.stack)(None)
