"""What all manifests have in common, and the checks that they are made of."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

FORMAT_VERSION = 1
CHANNEL_ORDERS = ("rgb", "bgr")


@dataclass(frozen=True, kw_only=True)
class NetworkManifest:
    """What the runtime must know about any network. Checked on construction.

    input_size: (width, height). mean, std: 0..255 units, in channel_order.
    training, metrics: free notes for people.
    """

    TASKS: ClassVar[tuple[str, ...]] = ()

    task: str
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    producer: str = "kd_pose"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_choice("task", self.task, self.TASKS)
        check_choice("channel_order", self.channel_order, CHANNEL_ORDERS)
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"format_version {self.format_version} is not {FORMAT_VERSION}, the only one "
                "that this version of kd_pose reads"
            )
        set_field = object.__setattr__
        set_field(self, "input_size", integers(self.input_size, "input_size", count=2))
        set_field(self, "mean", numbers(self.mean, 3, "mean"))
        set_field(self, "std", numbers(self.std, 3, "std"))
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        for name in ("training", "metrics"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} must be a mapping, got {getattr(self, name)!r}")
        if not isinstance(self.producer, str):
            raise ValueError(f"producer must be a text, got {self.producer!r}")

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> NetworkManifest:
        """From parsed JSON, strictly: ValueError for unknown, missing or wrong keys."""
        check_keys(cls, data, "manifest")
        return cls(**data)

    def to_json(self) -> str:
        """JSON text; NaN and infinity are refused."""
        return json.dumps(asdict(self), allow_nan=False)


# --- checks ------------------------------------------------------------------------------------


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def check_range(name: str, value: Any, low: float, high: float) -> None:
    number = numbers((value,), 1, name)[0]
    if not low <= number <= high:
        raise ValueError(f"{name} must be {low} to {high}, got {value!r}")


def numbers(values: Any, count: int, name: str) -> tuple[float, ...]:
    try:
        items = tuple(values)
        if any(isinstance(item, (str, bool)) for item in items):
            raise TypeError
        numbers = tuple(float(item) for item in items)
    except TypeError:
        raise ValueError(f"{name} must be numbers, got {values!r}") from None
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be {count} finite number(s), got {values!r}")
    return numbers


def integers(values: Any, name: str, count: int | None = None) -> tuple[int, ...]:
    try:
        items = tuple(values)
        integers = tuple(int(item) for item in items)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be integers, got {values!r}") from None
    wrong = any(isinstance(item, bool) or item != int(item) or item < 1 for item in items)
    if wrong or not integers or (count is not None and len(integers) != count):
        size = "" if count is None else f"{count} "
        raise ValueError(f"{name} must be {size}positive integers, got {values!r}")
    return integers


def texts(values: Any, name: str) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise ValueError(f"{name} must be a list of texts")
    return tuple(values)


def check_keys(kind: type, data: dict, where: str) -> None:
    known = [item.name for item in fields(kind)]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown key(s) {', '.join(unknown)}")
    missing = sorted(set(known) - set(data))
    if missing:
        raise ValueError(f"{where}: missing key(s) {', '.join(missing)}")
