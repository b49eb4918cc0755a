"""An error on its way from one process to another."""

from __future__ import annotations

import pickle
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """What a worker sends in place of a result. ``where``: the traceback in the worker."""

    error: BaseException
    where: str


def can_be_sent(error: BaseException) -> bool:
    """An exception that wants arguments of its own cannot be made again in another process."""
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:
        return False
