"""What a split holds, as a short text that changes with its annotations and pictures.

Of the folder's contents alone, not of where it lies or when it was written, so that a copy counts
as the same. Quick even for large sets: of most pictures only names and sizes are read. A picture
of the same size in bytes is noticed only among the few that are read whole; a set that was
rendered or recorded anew differs in them too.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from kd_pose_training.data.bop_files import IMAGE_FOLDERS, MODEL_FOLDERS, numbered_folders
from kd_pose_training.data.coco_people import annotation_path, is_coco
from kd_pose_training.data.people_sets import image_folders

READ_WHOLE = 32  # pictures, spread over the split
_SCENE_FILES = ("scene_gt.json", "scene_gt_info.json", "scene_camera.json")


def split_contents(root: str | Path, split: str) -> str:
    """16 hexadecimal digits of a split of a BOP folder or one in COCO's layout.

    Raises:
        OSError: a file cannot be read.
        ValueError: COCO's annotations are missing.
    """
    root = Path(root)
    annotations, folders = _people(root, split) if is_coco(root) else _objects(root, split)
    pictures = [item for folder in folders for item in _sizes(folder)]
    digest = hashlib.sha256()
    for path in annotations:
        digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    for path, size in pictures:
        digest.update(f"{path.relative_to(root)} {size}\n".encode())
    count = min(READ_WHOLE, len(pictures))
    for i in range(count):
        digest.update(pictures[i * len(pictures) // count][0].read_bytes())
    return digest.hexdigest()[:16]


def _objects(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Annotation files and folders of pictures."""
    folder, _, listing = split.partition("@")
    scenes = [scene for _, scene in numbered_folders(root / folder)]
    files = [root / name / "models_info.json" for name in MODEL_FOLDERS]
    files += [root / listing.removeprefix("!")] if listing else []
    files += [scene / name for scene in scenes for name in _SCENE_FILES]
    return ([path for path in files if path.is_file()],
            [scene / name for scene in scenes for name in (*IMAGE_FOLDERS, "instance_map")])


def _people(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    return [annotation_path(root, split)], [*image_folders(root, split), root / split]


def _sizes(folder: Path) -> list[tuple[Path, int]]:
    """Files below a folder, if there is one, with their sizes in bytes, by name."""
    return sorted((path, path.stat().st_size)
                  for parent, _, names in os.walk(folder)
                  for path in (Path(parent, name) for name in names))
