"""Renders a set in processes, a chunk of frames at a time; what is finished is not done again.

A chunk's pictures and a small JSON file are written into its folder's ``.part``; when all chunks
of a folder are there it gets its annotation files and its name. What is rendered, and into which
files, is a ``Work``: ``generate.py`` has the one of objects, ``people/generate.py`` of people.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from kd_pose_training.engine import signals
from kd_pose_training.synthetic.bop_writer import write_json
from kd_pose_training.synthetic.render import open_renderer

CHUNK = 25
SETTINGS_FILE = "synth.json"


@dataclass(frozen=True)
class Chunk:
    """Some frames of one folder. ``first``: number of its first frame within the split, ``start``
    within the folder."""

    split: str
    scene_id: int
    first: int
    start: int
    count: int


@dataclass(frozen=True)
class SynthReport:
    """What ``render_set`` did."""

    root: Path
    frames: int
    rendered: int
    seconds: float
    renderer: str

    @property
    def frames_per_second(self) -> float:
        """Rendered frames per second of this run; 0 when there was nothing to do."""
        return self.rendered / self.seconds if self.rendered and self.seconds > 0 else 0.0

    def __str__(self) -> str:
        rate = (f", {self.frames_per_second:.1f} frames per second with {self.renderer}"
                if self.rendered else "")
        return f"{self.root}: {self.frames} frames, {self.rendered} of them new{rate}"


class Work(Protocol):
    """A set to be rendered; it is sent to every process."""

    command: str  # the subcommand that makes such sets, for messages
    splits: dict[str, int]  # frames of every split
    frames_per_folder: int
    workers: int  # 0: one per core
    renderer: str  # gl, rays or auto

    def identity(self) -> dict[str, Any]:
        """Plain data that tells this set from others; ``settings`` are compared key by key."""

    def differs(self, found: dict[str, Any], wanted: dict[str, Any]) -> str:
        """In words, what but its settings a found set was rendered from; empty if the same."""

    def begin(self, root: Path) -> None:
        """Write what a new set starts with."""

    def folder(self, root: Path, chunk: Chunk, done: bool) -> Path:
        """Folder of a chunk, finished or not."""

    def open(self, renderer: str, root: Path) -> Callable[[Chunk], dict[int, dict]]:
        """In each process: what renders a chunk into its unfinished folder and returns, by frame
        number, what the annotation files need."""

    def finish(self, root: Path, chunk: Chunk, frames: dict[int, dict]) -> None:
        """Write the annotation files of ``chunk``'s folder, complete but not yet named."""


def plan(work: Work) -> list[Chunk]:
    """All chunks of a set, in order."""
    chunks = []
    for split, total in work.splits.items():
        for scene, first in enumerate(range(0, total, work.frames_per_folder), start=1):
            size = min(work.frames_per_folder, total - first)
            chunks += [Chunk(split, scene, first + start, start, min(CHUNK, size - start))
                       for start in range(0, size, CHUNK)]
    return chunks


def _chunk_file(work: Work, root: Path, chunk: Chunk) -> Path:
    """The JSON file that says a chunk is complete."""
    return work.folder(root, chunk, False) / f"chunk_{chunk.start:06d}.json"


def render_set(work: Work, root: str | Path, progress: bool = True) -> SynthReport:
    """Render a set into ``root``, or what is missing of it.

    Raises:
        ValueError: the folder holds something else, or a set of other settings or inputs.
        RendererError: the renderer asked for is not there.
    """
    root = Path(root)
    renderer = work.renderer
    if renderer == "auto":
        renderer = open_renderer("auto").name
    _claim(root, work)
    chunks = plan(work)
    todo = [chunk for chunk in chunks if not work.folder(root, chunk, True).exists()]
    missing = [chunk for chunk in todo if not _chunk_file(work, root, chunk).exists()]
    frames = sum(chunk.count for chunk in chunks)
    started = time.monotonic()
    with tqdm(total=frames, initial=frames - sum(chunk.count for chunk in missing),
              desc=f"rendering ({renderer})", unit=" frames",
              disable=None if progress else True) as bar:
        _finish_complete(work, root, todo)
        for chunk in _rendered(work, missing, renderer, root):
            bar.update(chunk.count)
            _finish_complete(work, root, [c for c in todo if (c.split, c.scene_id)
                                          == (chunk.split, chunk.scene_id)])
    return SynthReport(root, frames, sum(chunk.count for chunk in missing),
                       time.monotonic() - started, renderer)


