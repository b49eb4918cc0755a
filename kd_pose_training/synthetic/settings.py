"""What `synth-objects` is asked for: frozen dataclasses, read strictly from YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kd_pose_training import strict

FARTHEST = 100000  # pixels, of a camera's numbers; beyond, nothing of a scene is in the picture


def check(good: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a setting, in words, unless it is good."""
    if not good:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def check_seed(seed: int) -> None:
    """Refuse a seed that a training would not take either."""
    check(0 <= seed < 2**31, "seed", seed, f"0 to {2**31 - 1}")


def check_range(name: str, value: tuple[float, float], low: float, high: float) -> None:
    """Refuse a range that is not one, or that leaves low..high."""
    check(low <= value[0] <= value[1] <= high, name, value,
          f"[smallest, largest] within {low} to {high}")


@dataclass(frozen=True)
class ContinuousSymmetry:
    """Any turn about ``axis`` through ``offset`` (mesh frame, metres)."""

    axis: tuple[float, float, float]
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class MeshEntry:
    """One object of an objects.yaml. ``mesh`` is relative to that file. ``symmetries_discrete``:
    4x4 matrices by rows, in the mesh frame and metres (after ``scale``)."""

    name: str
    mesh: str
    scale: float = 1.0
    symmetries_discrete: tuple[tuple[float, ...], ...] = ()
    symmetries_continuous: tuple[ContinuousSymmetry, ...] = ()

    def __post_init__(self) -> None:
        check(bool(self.name.strip()), "name", self.name, "a non-empty text")
        check(self.scale > 0, "scale", self.scale, "a positive number")
        for item in self.symmetries_discrete:
            check(len(item) == 16, "symmetries_discrete", item, "lists of 16 numbers (4x4)")


@dataclass(frozen=True)
class ObjectsFile:
    """All of an objects.yaml."""

    objects: tuple[MeshEntry, ...]

    def __post_init__(self) -> None:
        names = [item.name for item in self.objects]
        check(bool(names), "objects", self.objects, "at least one")
        check(len(set(names)) == len(names), "objects", names, "each name once")


@dataclass(frozen=True)
class CameraSettings:
    """The pinhole camera, pixels (centres at integers). ``focal_jitter``: share by which the
    focal lengths vary from frame to frame."""

    width: int = 640
    height: int = 480
    fx: float = 600.0
    fy: float = 600.0
    cx: float = 319.5
    cy: float = 239.5
    focal_jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            check(32 <= getattr(self, name) <= 4096, name, getattr(self, name), "32 to 4096")
        for name in ("fx", "fy"):
            check(1 < getattr(self, name) <= FARTHEST, name, getattr(self, name),
                  f"above 1 to {FARTHEST} pixels")
        for name in ("cx", "cy"):
            check(abs(getattr(self, name)) <= FARTHEST, name, getattr(self, name),
                  f"{-FARTHEST} to {FARTHEST}")
        check(0 <= self.focal_jitter <= 0.5, "focal_jitter", self.focal_jitter, "0 to 0.5")


@dataclass(frozen=True)
class SceneSettings:
    """What stands in a scene. Lengths in metres, angles in degrees.

    ``resting``: share of scenes in which objects stand or lie on a table; in the others they float
    in all orientations. ``upright``: share of the objects on a table that stand as their meshes do
    (z up); the others rest on any side. ``instances``: how many objects, drawn with repetition.
    ``clutter``: how many things of other shapes, which may hide the objects. ``elevation``: camera
    above the table. ``path``: ``none`` draws every frame anew, ``orbit`` moves the camera around
    one scene.
    """

    resting: float = 0.6
    upright: float = 0.0
    instances: tuple[int, int] = (3, 8)
    clutter: tuple[int, int] = (0, 6)
    distance: tuple[float, float] = (0.45, 1.2)
    elevation: tuple[float, float] = (15.0, 85.0)
    roll: float = 20.0
    spread: float = 0.28
    path: Literal["none", "orbit"] = "none"

    def __post_init__(self) -> None:
        check(0 <= self.resting <= 1, "resting", self.resting, "0 to 1")
        check(0 <= self.upright <= 1, "upright", self.upright, "0 to 1")
        check_range("instances", self.instances, 1, 60)
        check_range("clutter", self.clutter, 0, 60)
        check_range("distance", self.distance, 0.05, 20)
        check_range("elevation", self.elevation, 1, 90)
        check(0 <= self.roll <= 180, "roll", self.roll, "0 to 180")
        check(0.01 <= self.spread <= 5, "spread", self.spread, "0.01 to 5")


@dataclass(frozen=True)
class LookSettings:
    """Light, materials, camera faults. Each is the largest change; 0 switches it off.

    ``colour``: change of the objects' own colours; ``blur``: sigma in pixels; ``noise``: sigma in
    grey levels. ``backgrounds``: folder with pictures for walls and tables; without it they are
    made up.
    """

    colour: float = 0.15
    light: float = 0.5
    shine: float = 0.6
    blur: float = 1.0
    noise: float = 4.0
    vignette: float = 0.25
    jpeg_quality: int = 95
    backgrounds: Path | None = None

    def __post_init__(self) -> None:
        for name in ("colour", "light", "shine", "vignette"):
            check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
        for name in ("blur", "noise"):
            check(0 <= getattr(self, name) <= 50, name, getattr(self, name), "0 to 50")
        check(50 <= self.jpeg_quality <= 100, "jpeg_quality", self.jpeg_quality, "50 to 100")


@dataclass(frozen=True)
class SynthSettings:
    """One rendered set. ``splits``: name -> number of frames; frames are kept in folders
    (BOP scenes) of ``frames_per_scene``. ``renderer``: ``gl`` needs EGL, ``rays`` (embreex) works
    everywhere, ``auto`` takes gl where there is EGL."""

    splits: dict[str, int] = field(default_factory=lambda: {"train": 4000, "val": 200})
    frames_per_scene: int = 50
    seed: int = 0
    workers: int = 0
    renderer: Literal["auto", "gl", "rays"] = "auto"
    camera: CameraSettings = field(default_factory=CameraSettings)
    scene: SceneSettings = field(default_factory=SceneSettings)
    look: LookSettings = field(default_factory=LookSettings)

    def __post_init__(self) -> None:
        check(bool(self.splits), "splits", self.splits, "at least one, e.g. train: 4000")
        for name, count in self.splits.items():
            check(name.replace("_", "").isalnum() and not name.startswith("models"), "splits",
                  name, "names of letters, digits and _ that do not begin with models")
            check(1 <= count <= 10**7, f"splits.{name}", count, "1 to 10000000 frames")
        check(1 <= self.frames_per_scene <= 100000, "frames_per_scene", self.frames_per_scene,
              "1 to 100000")
        check_seed(self.seed)
        check(0 <= self.workers <= 256, "workers", self.workers, "0 (all cores) to 256")


def load_settings(path: Path, overrides: tuple[str, ...] = ()) -> SynthSettings:
    """Read a YAML file.

    Raises:
        ConfigError: unknown key, wrong type, or a value that is not allowed.
    """
    return strict.load(SynthSettings, path, overrides)
