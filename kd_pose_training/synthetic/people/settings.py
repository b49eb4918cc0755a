"""What `synth-people` is asked for: frozen dataclasses, read strictly from YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kd_pose_training import strict
from kd_pose_training.synthetic.settings import LookSettings, check, check_range, check_seed


@dataclass(frozen=True)
class PictureSettings:
    """Size in pixels and field of view, top to bottom, in degrees: [smallest, largest]."""

    width: int = 640
    height: int = 480
    field_of_view: tuple[float, float] = (30.0, 72.0)

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            check(64 <= getattr(self, name) <= 4096, name, getattr(self, name), "64 to 4096")
        check_range("field_of_view", self.field_of_view, 5, 120)


@dataclass(frozen=True)
class CrowdSettings:
    """Who is there and how they are looked at. Angles in degrees.

    ``people``: how many, [fewest, most]; fewer is likelier; from 0 on, 15 % of the frames are of
    an empty place. ``whole``, ``half``, ``close``: share of frames in which one person's whole
    body, upper body, or face or hand fills the picture; the rest shows the group. ``elevation``:
    of the camera above what it looks at. ``facing``: share of people who are turned towards the
    camera, by up to 70 degrees aside; the others anywhere. ``furniture``: share of frames with
    things that may hide people. ``outdoors``: share of frames.
    """

    people: tuple[int, int] = (1, 5)
    whole: float = 0.25
    half: float = 0.25
    close: float = 0.15
    elevation: tuple[float, float] = (-10.0, 40.0)
    roll: float = 8.0
    facing: float = 0.75
    furniture: float = 0.5
    outdoors: float = 0.4

    def __post_init__(self) -> None:
        check_range("people", self.people, 0, 20)
        check_range("elevation", self.elevation, -60, 89)
        for name in ("whole", "half", "close", "facing", "furniture", "outdoors"):
            check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
        shown = self.whole + self.half + self.close
        check(shown <= 1, "whole + half + close", shown, "at most 1")
        check(0 <= self.roll <= 180, "roll", self.roll, "0 to 180")


@dataclass(frozen=True)
class LabelSettings:
    """``smallest``: visible pixels a person needs to be listed. ``part_seen``: share of a face's
    or hand's points that must be visible for the part to be labelled; parts with less are invalid
    and all zeros, as those that COCO-WholeBody's annotators did not box."""

    smallest: int = 80
    part_seen: float = 0.2

    def __post_init__(self) -> None:
        check(1 <= self.smallest <= 4096**2, "smallest", self.smallest,
              f"1 to {4096**2} pixels, all of the largest picture")
        check(0 <= self.part_seen <= 1, "part_seen", self.part_seen, "0 to 1")


@dataclass(frozen=True)
class ClipSettings:
    """People of a clip: ``standing`` make gestures, ``walking`` go around them once."""

    standing: int = 2
    walking: int = 1

    def __post_init__(self) -> None:
        check(0 <= self.standing <= 10, "standing", self.standing, "0 to 10")
        check(0 <= self.walking <= 10, "walking", self.walking, "0 to 10")
        check(self.standing + self.walking > 0, "standing + walking", 0, "1 or more")


@dataclass(frozen=True)
class PeopleSettings:
    """One rendered set. ``splits``: name -> number of frames. ``renderer``: as for objects.
    ``clip``: the frames of a split show the same people moving; null: each shows others."""

    splits: dict[str, int] = field(default_factory=lambda: {"train": 8000, "val": 400})
    seed: int = 0
    workers: int = 0
    renderer: Literal["auto", "gl", "rays"] = "auto"
    picture: PictureSettings = field(default_factory=PictureSettings)
    crowd: CrowdSettings = field(default_factory=CrowdSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    look: LookSettings = field(default_factory=lambda: LookSettings(shine=0.15, jpeg_quality=92))
    clip: ClipSettings | None = None

    def __post_init__(self) -> None:
        check(bool(self.splits), "splits", self.splits, "at least one, e.g. train: 8000")
        for name, count in self.splits.items():
            check(name.replace("_", "").isalnum(), "splits", name,
                  "names of letters, digits and _")
            check(1 <= count <= 10**6, f"splits.{name}", count, "1 to 1000000 frames")
        check_seed(self.seed)
        check(0 <= self.workers <= 256, "workers", self.workers, "0 (all cores) to 256")


def load_settings(path: Path, overrides: tuple[str, ...] = ()) -> PeopleSettings:
    """Read a YAML file.

    Raises:
        ConfigError: unknown key, wrong type, or a value that is not allowed.
    """
    return strict.load(PeopleSettings, path, overrides)
