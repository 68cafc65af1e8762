"""A sweep's folder: whose turn it is (one driver), what is known of each cell (cells.json), what is put aside.

The truth about a cell is its run's status.json. cells.json adds what a run cannot say of itself: that it was never
started, or that its process died. A cell that runs without a driver has a record and a lock of its own in .cells.
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
from mhcnb.errors import CheckpointError, RunError
from mhcnb.run import Run
from mhcnb.sweep.plan import RESUME, Cell

log = logging.getLogger(__name__)
STATES = ("planned", "running", "done", "failed", "died", "timeout", "interrupted", "skipped")
ENDED_BADLY = ("failed", "died", "timeout")  # not run again unasked
RECORD = "cells.json"
OWN = ".cells"
ASIDE = "aside"
FROM_DATA = ("train.steps", "train.eval_every")  # where these are 0 the data say them
PROBE_S = 0.5  # another process may be asking for a moment whether a lock is free


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
        self._make()
        self._lock = FileLock(self.path / ".lock")
        if not _taken(self._lock, PROBE_S):
            raise RunError(
                f"{self.path} is being worked on by another sweep driver, process {self.driver.get('pid')} on "
                f"{self.driver.get('host')}; wait for it, stop it with Ctrl-C, or give another --out"
            )
        for lock in sorted((self.path / OWN).glob("*.lock")):
            if not _free(FileLock(lock), PROBE_S):
                self._lock.release()
                raise RunError(
                    f"{self.path}: {lock.stem} is run by another process (--cell); wait for it, stop it, or give "
                    "another --out"
                )
        self._read()  # what the driver before this one left
        self.driver = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}

    def _make(self) -> None:
        if (self.path / "config.yaml").exists():
            raise RunError(f"{self.path} is the folder of a run, not of a sweep; give another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / f".probe-{os.getpid()}").touch()
            (self.path / f".probe-{os.getpid()}").unlink()
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {error.strerror} (errno {error.errno})") from error

    def release(self) -> None:
        """Lets the next driver in."""
        self._lock.release()

    def write(self) -> None:
        """Writes cells.json, which then holds the cells' own records too."""
        write_json(self.path / RECORD, {"driver": self.driver, "cells": self.cells, "then": self.then})
        for own in (self.path / OWN).glob("*.json"):
            own.unlink()

    def set(self, name: str, state: str, **facts: Any) -> None:
        """The new state of a cell, and what belongs to it; the rest of its record stays."""
        assert state in STATES, state
        self.cells[name] = self.cells.get(name, {}) | {"state": state} | facts
        self.write()

    def require_own(self, cells: list[Cell]) -> None:
        """Raises RunError where the record is that of a sweep with other cells alone. One that has lost or gained some
        is still the same."""
        if self.cells and not self.cells.keys() & {cell.name for cell in cells}:
            raise RunError(
                f"{self.path} belongs to another sweep, of {', '.join(list(self.cells)[:3])} and so on; this one has "
                f"{', '.join(cell.name for cell in cells[:3])}. Nothing was changed. Give another --out"
            )

    def judge(self, cell: Cell) -> str:
        """done, failed, died, timeout, or planned: what there is of a cell, so what is left to do.

        Raises RunError where it is done with another configuration: the figures of two sweeps must not mix.
        """
        state, record = Run(cell.out).status().get("state"), self.cells.get(cell.name, {})
        if state == "done":
            if other := differences(cell):
                raise RunError(
                    f"{self.path} belongs to another configuration: {cell.name} is done there with "
                    f"{', '.join(other[:5])}; nothing was changed. Give another --out, or move the folder away"
                )
            return "done"
        if state in ("failed", "diverged") and (record.get("digest") == cell.digest or not differences(cell)):
            return "failed"
        known = record.get("state") in ENDED_BADLY and record.get("digest") == cell.digest
        return record["state"] if known else "planned"

    def goes_on(self, cell: Cell) -> bool:
        """Whether an unfinished attempt left what the next one can go on from, to the same end as if undisturbed."""
        from mhcnb.training import checkpoint

        run = Run(cell.out)
        if not run.checkpoints() or run.status().get("state") in ("failed", "diverged") or differences(cell):
            return False
        try:
            return (checkpoint.newest_sound(run)[0] / checkpoint.OPTIMIZER).is_file()
        except CheckpointError as error:
            log.warning("%s; %s starts afresh", error, cell.name)
            return False

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

    def make_ready(self, cell: Cell, state: str) -> bool:
        """Before a cell runs that was judged so. Returns whether it goes on; else it starts afresh, and what an
        unfinished attempt left is moved to aside/<cell>-<k>, so that nothing is lost."""
        if state != "failed" and self.goes_on(cell):
            return True
        if cell.out.exists():
            attempt = 1
            while (kept := self.path / ASIDE / f"{cell.name}-{attempt}").exists():
                attempt += 1
            kept.parent.mkdir(exist_ok=True)
            cell.out.rename(kept)
        return False


class OwnFolder(SweepFolder):
    """A sweep's folder for a process that runs one cell of it beside others that do: it writes that cell's record
    alone, and keeps out drivers, and others with the same cell."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path)
        self.own = path / OWN / f"{name}.json"

    def acquire(self) -> None:
        """Makes the folder; holds the cell until this process ends. Raises RunError."""
        self._make()
        self.own.parent.mkdir(exist_ok=True)
        self._lock = FileLock(self.own.with_suffix(".lock"))
        if not _taken(self._lock, PROBE_S):
            raise RunError(f"{self.path}: {self.own.stem} is run by another process (--cell); wait for it, or stop it")
        self._read()
        if not _free(FileLock(self.path / ".lock"), PROBE_S):
            self._lock.release()
            raise RunError(
                f"{self.path} is being worked on by a sweep driver, process {self.driver.get('pid')} on "
                f"{self.driver.get('host')}, which runs this cell too; wait for it, or stop it with Ctrl-C"
            )

    def write(self) -> None:
        """Writes the cell's own record."""
        write_json(self.own, self.cells[self.own.stem])


def _taken(lock: BaseFileLock, seconds: float) -> bool:
    """Takes it, now or within some seconds, or returns False."""
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def _free(lock: BaseFileLock, seconds: float) -> bool:
    """Whether nobody holds it, now or within some seconds."""
    if taken := _taken(lock, seconds):
        lock.release()
    return taken


def read_record(path: Path) -> dict[str, Any]:
    """What cells.json of a folder says, and the cells that ran without a driver since; {} where there is neither.
    Raises RunError where it is damaged."""
    record = _read_json(path / RECORD)
    own = {file.stem: _read_json(file) for file in sorted((path / OWN).glob("*.json"))}
    return record | {"cells": record.get("cells", {}) | own} if own else record


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}); move it away: runs keep their own state") from error


def differences(cell: Cell) -> list[str]:
    """Where the configuration in a cell's folder is not the planned one: `train.steps 20, not 200`."""
    run = Run(cell.out)
    digest = run.env().get("config_digest")
    if digest in cell.digests or not (run.path / "config.yaml").exists():
        return []
    planned, found = flatten(as_dict(cell.config)), flatten(as_dict(run.config))
    keys = [key for key in planned | found if planned.get(key) not in ("auto", found.get(key)) and key != RESUME]
    keys = [key for key in keys if key not in FROM_DATA or planned[key]]
    other = [f"{key} {found.get(key, 'unset')}, not {planned.get(key, 'unset')}" for key in keys]
    return other or (["a value for what is auto"] if digest else [])
