"""Renders a whole set: splits into scenes, scenes into chunks, chunks to processes; resumable.

A chunk's pictures and a small JSON file are written into ``<scene>.part``; when all chunks of a
scene are there it gets its annotation files and its name. Whatever is finished is not done again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kd_pose_training import strict
from kd_pose_training.synthetic import bop_writer
from kd_pose_training.synthetic.check import check_frame, surface_points
from kd_pose_training.synthetic.compose import Composer
from kd_pose_training.synthetic.lens import through_lens
from kd_pose_training.synthetic.meshes import ObjectMesh
from kd_pose_training.synthetic.patterns import background_files
from kd_pose_training.synthetic.render import open_renderer
from kd_pose_training.synthetic.settings import SynthSettings

CHUNK = 25
SETTINGS_FILE = "synth.json"


@dataclass(frozen=True)
class Chunk:
    """Some frames of one scene. ``first``: number of its first frame within the split, ``start``
    within the scene."""

    split: str
    scene_id: int
    first: int
    start: int
    count: int


@dataclass(frozen=True)
class SynthReport:
    """What ``synthesise`` did."""

    root: Path
    frames: int
    rendered: int
    seconds: float
    renderer: str

    @property
    def frames_per_second(self) -> float:
        """Rendered frames per second of this run; 0 when there was nothing to do."""
        return self.rendered / self.seconds if self.rendered and self.seconds > 0 else 0.0


def plan(settings: SynthSettings) -> list[Chunk]:
    """All chunks of a set, in order."""
    chunks = []
    for split, total in settings.splits.items():
        for scene, first in enumerate(range(0, total, settings.frames_per_scene), start=1):
            size = min(settings.frames_per_scene, total - first)
            chunks += [Chunk(split, scene, first + start, start, min(CHUNK, size - start))
                       for start in range(0, size, CHUNK)]
    return chunks


def scene_folder(root: Path, chunk: Chunk, done: bool) -> Path:
    """Folder of a chunk's scene, finished or not."""
    return root / chunk.split / (f"{chunk.scene_id:06d}" + ("" if done else ".part"))


def chunk_file(root: Path, chunk: Chunk) -> Path:
    """The JSON file that says a chunk is complete."""
    return scene_folder(root, chunk, False) / f"chunk_{chunk.start:06d}.json"


def synthesise(objects: list[ObjectMesh], settings: SynthSettings, root: str | Path,
               progress: bool = True) -> SynthReport:
    """Render a BOP set into ``root``, or what is missing of it.

    Raises:
        ValueError: the folder holds something else, or a set of other settings or meshes.
        RendererError: the renderer asked for is not there.
    """
    root = Path(root)
    renderer = type(open_renderer(settings.renderer)).name if settings.renderer == "auto" \
        else settings.renderer
    if settings.look.backgrounds is not None:
        background_files(settings.look.backgrounds)  # complains before anything is written
    _claim(root, objects, settings)
    chunks = plan(settings)
    todo = [chunk for chunk in chunks if not scene_folder(root, chunk, True).exists()]
    missing = [chunk for chunk in todo if not chunk_file(root, chunk).exists()]
    frames = sum(chunk.count for chunk in chunks)
    started = time.monotonic()
    with tqdm(total=frames, initial=frames - sum(chunk.count for chunk in missing),
              desc=f"rendering ({renderer})", unit=" frames",
              disable=None if progress else True) as bar:
        _finish_complete(root, todo, objects)
        for chunk in _rendered(missing, objects, settings, renderer, root):
            bar.update(chunk.count)
            _finish_complete(root, [c for c in todo if (c.split, c.scene_id)
                                    == (chunk.split, chunk.scene_id)], objects)
    bop_writer.write_json(root / "camera.json", _camera_json(settings))
    return SynthReport(root, frames, sum(chunk.count for chunk in missing),
                       time.monotonic() - started, renderer)


def _camera_json(settings: SynthSettings) -> dict:
    camera = settings.camera
    return {"cx": camera.cx, "cy": camera.cy, "fx": camera.fx, "fy": camera.fy,
            "width": camera.width, "height": camera.height,
            "depth_scale": bop_writer.DEPTH_SCALE}


def _claim(root: Path, objects: list[ObjectMesh], settings: SynthSettings) -> None:
    """Make the folder ours, or see that it is ours already."""
    digest = hashlib.sha256()
    for item in objects:
        for array in (item.mesh.vertices, item.mesh.faces, item.mesh.texture, item.mesh.colours):
            digest.update(np.ascontiguousarray(array).tobytes())
    wanted = strict.to_dict(settings)
    for key in ("workers", "renderer"):  # they do not change the pictures' content
        wanted.pop(key)
    wanted = json.loads(json.dumps({
        "settings": wanted, "meshes": digest.hexdigest(),
        "objects": [bop_writer.model_info(item) for item in objects]}))
    path = root / SETTINGS_FILE
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: is not valid JSON ({error})") from error
        difference = _difference(found, wanted)
        if difference:
            raise ValueError(f"{root}: holds a set that was rendered {difference}; choose another "
                             "folder, or delete this one")
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root}: exists and is not a set of synth-objects; "
                         "choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    bop_writer.write_models(root, objects)
    bop_writer.write_json(path, wanted)


