"""Opens a split for the object tasks by what lies in its folder: BOP's layout or COCO's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from kd_pose_training.data.coco_people import CocoPeople, is_coco

if TYPE_CHECKING:
    from kd_pose_training.data.bop import BopDataset


def open_split(root: str, split: str,
               objects: Collection[str] = ()) -> BopDataset | CocoPeople:
    """A folder with ``annotations`` holds people in COCO's layout, any other is one of BOP's.

    Args:
        objects: names of the wanted classes; empty: all.

    Raises:
        ValueError: the folder cannot be read; see the two classes.
    """
    if is_coco(root):
        return CocoPeople(root, split, objects=objects or None)
    from kd_pose_training.data.bop import BopDataset
    return BopDataset(root, split, objects=tuple(objects) or None)


def holds_people(datasets: Sequence[Any]) -> bool:
    """Whether the splits hold people.

    Raises:
        ValueError: some do and some do not.
    """
    kinds = {isinstance(dataset, CocoPeople) for dataset in datasets}
    if len(kinds) > 1:
        people = ", ".join(f"{d.root}:{d.split}" for d in datasets if isinstance(d, CocoPeople))
        raise ValueError(f"data.train: {people} hold people in COCO's layout, the others are "
                         "BOP folders; a network learns from one kind")
    return kinds == {True}
