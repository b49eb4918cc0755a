"""Decoded pictures and instance maps of a data set, read when asked for or all kept in memory.

Kept arrays are plain uint8 blocks, which worker processes started by fork share without copying.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

NONE = 255  # no instance at this pixel; maps are uint8 to take half the memory
MAX_INSTANCES = NONE
MEMORY_SHARE = 0.6  # of the free memory that a cache may take


class FrameStore:
    """Pictures of frames by their number.

    Args:
        frames: BOP frames with ``load_image`` and ``load_instance_map``.
        cache: ``none`` reads a frame whenever it is asked for, ``ram`` keeps all of ``needed``.
        needed: numbers of the frames that will be asked for.
        progress: show a bar while filling the cache.

    Raises:
        ValueError: the cache would take more than 60 % of the free memory; or a frame's files
            cannot be read (the reader's own error).
    """

    def __init__(self, frames: Sequence[Any], cache: str, needed: Sequence[int],
                 progress: bool = True) -> None:
        self.frames = frames
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if cache == "ram" and len(needed):
            self._fill(needed, progress)

    def load(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture BGR uint8 (H, W, 3) and instance map uint8 (H, W), NONE where there is none.

        Not to be written to: it may be the kept copy.
        """
        kept = self._kept.get(number)
        return self._read(number) if kept is None else kept

    def size_wh(self, number: int) -> tuple[int, int]:
        """Width and height of a frame's picture."""
        image = self.load(number)[0]
        return image.shape[1], image.shape[0]

    def _read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        frame = self.frames[number]
        if len(frame.instances) > MAX_INSTANCES:
            raise ValueError(f"{frame.image_path}: {len(frame.instances)} instances, at most "
                             f"{MAX_INSTANCES} are supported")
        image = np.ascontiguousarray(frame.load_image())
        numbers = frame.load_instance_map()
        if numbers.shape != image.shape[:2]:
            raise ValueError(f"{frame.image_path}: is {image.shape[1]}x{image.shape[0]}, its "
                             f"masks are {numbers.shape[1]}x{numbers.shape[0]}")
        return image, np.where(numbers < 0, NONE, numbers).astype(np.uint8)

    def _fill(self, needed: Sequence[int], progress: bool) -> None:
        from tqdm import tqdm
        first = self._read(needed[0])
        needs = len(needed) * sum(array.nbytes for array in first)
        free = free_memory()
        if needs > MEMORY_SHARE * free:
            raise ValueError(
                f"data.cache: ram needs {needs / 1e9:.1f} GB for {len(needed)} frames, allowed "
                f"are {100 * MEMORY_SHARE:.0f} % of the {free / 1e9:.1f} GB that are free; "
                "set data.cache=none or take fewer frames")
        hidden = None if progress else True  # None: shown on a terminal only
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            frames = zip(needed, pool.map(self._read, needed))
            for number, arrays in tqdm(frames, "reading", len(needed), disable=hidden,
                                       unit=" frames", leave=False):
                self._kept[number] = arrays


def free_memory() -> int:
    """Bytes that can be allocated without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
