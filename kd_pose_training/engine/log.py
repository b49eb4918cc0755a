"""What a run leaves to look at: ``log.jsonl``, tensorboard events, a progress bar."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

LOG_NAME = "log.jsonl"


class RunLog:
    """Writes scalars of one run. A resumed run first forgets what came after its checkpoint.

    Args:
        folder: output folder of the run.
        start: iterations already done; later lines of an older log are dropped.
        total: iterations of the whole run.
        drop: kind of lines that are dropped at ``start``, too, because they are made anew.
    """

    def __init__(self, folder: Path, start: int, total: int, *, tensorboard: bool = True,
                 progress_bar: bool = True, drop: str = "") -> None:
        self.path = folder / LOG_NAME
        _keep_until(self.path, start, drop)
        self._stream = open(self.path, "a", encoding="utf-8", buffering=1)
        self._writer = _tensorboard_writer(folder, start) if tensorboard else None
        self._bar = _bar(start, total) if progress_bar else None
        self._quiet, self._total, self._last_print = not progress_bar, total, 0.0

    def scalars(self, iteration: int, values: Mapping[str, float], prefix: str = "train") -> None:
        """Record named numbers at an iteration."""
        rounded = {key: float(f"{value:.9g}") for key, value in values.items()}
        line = {"iteration": iteration, "kind": prefix, **rounded}
        self._stream.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(f"{prefix}/{key}", value, iteration)
        if prefix != "train":
            self.message(f"iteration {iteration}: {prefix} {_text(values)}")
        elif self._bar is not None:
            shown = ("total", "class", "vote", "keypoints", "error_px", "lr")
            self._bar.set_postfix({k: f"{values[k]:.3g}" for k in shown if k in values}, False)
        elif not self._quiet and time.monotonic() - self._last_print > 15:
            self._last_print = time.monotonic()
            self.message(f"iteration {iteration}/{self._total}: {_text(values)}")

    def step(self) -> None:
        """One iteration is done."""
        if self._bar is not None:
            self._bar.update()

    def message(self, text: str) -> None:
        """One line for a person, on stderr, that does not tear the progress bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def warning(self, text: str) -> None:
        """A line about something wrong, on stderr also where all else is quiet; empty: none."""
        if text and self._quiet:
            print(f"warning: {text}", file=sys.stderr, flush=True)
        elif text:
            self.message(f"warning: {text}")

    def close(self) -> None:
        for part in (self._bar, self._writer, self._stream):
            if part is not None:
                part.close()


def read_log(folder: str | Path) -> list[dict]:
    """All lines of a run's log; a line cut off by a crash is left out."""
    lines = []
    for text in (Path(folder) / LOG_NAME).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _keep_until(path: Path, iteration: int, drop: str) -> None:
    if path.is_file():
        kept = [line for line in read_log(path.parent) if line["iteration"] < iteration
                or line["iteration"] == iteration and line["kind"] != drop]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def _text(values: Mapping[str, float]) -> str:
    return " ".join(f"{key} {value:.4g}" for key, value in values.items())


def _bar(start: int, total: int):
    if not sys.stderr.isatty():  # a bar in a log file is thousands of lines of nothing
        return None
    from tqdm import tqdm
    return tqdm(total=total, initial=start, unit="it", dynamic_ncols=True, mininterval=0.5)


def _tensorboard_writer(folder: Path, start: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard is not installed: pip install tensorboard, or set "
                         "trainer.tensorboard=false") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
