"""Which images of a BOP split are wanted, and which of their objects are to be found.

Format of the files: test_targets_bop19.json of github.com/thodan/bop_toolkit, a list of
``{scene_id, im_id, obj_id, inst_count}``; a list of images alone has no ``obj_id``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_pose_training.data.bop_files import BopError, numbers, read_json

TARGETS_FILE = "test_targets_bop19.json"


@dataclass(frozen=True)
class TargetList:
    """Images that a file names. counts: instances to be found, by (scene, image) and object; no
    objects where the file names images alone. others: the wanted images are all others."""

    path: Path
    counts: Mapping[tuple[int, int], Mapping[int, int]]
    others: bool = False
    _scenes: dict[int, set[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scenes: dict[int, set[int]] = {}
        for scene_id, im_id in self.counts:
            scenes.setdefault(scene_id, set()).add(im_id)
        object.__setattr__(self, "_scenes", scenes)

    @property
    def objects(self) -> Mapping[tuple[int, int], Mapping[int, int]]:
        """``counts`` where they say what is to be found in the wanted images, else empty."""
        named = not self.others and all(self.counts.values())
        return self.counts if named else {}

    def check_scenes(self, known: Collection[int], folder: Path) -> None:
        """Raises BopError if a wanted scene is not there."""
        missing = self._scenes.keys() - set(known)
        if missing and not self.others:
            raise BopError(f"{self.path}: scene {min(missing)} is not in {folder}")

    def choose(self, scene_id: int, images: Collection[int], path: Path) -> set[int]:
        """The wanted ones of a scene's images; BopError if a named image is not among them."""
        named = self._scenes.get(scene_id, set())
        if self.others:
            return set(images) - named
        if named - set(images):
            raise BopError(f"{path}: scene {scene_id}: image {min(named - set(images))} is "
                           "missing, which is a target")
        return named

    def skips(self, scene_id: int) -> bool:
        """Whether a scene need not be read at all."""
        return not self.others and scene_id not in self._scenes


def read_targets(path: Path, others: bool = False) -> TargetList:
    """Targets of a file.

    Raises:
        BopError: missing, or an entry lacks a number or names an object twice.
    """
    counts: dict[tuple[int, int], dict[int, int]] = {}
    for i, item in enumerate(read_json(path, list)):
        where = f"{path}: entry {i}"
        scene, image = (int(numbers(item, key, 1, where)[0]) for key in ("scene_id", "im_id"))
        found = counts.setdefault((scene, image), {})
        if "obj_id" not in item:
            continue
        obj_id = int(numbers(item, "obj_id", 1, where)[0])
        if obj_id in found:
            raise BopError(f"{where}: object {obj_id} of scene {scene}, image {image} is already "
                           "in the list")
        count = numbers(item, "inst_count", 1, where)[0] if "inst_count" in item else 1
        found[obj_id] = int(count)
    return TargetList(path, counts, others)


def targets_file(root: Path, split: str, wanted: str | None) -> str | None:
    """Name of the targets file to be used: ``none`` or a name as asked for; by default BOP's for
    test splits, where it is there and the split has no list of its own."""
    if wanted is not None:
        return None if wanted == "none" else wanted
    usual = "@" not in split and split.startswith("test") and (root / TARGETS_FILE).is_file()
    return TARGETS_FILE if usual else None


def wanted_instances(targets: Mapping[tuple[int, int], Mapping[int, int]], frame: Any,
                     min_visib: float) -> dict[int, list[Any]]:
    """Instances of a frame that are to be found, by object, the most visible first.

    As many of the most visible ones as the targets say; without targets all that are at least
    ``min_visib`` visible.
    """
    counts = targets.get((frame.scene_id, frame.im_id), {})
    found: dict[int, list[Any]] = {}
    for item in sorted(frame.instances, key=lambda item: -item.visib_fract):
        if targets:
            wanted = len(found.get(item.obj_id, ())) < counts.get(item.obj_id, 0)
        else:
            wanted = item.visib_fract >= min_visib
        if wanted:
            found.setdefault(item.obj_id, []).append(item)
    return found


def split_listing(root: Path, split: str) -> tuple[str, TargetList | None]:
    """``test@list.json`` -> folder and the images that ``root/list.json`` names; ``@!list.json``:
    all others."""
    folder, at, name = split.partition("@")
    if not at:
        return folder, None
    others = name.startswith("!")
    if not name.lstrip("!"):
        raise BopError(f"{root}: split {split!r}: after '@' the name of a targets file is "
                       f"expected, e.g. {folder}@{TARGETS_FILE}")
    return folder, read_targets(root / name[others:], others)
