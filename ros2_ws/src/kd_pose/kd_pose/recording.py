"""What is left of a run in a folder: summary.json, annotated.mp4 and sheet.jpg.

For `monitor` and `kd-pose-train evaluate-clip`. Notable: a monitor may run for days. The video is
written as pictures come, beside its final name, and of the pictures themselves only as many are
kept as the sheet needs.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np

SUMMARY, VIDEO, SHEET = "summary.json", "annotated.mp4", "sheet.jpg"
PARTIAL = "annotated.partial.mp4"
SHEET_COLUMNS, SHEET_ROWS, TILE_WIDTH = 4, 3, 480
KEPT = 64  # pictures kept at most, to choose the sheet's from


class Recording:
    """Takes encoded pictures with `add`, and writes all files with `close`.

    folder is made, and tried, at once. damaged, resized: how many pictures could not be read, and
    how many were fitted into the size of the first.
    """

    def __init__(self, folder: Path, rate_hz: float) -> None:
        """Raises ValueError where nothing can be written into `folder`."""
        self.folder, self.rate_hz = folder, rate_hz
        self.damaged = self.resized = self.count = 0
        self._size: tuple[int, int] | None = None  # width, height
        self._video: cv2.VideoWriter | None = None
        self._kept: list[tuple[int, bytes]] = []  # every `_step`-th picture with its number
        self._step = 1
        self._last: tuple[int, bytes] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ValueError(f"{str(folder)!r} must be a folder that can be written to: "
                             f"{error.strerror}") from None

    def add(self, data: bytes) -> None:
        """One JPEG or PNG."""
        picture = decode(data)
        if picture is None:
            self.damaged += 1
            return
        if self._size is None:
            self._begin(picture.shape[1], picture.shape[0])
        elif picture.shape[1::-1] != self._size:
            self.resized += 1
            picture = fitted(picture, self._size)
        if self._video is not None:
            self._video.write(picture)
        self._last = (self.count, data)
        if self.count % self._step == 0:
            self._kept.append(self._last)
        if len(self._kept) > KEPT:
            self._step *= 2
            self._kept = self._kept[::2]
        self.count += 1

    def discard(self) -> None:
        """End without having written anything."""
        if self._video is not None:
            self._video.release()
            (self.folder / PARTIAL).unlink(missing_ok=True)

    def close(self, summary: dict) -> list[str]:
        """Write everything; lines for the terminal. Raises OSError where a file cannot be."""
        (self.folder / SUMMARY).write_text(json.dumps(summary, indent=2, default=float) + "\n")
        lines, written = [], []
        if self._video is not None:
            self._video.release()
            written.append((self.folder / PARTIAL).replace(self.folder / VIDEO))
        elif self._size is not None:
            width, height = self._size
            lines.append(f"{VIDEO} was not written: OpenCV cannot write mp4v of {width} x "
                         f"{height} pixels here")
        if self._size is not None:
            written.append(self._write_sheet())
            lines.append("pictures: " + ", ".join(str(path) for path in written))
        elif old := [str(self.folder / name) for name in (VIDEO, SHEET)
                     if (self.folder / name).exists()]:
            lines.append(f"there were no pictures; {' and '.join(old)} are of an earlier run")
        if self.damaged:
            lines.append(f"{self.damaged} pictures are damaged or empty and were left out")
        if self.resized:
            width, height = self._size
            lines.append(f"{self.resized} pictures are of another size and were fitted into that "
                         f"of the first, {width} x {height}")
        return lines

    def _begin(self, width: int, height: int) -> None:
        self._size = (width, height)
        video = cv2.VideoWriter(str(self.folder / PARTIAL), cv2.VideoWriter_fourcc(*"mp4v"),
                                self.rate_hz, self._size)
        self._video = video if video.isOpened() else None

    def _write_sheet(self) -> Path:
        """Pictures that are spaced as evenly as those that were kept allow; the last is one."""
        kept = dict([*self._kept, self._last])
        numbers = np.array(list(kept))
        count = min(SHEET_COLUMNS * SHEET_ROWS, self.count)
        wanted = np.linspace(0, self.count - 1, count).round()
        chosen = [int(numbers[np.abs(numbers - number).argmin()]) for number in wanted]
        size = (TILE_WIDTH, max(1, round(TILE_WIDTH * self._size[1] / self._size[0])))
        tiles = [fitted(decode(kept[number]), size) for number in chosen]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % SHEET_COLUMNS)
        rows = [np.hstack(tiles[i:i + SHEET_COLUMNS]) for i in range(0, len(tiles), SHEET_COLUMNS)]
        path = self.folder / SHEET
        if not cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88]):
            raise OSError(f"{path} could not be written")
        return path


def decode(data: bytes) -> np.ndarray | None:
    """JPEG or PNG -> BGR picture; None where it is neither, or damaged."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # of an empty buffer
        return None


def fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The whole picture, undistorted, in the middle of one of `size` (width, height)."""
    height, width = picture.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = tuple(min(full, max(1, round(scale * side)))
                  for full, side in zip(size, (width, height)))
    small = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    result = np.zeros((size[1], size[0], 3), np.uint8)
    result[top:top + inner[1], left:left + inner[0]] = small
    return result
