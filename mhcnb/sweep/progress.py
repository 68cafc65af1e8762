"""What a person sees of a sweep: a line for each start and end, and on a terminal one that moves."""

import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from mhcnb.sweep.plan import Cell

TAIL = 4096  # bytes of results.jsonl that hold its last record


class Progress:
    """Counts cells and times them. Lines go to standard output."""

    def __init__(self, total: int, workers: int) -> None:
        self.total, self.workers, self.ended = total, workers, 0
        self.seconds: list[float] = []
        self.begun = time.monotonic()
        self._shown = 0.0

    def say(self, text: str) -> None:
        """One line that stays."""
        print(f"\r\033[K{text}" if sys.stdout.isatty() else text, flush=True)

    def finished(self, name: str, words: str, seconds: float, stopping: bool = False) -> None:
        """The end of a cell, with the time that the rest will take."""
        self.ended += 1
        self.seconds.append(seconds)
        left = self.total - self.ended
        rest = ""
        if left and not stopping:
            mean = sum(self.seconds) / len(self.seconds)
            rest = f"; {left} left, about {duration(left * mean / min(self.workers, left))}"
        self.say(f"[{self.ended}/{self.total}] {name} {words} in {duration(seconds)}{rest}")

    def live(self, running: Iterable[Cell], waiting: int) -> None:
        """Steps and losses of the running cells, once a second on a terminal."""
        if not sys.stdout.isatty() or time.monotonic() - self._shown < 1:
            return
        self._shown = time.monotonic()
        words = [duration(self._shown - self.begun), *map(position, running), f"{waiting} waiting"]
        print(f"\r\033[K{' | '.join(words)[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)


def position(cell: Cell) -> str:
    """`mhc-tiny-s1 120/200 loss 4.31`, from the run's last record."""
    for line in reversed(_tail(cell.out / "results.jsonl")):
        try:
            record = json.loads(line)
            loss = record.get("loss", record.get("val_loss", float("nan")))
            return f"{cell.name} {record['step']}/{cell.config.train.steps or '?'} loss {loss:.2f}"
        except (ValueError, KeyError, TypeError):  # the first line of the tail and the last of the file may be torn
            continue
    return f"{cell.name} starting"


def _tail(path: Path) -> list[bytes]:
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read().splitlines()


def duration(seconds: float) -> str:
    """`41 s`, `2 min 05 s`, `1 h 03 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
