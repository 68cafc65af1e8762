"""Drivers in processes of their own, and what is seen of them from outside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

DRIVE = "import json, sys; from mhcnb.sweep import run; sys.exit(getattr(run, sys.argv[1])(**json.loads(sys.argv[2])))"


def drive(
    path: Path, out: Path, env: dict[str, str] | None = None, what: str = "run_sweep", **given
) -> subprocess.Popen:
    """run_sweep, or run_cell, in a process; `given` are its further arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", DRIVE, what, json.dumps({"path": str(path), "out": str(out), **given})],
        env=os.environ | (env or {}),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


def began(out: Path) -> list[tuple[str, float, int]]:
    """(cell, time, pid of its kernel) of each training that was started."""
    lines = (out / "began.txt").read_text().splitlines() if (out / "began.txt").exists() else []
    return [(name, float(at), int(pid)) for name, at, pid in map(str.split, lines)]


def alive(pid: int) -> bool:
    return _stat(pid)[0] not in ("", "Z")


def parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return ["", "0"]


def states(out: Path) -> dict[str, str]:
    return {name: cell["state"] for name, cell in json.loads((out / "cells.json").read_text())["cells"].items()}
