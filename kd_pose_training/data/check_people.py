"""What is missing in a download of COCO-WholeBody or UBody, and where it is to be had.

Everything that the annotation files announce is looked for; of the pictures a few are decoded.
Nothing is downloaded or changed. Sources: github.com/jin-s13/COCO-WholeBody, cocodataset.org,
github.com/IDEA-Research/OSX (UBody).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kd_pose_training.data.check_bop import Part, Problem
from kd_pose_training.data.coco_files import WholebodyDataError
from kd_pose_training.data.coco_wholebody import (
    UBODY_EVERY,
    PersonTable,
    missing_pictures,
    read_coco_wholebody,
)
from kd_pose_training.data.people_sets import image_folders

COCO, UBODY = "coco", "ubody"
TITLES = {COCO: "COCO-WholeBody", UBODY: "UBody"}
COCO_SPLITS = ("train", "val")
ANNOTATIONS = "https://github.com/jin-s13/COCO-WholeBody (the annotations' download)"
PICTURES = "http://images.cocodataset.org/zips/{}2017.zip"
UBODY_SOURCE = ("https://github.com/IDEA-Research/OSX (UBody: annotations, splits, and videos, "
                "whose frames are cut out by its own script)")
SCENES = ("ConductMusic", "Entertainment", "Fitness", "Interview", "LiveVlog", "Magic_show",
          "Movie", "Olympic", "Online_class", "SignLanguage", "Singing", "Speech", "TVShow",
          "TalkShow", "VideoConference")


def kind_of_people(root: str | Path) -> str | None:
    """``coco`` or ``ubody``, by the name of a folder or what lies in it; None: neither."""
    root = Path(root)
    name = root.resolve().name.lower().replace("-", "_")
    if any(root.glob("annotations/*/keypoint_annotation.json")) or name == UBODY:
        return UBODY
    if any(root.glob("annotations/coco_wholebody_*.json")) or name in (COCO, "coco_wholebody"):
        return COCO
    return None


def check_people(root: str | Path, kind: str, *, splits: Sequence[str] = (),
                 samples: int = 10) -> list[Part]:
    """Check a folder in COCO-WholeBody's or UBody's layout.

    Args:
        splits: of COCO-WholeBody, or scenes of UBody; empty: all that the set should have, or of
            a set of one's own those that are there.
        samples: pictures of each split or scene that are decoded.

    Raises:
        WholebodyDataError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        sources = (UBODY_SOURCE,) if kind == UBODY else (ANNOTATIONS, PICTURES.format("train"),
                                                         PICTURES.format("val"))
        raise WholebodyDataError(f"{root}: no such folder; {TITLES[kind]} is at "
                                 + ", ".join(sources))
    if kind == UBODY:
        return [_ubody_splits(root), *(_scene(root, name, samples) for name in splits or SCENES)]
    there = [path.name.removeprefix("coco_wholebody_").removesuffix("_v1.0.json")
             for path in sorted(root.glob("annotations/coco_wholebody_*_v1.0.json"))]
    own = not set(there) <= set(COCO_SPLITS)
    return [_coco_split(root, name, samples) for name in splits or (there if own else COCO_SPLITS)]


def _coco_split(root: Path, name: str, samples: int) -> Part:
    path = root / f"annotations/coco_wholebody_{name}_v1.0.json"
    folders = image_folders(root, name)
    images = next((folder for folder in folders if folder.is_dir()), None)
    part = Part(name)
    if images is None:
        part.problems.append(Problem(
            f"{root}: no pictures of {name}; looked for "
            + ", ".join(str(folder.relative_to(root)) for folder in folders),
            (PICTURES.format(name),)))
    _check_file(part, path, images or folders[0], samples, ANNOTATIONS, PICTURES.format(name),
                pictures=images is not None)
    return part


def _scene(root: Path, name: str, samples: int) -> Part:
    part = Part(name)
    images = root / "images" / name
    if not images.is_dir():
        part.problems.append(Problem(f"{images}: no such folder", (UBODY_SOURCE,)))
    _check_file(part, root / "annotations" / name / "keypoint_annotation.json", images, samples,
                UBODY_SOURCE, UBODY_SOURCE, every=UBODY_EVERY, pictures=images.is_dir())
    return part


def _ubody_splits(root: Path) -> Part:
    part, path = Part("splits"), root / "splits/intra_scene_test_list.npy"
    try:
        part.summary = f"{len(np.load(path, allow_pickle=False))} videos for testing"
    except FileNotFoundError:
        part.problems.append(Problem(f"{path}: no such file", (UBODY_SOURCE,)))
    except (OSError, ValueError, EOFError) as error:
        part.problems.append(Problem(f"{path}: is no array of names: {error}", (UBODY_SOURCE,)))
    return part


def _check_file(part: Part, path: Path, images: Path, samples: int, annotations_at: str,
                pictures_at: str, *, every: int = 1, pictures: bool = True) -> None:
    """Read one annotation file, look for all of its pictures with people, decode a few."""
    try:
        table = read_coco_wholebody(path, images, every=every, check_images=False)
    except ValueError as error:
        part.problems.append(Problem(str(error), (annotations_at,)))
        return
    part.summary = table.describe()
    if not pictures:
        return
    missing = missing_pictures(table)
    if missing:
        part.problems.append(Problem(f"{images}: {len(missing)} of {len(table.image_id)} pictures "
                                     f"with people are missing, the first is {missing[0].name}",
                                     (pictures_at,)))
        return
    broken = _broken(table, samples)
    part.problems += [Problem(text, (pictures_at,)) for text in broken]
    part.summary += f", {min(samples, len(table.image_id))} pictures decoded"


def _broken(table: PersonTable, samples: int) -> list[str]:
    """What is wrong with some of the pictures, spread evenly."""
    total = len(table.image_id)
    count, texts = min(samples, total), []
    for row in range(count):
        try:
            table.load_image(row * total // count)
        except ValueError as error:
            texts.append(str(error))
    return texts
