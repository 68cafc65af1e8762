"""The run folder: the contract between training, which writes it, and everything that reads.

    config.yaml status.json results.jsonl summary.json env.json figures/ logs/ checkpoints/step-N/ control/

`status.json` is the truth about a run: not an exit code, not a notebook.
"""

import json
import os
import platform
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mhcnb import yamlfile
from mhcnb.config import RunConfig, as_dict, build_config
from mhcnb.durable import FULL, aside, write_json, write_text
from mhcnb.errors import CheckpointError, RunError
from mhcnb.records import Record, Records, read_jsonl

STATES = ("starting", "running", "done", "stopped", "failed", "diverged")
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._=,-]{0,99}")


class Run:
    """A run folder, for reading; `Run.create` gives one to write."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.words: list[str] = []  # what the one who trains should know; written with every status
        self.records = Records(self.path / "results.jsonl")

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """An existing run. Raises RunError where the folder is not one."""
        run = cls(path)
        if not (run.path / "config.yaml").is_file():
            raise RunError(
                f"{path} is not a run folder: it has no config.yaml; `mhcnb train PARAMS --out {path}` makes one"
            )
        return run

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> "Run":
        """A folder to train in, locked against a second writer until this process ends.

        One without a checkpoint is started over, its old lines kept aside; one with a checkpoint is refused.
        """
        run = cls(path)
        run.make(config)
        return run

    def make(self, config: RunConfig) -> None:
        """What `create` does. Raises RunError."""
        if not NAME.fullmatch(self.path.resolve().name):
            raise RunError(f"{self.path.name!r} is no name for a run: letters, digits and . _ = , - only, at most 100")
        self.require_new()
        new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock()
            self._probe()
            self._set_aside()
            self.write_config(config)
        except OSError as error:
            self.release()
            if new:
                shutil.rmtree(self.path, ignore_errors=True)
            raise RunError(
                f"cannot write to {self.path}: {error.strerror} (errno {error.errno}); give another --out"
            ) from error
        self.set_status("starting", 0)

    def require_new(self) -> None:
        """Raises RunError where training here would put a checkpoint at risk."""
        if self.checkpoints():
            status = self.status()
            raise RunError(
                f"{self.path} holds a run with checkpoints (state: {status.get('state')}, step {status.get('step')}); "
                f"nothing was changed. `mhcnb train --resume {self.path}` goes on with it; else give another --out, or "
                "move the folder away"
            )

    def lock(self) -> None:
        """Keeps other writers out until `release`, or the end of this process. Raises RunError where one is there."""
        self._held = FileLock(self.path / ".lock")
        try:
            self._held.acquire(timeout=0)
        except Timeout:
            owner = self.status()
            raise RunError(
                f"{self.path} is being written by process {owner.get('pid')} on {owner.get('host')} "
                f"(state {owner.get('state')}); wait for it, stop it, or give another --out"
            ) from None
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path}: {error.strerror} (errno {error.errno}); make it writable, or give "
                "another --out"
            ) from error

    def release(self) -> None:
        """Lets go of the lock."""
        if hasattr(self, "_held"):
            self._held.release()

    def _probe(self) -> None:
        """A read-only folder is found out now, not at the first save."""
        probe = self.path / ".probe"
        probe.write_bytes(b"probe")
        probe.replace(self.path / ".probed")
        (self.path / ".probed").unlink()

    def _set_aside(self) -> None:
        for name in ("results.jsonl", "summary.json"):
            if (old := self.path / name).exists():
                old.rename(aside(old))
        self.withdraw_requests()

    def go_back(self, step: int) -> int:
        """To what the folder held at `step`: later records and a summary are kept aside. Returns the last step that
        had been recorded."""
        if (summary := self.path / "summary.json").exists():
            summary.rename(aside(summary))
        self.withdraw_requests()
        return self.records.cut(step)

    # writing, by rank 0 alone --------------------------------------------------------------------------------------

    def set_status(self, state: str, step: int, reason: str = "") -> None:
        """Writes status.json; `state` is one of STATES. A full disk may keep the news that it runs from being told."""
        assert state in STATES, state
        status = dict(state=state, step=step, reason=reason, heartbeat=time.time(), pid=os.getpid())
        try:
            write_json(self.path / "status.json", status | {"host": socket.gethostname(), "words": self.words})
        except OSError as error:
            if state != "running" or error.errno not in FULL:
                raise

    def append(self, record: Record) -> None:
        """One whole line to results.jsonl; see Records.append."""
        self.records.append(record)

    def write_config(self, config: RunConfig) -> None:
        """Writes config.yaml."""
        write_text(self.path / "config.yaml", yamlfile.dump(as_dict(config)))

    def write_env(self, extra: dict[str, Any]) -> None:
        """What ran where: versions, host, and what the caller adds. No environment variables: they may hold secrets."""
        import torch

        import mhcnb

        env = dict(mhcnb=mhcnb.__version__, torch=torch.__version__, python=platform.python_version())
        env |= dict(platform=platform.platform(), host=socket.gethostname(), cpus=os.cpu_count(), pid=os.getpid())
        write_json(self.path / "env.json", env | extra)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json."""
        write_json(self.path / "summary.json", summary)

    # requests from outside, read at a step boundary ----------------------------------------------------------------

    def request(self, what: str) -> None:
        """Asks the training process to `stop`, or for a `checkpoint`, at the next step boundary."""
        (self.path / "control").mkdir(exist_ok=True)
        (self.path / "control" / what).touch()

    def requested(self, what: str) -> bool:
        """Whether that was asked for."""
        return (self.path / "control" / what).exists()

    def granted(self, what: str) -> None:
        """Withdraws a request that was met."""
        (self.path / "control" / what).unlink(missing_ok=True)

    def withdraw_requests(self) -> None:
        """What was asked of an earlier attempt is not asked of this one."""
        for what in ("stop", "checkpoint"):
            self.granted(what)

    # reading -------------------------------------------------------------------------------------------------------

    @property
    def config(self) -> RunConfig:
        """The whole configuration of the run."""
        values, lines = yamlfile.read_mapping(self.path / "config.yaml")
        return build_config(values, str(self.path / "config.yaml"), lines)

    def status(self) -> dict[str, Any]:
        """{state, step, reason, heartbeat, pid, host, words}, or {} where none was written."""
        return self._json("status.json")

    def summary(self) -> dict[str, Any]:
        """The final figures, or {} for a run that has not ended."""
        return self._json("summary.json")

    def env(self) -> dict[str, Any]:
        """What ran where, and what was found of the data."""
        return self._json("env.json")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except json.JSONDecodeError as error:
            raise RunError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
        except UnicodeDecodeError as error:
            raise RunError(f"{path}: not UTF-8 text at byte {error.start}") from error

    def results(self, kind: str | None = None) -> list[Record]:
        """The records of results.jsonl, of one type (train, eval, maps) or all."""
        return [record for record in read_jsonl(self.records.path) if kind in (None, record.get("type"))]

    def checkpoints(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def last_checkpoint(self) -> Path:
        """The newest checkpoint. Raises CheckpointError where there is none."""
        found = self.checkpoints()
        if not found:
            state = self.status().get("state", "never started")
            raise CheckpointError(f"{self.path} has no checkpoint (state: {state}); train it to a first save")
        return found[-1]

    @property
    def figures(self) -> Path:
        """The folder for pictures, made when asked for."""
        path = self.path / "figures"
        path.mkdir(exist_ok=True)
        return path


def find_runs(folder: str | Path) -> list[Run]:
    """All run folders at or below a folder, by path; not the unfinished attempts that a sweep has put aside."""
    configs = sorted(Path(folder).rglob("config.yaml"))
    return [Run(path.parent) for path in configs if path.parent.parent.name not in ("checkpoints", "aside")]
