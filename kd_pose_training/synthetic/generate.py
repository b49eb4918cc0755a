"""Renders sets of objects in BOP format: splits into scenes of some frames; resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_pose_training import strict
from kd_pose_training.synthetic import bop_writer
from kd_pose_training.synthetic.check import check_frame, surface_points
from kd_pose_training.synthetic.compose import Composer
from kd_pose_training.synthetic.lens import through_lens
from kd_pose_training.synthetic.meshes import ObjectMesh
from kd_pose_training.synthetic.patterns import background_files
from kd_pose_training.synthetic.render import open_renderer
from kd_pose_training.synthetic.resumable import Chunk, SynthReport, render_set
from kd_pose_training.synthetic.settings import SynthSettings


def synthesise(objects: list[ObjectMesh], settings: SynthSettings, root: str | Path,
               progress: bool = True) -> SynthReport:
    """Render a BOP set into ``root``, or what is missing of it.

    Raises:
        ValueError: the folder holds something else, or a set of other settings or meshes.
        RendererError: the renderer asked for is not there.
    """
    if settings.look.backgrounds is not None:
        background_files(settings.look.backgrounds)  # complains before anything is written
    report = render_set(ObjectWork(objects, settings), root, progress)
    bop_writer.write_json(report.root / "camera.json", _camera_json(settings))
    return report


def _camera_json(settings: SynthSettings) -> dict:
    camera = settings.camera
    return {"cx": camera.cx, "cy": camera.cy, "fx": camera.fx, "fy": camera.fy,
            "width": camera.width, "height": camera.height,
            "depth_scale": bop_writer.DEPTH_SCALE}


@dataclass(frozen=True)
class ObjectWork:
    """A set of objects to be rendered; a ``resumable.Work``."""

    objects: list[ObjectMesh]
    settings: SynthSettings
    command = "synth-objects"

    @property
    def splits(self) -> dict[str, int]:
        """Frames of every split."""
        return self.settings.splits

    @property
    def frames_per_folder(self) -> int:
        """Frames of one BOP scene."""
        return self.settings.frames_per_scene

    @property
    def workers(self) -> int:
        """Processes; 0: one per core."""
        return self.settings.workers

    @property
    def renderer(self) -> str:
        """gl, rays or auto."""
        return self.settings.renderer

    def identity(self) -> dict[str, Any]:
        """Settings, meshes and what is said of the objects."""
        digest = hashlib.sha256()
        for item in self.objects:
            for array in (item.mesh.vertices, item.mesh.faces, item.mesh.texture,
                          item.mesh.colours):
                digest.update(np.ascontiguousarray(array).tobytes())
        return {"settings": strict.to_dict(self.settings), "meshes": digest.hexdigest(),
                "objects": [bop_writer.model_info(item) for item in self.objects]}

    def differs(self, found: dict[str, Any], wanted: dict[str, Any]) -> str:
        """In words, whether the objects are others."""
        same = all(found.get(key) == wanted[key] for key in ("meshes", "objects"))
        return "" if same else "from other meshes, names or symmetries"

    def begin(self, root: Path) -> None:
        """Write models/."""
        bop_writer.write_models(root, self.objects)

    def folder(self, root: Path, chunk: Chunk, done: bool) -> Path:
        """Folder of a chunk's scene, finished or not."""
        return root / chunk.split / (f"{chunk.scene_id:06d}" + ("" if done else ".part"))

    def open(self, renderer: str, root: Path) -> Callable[[Chunk], dict[int, dict]]:
        """What renders chunks, in each process."""
        return _Worker(self, renderer, root)

    def finish(self, root: Path, chunk: Chunk, frames: dict[int, dict]) -> None:
        """Write a scene's JSON files."""
        bop_writer.finish_scene(self.folder(root, chunk, False), frames, self.objects)


class _Worker:
    """Everything a process needs to render chunks."""

    def __init__(self, work: ObjectWork, renderer: str, root: Path) -> None:
        self.objects, self.settings, self.work, self.root = (work.objects, work.settings, work,
                                                             root)
        self.composer = Composer(work.objects, work.settings)
        self.renderer = open_renderer(renderer)
        self.points = [surface_points(item.mesh.vertices, item.mesh.faces)
                       for item in work.objects]

    def __call__(self, chunk: Chunk) -> dict[int, dict]:
        folder = self.work.folder(self.root, chunk, False)
        for name in bop_writer.FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        return {chunk.start + i: self.frame(folder, chunk.split, chunk.first + i, chunk.start + i)
                for i in range(chunk.count)}

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