def _difference(found: Any, wanted: dict) -> str:
    """In words, what a set was rendered with that is not wanted; empty where there is nothing."""
    found = found if isinstance(found, dict) else {}
    setting = _other_setting(found.get("settings"), wanted["settings"])
    if setting:
        return f"with {setting}"
    same = all(found.get(key) == wanted[key] for key in ("meshes", "objects"))
    return "" if same else "from other meshes, names or symmetries"


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


def _finish_complete(root: Path, chunks: list[Chunk], objects: list[ObjectMesh]) -> None:
    """Give scenes of which all chunks are there their annotations and their name."""
    scenes: dict[tuple[str, int], list[Chunk]] = {}
    for chunk in chunks:
        scenes.setdefault((chunk.split, chunk.scene_id), []).append(chunk)
    for members in scenes.values():
        folder, final = (scene_folder(root, members[0], done) for done in (False, True))
        files = [chunk_file(root, chunk) for chunk in members]
        if final.exists() or not all(path.exists() for path in files):
            continue
        frames: dict[int, dict] = {}
        for path in files:
            frames.update({int(n): item for n, item in json.loads(path.read_text()).items()})
        bop_writer.finish_scene(folder, frames, objects)
        for path in files:
            path.unlink()
        os.replace(folder, final)


def _rendered(chunks: list[Chunk], objects: list[ObjectMesh], settings: SynthSettings,
              renderer: str, root: Path) -> Iterator[Chunk]:
    """Render chunks, in processes of their own; yields each when it is on disk.

    Raises:
        ChildProcessError: a process was ended from outside, e.g. for want of memory.
    """
    workers = min(settings.workers or os.cpu_count() or 1, max(1, len(chunks)))
    arguments = (objects, settings, renderer, root)
    if workers == 1:
        worker = _Worker(*arguments)
        for chunk in chunks:
            yield worker(chunk)
        return
    # One thread of Mesa's per process: both cores are busy with processes already.
    before = os.environ.get("LP_NUM_THREADS")
    os.environ["LP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker,
                               arguments)
    try:
        for future in as_completed(_submitted(pool, chunks)):
            yield future.result()
    except BrokenProcessPool as error:
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
        return [pool.submit(_run_chunk, chunk) for chunk in chunks]
    except OSError as error:
        raise BrokenProcessPool("a process died while chunks were handed out") from error


class _Worker:
    """Everything a process needs to render chunks."""

    def __init__(self, objects: list[ObjectMesh], settings: SynthSettings, renderer: str,
                 root: Path) -> None:
        self.objects, self.settings, self.root = objects, settings, root
        self.composer = Composer(objects, settings)
        self.renderer = open_renderer(renderer)
        self.points = [surface_points(item.mesh.vertices, item.mesh.faces) for item in objects]

    def __call__(self, chunk: Chunk) -> Chunk:
        folder = scene_folder(self.root, chunk, False)
        for name in bop_writer.FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        frames = {chunk.start + i: self.frame(folder, chunk.split, chunk.first + i,
                                              chunk.start + i) for i in range(chunk.count)}
        bop_writer.write_json(chunk_file(self.root, chunk), frames)
        return chunk

    def frame(self, folder: Path, split: str, number: int, name: int) -> dict:
        """Render and write one frame."""
        rng = self.composer.generator(split, number)
        scene = self.composer.scene(split, number, rng)
        buffers = self.renderer.render(scene)
        try:
            check_frame(scene, buffers, self.points)
        except RuntimeError as error:
            raise RuntimeError(f"{split} frame {number}: {error} (renderer "
                               f"{self.renderer.name})") from error
        picture = through_lens(buffers.colour, self.settings.look, rng)
        areas = [self.renderer.area(scene, row) if touches_edge(buffers.whole[row])
                 else int(buffers.whole[row].sum()) for row in range(len(scene.objects))]
        return bop_writer.write_frame(folder, name, scene, picture, buffers, areas, self.objects,
                                      self.settings.look.jpeg_quality)


def touches_edge(mask: np.ndarray) -> bool:
    """Whether a mask (H, W) reaches the frame's edge, so that some of it may be outside."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


_worker: _Worker | None = None


def _start_worker(*arguments) -> None:
    global _worker
    import cv2
    cv2.setNumThreads(1)
    _worker = _Worker(*arguments)


def _run_chunk(chunk: Chunk) -> Chunk:
    assert _worker is not None
    return _worker(chunk)
