"""What is missing in a BOP folder, and which archive of the public sets holds it.

Everything that the JSON files announce is looked for, and they are read as training reads them, as
are the meshes; of the pictures a few of each split are decoded. Nothing is downloaded or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from kd_pose_training.data import bop_files
from kd_pose_training.data.bop import read_scene
from kd_pose_training.data.bop_files import BopError, by_number, list_pictures, read_json
from kd_pose_training.data.bop_models import (
    load_mesh_surface,
    models_file,
    read_model,
    read_models,
)
from kd_pose_training.data.bop_targets import TARGETS_FILE, read_targets
from kd_pose_training.data.public_sets import PublicSet, PublicSplit

SHOWN = 3  # examples named of many


@dataclass(frozen=True)
class Problem:
    """Something that is missing or broken. archives: any of them holds it; empty: not known."""

    text: str
    archives: tuple[str, ...] = ()


@dataclass
class Part:
    """One checked part of a set. optional: not needed by any recipe, so its absence is none."""

    name: str
    summary: str = ""
    problems: list[Problem] = field(default_factory=list)
    optional: bool = False

    @property
    def state(self) -> str:
        """``ok``, ``MISSING``, or ``absent`` for what need not be there."""
        if not self.problems:
            return "absent" if self.optional and not self.summary else "ok"
        return "MISSING"


def check_set(root: str | Path, public: PublicSet | None, *, splits: Sequence[str] = (),
              samples: int = 10) -> list[Part]:
    """Check a folder.

    Args:
        public: what the set should consist of, all of it missing where there is no folder; None:
            another set, of which every folder of scenes is checked.
        splits: only these, as an evaluation needs them; empty: all, as recipes need them.
        samples: pictures of each kind and split that are decoded.

    Raises:
        BopError: there is no such folder (of another set), or no such split.
    """
    root = Path(root)
    if not root.is_dir() and (public is None or root.exists()):
        raise BopError(f"{root}: {'not a' if root.exists() else 'no such'} folder")
    if public is not None and not splits:
        public = public.for_training()
    parts = [_cameras(root, public), *_models(root, public), _targets(root, public, not splits)]
    there = sorted(item.name for item in (root.iterdir() if root.is_dir() else ())
                   if bop_files.numbered_folders(item))
    known = public.splits if public else {name: PublicSplit((), ()) for name in there}
    unknown = sorted(set(splits) - set(known) - set(there))
    if unknown:
        raise BopError(f"{root}: no split {', '.join(unknown)}; there are {', '.join(known)}")
    objects = _objects(root)
    for name in splits or known:
        parts.append(_split(root, name, known.get(name, PublicSplit((), ())), samples, objects))
    return parts


def archives_of(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    """Archives that hold what is missing, each group once; any of a group will do."""
    return list(dict.fromkeys(problem.archives for part in parts for problem in part.problems
                              if problem.archives))


def _cameras(root: Path, public: PublicSet | None) -> Part:
    names = public.cameras if public else ()
    missing = [name for name in names if not (root / name).is_file()]
    return Part("camera", ", ".join(names), [Problem(f"{root / name}: no such file",
                                                     (public.base,)) for name in missing],
                optional=public is None)


def _models(root: Path, public: PublicSet | None) -> list[Part]:
    parts = []
    for folder in ("models", "models_eval"):
        part = Part(folder, optional=public is None)
        parts.append(part)
        source = (public.models,) if public else ()
        path = root / folder / "models_info.json"
        if public is None and not path.is_file():
            continue
        infos = _read(part, source, lambda path=path: by_number(read_json(path), path, dict))
        if infos is None:
            continue
        lacking = [number for number in (public.objects if public else ()) if number not in infos]
        if lacking:
            part.problems.append(Problem(f"{path}: has no object {_some(lacking)}", source))
        meshes = [root / folder / f"obj_{number:06d}.ply" for number in infos]
        gone = [mesh for mesh in meshes if not mesh.is_file() or not mesh.stat().st_size]
        if gone:
            part.problems.append(Problem(f"{len(gone)} of {len(meshes)} meshes: {_some(gone)}: no "
                                         "such file, or empty", source))
        texts = _wrong_models(path, infos, gone)
        part.problems += [Problem(text, source) for text in texts]
        if not texts:  # what is wrong of all of them together
            _read(part, source, lambda folder=folder: read_models(root, folder))
        part.summary = f"{len(infos)} objects"
    if public is None and not any(part.summary or part.problems for part in parts):
        parts[0].problems.append(Problem(f"{root / 'models' / 'models_info.json'}: no such file"))
    return parts


def _wrong_models(path: Path, infos: Mapping[int, Mapping[str, Any]],
                  gone: Collection[Path]) -> list[str]:
    """Errors of the objects of a models_info.json and of their meshes, but those that are gone."""
    texts = []
    for number, info in infos.items():
        try:
            model = read_model(number, info, path)
            if model.mesh_path not in gone:
                load_mesh_surface(model)
        except BopError as error:
            texts.append(str(error))
    return texts


def _objects(root: Path) -> Collection[int]:
    """Numbers of the objects that scenes may show; none where they cannot be read."""
    path = models_file(root)
    try:
        return by_number(read_json(path), path, dict).keys()
    except BopError:
        return ()


def _targets(root: Path, public: PublicSet | None, training: bool) -> Part:
    part, path = Part("targets", optional=public is None), root / TARGETS_FILE
    if public is None and not path.is_file():
        return part
    targets = _read(part, (public.base,) if public else (), lambda: read_targets(path))
    if targets is None:
        return part
    count = sum(sum(objects.values()) for objects in targets.counts.values())
    part.summary = f"{count} instances in {len(targets.counts)} images"
    source = public.splits["test"].archives if public else ()
    folder = root / "test"
    if not folder.is_dir():
        return part  # said of the split
    pictures = {scene: _pictures(folder / f"{scene:06d}")
                for scene in sorted({scene for scene, _ in targets.counts})}
    gone = [f"scene {scene} image {image}" for scene, image in sorted(targets.counts)
            if image not in pictures[scene]]
    if gone:
        part.problems.append(Problem(f"{folder}: {len(gone)} of {len(targets.counts)} target "
                                     f"images are not there: {_some(gone)}", source))
    others = any((scene, image) not in targets.counts
                 for scene, images in pictures.items() for image in images)
    if training and public and public.splits["test"].learnt and not (others or gone):
        part.problems.append(Problem(f"{folder}: has no images but those of {TARGETS_FILE}, and "
                                     "recipes learn from the others", source))
    return part


def _split(root: Path, name: str, facts: PublicSplit, samples: int,
           objects: Collection[int]) -> Part:
    part, folder = Part(name, optional=facts.optional), root / name
    found = dict(bop_files.numbered_folders(folder))
    if not found:
        if not facts.optional:
            what = "has no scenes" if folder.is_dir() else "no such folder"
            part.problems.append(Problem(f"{folder}: {what}", facts.archives))
        return part
    lacking = [f"{number:06d}" for number in facts.scenes if number not in found]
    if lacking:
        part.problems.append(Problem(f"{folder}: {len(lacking)} of {len(facts.scenes)} scenes are "
                                     f"not there: {_some(lacking)}", facts.archives))
    images, files = 0, _Sample(samples)
    for number, scene in found.items():
        count, texts = _scene(scene, files, depth=name.startswith("test"))
        if objects and not texts:
            texts = _wrong_values(number, scene, objects)
        images += count
        part.problems += [Problem(text, facts.archives) for text in texts]
    broken = files.unreadable()
    part.problems += [Problem(text, facts.archives) for text in broken]
    part.summary = (f"{len(found)} scenes, {images} images, {files.count} pictures decoded"
                    + (f", {len(broken)} of them broken" if broken else ""))
    return part


def _scene(scene: Path, files: _Sample, depth: bool) -> tuple[int, list[str]]:
    """Images that its JSON files announce, and what is wrong. depth: needed (VSD)."""
    problems: list[str] = []
    content = {}
    for name, kind in (("scene_gt", list), ("scene_camera", dict), ("scene_gt_info", list)):
        path = scene / f"{name}.json"
        try:
            content[name] = by_number(read_json(path), path, kind)
        except BopError as error:
            problems.append(str(error))
    truth = content.get("scene_gt", {})
    for name, entries in content.items():
        lacking = sorted(truth.keys() - entries.keys())
        if lacking:
            problems.append(f"{scene / name}.json: lacks {len(lacking)} of {len(truth)} images of "
                            f"scene_gt.json: {_some(lacking)}")
    pictures = {"rgb": _pictures(scene)}
    if depth:
        pictures["depth"] = list_pictures(scene / "depth")
    for name, paths in pictures.items():
        lacking = sorted(truth.keys() - paths.keys())
        if lacking:
            problems.append(f"{scene / name}: {len(lacking)} of {len(truth)} pictures are not "
                            f"there: image {_some(lacking)}")
        files.offer(name, [paths[number] for number in truth if number in paths])
    problems += _masks(scene, truth, files)
    return len(truth), problems


def _wrong_values(number: int, scene: Path, objects: Collection[int]) -> list[str]:
    """The first error that a reader of a scene whose files are all there would make."""
    try:
        read_scene(number, scene, objects, ())
    except BopError as error:
        return [str(error)]
    return []


def _masks(scene: Path, truth: dict[int, list], files: _Sample) -> list[str]:
    """Visible masks: one per instance, or one packed map per image."""
    if truth and truth.keys() <= list_pictures(scene / "instance_map").keys():
        return []
    folder = scene / "mask_visib"
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    wanted = [f"{image:06d}_{row:06d}.png" for image, items in truth.items()
              for row in range(len(items))]
    gone = [name for name in wanted if name not in there]
    files.offer("mask_visib", [folder / name for name in wanted if name in there])
    return [f"{folder}: {len(gone)} of {len(wanted)} masks are not there: {_some(gone)}"] \
        if gone else []


class _Sample:
    """A few of all offered files, spread evenly over each kind's whole list."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._offered: dict[str, list[Path]] = {}

    def offer(self, kind: str, paths: Sequence[Path]) -> None:
        self._offered.setdefault(kind, []).extend(paths)

    def _chosen(self) -> list[Path]:
        return [paths[i * len(paths) // count] for paths in self._offered.values()
                for count in [min(self.size, len(paths))] for i in range(count)]

    @property
    def count(self) -> int:
        """How many are decoded."""
        return len(self._chosen())

    def unreadable(self) -> list[str]:
        """Errors of those that cannot be decoded."""
        texts = []
        for path in self._chosen():
            try:
                bop_files.read_picture(path, cv2.IMREAD_UNCHANGED)
            except BopError as error:
                texts.append(str(error))
        return texts


def _pictures(scene: Path) -> dict[int, Path]:
    return list_pictures(scene / "rgb") or list_pictures(scene / "gray")


def _read(part: Part, source: tuple[str, ...], function: Callable):
    """Result of reading a file, None with a problem noted where that fails."""
    try:
        return function()
    except BopError as error:
        part.problems.append(Problem(str(error), source))
        return None


def _some(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:SHOWN])) + (" ..." if len(items) > SHOWN else "")
