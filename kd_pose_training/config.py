"""Configuration of a training run: frozen dataclasses, read strictly from YAML.

One file describes one run completely (data, augmentation, network, loss, optimiser, trainer).
``load_config`` refuses unknown keys and wrong types and names file, key path, value and what is
allowed; ``save_config`` writes what ``load_config`` reads back to an equal object. Sizes are
pixels, written (width, height).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kd_pose_training import strict
from kd_pose_training.distill.config import AlignTerm, DistillConfig

DEFAULT_STRIDES = {"darknet53": (8, 16, 32, 64, 128),
                   "darknet_tiny": (8, 16, 32, 64),
                   "darknet_tiny_h": (8, 16, 32, 64),
                   "resnet34_dense": (2,),
                   "dense_tiny": (2,),
                   "dense_tiny_h": (4,)}
DENSE_SIZES = ("resnet34_dense", "dense_tiny", "dense_tiny_h")


def _check(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    _check(low <= value <= high, name, value, f"{low} to {high}")


@dataclass(frozen=True)
class LabelNoise:
    """Errors on the poses of training pictures: standard deviations of normal distributions.

    ``rotation_deg``: angle of a turn about a random axis through the object's origin (root mean
    square). ``across``, ``depth``: of the origin's place along each axis across the line of sight
    and along it, in object diameters.
    """

    rotation_deg: float = 0.0
    across: float = 0.0
    depth: float = 0.0

    def __post_init__(self) -> None:
        _check_range("rotation_deg", self.rotation_deg, 0.0, 90.0)
        _check_range("across", self.across, 0.0, 1.0)
        _check_range("depth", self.depth, 0.0, 1.0)


@dataclass(frozen=True)
class DataConfig:
    """Which pictures are learned from and how they enter the network.

    ``train`` and ``val`` list BOP split folders as ``root:split``, e.g. ``data/objects:train``;
    ``data/bop/lm:test@list.json`` takes the images that ``data/bop/lm/list.json`` names,
    ``test@!list.json`` all others. ``train_shares`` weighs the entries of ``train``: how large a
    part of the samples is drawn from each; null draws every sample equally often.
    ``objects`` names the classes in the order of the network's outputs; empty means all objects
    of the first training folder, by their number. ``mean`` and ``std`` are per channel, in RGB
    order, on the 0..255 scale (the defaults are ImageNet's). ``variants``: so many fixed changes
    of every training picture, for which a teacher's answers can be kept; 0 draws new ones.
    ``label_noise``: errors put on the poses of the training pictures, for experiments; null: none.
    ``pose_share``: part of the training frames whose poses count as known, chosen for good; of
    the others only regions and boxes are used, and a teacher's votes (``object_votes`` only).
    ``unposed_share``: part of the samples that is drawn from those others; 0 leaves them out.
    """

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    train_shares: tuple[float, ...] | None = None
    objects: tuple[str, ...] = ()
    input_size: tuple[int, int] = (256, 256)
    crop_pad: float = 1.5
    min_visib: float = 0.1
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    cells_per_instance: int = 10
    symmetry_step_deg: float = 15.0
    cache: Literal["none", "ram"] = "none"
    num_workers: int = 2
    max_val_samples: int = 200
    variants: int = 0
    label_noise: LabelNoise | None = None
    pose_share: float = 1.0
    unposed_share: float = 0.5

    def __post_init__(self) -> None:
        _check(len(self.train) > 0, "train", self.train, "at least one 'root:split'")
        for name in ("train", "val"):
            for entry in getattr(self, name):
                _check(all(split_folder(entry)), name, entry, "'root:split', both non-empty")
        if self.train_shares is not None:
            _check(len(self.train_shares) == len(self.train) and min(self.train_shares) > 0
                   and max(self.train_shares) < float("inf"), "train_shares", self.train_shares,
                   f"null, or {len(self.train)} positive numbers, one for each entry of train")
        _check(len(set(self.objects)) == len(self.objects), "objects", self.objects,
               "each name once")
        _check(min(self.input_size) >= 32, "input_size", self.input_size,
               "[width, height], each at least 32")
        _check_range("crop_pad", self.crop_pad, 1.0, 5.0)
        _check_range("min_visib", self.min_visib, 0.0, 1.0)
        _check(min(self.std) > 0, "std", self.std, "positive numbers")
        _check_range("cells_per_instance", self.cells_per_instance, 1, 1000)
        _check_range("symmetry_step_deg", self.symmetry_step_deg, 1.0, 180.0)
        _check_range("num_workers", self.num_workers, 0, 256)
        _check_range("max_val_samples", self.max_val_samples, 0, 10**9)
        _check_range("variants", self.variants, 0, 10000)
        _check(0 < self.pose_share <= 1, "pose_share", self.pose_share, "above 0, at most 1")
        _check(0 <= self.unposed_share < 1, "unposed_share", self.unposed_share, "0 to below 1")
        _check(self.pose_share == 1 or self.train_shares is None, "train_shares",
               self.train_shares, "null where pose_share is below 1: samples are drawn from "
               "frames with and without poses as unposed_share says")


def split_folder(entry: str) -> tuple[str, str]:
    """``root:split`` -> (root, split); a missing part comes back empty."""
    root, _, split = entry.rpartition(":")
    return root, split


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training pictures. A strength of 0 switches an effect off.

    ``zoom``: factor on the crop side (object_votes) or on the whole frame (object_detector).
    ``shift``: largest move of the crop centre, as a part of the box size.
    ``rotate_deg``: largest rotation in the image plane.
    ``brightness``/``contrast``/``saturation``: largest relative change; ``hue``: in degrees.
    ``noise``: largest standard deviation, 0..255 scale. ``blur``: largest Gaussian sigma, pixels.
    ``jpeg``: lowest quality (0 = off). ``cutout``: chance of grey or noisy rectangles.
    ``probability``: chance of each colour effect. No mirroring: it would break poses.
    """

    zoom: tuple[float, float] = (0.75, 1.25)
    shift: float = 0.25
    rotate_deg: float = 0.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 10.0
    noise: float = 8.0
    blur: float = 1.2
    jpeg: int = 0
    cutout: float = 0.2
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(0.1 <= self.zoom[0] <= self.zoom[1] <= 10.0, "zoom", self.zoom,
               "[low, high] with 0.1 <= low <= high <= 10")
        _check_range("shift", self.shift, 0.0, 1.0)
        _check_range("rotate_deg", self.rotate_deg, 0.0, 180.0)
        for name in ("brightness", "contrast", "saturation", "cutout", "probability"):
            _check_range(name, getattr(self, name), 0.0, 1.0)
        _check_range("hue", self.hue, 0.0, 180.0)
        _check_range("noise", self.noise, 0.0, 128.0)
        _check_range("blur", self.blur, 0.0, 20.0)
        _check_range("jpeg", self.jpeg, 0, 100)


@dataclass(frozen=True)
class ModelConfig:
    """Size and shape of the network.

    ``strides``: pyramid levels used, in pixels; empty means all that the size offers (8..128 for
    the teacher, 8..64 for the students). Leaving out 8 saves most of the head's arithmetic.
    ``fpn_channels`` 0 means the size's own width. ``num_classes``, ``num_keypoints`` and
    ``code_bits`` left empty are filled in from the data and the task. The dense sizes
    (``resnet34_dense``, ``dense_tiny``, ``dense_tiny_h``) know of these settings only the size,
    ``num_classes``, ``code_bits`` and ``weights``; their one stride is that of the output.
    ``weights``: what to start from, a checkpoint, the exported ``.onnx`` of a vote network, or a
    ResNet-34 as torchvision saves it; layers of another shape start anew.
    """

    size: Literal["darknet53", "darknet_tiny", "darknet_tiny_h", "resnet34_dense",
                  "dense_tiny", "dense_tiny_h"] = "darknet_tiny_h"
    strides: tuple[int, ...] = ()
    head_depth: int = 4
    fpn_channels: int = 0
    anchor_scale: float = 4.0
    num_classes: int | None = None
    num_keypoints: int | None = None
    code_bits: int | None = None
    weights: str = ""

    def __post_init__(self) -> None:
        allowed = DEFAULT_STRIDES[self.size]
        strides = self.strides or allowed
        first = allowed.index(strides[0]) if strides[0] in allowed else -1
        _check(first >= 0 and tuple(strides) == allowed[first:first + len(strides)], "strides",
               self.strides, f"neighbouring members of {list(allowed)} for {self.size}, rising")
        object.__setattr__(self, "strides", tuple(strides))
        _check_range("head_depth", self.head_depth, 0, 8)
        _check(self.fpn_channels >= 0 and self.fpn_channels % 32 == 0, "fpn_channels",
               self.fpn_channels, "0 or a multiple of 32 (GroupNorm has 32 groups)")
        _check_range("anchor_scale", self.anchor_scale, 0.5, 32.0)
        if self.num_classes is not None:
            _check_range("num_classes", self.num_classes, 1, 10000)
        if self.num_keypoints is not None:
            _check_range("num_keypoints", self.num_keypoints, 2, 1000)
        if self.code_bits is not None:
            _check_range("code_bits", self.code_bits, 1, 20)

    @property
    def is_dense(self) -> bool:
        """Whether the size gives surface codes."""
        return self.size in DENSE_SIZES


@dataclass(frozen=True)
class LossConfig:
    """Weights and shapes of the loss terms.

    ``knee``: error, relative to the object's diameter (poses) or box (detector), below which the
    regression loss is quadratic. ``normaliser``: ``positives`` divides both terms by the number of
    positive cells in the batch; ``sum`` leaves plain sums, as in the published recipe.
    """

    class_weight: float = 0.1
    vote_weight: float = 1.0
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25
    knee: float = 0.02
    normaliser: Literal["positives", "sum"] = "positives"

    def __post_init__(self) -> None:
        for name in ("class_weight", "vote_weight", "focal_gamma"):
            _check_range(name, getattr(self, name), 0.0, 1e4)
        _check_range("focal_alpha", self.focal_alpha, 0.0, 1.0)
        _check_range("knee", self.knee, 1e-6, 10.0)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss term by its name."""
        return {"class": self.class_weight, "vote": self.vote_weight}


@dataclass(frozen=True)
class CodesConfig:
    """Surface codes of the task ``object_codes``, and the weights of its loss terms.

    ``surface_samples``: points of each object's surface that its codes are built from; at least
    one, better four, for each of the 2^bits codes. ``code_mask``: where codes are learnt:
    ``visible`` is the true mask, averaged over its pixels; ``predicted`` the network's own mask,
    averaged over all pixels, as in the published code.
    """

    surface_samples: int = 2**18
    mask_weight: float = 1.0
    code_weight: float = 3.0
    code_mask: Literal["visible", "predicted"] = "visible"

    def __post_init__(self) -> None:
        _check_range("surface_samples", self.surface_samples, 2, 10**8)
        for name in ("mask_weight", "code_weight"):
            _check_range(name, getattr(self, name), 0.0, 1e4)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss term by its name."""
        return {"mask": self.mask_weight, "code": self.code_weight}


@dataclass(frozen=True)
class OptimConfig:
    """AdamW. ``lr`` is the peak; norms and biases do not decay.

    ``schedule`` ``one_cycle``: up during ``warmup`` (a part of the run), then down to nearly
    nothing, as ``anneal`` says. ``flat_cosine``: up linearly during ``warmup``, flat until the
    part ``flat`` of the run, then half a cosine down to ``final_lr`` times ``lr`` (RTMPose).
    """

    lr: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["one_cycle", "flat_cosine"] = "one_cycle"
    warmup: float = 0.05
    anneal: Literal["linear", "cos"] = "linear"
    flat: float = 0.5
    final_lr: float = 0.05
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        _check(0 < self.lr <= 1, "lr", self.lr, "above 0, at most 1")
        _check_range("weight_decay", self.weight_decay, 0.0, 1.0)
        _check(all(0 <= beta < 1 for beta in self.betas), "betas", self.betas, "0 to below 1")
        _check_range("warmup", self.warmup, 0.0, 0.9)
        if self.schedule == "flat_cosine":
            _check_range("flat", self.flat, self.warmup, 1.0)
        _check_range("final_lr", self.final_lr, 0.0, 1.0)
        _check_range("clip_norm", self.clip_norm, 0.0, 1e6)


@dataclass(frozen=True)
class TrainerConfig:
    """How the loop runs. Intervals count iterations; 0 switches one off (last one excepted).

    ``precision`` ``auto``: bf16 where the device computes it quickly, else fp32. ``batch_size``
    counts samples over all processes. ``device`` ``auto``: the GPU when there is one.
    ``threads`` 0 leaves torch's own choice.
    """

    iterations: int = 10000
    batch_size: int = 16
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    threads: int = 0
    ema_decay: float = 0.999
    log_every: int = 20
    validate_every: int = 1000
    checkpoint_every: int = 500
    progress_bar: bool = True
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _check_range("iterations", self.iterations, 1, 10**9)
        _check_range("batch_size", self.batch_size, 1, 65536)
        _check_range("seed", self.seed, 0, 2**31 - 1)
        _check_range("threads", self.threads, 0, 1024)
        _check(0.0 <= self.ema_decay < 1.0, "ema_decay", self.ema_decay, "0 to below 1 (0 = off)")
        _check_range("log_every", self.log_every, 1, 10**9)
        for name in ("validate_every", "checkpoint_every"):
            _check_range(name, getattr(self, name), 0, 10**9)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    ``object_votes`` votes for the eight corners of each object's 3D box, on crops around one
    object; ``object_detector`` votes for the two corners of its 2D box, on the whole frame;
    ``object_codes`` gives every pixel of a crop a mask score and a surface code (section
    ``codes`` in place of ``loss``). ``distill``: learn from a teacher as well; null: from the
    truth alone.
    """

    data: DataConfig
    task: Literal["object_votes", "object_detector", "object_codes"] = "object_votes"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    codes: CodesConfig = field(default_factory=CodesConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    distill: DistillConfig | None = None

    def __post_init__(self) -> None:
        _check(self.model.is_dense == (self.task == "object_codes"), "model.size",
               self.model.size, f"for the task {self.task} one of " + ", ".join(
                   size for size in DEFAULT_STRIDES
                   if (size in DENSE_SIZES) == (self.task == "object_codes")))
        _check(self.task == "object_votes" or self.data.pose_share == 1, "data.pose_share",
               self.data.pose_share, f"1 for the task {self.task}")
        if self.task == "object_codes":
            self._check_codes()
        else:
            self._check_votes()
        _check(self.distill is None or not self.distill.cache or self.data.variants > 0,
               "distill.cache", self.distill and self.distill.cache,
               "a folder only with data.variants of 1 or more: answers are kept for those")
        if self.data.objects and self.model.num_classes is not None:
            _check(self.model.num_classes == len(self.data.objects), "model.num_classes",
                   self.model.num_classes, f"{len(self.data.objects)}, as data.objects has names")

    def _check_votes(self) -> None:
        expected = 8 if self.task == "object_votes" else 2
        if self.model.num_keypoints is None:
            model = dataclasses.replace(self.model, num_keypoints=expected)
            object.__setattr__(self, "model", model)
        _check(self.model.num_keypoints == expected, "model.num_keypoints",
               self.model.num_keypoints, f"{expected} for the task {self.task}")
        _check(self.codes == CodesConfig() and self.model.code_bits is None, "codes", self.codes,
               f"no settings of codes (nor model.code_bits) for the task {self.task}")
        grid = getattr(self.distill and self.distill.align, "grid", AlignTerm.grid)
        _check(grid == AlignTerm.grid, "distill.align.grid", grid, "set for object_codes only")

    def _check_codes(self) -> None:
        if self.model.code_bits is None:
            object.__setattr__(self, "model", dataclasses.replace(self.model, code_bits=16))
        plain = ModelConfig(self.model.size)
        for name in ("head_depth", "fpn_channels", "anchor_scale", "num_keypoints"):
            _check(getattr(self.model, name) == getattr(plain, name), f"model.{name}",
                   getattr(self.model, name), "nothing, as the dense sizes have none")
        _check(self.loss == LossConfig(), "loss", self.loss,
               "no settings for the task object_codes; its weights are in the section codes")
        _check(not any(size % 16 for size in self.data.input_size), "data.input_size",
               self.data.input_size, "multiples of 16 for the task object_codes")
        codes = 2 ** self.model.code_bits
        _check(self.codes.surface_samples >= codes, "codes.surface_samples",
               self.codes.surface_samples, f"at least {codes} for {self.model.code_bits} bits")
        # Batch norm of the image-wide average has one number per image and channel.
        _check(self.trainer.batch_size > 1, "trainer.batch_size", self.trainer.batch_size,
               "2 or more for the task object_codes")
        align = self.distill and self.distill.align
        _check(getattr(align, "student", AlignTerm.student) == AlignTerm.student,
               "distill.align.student", getattr(align, "student", None),
               "nothing for the task object_codes: every visible pixel answers")
        trust = getattr(align, "trust", 0.0)
        _check(not trust, "distill.align.trust", trust, "0 for the task object_codes: trust is "
               "the spread of several votes for one keypoint, and a pixel has a single answer")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training configuration; ``overrides`` are ``a.b=value`` texts."""
    return strict.load(TrainConfig, path, overrides)


def from_dict(data: dict, source: str = "configuration") -> TrainConfig:
    """Configuration from plain data, such as a checkpoint's ``config``."""
    return strict.from_dict(TrainConfig, data, source)


def to_dict(config: TrainConfig) -> dict:
    """Plain data of a configuration, for YAML, JSON and checkpoints."""
    return strict.to_dict(config)


def save_config(config: TrainConfig, path: str | Path) -> None:
    """Write the configuration as YAML."""
    strict.save(config, path)
