"""Recipe of a whole-body training: frozen dataclasses, read strictly from YAML.

The sibling of ``config.TrainConfig`` for ``task: wholebody``: people in place of objects, crops
around a person, the SimCC networks, and DWPose's two stages. Defaults are those of the published
trainings (RTMPose, DWPose) but for the length, which depends on the data and the machine. Sizes
are pixels, written (width, height).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kd_pose_training.config import OptimConfig, TrainerConfig
from kd_pose_training.data.person_augment import PersonAugment, WeakAugment
from kd_pose_training.distill.wholebody_config import FilePart, StageConfig

STRIDE = 32  # of the backbone
SizeName = Literal["rtmpose_n", "rtmpose_t", "rtmpose_s", "rtmpose_m", "rtmpose_l", "rtmpose_x"]


def _check(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def split_people(entry: str) -> tuple[str, str]:
    """``a:b`` -> (a, b), at the last colon; a missing part comes back empty."""
    first, _, second = entry.rpartition(":")
    return first, second


@dataclass(frozen=True)
class PeopleData:
    """Which people are learned from and how they enter the network.

    ``train`` and ``val`` list sets, which are concatenated and not balanced:
    ``coco:train`` is the split of a folder in COCO-WholeBody's layout
    (``annotations/coco_wholebody_<split>_v1.0.json``; pictures in ``<split>2017``,
    ``images/<split>2017`` or ``images/<split>``), ``UBody:train`` (or ``test``) that of a folder
    in UBody's, and ``file.json:pictures`` an annotation file and the folder of its pictures.
    ``crop_pad``: how much larger than a person's box the crop is. ``only_valid_parts``: labels of
    parts that the annotators marked as unclear do not count. ``label_share``: part of the training
    pictures whose keypoints count as known, chosen for good; of the people in the others the box
    is known, no more. ``unlabelled_share``: part of the samples that is drawn from those others,
    for a teacher to answer; 0 leaves them out. ``mean`` and ``std`` are per channel, in RGB order,
    on the 0..255 scale (ImageNet's). ``check_images``: look at once whether all pictures are
    there.
    """

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    input_size: tuple[int, int] = (192, 256)
    crop_pad: float = 1.25
    only_valid_parts: bool = False
    label_share: float = 1.0
    unlabelled_share: float = 0.0
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    check_images: bool = True
    num_workers: int = 2
    max_val_samples: int = 1000

    def __post_init__(self) -> None:
        _check(len(self.train) > 0, "train", self.train, "at least one set of people")
        for name in ("train", "val"):
            for entry in getattr(self, name):
                _check(all(split_people(entry)), name, entry,
                       "'folder:split' or 'annotations.json:pictures', both parts non-empty")
        _check(all(size >= STRIDE and size % STRIDE == 0 for size in self.input_size),
               "input_size", self.input_size, f"[width, height], multiples of {STRIDE}")
        _check(1.0 <= self.crop_pad <= 5.0, "crop_pad", self.crop_pad, "1 to 5")
        _check(0 < self.label_share <= 1, "label_share", self.label_share, "above 0, at most 1")
        _check(0 <= self.unlabelled_share < 1, "unlabelled_share", self.unlabelled_share,
               "0 to below 1")
        _check(self.label_share < 1 or not self.unlabelled_share, "unlabelled_share",
               self.unlabelled_share, "0 where label_share is 1: everybody has keypoints")
        _check(min(self.std) > 0, "std", self.std, "positive numbers")
        _check(0 <= self.num_workers <= 256, "num_workers", self.num_workers, "0 to 256")
        _check(self.max_val_samples >= 0, "max_val_samples", self.max_val_samples,
               "0 (all) or more")


@dataclass(frozen=True)
class AugmentStages:
    """Random changes: ``strong`` first, ``weak`` in the last part ``weak_share`` of the run."""

    strong: PersonAugment = PersonAugment()
    weak: WeakAugment = WeakAugment()
    weak_share: float = 30 / 270

    def __post_init__(self) -> None:
        _check(0.0 <= self.weak_share <= 1.0, "weak_share", self.weak_share, "0 to 1")


@dataclass(frozen=True)
class SimccModel:
    """The network, and what it starts from.

    ``weights``: checkpoint of a run, its folder, the exported ``.onnx`` of one, or a file of
    MMPose (RTMPose, DWPose; ``part`` says which of the networks in a distiller's file). Empty:
    from the seed. ``backbone_only``: take the backbone alone, such as one that was trained for
    something else.
    """

    size: SizeName = "rtmpose_t"
    weights: str = ""
    part: FilePart = "auto"
    backbone_only: bool = False

    def __post_init__(self) -> None:
        for name in ("part", "backbone_only"):
            value = getattr(self, name)
            _check(bool(self.weights) or value in ("auto", False), name, value,
                   "nothing without weights")


@dataclass(frozen=True)
class WholebodyOptim(OptimConfig):
    """:class:`OptimConfig` with the published settings. ``clip_norm`` 1 is that of distillation;
    RTMPose alone clips nothing (0)."""

    lr: float = 4e-3
    weight_decay: float = 0.05
    schedule: Literal["one_cycle", "flat_cosine"] = "flat_cosine"
    warmup: float = 0.01


@dataclass(frozen=True)
class WholebodyTrainer(TrainerConfig):
    """:class:`TrainerConfig` with the published averaging.

    ``epochs``: length of the run as passes over the people; ``iterations`` is then filled in from
    the data. 0: ``iterations`` says.
    """

    ema_decay: float = 0.9998
    epochs: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0.0 <= self.epochs <= 1e6, "epochs", self.epochs, "0 to 1e+06")


@dataclass(frozen=True)
class WholebodyTrainConfig:
    """One training of a network for 133 keypoints.

    ``distill``: one of DWPose's stages; null: from the labels alone.
    """

    data: PeopleData
    task: Literal["wholebody"] = "wholebody"
    augment: AugmentStages = AugmentStages()
    model: SimccModel = SimccModel()
    optim: WholebodyOptim = WholebodyOptim()
    trainer: WholebodyTrainer = WholebodyTrainer()
    distill: StageConfig | None = None

    def __post_init__(self) -> None:
        second = self.distill is not None and self.distill.stage == 2
        _check(not (second and self.model.weights), "model.weights", self.model.weights,
               "nothing in stage 2, which starts from distill.teacher")
        _check(self.distill is not None or not self.data.unlabelled_share,
               "data.unlabelled_share", self.data.unlabelled_share,
               "0 without distill: only a teacher says something of people without keypoints")
