"""A teacher's answers to a fixed augmentation set, on disk.

A folder with ``key.json`` (what the answers belong to) and one ``.npy`` file per array, a row per
sample. It is filled front to back and says how far it has come, so that filling can be stopped and
continued, by one process at a time (:func:`only_one`); it is read through memory maps. A cache
that belongs to something else is refused, since wrong answers would teach nonsense quietly.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

KEY_FILE, DONE_FILE, LOCK_FILE = "key.json", "done.json", "lock"
SPARE_BYTES = 200e6  # left free on the disk


class CacheError(ValueError):
    """A cache that cannot be used; the message names the folder."""


@contextmanager
def only_one(folder: str | Path) -> Iterator[None]:
    """Keep other processes from opening or filling a cache; waits, and says so, while one does.

    The lock is the system's own on an open file: a process that is killed leaves none behind.

    Raises:
        CacheError: the folder holds something that is no cache, or its disk knows no locks.
    """
    folder = Path(folder)
    _refuse_others(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK_FILE, "w") as stream:
        try:
            _lock(stream, folder)
        except OSError as error:
            raise CacheError(f"{folder / LOCK_FILE}: cannot be locked: {error.strerror}; give a "
                             "folder of a local disk") from error
        yield


def _lock(stream: Any, folder: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{folder}: another process is filling this cache; waiting for it",
              file=sys.stderr, flush=True)
        fcntl.flock(stream, fcntl.LOCK_EX)


def _refuse_others(folder: Path) -> None:
    """Raises CacheError if there is something that is neither a cache nor about to become one."""
    if not folder.exists():
        return
    before = {LOCK_FILE, Path(KEY_FILE).with_suffix(".part").name}
    others = not folder.is_dir() or {item.name for item in folder.iterdir()} - before
    # Looked for last: another process may be beginning this cache, and the key comes first.
    if others and not (folder / KEY_FILE).exists():
        raise CacheError(f"{folder}: exists and is no cache of a teacher")


class TeacherCache:
    """Arrays of ``total`` rows each, float32.

    Args:
        folder: of this cache alone; made if absent.
        key: plain data that tells this cache from any other.
        shapes: shape of one row of every array, by name.
        total: number of rows.

    Raises:
        CacheError: the folder holds a cache of something else, something that is no cache, or
            does not fit on the disk.
    """

    def __init__(self, folder: str | Path, key: Mapping[str, Any],
                 shapes: Mapping[str, Sequence[int]], total: int) -> None:
        self.folder, self.total = Path(folder), total
        self.key = json.loads(json.dumps({**key, "samples": total, "shapes": {
            name: list(shape) for name, shape in shapes.items()}}))
        if (self.folder / KEY_FILE).exists():
            self._check_key()
        else:
            self._begin(shapes)
        if not (self.folder / DONE_FILE).exists():  # where making the arrays may have been cut off
            self._make_arrays(shapes)
        self._arrays = {name: self._open(name) for name in shapes}

    @property
    def done(self) -> int:
        """Number of rows that are there, from the front; CacheError if the file does not say."""
        path = self.folder / DONE_FILE
        if not path.exists():
            return 0
        text = path.read_text(errors="replace").strip()
        if not (text.isdecimal() and int(text) <= self.total):
            raise CacheError(f"{path}: must hold a number from 0 to {self.total}, holds "
                             f"{text[:40]!r}. Delete this file, and the cache is filled anew")
        return int(text)

    @property
    def complete(self) -> bool:
        return self.done == self.total

    def write(self, first: int, rows: Mapping[str, np.ndarray]) -> None:
        """Store rows from ``first`` on, which must be :attr:`done`.

        Raises:
            CacheError: rows would be left out.
        """
        if first != self.done:
            raise CacheError(f"{self.folder}: holds {self.done} rows, the next cannot be {first}")
        count = 0
        for name, array in self._arrays.items():
            count = len(rows[name])
            array[first:first + count] = rows[name]
            array.flush()
        _write_text(self.folder / DONE_FILE, json.dumps(first + count))

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Rows by their numbers, copied.

        Raises:
            CacheError: a row is not there.
        """
        if not len(rows) or rows.min() < 0 or rows.max() >= self.total:
            raise CacheError(f"{self.folder}: knows samples 0 to {self.total - 1}, asked for "
                             f"{rows.tolist()[:8]}")
        return {name: array[rows] for name, array in self._arrays.items()}

    def _check_key(self) -> None:
        try:
            theirs = json.loads((self.folder / KEY_FILE).read_text())
        except (OSError, ValueError) as error:
            raise CacheError(f"{self.folder / KEY_FILE}: cannot be read: {error}") from error
        if theirs.get("samples") == self.total and self.complete:
            # More arrays than are wanted now (maps, for example) do no harm; while filling they
            # would stay behind the others.
            theirs["shapes"] = {name: shape for name, shape in theirs["shapes"].items()
                                if name in self.key["shapes"]}
        changed = _changes(theirs, self.key)
        if changed:
            raise CacheError(f"{self.folder}: is the cache of another teacher, augmentation or "
                             f"data: {'; '.join(changed)}. Give another folder, or delete this "
                             "one")

    def _begin(self, shapes: Mapping[str, Sequence[int]]) -> None:
        _refuse_others(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        needs = sum(4 * self.total * int(np.prod(shape)) for shape in shapes.values())
        free = shutil.disk_usage(self.folder).free
        if needs + SPARE_BYTES > free:
            raise CacheError(f"{self.folder}: needs {needs / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
                             "free; take fewer data.variants or no cache")
        # First of all: by it the folder is known as a cache, however far the rest has come.
        _write_text(self.folder / KEY_FILE, json.dumps(self.key, indent=1))

    def _make_arrays(self, shapes: Mapping[str, Sequence[int]]) -> None:
        for name, shape in shapes.items():
            np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", np.float32,
                                      (self.total, *shape))
        _write_text(self.folder / DONE_FILE, json.dumps(0))

    def _open(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r+")
        except (OSError, ValueError) as error:
            raise CacheError(f"{path}: cannot be read: {error}") from error
        if list(array.shape) != [self.total, *self.key["shapes"][name]]:
            raise CacheError(f"{path}: has shape {array.shape}, which is not what {KEY_FILE} says")
        return array


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What differs, by the path of the innermost key."""
    changed = []
    for name in sorted(old.keys() | new.keys()):
        mine, theirs = new.get(name), old.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            changed += _changes(theirs, mine, f"{path}{name}.")
        elif mine != theirs:
            was, now = (_short(part[name]) if name in part else "not noted" for part in (old, new))
            changed.append(f"{path}{name} was {was}, now {now}")
    return changed


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _write_text(path: Path, text: str) -> None:
    beside = path.with_suffix(".part")
    with open(beside, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, path)
