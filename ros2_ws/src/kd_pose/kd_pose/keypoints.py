"""Named keypoint sets: what the K points of a vote mean and which of them are joined when drawn.

Notable: the eight box corners are numbered by the bits of their index (x = bit 0, y = bit 1,
z = bit 2; 0 = minimum, 1 = maximum), so that an index says where the corner is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class KeypointSet:
    """names: one per keypoint. edges: pairs of keypoint indices that a drawing joins."""

    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"keypoint names must be unique, got {self.names}")
        count = len(self.names)
        for edge in self.edges:
            if len(edge) != 2 or not all(0 <= index < count for index in edge):
                raise ValueError(f"edge {edge} is not a pair of indices below {count}")

    def __len__(self) -> int:
        return len(self.names)


def _box_edges() -> tuple[tuple[int, int], ...]:
    """The 12 pairs of corners whose indices differ in one bit: along x, then y, then z."""
    return tuple(
        (corner, corner | bit) for bit in (1, 2, 4) for corner in range(8) if not corner & bit
    )


BOX_CORNERS_8 = KeypointSet(
    names=tuple(
        f"{'xX'[i & 1]}{'yY'[(i >> 1) & 1]}{'zZ'[(i >> 2) & 1]}" for i in range(8)
    ),  # a capital letter is the maximum of that axis
    edges=_box_edges(),
)
BOX_CORNERS_2 = KeypointSet(names=("top_left", "bottom_right"))
BOX_EDGES = np.array(BOX_CORNERS_8.edges, dtype=np.int64)
BOX_EDGES.setflags(write=False)
