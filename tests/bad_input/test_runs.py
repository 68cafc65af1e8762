"""Rows 56, 59, 60, 70 and 71: a run that was killed, is written already, or whose clock is wrong."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from mhcnb.errors import RunError
from mhcnb.run import Run
from mhcnb.training.loop import train

KILLED = """
import os, signal, sys, time
from pathlib import Path
from mhcnb import load_config
from mhcnb.objectives.lm import LM
from mhcnb.training.loop import train

step = LM.step

def dying(self, model, batch, carry, clock):
    while clock.step == 7:  # of which none is left: the save of step 4 is on the disk
        if Path(sys.argv[2], "checkpoints", "step-00000004").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    return step(self, model, batch, carry, clock)

LM.step = dying
train(load_config(sys.argv[1]), Path(sys.argv[2]))
"""


def series(run):
    """What must not depend on interruptions."""
    return [(record["type"], record["step"], record.get("loss"), record.get("val_loss")) for record in run.results()]


def test_row56_killed_at_a_step(mhcnb, params, small, tmp_path, caplog):
    config = {"train.steps": 9, "train.save_every": 4}
    path, run = params(**config), Run(tmp_path / "run")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), str(run.path)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert run.status()["state"] == "running"
    assert len(run.results("train")) == 6
    caplog.set_level("INFO", "mhcnb")
    done = mhcnb("train", "--resume", "run")
    assert done.exit_code == 0, done.stderr
    assert "run: resumed at step 4 of 9, repeating 2 that came after it" in caplog.text
    train(small(**config), tmp_path / "undisturbed")
    assert series(run) == series(Run(tmp_path / "undisturbed"))


@pytest.mark.parametrize("resume", ["row59 never", "row59 auto"])
def test_a_second_writer(refused, train_to, small, params, tmp_path, resume):
    """It is refused, and the first does not notice."""
    config = {"train.save_every": 2 if "auto" in resume else 0, "train.resume": resume.split()[1]}
    path, run = params(**config), Run(tmp_path / "run")
    steps = train_to(3, run.path, **config)
    while "auto" in resume and not run.checkpoints():
        time.sleep(0.01)
    says = f"run is being written by process {os.getpid()} on {socket.gethostname()} (state running)"
    refused(RunError, "train", path, "--out", "run", says=[says, "wait for it, stop it, or give"], model=True)
    list(steps)
    train(small(**config), tmp_path / "undisturbed")
    assert series(run) == series(Run(tmp_path / "undisturbed"))


def test_row60_a_lock_that_another_host_holds(refused, params, small, tmp_path):
    """Over a shared file system. It is not broken, and who holds it is named."""
    path, run = params(), Run.create(tmp_path / "run", small())
    run.release()
    status = json.loads((run.path / "status.json").read_text()) | {"host": "node7", "pid": 4711}
    (run.path / "status.json").write_text(json.dumps(status))
    with FileLock(run.path / ".lock"):
        says = ["run is being written by process 4711 on node7 (state starting)"]
        refused(RunError, "train", path, "--out", "run", says=says, model=True)


def test_row60_a_lock_file_that_nobody_holds_is_no_obstacle(mhcnb, params, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    assert mhcnb("train", params(), "--out", "run").exit_code == 0


def test_row70_a_torn_last_line(mhcnb, unchanged, small, tmp_path):
    run = Run(tmp_path / "run")
    train(small(), run.path)
    whole, path = run.results(), run.path / "results.jsonl"
    with path.open("a") as file:
        file.write('{"type": "train", "step": 7, "lo')
    with unchanged():
        assert run.results() == whole
        assert mhcnb("show", "run").exit_code == 0


def test_row70_a_bad_line_in_the_middle(small, unchanged, tmp_path):
    run = Run(tmp_path / "run")
    train(small(), run.path)
    path = run.path / "results.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:-9]
    path.write_text("\n".join(lines) + "\n")
    with unchanged(), pytest.raises(RunError, match=rf"{path}:3: not a record"):
        run.results()


def test_row71_a_clock_that_jumps_backwards(small, tmp_path, monkeypatch):
    """Durations come from a clock that cannot: every second reading of the other is an hour earlier."""
    readings = iter(range(10**6, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(readings)))
    summary = train(small(), tmp_path / "run")
    times = [record["time_s"] for record in Run(tmp_path / "run").results()]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] <= summary["total_time_s"] < 60
    assert all(record["tokens_per_s"] > 0 for record in Run(tmp_path / "run").results("train"))
