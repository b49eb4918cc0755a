"""Checkpoints that are whole or absent: written beside, flushed, then renamed.

``last.pt`` continues a run exactly; ``best.pt`` has the same contents at the best validation so
far. Files hold plain data and tensors only, so they are read without executing anything.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_pose_training.engine.signals import is_of_killed_process

FORMAT = "kd_pose checkpoint"
VERSION = 1
LAST, BEST = "last.pt", "best.pt"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the message names the file."""


def save_checkpoint(state: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint so that ``path`` holds the old or the new one, never half of one.

    Raises:
        CheckpointError: the disk is full or not writable; an earlier file at ``path`` survives.
        RuntimeError: a data worker was killed meanwhile, or a device's memory is full; likewise.
    """
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "wb") as stream:
            torch.save({"format": FORMAT, "version": VERSION, **state}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        beside.unlink(missing_ok=True)
        if is_of_killed_process(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        kept = f"; the earlier checkpoint {path} is untouched" if path.exists() else ""
        raise CheckpointError(f"{path}: cannot be saved ({error}). Is the disk full?{kept}"
                              ) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: missing, truncated, something else, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    if path.suffix == ".onnx":
        raise CheckpointError(f"{path}: is an exported model; allowed here: a checkpoint (.pt)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise CheckpointError(f"{path}: is damaged or not a checkpoint "
                              f"({type(error).__name__})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is not a kd_pose checkpoint")
    if state.get("version") != VERSION:
        raise CheckpointError(f"{path}: has version {state.get('version')}; this program reads "
                              f"version {VERSION}")
    return state


def check_finite(weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Refuse weights of a file that hold NaN or infinity: whatever they do comes out as nonsense.

    Raises:
        CheckpointError: names the file and the first such key.
    """
    for key, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {key} has values that are not finite")


def is_finished(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's run has done all its iterations and been validated after the last."""
    return state["iteration"] == state["iterations"] and not state.get("validation_due", False)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file itself, or the one to use of a run's folder: best.pt, else last.pt.

    Raises:
        CheckpointError: the folder holds none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in (BEST, LAST):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path}: holds neither {BEST} nor {LAST}; is it the folder of a run?")


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def random_state() -> dict[str, Any]:
    """States of the python, numpy and torch generators, as plain data."""
    version, keys, gauss = random.getstate()
    name, array, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(keys), gauss],
        "numpy": [name, array.tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Inverse of :func:`random_state`."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, array, *rest = state["numpy"]
    np.random.set_state((name, np.array(array, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
