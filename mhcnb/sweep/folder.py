"""A sweep's folder: whose turn it is (one driver), what is known of each cell (cells.json), what is put aside.

The truth about a cell is its run's status.json. cells.json adds what a run cannot say of itself: that it was never
started, or that its process died.
"""

import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from mhcnb.config import as_dict, flatten
from mhcnb.durable import write_json
from mhcnb.errors import RunError
from mhcnb.run import Run
from mhcnb.sweep.plan import Cell

log = logging.getLogger(__name__)
STATES = ("planned", "running", "done", "failed", "died", "interrupted", "skipped")
RECORD = "cells.json"
ASIDE = "aside"


class SweepFolder:
    """`cells`: {name: {state, ...}} and `then`: {notebook: state}, as in cells.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read()

    def _read(self) -> None:
        record = read_record(self.path)
        self.driver: dict[str, Any] = record.get("driver", {})
        self.cells: dict[str, dict[str, Any]] = record.get("cells", {})
        self.then: dict[str, str] = record.get("then", {})

    def acquire(self) -> None:
        """Makes the folder and keeps other drivers out until this process ends. Raises RunError."""
        if (self.path / "config.yaml").exists():
            raise RunError(f"{self.path} is the folder of a run, not of a sweep; give another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{self.path} is being worked on by another sweep driver, process {self.driver.get('pid')} on "
                f"{self.driver.get('host')}; wait for it, stop it with Ctrl-C, or give another --out"
            ) from None
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {error.strerror} (errno {error.errno})") from error
        self._read()  # what the driver before this one left
        self.driver = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}

    def release(self) -> None:
        """Lets the next driver in."""
        self._lock.release()

    def write(self) -> None:
        """Writes cells.json."""
        write_json(self.path / RECORD, {"driver": self.driver, "cells": self.cells, "then": self.then})

    def set(self, name: str, state: str, **facts: Any) -> None:
        """The new state of a cell, and what belongs to it; the rest of its record stays."""
        assert state in STATES, state
        self.cells[name] = self.cells.get(name, {}) | {"state": state} | facts
        self.write()

    def judge(self, cell: Cell) -> str:
        """done, failed, died, or planned: what there is of a cell, so what is left to do.

        Raises RunError where it is done with another configuration: the figures of two sweeps must not mix.
        """
        state, record = Run(cell.out).status().get("state"), self.cells.get(cell.name, {})
        if state == "done":
            if other := _differences(cell):
                raise RunError(
                    f"{self.path} belongs to another configuration: {cell.name} is done there with "
                    f"{', '.join(other[:5])}; nothing was changed. Give another --out, or move the folder away"
                )
            return "done"
        ended = "failed" if state in ("failed", "diverged") else record.get("state")
        return ended if ended in ("failed", "died") and record.get("digest") == cell.digest else "planned"

    def wait_until_free(self, cells: list[Cell], seconds: float = 20) -> None:
        """Waits for runs that an earlier driver left behind to end. Raises RunError where one does not."""
        until = time.monotonic() + seconds
        for cell in cells:
            if not (cell.out / ".lock").exists():
                continue
            lock = FileLock(cell.out / ".lock")
            if not _free(lock, 0):
                log.warning("waiting for a run that is still there: %s", cell.out)
            if not _free(lock, max(0, until - time.monotonic())):
                owner = Run(cell.out).status()
                raise RunError(
                    f"{cell.out} is still being written by process {owner.get('pid')} on {owner.get('host')} (state "
                    f"{owner.get('state')}), which this sweep did not start; wait for it, or stop it, then run again"
                )

    def set_aside(self, cell: Cell) -> None:
        """Moves what an unfinished attempt left to aside/<cell>-<k>: a cell starts afresh, and nothing is lost."""
        if not cell.out.exists():
            return
        attempt = 1
        while (kept := self.path / ASIDE / f"{cell.name}-{attempt}").exists():
            attempt += 1
        kept.parent.mkdir(exist_ok=True)
        cell.out.rename(kept)


def _free(lock: BaseFileLock, seconds: float) -> bool:
    """Whether nobody holds it, now or within some seconds."""
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    lock.release()
    return True


def read_record(path: Path) -> dict[str, Any]:
    """What cells.json of a folder says; {} where there is none. Raises RunError where it is damaged."""
    try:
        return json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise RunError(f"{path / RECORD} is not JSON ({error}); move it away: runs keep their own state") from error


def _differences(cell: Cell) -> list[str]:
    """Where the configuration in a cell's folder is not the planned one: `train.steps 20, not 200`."""
    run = Run(cell.out)
    digest = run.env().get("config_digest")
    if digest == cell.digest or not (run.path / "config.yaml").exists():
        return []
    planned, found = flatten(as_dict(cell.config)), flatten(as_dict(run.config))
    keys = [key for key in planned | found if planned.get(key) not in ("auto", found.get(key))]
    other = [f"{key} {found.get(key, 'unset')}, not {planned.get(key, 'unset')}" for key in keys]
    return other or (["a value for what is auto"] if digest else [])
