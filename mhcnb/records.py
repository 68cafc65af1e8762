"""results.jsonl: a line a record, written by one process, read by anyone while it grows."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mhcnb.durable import FULL, aside, write_text
from mhcnb.durable import append as append_whole
from mhcnb.errors import RunError

log = logging.getLogger(__name__)
Record = dict[str, Any]
WAITING = 1_000_000  # bytes of records kept in memory while the disk is full
WITHIN = (8_192, 262_144)  # bytes from the end in which the last record of a type is looked for


def read_jsonl(path: Path) -> list[Record]:
    """The records of a file that may still be growing: a torn last line is left out, one in the middle is an error."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if any(rest.strip() for rest in lines[number:]):
                raise RunError(f"{path}:{number}: not a record ({error.msg})") from error
    return records


def last_record(path: Path, kind: str) -> Record:
    """The newest whole record of a type near the end of a file, or {}. Reads at most the last of WITHIN bytes, however
    long the file is; what is torn or damaged is passed over."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for within in WITHIN:
            file.seek(max(0, size - within))
            for line in reversed(file.read().split(b"\n")):
                record = _parsed(line.decode("utf-8", "replace") + "\n")
                if isinstance(record, dict) and record.get("type") == kind:
                    return record
            if within >= size:
                break
    return {}


class Records:
    """The writer's side. `followers` are called with each record after it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.followers: list[Callable[[Record], None]] = []
        self._waiting = b""  # what the full disk has not taken yet

    def append(self, record: Record) -> None:
        """One whole line; while the disk is full it waits in memory. Raises RunError for any other refusal, and when
        a megabyte waits."""
        waited = bool(self._waiting)
        self._waiting += json.dumps(record).encode() + b"\n"
        try:
            self.flush()
        except OSError as error:
            if error.errno not in FULL or len(self._waiting) > WAITING:
                raise RunError(
                    f"cannot write to {self.path}: {error.strerror} (errno {error.errno}); {len(self._waiting):,} "
                    f"bytes of records are lost. Mend that, then `mhcnb train --resume {self.path.parent}`"
                ) from error
            if not waited:
                log.warning("%s: %s; records wait in memory for space", self.path, error.strerror)
        for follow in self.followers:
            follow(record)

    def flush(self) -> None:
        """Writes what waits. Raises OSError."""
        if self._waiting:
            append_whole(self.path, self._waiting)
        self._waiting = b""

    def cut(self, step: int) -> int:
        """Goes back to what an undisturbed run had written at `step` and keeps the rest aside; returns the last step
        that was there."""
        last, kept, rest = step, [], []
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        for line in text.splitlines(keepends=True):
            record = _parsed(line)
            last = max(last, record.get("step", 0))
            own = bool(record) and record["step"] <= step and not record.get("on_stop")
            (kept if own else rest).append(line)
        if rest:
            write_text(aside(self.path), "".join(rest))
            write_text(self.path, "".join(kept))
        return last


def _parsed(line: str) -> Record:
    """{} for a line that a killed process did not finish."""
    try:
        return json.loads(line) if line.endswith("\n") else {}
    except json.JSONDecodeError:
        return {}