def _claim(root: Path, work: Work) -> None:
    """Make the folder ours, or see that it is ours already."""
    wanted = json.loads(json.dumps(work.identity()))
    for key in ("workers", "renderer"):  # they do not change the pictures' content
        wanted["settings"].pop(key)
    path = root / SETTINGS_FILE
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: is not valid JSON ({error})") from error
        difference = _difference(found, wanted, work)
        if difference:
            raise ValueError(f"{root}: holds a set that was rendered {difference}; choose another "
                             "folder, or delete this one")
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root}: exists and is not a set of {work.command}; "
                         "choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    work.begin(root)
    write_json(path, wanted)


def _difference(found: Any, wanted: dict, work: Work) -> str:
    """In words, what a set was rendered with that is not wanted; empty where there is nothing."""
    found = found if isinstance(found, dict) else {}
    setting = _other_setting(found.get("settings"), wanted["settings"])
    return f"with {setting}" if setting else work.differs(found, wanted)


def _other_setting(found: Any, wanted: dict, path: str = "") -> str:
    """The first setting that differs. Settings that are no longer known are passed over."""
    for key, value in wanted.items():
        old = found.get(key) if isinstance(found, dict) else None
        if isinstance(value, dict) and isinstance(old, dict) and key != "splits":
            deeper = _other_setting(old, value, f"{path}{key}.")
            if deeper:
                return deeper
        elif old != value:
            return f"{path}{key} = {json.dumps(old)}, not {json.dumps(value)}"
    return ""


def _finish_complete(work: Work, root: Path, chunks: list[Chunk]) -> None:
    """Give folders of which all chunks are there their annotations and their name."""
    folders: dict[tuple[str, int], list[Chunk]] = {}
    for chunk in chunks:
        folders.setdefault((chunk.split, chunk.scene_id), []).append(chunk)
    for members in folders.values():
        folder, final = (work.folder(root, members[0], done) for done in (False, True))
        files = [_chunk_file(work, root, chunk) for chunk in members]
        if final.exists() or not all(path.exists() for path in files):
            continue
        frames: dict[int, dict] = {}
        for path in files:
            frames.update({int(n): item for n, item in json.loads(path.read_text()).items()})
        work.finish(root, members[0], frames)
        for path in files:
            path.unlink()
        os.replace(folder, final)


def _rendered(work: Work, chunks: list[Chunk], renderer: str, root: Path) -> Iterator[Chunk]:
    """Render chunks, in processes of their own; yields each when it is on disk.

    Raises:
        ChildProcessError: a process was ended from outside, e.g. for want of memory.
    """
    workers = min(work.workers or os.cpu_count() or 1, max(1, len(chunks)))
    arguments = (work, renderer, root)
    if workers == 1:
        worker = _Worker(*arguments)
        for chunk in chunks:
            yield worker(chunk)
        return
    # One thread of Mesa's per process: both cores are busy with processes already.
    before = os.environ.get("LP_NUM_THREADS")
    os.environ["LP_NUM_THREADS"] = "1"
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker,
                               arguments)
    try:
        for future in as_completed(_submitted(pool, chunks)):
            yield future.result()
    except (BrokenProcessPool, KeyboardInterrupt) as error:
        # A process that was being started while the pool broke is not ended by the pool, which
        # would then wait for it for good.
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ChildProcessError("a rendering process ended before its time (out of memory?); the "
                                "same command goes on where it was, --set workers=1 takes the "
                                "least memory") from error
    finally:
        pool.shutdown(cancel_futures=True)
        if before is None:
            del os.environ["LP_NUM_THREADS"]
        else:
            os.environ["LP_NUM_THREADS"] = before


def _submitted(pool: ProcessPoolExecutor, chunks: list[Chunk]) -> list[Future]:
    """Hand all chunks to the pool.

    Raises:
        BrokenProcessPool: a process has died meanwhile. The pool itself says so only sometimes;
            in the moment of breaking its pipe is closed already, which is an OSError.
    """
    try:
        # Whoever has an interrupt here ends the processes, which need no traceback of their own.
        with signals.starting_processes(signal.SIGINT):
            return [pool.submit(_run_chunk, chunk) for chunk in chunks]
    except OSError as error:
        raise BrokenProcessPool("a process died while chunks were handed out") from error


class _Worker:
    """Everything a process needs to render chunks."""

    def __init__(self, work: Work, renderer: str, root: Path) -> None:
        self.work, self.root = work, root
        self.render = work.open(renderer, root)

    def __call__(self, chunk: Chunk) -> Chunk:
        self.work.folder(self.root, chunk, False).mkdir(parents=True, exist_ok=True)
        write_json(_chunk_file(self.work, self.root, chunk), self.render(chunk))
        return chunk


_worker: _Worker | None = None


def _start_worker(*arguments) -> None:
    global _worker
    import cv2
    cv2.setNumThreads(1)
    _worker = _Worker(*arguments)


def _run_chunk(chunk: Chunk) -> Chunk:
    assert _worker is not None
    return _worker(chunk)
