"""Batches of a data set, made by worker processes or here, with the same errors.

torch puts a worker's whole traceback into the message of what was raised there; who has a broken
picture wants the sentence that names it.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from kd_pose_training.engine.failure import Failure, can_be_sent


def load_batches(dataset: Any, batches: Iterable[list], collate: Callable, num_workers: int,
                 seed: int, **options: Any) -> Iterator[Any]:
    """Collated batches in order. Workers start at once, not with the first batch.

    Args:
        batches: keys of the samples of every batch. seed: of the workers' own generators.
        options: of torch's DataLoader.

    Raises:
        Exception: what the data set or ``collate`` raises, as it is, whoever has raised it.
    """
    loader = DataLoader(
        _WholeBatches(dataset, collate), batch_sampler=batches, collate_fn=_as_it_is,
        num_workers=num_workers, worker_init_fn=_init_worker,
        generator=torch.Generator().manual_seed(seed), **options)
    return map(_opened, iter(loader))


class _WholeBatches(Dataset):
    """Collates where it reads, so that errors of both can be sent."""

    def __init__(self, dataset: Any, collate: Callable) -> None:
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list) -> Any:
        try:
            return self.collate([self.dataset[key] for key in keys])
        except Exception as error:
            if get_worker_info() is None or not can_be_sent(error):
                raise
            return Failure(error, traceback.format_exc())


def _as_it_is(batch: Any) -> Any:
    return batch


def _opened(batch: Any) -> Any:
    if isinstance(batch, Failure):
        raise batch.error from RuntimeError(f"in a data worker:\n{batch.where}")
    return batch


def _init_worker(worker: int) -> None:
    """Data workers use one thread each and leave signals to the main process."""
    import cv2
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
