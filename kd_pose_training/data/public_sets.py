"""What the public BOP sets LINEMOD, LM-O and YCB-V consist of, and which archive holds what.

Facts from github.com/thodan/bop_toolkit (dataset_params.py: objects, symmetric objects, scenes)
and the sets' pages at huggingface.co/datasets/bop-benchmark. Nothing here downloads anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SOURCE = "https://huggingface.co/datasets/bop-benchmark"


@dataclass(frozen=True)
class PublicSplit:
    """A folder of scenes. archives: those that hold it, any one is enough; scenes: their numbers;
    optional: no recipe needs it; learnt: the only one of the archives that has pictures besides
    those that are tested on, where recipes learn from these."""

    archives: tuple[str, ...]
    scenes: tuple[int, ...]
    optional: bool = False
    learnt: str = ""


@dataclass(frozen=True)
class PublicSet:
    """One of the sets. add_s: objects that the toolkit measures by ADD-S in "ADD(-S)";
    learns_from: the set whose pictures its recipes learn from, empty for its own."""

    name: str
    title: str
    objects: tuple[int, ...]
    add_s: tuple[int, ...]
    cameras: tuple[str, ...]
    splits: dict[str, PublicSplit]
    learns_from: str = ""

    def for_training(self) -> PublicSet:
        """The set as its recipes need it: with the archives that have pictures to learn from."""
        return replace(self, splits={
            name: replace(split, archives=(split.learnt,)) if split.learnt else split
            for name, split in self.splits.items()})

    @property
    def base(self) -> str:
        """Archive of the camera files and the targets."""
        return f"{self.name}_base.zip"

    @property
    def models(self) -> str:
        """Archive of models and models_eval."""
        return f"{self.name}_models.zip"

    def url(self, archive: str) -> str:
        """Where an archive is."""
        return f"{SOURCE}/{self.name}/resolve/main/{archive}"


def _numbers(*ranges: tuple[int, int]) -> tuple[int, ...]:
    return tuple(number for low, high in ranges for number in range(low, high + 1))


_LMO_OBJECTS = (1, 5, 6, 8, 9, 10, 11, 12)

PUBLIC_SETS = {item.name: item for item in (
    PublicSet("lm", "LINEMOD", _numbers((1, 15)), (3, 7, 10, 11), ("camera.json",), {
        "test": PublicSplit(("lm_test_all.zip", "lm_test_bop19.zip"), _numbers((1, 15)),
                            learnt="lm_test_all.zip"),
        "train_pbr": PublicSplit(("lm_train_pbr.zip",), _numbers((0, 49))),
        "train": PublicSplit(("lm_train.zip",), _numbers((1, 15)), optional=True)}),
    PublicSet("lmo", "LINEMOD-Occluded", _LMO_OBJECTS, (10, 11), ("camera.json",), {
        "test": PublicSplit(("lmo_test_all.zip", "lmo_test_bop19.zip"), (2,)),
        "train": PublicSplit(("lmo_train.zip",), _LMO_OBJECTS, optional=True)},
        learns_from="lm"),
    PublicSet("ycbv", "YCB-Video", _numbers((1, 21)), (1, 13, 14, 16, 18, 19, 20, 21),
              ("camera_uw.json", "camera_cmu.json"), {
        "test": PublicSplit(("ycbv_test_all.zip", "ycbv_test_bop19.zip"), _numbers((48, 59))),
        "train_real": PublicSplit(("ycbv_train_real.zip",), _numbers((0, 47), (60, 91))),
        "train_pbr": PublicSplit(("ycbv_train_pbr.zip",), _numbers((0, 49))),
        "train_synt": PublicSplit(("ycbv_train_synt.zip",), _numbers((0, 79)), optional=True)}),
)}
