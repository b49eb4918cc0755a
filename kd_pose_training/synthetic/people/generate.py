"""Renders sets of people in COCO-WholeBody format; resumable.

    images/<split>/000000000001.jpg
    annotations/coco_wholebody_<split>_v1.0.json
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kd_pose.wholebody_keypoints import COCO_WHOLEBODY_133, PARTS
from kd_pose_training import strict
from kd_pose_training.synthetic.bop_writer import write_image, write_json
from kd_pose_training.synthetic.lens import through_lens
from kd_pose_training.synthetic.patterns import background_files
from kd_pose_training.synthetic.people.clip import ClipComposer
from kd_pose_training.synthetic.people.compose import Crowd, PeopleComposer, frame_generator
from kd_pose_training.synthetic.people.labels import annotate
from kd_pose_training.synthetic.people.settings import PeopleSettings
from kd_pose_training.synthetic.render import open_renderer
from kd_pose_training.synthetic.resumable import Chunk, SynthReport, render_set


def synthesise_people(settings: PeopleSettings, root: str | Path,
                      progress: bool = True) -> SynthReport:
    """Render a set into ``root``, or what is missing of it.

    Raises:
        ValueError: the folder holds something else, or a set of other settings.
        RendererError: the renderer asked for is not there.
    """
    if settings.look.backgrounds is not None:
        background_files(settings.look.backgrounds)  # complains before anything is written
    return render_set(PeopleWork(settings), root, progress)


def annotation_file(root: Path, split: str) -> Path:
    """Annotations of a split, named as the public ones are."""
    return root / "annotations" / f"coco_wholebody_{split}_v1.0.json"


def image_name(number: int) -> str:
    """File name of a split's frame ``number``; image ids count from 1."""
    return f"{number + 1:012d}.jpg"


@dataclass(frozen=True)
class PeopleWork:
    """A set of people to be rendered; a ``resumable.Work``."""

    settings: PeopleSettings
    command = "synth-people"

    @property
    def splits(self) -> dict[str, int]:
        """Frames of every split."""
        return self.settings.splits

    @property
    def frames_per_folder(self) -> int:
        """A split is one folder."""
        return max(self.settings.splits.values())

    @property
    def workers(self) -> int:
        """Processes; 0: one per core."""
        return self.settings.workers

    @property
    def renderer(self) -> str:
        """gl, rays or auto."""
        return self.settings.renderer

    def identity(self) -> dict[str, Any]:
        """The settings are all there is."""
        return {"command": self.command, "settings": strict.to_dict(self.settings)}

    def differs(self, found: dict[str, Any], wanted: dict[str, Any]) -> str:
        """In words, whether the set is another command's."""
        return "" if found.get("command") == wanted["command"] else "by another command"

    def begin(self, root: Path) -> None:
        """Make the folder of the annotations."""
        (root / "annotations").mkdir(parents=True, exist_ok=True)

    def folder(self, root: Path, chunk: Chunk, done: bool) -> Path:
        """Pictures of a split, finished or not."""
        return root / "images" / (chunk.split + ("" if done else ".part"))

    def open(self, renderer: str, root: Path) -> Callable[[Chunk], dict[int, dict]]:
        """What renders chunks, in each process."""
        return _Worker(self, renderer, root)

    def finish(self, root: Path, chunk: Chunk, frames: dict[int, dict]) -> None:
        """Write a split's annotation file."""
        write_json(annotation_file(root, chunk.split), coco(frames))


class _Worker:
    """Everything a process needs to render chunks."""

    def __init__(self, work: PeopleWork, renderer: str, root: Path) -> None:
        self.work, self.settings, self.root = work, work.settings, root
        self.composer = PeopleComposer(work.settings)
        self.clips: dict[str, ClipComposer] = {}
        self.renderer = open_renderer(renderer)

    def __call__(self, chunk: Chunk) -> dict[int, dict]:
        folder = self.work.folder(self.root, chunk, False)
        return {number: self.frame(folder, chunk.split, number)
                for number in range(chunk.first, chunk.first + chunk.count)}

    def frame(self, folder: Path, split: str, number: int) -> dict:
        """Render and write one frame."""
        settings = self.settings
        crowd, rng = self.scene(split, number)
        buffers = self.renderer.render(crowd.scene, whole=False)
        people = annotate(crowd, buffers, settings.labels)
        picture = through_lens(buffers.colour, settings.look, rng)
        write_image(folder / image_name(number), np.ascontiguousarray(picture[..., ::-1]),
                    [cv2.IMWRITE_JPEG_QUALITY, settings.look.jpeg_quality])
        return {"size": [crowd.scene.width, crowd.scene.height], "people": people}


    def scene(self, split: str, number: int) -> tuple[Crowd, np.random.Generator]:
        """A frame's scene, and the generator of its lens, which stays the same in a clip."""
        settings = self.settings
        if settings.clip is None:
            rng = frame_generator(settings.seed, split, number)
            return self.composer.crowd(rng), rng
        if split not in self.clips:
            self.clips[split] = ClipComposer(settings, split)
        return self.clips[split].crowd(number), frame_generator(settings.seed, split, 0)


def coco(frames: dict[int, dict]) -> dict[str, Any]:
    """The whole annotation file from what frames returned, by number."""
    images, annotations = [], []
    for number in sorted(frames):
        width, height = frames[number]["size"]
        images.append({"id": number + 1, "file_name": image_name(number), "width": width,
                       "height": height})
        for person in frames[number]["people"]:
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, **person})
    return {"info": {"description": "people rendered by kd_pose", "version": "1.0"},
            "licenses": [], "images": images, "annotations": annotations,
            "categories": [{"id": 1, "name": "person", "supercategory": "person",
                            "keypoints": list(COCO_WHOLEBODY_133.names[PARTS["body"]])}]}
